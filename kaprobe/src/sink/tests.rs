//! What every kind of record looks like in every format.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use jiff::tz::TimeZone;

use super::*;
use crate::model::field::{Fields as _, Name, Value};
use crate::model::header::{Header, HeaderLine, TimeoutsChange};
use crate::model::host_timeout::{HostRoute, HostTimeout, NetnsRoutes, NetnsTimeouts};
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::sample;
use crate::sink::log_file::{self, why};
use crate::sink::options::{ColorWhen, Existing, Format, TextStyle, TimeFormat};
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
            netns_name: Some(Escaped::from("l\nb")),
            seconds: 900,
            half_closed_s: Some(120),
            services: vec![([10, 0, 0, 1], 5672).into()],
            servers: vec![([10, 0, 0, 3], 5672).into()],
            more_services: true,
        }],
        routes: vec![NetnsRoutes {
            netns: 4_026_531_841,
            routes: vec![HostRoute {
                to: ipnet::Ipv4Net::default().into(),
                through: vec![4_026_531_840],
            }],
        }],
        part: Some(2),
        alive_ms: Some(3_600_000),
        max_sockets: Some(131_072),
    }
}

/// A change of the timeouts in that header: one namespace has others, and one is gone.
fn timeouts() -> TimeoutsChange {
    let changed = NetnsTimeouts {
        netns: 4_026_531_840,
        timeouts: header().timeouts,
        routes: Some(vec![]),
    };
    let gone = NetnsTimeouts {
        netns: 4_026_531_841,
        ..NetnsTimeouts::default()
    };
    TimeoutsChange {
        time: WallTime(sample::at(0).wall_ns),
        mono_ns: sample::at(0).mono_ns,
        host: Some(Escaped::from("mq\n1")),
        namespaces: vec![changed, gone],
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
    records.extend(sample::alive(&records));
    for record in &mut records {
        record.host = Some(header().host);
    }
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

/// `tests/golden.rs` shows this log in each format.
#[test]
fn the_golden_log_has_the_sample() -> Result<(), String> {
    let log = include_str!("../../../tests/golden/records.jsonl");
    let header = log.lines().next().unwrap_or_default();
    let json = json_of(&everything());
    let (_, records) = json.split_once('\n').unwrap_or_default();
    sample::golden::check("../records.jsonl", &format!("{header}\n{records}"))
}

/// A file has the host in each line, as lines of several files may be put together; the
/// record itself does not.
#[test]
fn records_of_one_host_name_it_too() -> io::Result<()> {
    let mut records = everything();
    for record in &mut records {
        record.host = None;
    }
    assert_eq!(json_of(&records), json_of(&everything()));
    assert_eq!(csv_of(&records), csv_of(&everything()));
    let text = text_of(NARROW, false, &records);
    assert_eq!(text, text_of(NARROW, false, &everything()));
    assert!(!text.contains("mq"), "{text}");
    // Another trace in the same output may be of another host.
    let other = Header {
        host: Escaped::from("web2"),
        ..header()
    };
    for (format, told) in [(Format::Json, r#""host":"web2""#), (Format::Csv, ",web2,")] {
        let mut file = tempfile::NamedTempFile::new()?;
        let mut sink = to(file.reopen()?, format, NARROW, false);
        sink.head(&Head::from(&header()))?;
        sink.next_trace(&other)?;
        sink.record(&records[0])?;
        sink.flush()?;
        let text = io::read_to_string(&mut file)?;
        assert!(
            text.lines().last().is_some_and(|it| it.contains(told)),
            "{text}"
        );
    }
    Ok(())
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
fn a_change_of_the_timeouts_is_as_the_schema_says() -> io::Result<()> {
    let mut json = Vec::new();
    let mut lines = JsonLines::new(&mut json);
    lines.head(&Head::from(&header()))?;
    lines.timeouts(&timeouts())?;
    let log = String::from_utf8_lossy(&json);
    let line = log.lines().last().unwrap_or_default();
    let checked = schema::check_line(line);
    let host = checked.map(|line| line["timeouts"]["host"].clone());
    assert_eq!(host, Ok(header().host.as_str().into()), "{line}");
    let mut csv = Vec::new();
    CsvLines::new(&mut csv, true).timeouts(&timeouts())?;
    assert!(csv.is_empty());
    Ok(())
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

/// Opens a log, and writes a header.
fn export(path: &Path, existing: Existing) -> Result<Sinks, String> {
    let file = log_file::open(path, existing, Format::Json, &[]);
    let file = file.map_err(|error| why(&error, path))?;
    let sink = to(file, Format::Json, NARROW, false);
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
    let told = |path, overwrite| {
        let existing = if overwrite {
            Existing::Overwrite
        } else {
            Existing::Refuse
        };
        export(path, existing).err()
    };

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

/// A trace may be killed anywhere, also while it writes its header.
#[test]
fn a_log_that_breaks_off_is_continued() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.jsonl");
    let header = HeaderLine { header: header() };
    let log = serde_json::to_string(&header)? + "\n{\"time\":\"2026-01-01";
    let other = log.replacen(crate::model::header::VERSION, "2.0", 1);
    for (content, continued) in [
        (&*log, true),
        (&log[..60], true),
        (&other[..60], false),
        ("{\"header\":{\"vers", false),
        ("{\"time\":", false),
    ] {
        std::fs::write(&path, content)?;
        let opened = log_file::open(&path, Existing::Append, Format::Json, &[]);
        assert_eq!(opened.is_ok(), continued, "{content}");
        let line_end = if continued { "\n" } else { "" };
        let now = std::fs::read_to_string(&path)?;
        assert_eq!(now, format!("{content}{line_end}"));
    }
    Ok(())
}

#[test]
fn a_log_that_breaks_off_has_whole_lines() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.jsonl");
    let mut sinks = export(&path, Existing::Refuse).map_err(io::Error::other)?;
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
