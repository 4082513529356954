//! What every kind of record looks like in every format.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use insta::assert_snapshot;
use jiff::tz::TimeZone;

use super::*;
use crate::model::field::{Fields as _, Name, Value};
use crate::model::header::{Header, HeaderLine, HostTimeout};
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::sample;
use crate::sink::options::{ColorWhen, Format, LogFile, TextStyle, TimeFormat};
use crate::sink::sinks::{create, why};
use crate::text::escape::Escaped;

const NARROW: TextStyle = TextStyle {
    time: TimeFormat::Clock,
    wide: false,
    heading: true,
    color: ColorWhen::Never,
};

fn header() -> Header {
    Header {
        version: crate::model::header::VERSION.to_owned(),
        host: Escaped::from("mq\n1"),
        kernel: Escaped::from("6.12.107+deb13-cloud-amd64"),
        kaprobe: "0.1.0".to_owned(),
        started: WallTime(sample::at(0).wall_ns),
        clock_offset_ns: -5,
        hz: 250,
        hooks: BTreeMap::from([("tcp_keepalive_timer".to_owned(), "fentry".to_owned())]),
        filters: BTreeMap::from([("port".to_owned(), vec!["5672".to_owned()])]),
        narrowed: Vec::new(),
        timeouts: vec![HostTimeout {
            what: Escaped::from("ipvs"),
            netns: 4_026_531_840,
            seconds: 900,
        }],
    }
}

/// The lines that a sink writes of a header and these records.
fn written<'a>(
    make: impl FnOnce(&'a mut Vec<u8>) -> Box<dyn Sink + 'a>,
    out: &'a mut Vec<u8>,
    records: &[Record],
) -> io::Result<()> {
    let mut sink = make(out);
    sink.head(&Head::from(&header()))?;
    records.iter().try_for_each(|record| sink.record(record))?;
    sink.flush()
}

fn text_of(style: TextStyle, colored: bool, records: &[Record]) -> String {
    let mut out = Vec::new();
    let make = |out| Box::new(text::TextLines::new(out, style, colored, TimeZone::UTC)) as Box<_>;
    let done = written(make, &mut out, records);
    assert!(done.is_ok(), "{done:?}");
    String::from_utf8_lossy(&out).into_owned()
}

fn json_of(records: &[Record]) -> String {
    let mut out = Vec::new();
    let done = written(|out| Box::new(JsonLines::new(out)), &mut out, records);
    assert!(done.is_ok(), "{done:?}");
    String::from_utf8_lossy(&out).into_owned()
}

fn csv_of(records: &[Record]) -> String {
    let mut out = Vec::new();
    let done = written(|out| Box::new(CsvLines::new(out, true)), &mut out, records);
    assert!(done.is_ok(), "{done:?}");
    String::from_utf8_lossy(&out).into_owned()
}

fn everything() -> Vec<Record> {
    let mut records = sample::records(&sample::everything());
    records.extend(sample::verdict(&records));
    records
}

#[test]
fn the_sample_has_every_event_and_every_field() {
    let records = everything();
    for event in EventName::ALL {
        assert!(
            records.iter().any(|record| record.event == *event),
            "{event:?}"
        );
    }
    // Only a replay of several logs names hosts, and tells what they say together.
    let of_one = |name: &&&str| !["host", "story"].contains(*name);
    for name in Record::NAMES.iter().filter(of_one) {
        let mut seen = false;
        for record in &records {
            record.visit(|it: Name, value: Value<'_>| {
                seen |= it.as_str() == *name && !matches!(value, Value::Absent)
            });
        }
        assert!(seen, "{name}");
    }
}

/// The sink writes records by itself: as serde_json would.
#[test]
fn json_is_what_serde_json_makes() {
    let mut records = everything();
    for text in ["", "\"", "\\", "a\tb", "\u{e9}\u{65e5}"] {
        let mut record = records[0].clone();
        record.process.comm = Some(Escaped::from(text));
        records.push(record);
    }
    let lines = json_of(&records);
    // The first is the header.
    for (line, record) in lines.lines().skip(1).zip(&records) {
        assert_eq!(serde_json::to_string(record).ok().as_deref(), Some(line));
    }
    assert_eq!(lines.lines().count(), 1 + records.len());
}

/// The sink quotes by itself: as the csv crate would.
#[test]
fn csv_is_what_the_csv_crate_makes() -> Result<(), ::csv::Error> {
    let mut records = everything();
    for text in ["", "\"", "a,b", "=\"1,2\"", "\u{e9}\u{65e5}"] {
        let mut record = records[0].clone();
        record.process.comm = Some(Escaped::from(text));
        records.push(record);
    }
    let lines = csv_of(&records);
    let mut reader = ::csv::Reader::from_reader(lines.as_bytes());
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(reader.headers()?)?;
    for record in reader.records() {
        writer.write_record(&record?)?;
    }
    writer.flush()?;
    assert_eq!(writer.get_ref().as_slice(), lines.as_bytes());
    Ok(())
}

#[test]
fn text() {
    assert_snapshot!(text_of(NARROW, false, &everything()), @r#"
    TIME         PID    COMM     LADDR:LPORT     RADDR:RPORT     EVENT
    07:08:09.000 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  probe 1/9 idle 3.0s
    07:08:09.010 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  answered 1 in <20ms
    07:08:10.000 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  early idle 990ms next 2.0s
    07:08:10.100 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  data_pending unacked 2
    07:08:10.200 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  busy
    07:08:10.250 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  probe_congested 1/9 idle 3.0s
    07:08:10.300 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  not_rearmed ESTABLISHED keepalive off
    07:08:10.350 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  unclassified ESTABLISHED
    07:08:10.400 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  timeout probe_count after 9 probes idle 12.0s
    07:08:10.401 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  rst_sent active ESTABLISHED TCP_KEEPALIVE_TIMEOUT
    07:08:10.500 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  timeout user_timeout after 2 probes idle 3.0s err 999
    07:08:10.600 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  fin_wait2 to time_wait
    07:08:10.650 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  fin_wait2
    07:08:10.700 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  closed
    07:08:09.700 4242   beam.smp [2001:db8::10]:5672 [2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:40000 probe 2/9 idle 5s
    07:08:09.710 4242   beam.smp [::ffff:192.168.0.1]:5672 [::ffff:192.168.0.2]:40000 probe 1/9 idle 3s
    07:08:09.720 666    =\u{1b}[2J\n"\x20,\xff\u{202e}\\ 10.0.0.1:5672       10.0.0.2:40000  probe 1/9 idle 3s
    07:08:09.730 -      -        10.0.0.1:5672       10.0.0.2:40000  fin_wait2 to reset
    07:08:10.750 4242   beam.smp 10.0.0.1:5672       10.0.0.2:40000  rst_received ESTABLISHED idle 3.0s sent 4ms ago unacked 1
    07:08:10.760 4242   beam.smp 10.0.0.1:5672       10.0.0.2:40000  probe 2/9 idle 4s
    07:08:10.760 4242   beam.smp 10.0.0.1:5672       10.0.0.2:40000  answered 2 in 431us
    07:08:10.770 4242   beam.smp 10.0.0.1:5672       10.0.0.9:50000  zombie probes_unanswered 2/9 idle 7300s dead in 575s
    07:08:10.800 -      -        -                   -               lost 12 probe of tcp_keepalive_timer by ring_buffer
    07:08:10.900 -      -        -                   -               lost 12 events of tcp_keepalive_timer by ring_buffer
    07:08:10.950 -      -        10.0.0.1:5672       10.0.0.2:40000  rst_sent passive to PSH|ACK len 100 ttl 64 met nothing NO_SOCKET
    07:08:10.960 -      -        10.0.0.1:5672       10.0.0.2:40000  rst_sent passive to ACK len 100 ttl 64 met socket LISTEN
    07:08:10.960 -      -        10.0.0.1:5672       10.0.0.2:40000  verdict idle_eviction idle 352s (medium) fits AWS NLB (350s): set TCP_KEEPIDLE to 150 s
    "#);
}

#[test]
fn wide_text() {
    let wide = TextStyle {
        wide: true,
        ..NARROW
    };
    assert_snapshot!(text_of(wide, false, &everything()), @r#"
    TIME         PID    COMM     LADDR:LPORT           RADDR:RPORT           EVENT
    07:08:09.000 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        probe 1/9 idle 3.0s next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:09.010 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        answered 1 in <20ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.000 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        early idle 990ms next 2.0s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.100 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        data_pending unacked 2 next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.200 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        busy next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.250 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        probe_congested 1/9 idle 3.0s next 500ms late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.300 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        not_rearmed ESTABLISHED keepalive off next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.350 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        unclassified ESTABLISHED next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.400 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        timeout probe_count after 9 probes idle 12.0s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.401 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        rst_sent active ESTABLISHED TCP_KEEPALIVE_TIMEOUT ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.500 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        timeout user_timeout after 2 probes idle 3.0s err 999 next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) ut 5s state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.600 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        fin_wait2 to time_wait next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.650 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        fin_wait2 next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.700 4242   beam.smp 10.0.0.1:5672         10.0.0.2:40000        closed ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:09.700 4242   beam.smp [2001:db8::10]:5672   [2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:40000 probe 2/9 idle 5s next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 cookie 4711 sock 2
    07:08:09.710 4242   beam.smp [::ffff:192.168.0.1]:5672 [::ffff:192.168.0.2]:40000                     probe 1/9 idle 3s next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 3
    07:08:09.720 666    =\u{1b}[2J\n"\x20,\xff\u{202e}\\ 10.0.0.1:5672             10.0.0.2:40000                                 probe 1/9 idle 3s next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 4
    07:08:09.730 -      -        10.0.0.1:5672             10.0.0.2:40000                                 fin_wait2 to reset late 4ms ka 3s/1s/9 (socket/socket/sysctl) state FIN_WAIT2 uid 1000 netns 4026531840 sock 5
    07:08:10.750 4242   beam.smp 10.0.0.1:5672             10.0.0.2:40000                                 rst_received ESTABLISHED idle 3.0s sent 4ms ago unacked 1 ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 1
    07:08:10.760 4242   beam.smp 10.0.0.1:5672             10.0.0.2:40000                                 probe 2/9 idle 4s next 1s late 4ms ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 6
    07:08:10.760 4242   beam.smp 10.0.0.1:5672             10.0.0.2:40000                                 answered 2 in 431us ka 3s/1s/9 (socket/socket/sysctl) state ESTABLISHED uid 1000 netns 4026531840 cgroup 77 inode 31337 sock 6
    07:08:10.770 4242   beam.smp 10.0.0.1:5672             10.0.0.9:50000                                 zombie probes_unanswered 2/9 idle 7300s dead in 575s next 50s ka 7200s/75s/9 (sysctl/sysctl/sysctl) state ESTABLISHED uid 1000 netns 4026531840 inode 77 sock 7
    07:08:10.800 -      -        -                         -                                              lost 12 probe of tcp_keepalive_timer by ring_buffer
    07:08:10.900 -      -        -                         -                                              lost 12 events of tcp_keepalive_timer by ring_buffer
    07:08:10.950 -      -        10.0.0.1:5672             10.0.0.2:40000                                 rst_sent passive to PSH|ACK len 100 ttl 64 met nothing NO_SOCKET netns 4026531840
    07:08:10.960 -      -        10.0.0.1:5672             10.0.0.2:40000                                 rst_sent passive to ACK len 100 ttl 64 met socket LISTEN state LISTEN netns 4026531840
    07:08:10.960 -      -        10.0.0.1:5672             10.0.0.2:40000                                 verdict idle_eviction idle 352s (medium) fits AWS NLB (350s): set TCP_KEEPIDLE to 150 s netns 4026531840
    "#);
}

#[test]
fn colored_text() {
    let bare = TextStyle {
        heading: false,
        ..NARROW
    };
    let text = text_of(bare, true, &everything()[..2]);
    assert_snapshot!(text.replace('\x1b', "ESC"), @"
    07:08:09.000 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  ESC[36mprobeESC[0m 1/9 idle 3.0s
    07:08:09.010 4242   beam.smp 10.0.0.1:5672   10.0.0.2:40000  ESC[32mansweredESC[0m 1 in <20ms
    ");
}

#[test]
fn clocks() {
    let times = |time| {
        let style = TextStyle {
            time,
            heading: false,
            ..NARROW
        };
        let text = text_of(style, false, &everything()[..2]);
        let first: Vec<_> = text
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        first.join(" ")
    };
    assert_eq!(times(TimeFormat::Clock), "07:08:09.000 07:08:09.010");
    assert_eq!(
        times(TimeFormat::Rfc3339),
        "2024-05-06T07:08:09.000000000Z 2024-05-06T07:08:09.010000000Z"
    );
    assert_eq!(
        times(TimeFormat::Unix),
        "1714979289.000000000 1714979289.010000000"
    );
    assert_eq!(times(TimeFormat::Mono), "1000.000000000 1000.010000000");
    assert_eq!(times(TimeFormat::Relative), "0.000000 0.010000");
}

#[test]
fn json() {
    assert_snapshot!(json_of(&everything()), @r#"
    {"header":{"version":"1.3","host":"mq\\n1","kernel":"6.12.107+deb13-cloud-amd64","kaprobe":"0.1.0","started":"2024-05-06T07:08:09.000000000Z","clock_offset_ns":-5,"hz":250,"hooks":{"tcp_keepalive_timer":"fentry"},"filters":{"port":["5672"]},"timeouts":[{"what":"ipvs","netns":4026531840,"seconds":900}]}}
    {"time":"2024-05-06T07:08:09.000000000Z","mono_ns":1000000000000,"seq":1,"event":"probe","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":1,"probes_out":1,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:09.010000000Z","mono_ns":1000010000000,"seq":2,"event":"answered","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":1,"probes_out":0,"answered_after_ms":10}
    {"time":"2024-05-06T07:08:10.000000000Z","mono_ns":1001000000000,"seq":3,"event":"early","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":990,"lastrcv_ms":5000,"lastack_ms":990,"lastsnd_ms":9000,"next_ms":2010,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.100000000Z","mono_ns":1001100000000,"seq":4,"event":"data_pending","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":2}
    {"time":"2024-05-06T07:08:10.200000000Z","mono_ns":1001200000000,"seq":5,"event":"busy","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.250000000Z","mono_ns":1001250000000,"seq":6,"event":"probe_congested","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":1,"probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":500,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.300000000Z","mono_ns":1001300000000,"seq":7,"event":"not_rearmed","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":false,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.350000000Z","mono_ns":1001350000000,"seq":8,"event":"unclassified","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.400000000Z","mono_ns":1001400000000,"seq":9,"event":"timeout","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":9,"idle_ms":12040,"lastrcv_ms":12345,"lastack_ms":12040,"lastsnd_ms":9000,"late_ms":4,"unacked":0,"cause":"probe_count","err":"ETIMEDOUT","firing_ns":1001400000000}
    {"time":"2024-05-06T07:08:10.401000000Z","mono_ns":1001401000000,"seq":10,"event":"rst_sent","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"unacked":0,"direction":"active","reason":"SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT","firing_ns":1001400000000}
    {"time":"2024-05-06T07:08:10.500000000Z","mono_ns":1001500000000,"seq":11,"event":"timeout","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","user_timeout_ms":5000,"user_timeout_from":"socket","probes_out":2,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0,"cause":"user_timeout","err":"999"}
    {"time":"2024-05-06T07:08:10.600000000Z","mono_ns":1001600000000,"seq":12,"event":"fin_wait2","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0,"to":"time_wait"}
    {"time":"2024-05-06T07:08:10.650000000Z","mono_ns":1001650000000,"seq":13,"event":"fin_wait2","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.700000000Z","mono_ns":1001700000000,"seq":14,"event":"closed","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"unacked":0}
    {"time":"2024-05-06T07:08:09.700000000Z","mono_ns":1000700000000,"seq":15,"event":"probe","sock":2,"pid":4242,"comm":"beam.smp","family":"inet6","laddr":"2001:db8::10","lport":5672,"raddr":"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff","rport":40000,"netns":4026531840,"inode":31337,"cookie":4711,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":2,"probes_out":2,"idle_ms":5000,"lastrcv_ms":5000,"lastack_ms":6000,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:09.710000000Z","mono_ns":1000710000000,"seq":16,"event":"probe","sock":3,"pid":4242,"comm":"beam.smp","family":"inet6","laddr":"::ffff:192.168.0.1","lport":5672,"raddr":"::ffff:192.168.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":1,"probes_out":1,"idle_ms":3000,"lastrcv_ms":5000,"lastack_ms":3000,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:09.720000000Z","mono_ns":1000720000000,"seq":17,"event":"probe","sock":4,"pid":666,"comm":"=\\u{1b}[2J\\n\" ,\\xff\\u{202e}\\\\","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":1,"probes_out":1,"idle_ms":3000,"lastrcv_ms":5000,"lastack_ms":3000,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:09.730000000Z","mono_ns":1000730000000,"seq":18,"event":"fin_wait2","sock":5,"family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"uid":1000,"orphan":true,"state":"FIN_WAIT2","keepalive":false,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":9000,"late_ms":4,"unacked":0,"to":"reset"}
    {"time":"2024-05-06T07:08:10.750000000Z","mono_ns":1001750000000,"seq":19,"event":"rst_received","sock":1,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":0,"idle_ms":3004,"lastrcv_ms":5000,"lastack_ms":3004,"lastsnd_ms":4,"unacked":1,"err":"ECONNRESET","unsent":false,"retransmits":0}
    {"time":"2024-05-06T07:08:10.760000000Z","mono_ns":1001760000000,"seq":20,"event":"probe","sock":6,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":2,"probes_out":2,"idle_ms":4000,"lastrcv_ms":5000,"lastack_ms":4000,"lastsnd_ms":9000,"next_ms":1000,"late_ms":4,"unacked":0}
    {"time":"2024-05-06T07:08:10.760431700Z","mono_ns":1001760431700,"seq":21,"event":"answered","sock":6,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"inode":31337,"uid":1000,"cgroup":77,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":3000,"keepalive_time_from":"socket","keepalive_intvl_ms":1000,"keepalive_intvl_from":"socket","keepalive_probes":9,"keepalive_probes_from":"sysctl","probe":2,"probes_out":0,"answered_after_ms":0,"rtt_us":431}
    {"time":"2024-05-06T07:08:10.770000000Z","mono_ns":1001770000000,"seq":22,"event":"zombie","sock":7,"pid":4242,"comm":"beam.smp","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.9","rport":50000,"netns":4026531840,"inode":77,"uid":1000,"orphan":false,"state":"ESTABLISHED","keepalive":true,"keepalive_time_ms":7200000,"keepalive_time_from":"sysctl","keepalive_intvl_ms":75000,"keepalive_intvl_from":"sysctl","keepalive_probes":9,"keepalive_probes_from":"sysctl","probes_out":2,"idle_ms":7300000,"lastrcv_ms":7300000,"lastack_ms":7300000,"lastsnd_ms":7300000,"next_ms":50000,"unacked":0,"why":"probes_unanswered","dead_in_ms":575000,"dead_by":"probe_count"}
    {"time":"2024-05-06T07:08:10.800000000Z","mono_ns":1001800000000,"seq":23,"event":"lost","hook":"tcp_keepalive_timer","lost_kind":"probe","lost_why":"ring_buffer","lost":12}
    {"time":"2024-05-06T07:08:10.900000000Z","mono_ns":1001900000000,"seq":24,"event":"lost","hook":"tcp_keepalive_timer","lost_why":"ring_buffer","lost":12}
    {"time":"2024-05-06T07:08:10.950000000Z","mono_ns":1001950000000,"seq":25,"event":"rst_sent","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"direction":"passive","reason":"SK_RST_REASON_NO_SOCKET","flags":"PSH|ACK","len":100,"ttl":64,"met":"nothing"}
    {"time":"2024-05-06T07:08:10.960000000Z","mono_ns":1001960000000,"seq":26,"event":"rst_sent","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"state":"LISTEN","direction":"passive","flags":"ACK","len":100,"ttl":64,"met":"socket"}
    {"time":"2024-05-06T07:08:10.960000000Z","mono_ns":1001960000000,"seq":27,"event":"verdict","family":"inet","laddr":"10.0.0.1","lport":5672,"raddr":"10.0.0.2","rport":40000,"netns":4026531840,"idle_ms":352000,"verdict":"idle_eviction","confidence":"medium","evidence":[1,26],"middlebox":"AWS NLB (350s)","survived_ms":301000,"died_ms":352000,"learned_of":"endpoint","contradictory":false,"advice":"set TCP_KEEPIDLE to 150 s","set_in":"program","set":"TCP_KEEPIDLE=150"}
    "#);
}

#[test]
fn csv() {
    assert_snapshot!(csv_of(&everything()), @r#"
    time,mono_ns,seq,event,sock,pid,comm,family,laddr,lport,raddr,rport,netns,inode,cookie,uid,cgroup,orphan,state,keepalive,keepalive_time_ms,keepalive_time_from,keepalive_intvl_ms,keepalive_intvl_from,keepalive_probes,keepalive_probes_from,user_timeout_ms,user_timeout_from,probe,probes_out,idle_ms,lastrcv_ms,lastack_ms,lastsnd_ms,next_ms,late_ms,unacked,cause,to,err,direction,reason,firing_ns,answered_after_ms,hook,lost_kind,lost_why,lost,unsent,retransmits,flags,len,ttl,met,verdict,confidence,evidence,middlebox,survived_ms,died_ms,learned_of,contradictory,advice,rtt_us,story,why,dead_in_ms,dead_by,set_in,set
    2024-05-06T07:08:09.000000000Z,1000000000000,1,probe,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,1,1,3004,5000,3004,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:09.010000000Z,1000010000000,2,answered,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,1,0,,,,,,,,,,,,,,10,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.000000000Z,1001000000000,3,early,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,990,5000,990,9000,2010,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.100000000Z,1001100000000,4,data_pending,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,2,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.200000000Z,1001200000000,5,busy,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.250000000Z,1001250000000,6,probe_congested,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,1,0,3004,5000,3004,9000,500,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.300000000Z,1001300000000,7,not_rearmed,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,false,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.350000000Z,1001350000000,8,unclassified,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.400000000Z,1001400000000,9,timeout,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,9,12040,12345,12040,9000,,4,0,probe_count,,ETIMEDOUT,,,1001400000000,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.401000000Z,1001401000000,10,rst_sent,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,,,0,,,,active,SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT,1001400000000,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.500000000Z,1001500000000,11,timeout,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,5000,socket,,2,3004,5000,3004,9000,1000,4,0,user_timeout,,999,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.600000000Z,1001600000000,12,fin_wait2,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,0,,time_wait,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.650000000Z,1001650000000,13,fin_wait2,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.700000000Z,1001700000000,14,closed,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,,,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:09.700000000Z,1000700000000,15,probe,2,4242,beam.smp,inet6,2001:db8::10,5672,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,40000,4026531840,31337,4711,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,2,2,5000,5000,6000,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:09.710000000Z,1000710000000,16,probe,3,4242,beam.smp,inet6,::ffff:192.168.0.1,5672,::ffff:192.168.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,1,1,3000,5000,3000,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:09.720000000Z,1000720000000,17,probe,4,666,"\x3d\u{1b}[2J\n"" ,\xff\u{202e}\\",inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,1,1,3000,5000,3000,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:09.730000000Z,1000730000000,18,fin_wait2,5,,,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,,,1000,,true,FIN_WAIT2,false,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,9000,,4,0,,reset,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.750000000Z,1001750000000,19,rst_received,1,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,,0,3004,5000,3004,4,,,1,,,ECONNRESET,,,,,,,,,false,0,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.760000000Z,1001760000000,20,probe,6,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,2,2,4000,5000,4000,9000,1000,4,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.760431700Z,1001760431700,21,answered,6,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,31337,,1000,77,false,ESTABLISHED,true,3000,socket,1000,socket,9,sysctl,,,2,0,,,,,,,,,,,,,,0,,,,,,,,,,,,,,,,,,,,431,,,,,,
    2024-05-06T07:08:10.770000000Z,1001770000000,22,zombie,7,4242,beam.smp,inet,10.0.0.1,5672,10.0.0.9,50000,4026531840,77,,1000,,false,ESTABLISHED,true,7200000,sysctl,75000,sysctl,9,sysctl,,,,2,7300000,7300000,7300000,7300000,50000,,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,probes_unanswered,575000,probe_count,,
    2024-05-06T07:08:10.800000000Z,1001800000000,23,lost,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,tcp_keepalive_timer,probe,ring_buffer,12,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.900000000Z,1001900000000,24,lost,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,tcp_keepalive_timer,,ring_buffer,12,,,,,,,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.950000000Z,1001950000000,25,rst_sent,,,,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,,,,,,,,,,,,,,,,,,,,,,,,,,,,passive,SK_RST_REASON_NO_SOCKET,,,,,,,,,PSH|ACK,100,64,nothing,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.960000000Z,1001960000000,26,rst_sent,,,,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,,,,,,LISTEN,,,,,,,,,,,,,,,,,,,,,,passive,,,,,,,,,,ACK,100,64,socket,,,,,,,,,,,,,,,,
    2024-05-06T07:08:10.960000000Z,1001960000000,27,verdict,,,,inet,10.0.0.1,5672,10.0.0.2,40000,4026531840,,,,,,,,,,,,,,,,,,352000,,,,,,,,,,,,,,,,,,,,,,,,idle_eviction,medium,1 26,AWS NLB (350s),301000,352000,endpoint,false,set TCP_KEEPIDLE to 150 s,,,,,,program,TCP_KEEPIDLE=150
    "#);
}

#[test]
fn records_of_several_hosts_name_them() -> io::Result<()> {
    type Make = for<'a> fn(&'a mut Vec<u8>) -> Box<dyn Sink + 'a>;
    let mut records = everything();
    records.truncate(2);
    for (record, host) in records.iter_mut().zip(["mq 1", "web2"]) {
        record.host = Some(Escaped::from(host));
    }
    let headers = [header(), header()];
    let head = Head {
        headers: &headers,
        hosts: true,
    };
    let formats: [(Make, usize, &str); 3] = [
        (
            |out| Box::new(text::TextLines::new(out, NARROW, false, TimeZone::UTC)),
            1,
            "07:08:09.010 web2     4242 ",
        ),
        (|out| Box::new(JsonLines::new(out)), 2, r#""host":"web2""#),
        (
            |out| Box::new(CsvLines::new(out, true)),
            1,
            "2,answered,web2,1,4242,",
        ),
    ];
    for (make, heading, told) in formats {
        let mut out = Vec::new();
        let mut sink = make(&mut out);
        sink.head(&head)?;
        records.iter().try_for_each(|record| sink.record(record))?;
        sink.flush()?;
        drop(sink);
        let out = String::from_utf8_lossy(&out);
        assert_eq!(out.lines().count(), heading + records.len(), "{out}");
        let last = out.lines().last().unwrap_or_default();
        assert!(last.contains(told), "{out}");
    }
    Ok(())
}

#[test]
fn json_is_read_back() -> Result<(), serde_json::Error> {
    let records = everything();
    let json = json_of(&records);
    let mut lines = json.lines();
    let first: HeaderLine = serde_json::from_str(lines.next().unwrap_or_default())?;
    assert_eq!(first.header, header());
    let read: Result<Vec<Record>, _> = lines.map(serde_json::from_str).collect();
    assert_eq!(read?, records);
    Ok(())
}

#[test]
fn csv_and_json_say_the_same() -> Result<(), Box<dyn std::error::Error>> {
    let records = everything();
    let (csv, json) = (csv_of(&records), json_of(&records));
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let names = reader.headers()?.clone();
    for (row, line) in reader.records().zip(json.lines().skip(1)) {
        let (row, line) = (row?, serde_json::from_str::<serde_json::Value>(line)?);
        for (name, cell) in names.iter().zip(&row) {
            let value = line.get(name).map_or(String::new(), |value| match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(numbers) => {
                    let words: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                    words.join(" ")
                }
                other => other.to_string(),
            });
            // What a spreadsheet would take for a formula is escaped; see `csv`.
            let cell = Escaped::from_escaped(cell).to_string();
            assert_eq!(Escaped::from_escaped(&value).to_string(), cell, "{name}");
        }
    }
    Ok(())
}

#[test]
fn nothing_hostile_gets_through() {
    let wide = TextStyle {
        wide: true,
        ..NARROW
    };
    let records = everything();
    for format in [
        text_of(NARROW, false, &records),
        text_of(wide, false, &records),
        json_of(&records),
        csv_of(&records),
    ] {
        // A header or heading, then one line for each record.
        assert_eq!(format.lines().count(), 1 + records.len());
        let steers =
            |c: char| c != '\n' && (c.is_control() || ('\u{200b}'..='\u{202e}').contains(&c));
        assert!(!format.contains(steers), "{format}");
    }
}

/// The columns that scripts cut text at.
#[test]
fn text_has_its_columns_whatever_a_command_is_called() {
    for line in text_of(NARROW, false, &everything()).lines().skip(1) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        assert!(
            EventName::ALL
                .iter()
                .any(|event| words.get(5) == Some(&event.name())),
            "{line}"
        );
    }
}

#[test]
fn usual_lines_fit_a_terminal() {
    let usual = sample::records(&[
        sample::of(sample::probe(0, 1, 3_004)),
        sample::of(sample::event(1_000, crate::model::event::Kind::Closed)),
    ]);
    for line in text_of(NARROW, false, &usual).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

struct Gone(io::ErrorKind);

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

#[test]
fn an_error_tells_which_output_failed_and_why() {
    for format in [Format::Text, Format::Json, Format::Csv] {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let sink = to(Gone(kind), format, NARROW, false);
            let mut sinks = Sinks::one("log", sink);
            let written = everything()
                .iter()
                .try_for_each(|record| sinks.record(record));
            let ended = written.and_then(|()| sinks.flush());
            let told = ended.map_err(|why| {
                let source = std::error::Error::source(&why);
                let source = source.and_then(|it| it.downcast_ref::<io::Error>());
                (why.to_string(), source.map(io::Error::kind))
            });
            assert_eq!(told, Err(("cannot write log".to_owned(), Some(kind))));
        }
    }
}

#[path = "../../../testkit/src/schema.rs"]
mod schema;

#[test]
fn json_is_as_the_schema_says() {
    let checked = schema::check_log(&json_of(&everything()));
    assert_eq!(checked.map(|records| records.len()), Ok(everything().len()));
}

#[test]
fn the_schema_tells_good_from_bad() -> Result<(), serde_json::Error> {
    let json = json_of(&everything());
    let mut lines = json.lines().map(serde_json::from_str::<serde_json::Value>);
    let mut header = lines.next().unwrap_or(Ok(serde_json::Value::Null))?;
    let lines: Vec<_> = lines.collect::<Result<_, _>>()?;
    let is_bad = |value: &serde_json::Value| schema::check_line(&value.to_string()).is_err();

    header["header"]["more"] = 1.into();
    assert!(is_bad(&header));
    let required = ["time", "mono_ns", "seq", "event"];
    for record in &lines {
        for name in required {
            let mut record = record.clone();
            record
                .as_object_mut()
                .and_then(|fields| fields.remove(name));
            assert!(is_bad(&record), "{record}");
        }
        for (name, value) in [
            ("more", 1.into()),
            ("event", "nap".into()),
            ("time", "2024-05-06T07:08:09Z".into()),
            ("comm", "\u{1b}[2J".into()),
            ("laddr", "here".into()),
            ("lport", 65_536.into()),
            ("probes_out", (-1).into()),
        ] {
            let mut record = record.clone();
            record[name] = value;
            assert!(is_bad(&record), "{record}");
        }
    }
    Ok(())
}

#[test]
fn the_schema_and_the_record_have_the_same_words() -> Result<(), serde_json::Error> {
    let schema: serde_json::Value = serde_json::from_str(schema::SCHEMA)?;
    let words = |name: &str| schema["$defs"][name]["enum"].clone();
    let events: Vec<_> = EventName::ALL.iter().map(|it| it.name()).collect();
    let hooks = <crate::model::values::Hook as crate::model::named::Named>::ALL;
    let hooks: Vec<_> = hooks.iter().map(|it| it.name()).collect();
    assert_eq!(words("event"), serde_json::json!(events));
    assert_eq!(words("hook"), serde_json::json!(hooks));
    assert_eq!(
        schema["$defs"]["header"]["properties"]["version"]["const"],
        crate::model::header::VERSION
    );
    Ok(())
}

/// Opens a screen and a log, and writes a header.
fn export(path: &Path, overwrite: bool) -> Result<Sinks, String> {
    let log = LogFile {
        path: path.to_owned(),
        format: Format::Json,
        overwrite,
    };
    let file = create(&log).map_err(|error| why(&error, path))?;
    let sink = to(file, log.format, NARROW, false);
    let mut sinks = Sinks::one("log", sink);
    sinks
        .head(&Head::from(&header()))
        .map_err(|error| format!("{error:?}"))?;
    Ok(sinks)
}

#[test]
fn nothing_is_overwritten_unless_forced() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let (log, link) = (
        folder.path().join("a.jsonl"),
        folder.path().join("link.jsonl"),
    );
    let (gone, inside) = (
        folder.path().join("gone"),
        folder.path().join("no/such.jsonl"),
    );
    let told = |path, overwrite| export(path, overwrite).err();

    std::fs::write(&log, "precious")?;
    std::os::unix::fs::symlink(&gone, &link)?;
    let exists = Some("it exists; --force overwrites it".to_owned());
    let directory = Some("it is a directory".to_owned());
    assert_eq!(told(&log, false), exists);
    assert_eq!(told(&link, false), exists);
    assert_eq!(told(folder.path(), false), directory);
    assert_eq!(told(folder.path(), true), directory);
    assert!(told(&inside, true).is_some_and(|why| why.contains("No such file")));
    assert_eq!(std::fs::read_to_string(&log)?, "precious");
    assert!(!gone.exists());

    assert_eq!(told(&log, true), None);
    assert_eq!(
        std::fs::read_to_string(&log)?,
        "",
        "what was not flushed is not there"
    );
    Ok(())
}

#[test]
fn a_log_that_breaks_off_has_whole_lines() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.jsonl");
    let mut sinks = export(&path, false).map_err(io::Error::other)?;
    for record in std::iter::repeat_n(everything(), 20).flatten() {
        assert!(sinks.record(&record).is_ok());
        // What kill -9 would leave at this point.
        let log = std::fs::read_to_string(&path)?;
        assert!(log.is_empty() || log.ends_with('\n'));
    }
    assert!(sinks.flush().is_ok());
    let log = std::fs::read_to_string(&path)?;
    let records = schema::check_log(&log).map_err(io::Error::other)?;
    assert_eq!(records.len(), 20 * everything().len());
    Ok(())
}
