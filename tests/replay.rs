//! `kaprobe replay` shows what a log recorded. These tests need no privilege.

mod folders;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use kaprobe::cli;
use kaprobe::filter::{Filter, RecordFilter};
use kaprobe::model::header::{Header, HeaderLine, TimeoutsChange, TimeoutsLine, VERSION};
use kaprobe::model::host_timeout::{HostTimeout, NetnsTimeouts};
use kaprobe::model::limits::MAX_SOCKETS;
use kaprobe::model::named::Named as _;
use kaprobe::model::record::{EventName, Record};
use kaprobe::model::socket::Endpoints;
use kaprobe::model::tally::Tally;
use kaprobe::model::time::{Instant, WallTime};
use kaprobe::model::trailer::Trailer;
use kaprobe::model::values::{Cause, Confidence, Direction, Hook, LostWhy, Origin, State};
use kaprobe::sink::options::{Format, TextStyle, TimeFormat};
use kaprobe::sink::{self, Head};
use kaprobe::text::escape::Escaped;
use kaprobe::trace::plan::TracePlan;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_testkit::fixtures::{NARROW, WALL_NS, header};
use kaprobe_testkit::schema;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tempfile::TempDir;

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// A record of a socket, at a time in ms after the start.
fn record(ms: u32, seq: u64, event: EventName) -> Record {
    let ns = u64::from(ms) * 1_000_000;
    let at = Instant {
        mono_ns: 1_000_000_000_000 + ns,
        wall_ns: WALL_NS.saturating_add_unsigned(ns),
    };
    let [local, remote] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
    let mut record = Record::new(at, event);
    record.seq = seq;
    record.sock = Some(seq % 7 + 1);
    record.process.pid = Some(4242);
    record.process.comm = Some(Escaped::from_bytes(b"be\x1bam \xff"));
    record.endpoints = Some(Endpoints::new(
        (local, 5672),
        (remote, 40_000),
        4_026_531_840,
    ));
    record.identity.uid = Some(0);
    record.identity.orphan = Some(false);
    record.state = Some(State::Established);
    record.settings.keepalive = Some(true);
    record.settings.keepalive_time_ms = Some(3_000);
    record.settings.keepalive_time_from = Some(Origin::Socket);
    record.settings.keepalive_intvl_ms = Some(1_000);
    record.settings.keepalive_intvl_from = Some(Origin::Sysctl);
    record.settings.keepalive_probes = Some(9);
    record.settings.keepalive_probes_from = Some(Origin::Sysctl);
    record.probes_out = Some(1);
    match event {
        EventName::Answered => {
            record.probe = Some(1);
            record.answered_after_ms = Some(4);
        }
        EventName::Closed => {
            record.ages.idle_ms = Some(10);
            record.ages.lastrcv_ms = Some(10);
            record.ages.lastack_ms = Some(10);
            record.ages.lastsnd_ms = Some(10);
            record.unacked = Some(0);
        }
        _ => {
            record.probe = Some(1);
            record.ages.idle_ms = Some(3_004);
            record.ages.lastrcv_ms = Some(5_000);
            record.ages.lastack_ms = Some(3_004);
            record.ages.lastsnd_ms = Some(9_000);
            record.next_ms = Some(1_000);
            record.late_ms = Some(4);
            record.unacked = Some(0);
        }
    }
    record
}

fn lost(ms: u32, seq: u64) -> Record {
    let template = record(ms, seq, EventName::Lost);
    let mut lost = Record {
        time: template.time,
        mono_ns: template.mono_ns,
        seq,
        event: EventName::Lost,
        ..Record::default()
    };
    lost.hook = Some(Hook::KeepaliveTimer);
    lost.lost_why = Some(LostWhy::RingBuffer);
    lost.lost = Some(12);
    lost
}

/// Records of a trace. The answer has an earlier time than the record before it. One
/// socket is IPv6 and has no owner.
fn records() -> Vec<Record> {
    let mut v6 = record(30, 4, EventName::Probe);
    let [local, remote] = [1, 2].map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]));
    v6.endpoints = Some(Endpoints::new((local, 443), (remote, 40_000), 7));
    v6.netns_name = Some(Escaped::from("blue"));
    (v6.process.pid, v6.process.comm) = (None, None);
    vec![
        record(0, 1, EventName::Probe),
        record(20, 2, EventName::Probe),
        record(4, 3, EventName::Answered),
        v6,
        lost(40, 5),
        record(50, 6, EventName::Closed),
    ]
}

/// Writes headers, records and a trailer as a trace does.
fn write(
    path: &Path,
    format: Format,
    style: TextStyle,
    headers: &[Header],
    records: &[Record],
) -> TestResult {
    let mut sink = sink::to(File::create(path)?, format, style, false);
    sink.head(&Head {
        headers,
        hosts: false,
    })?;
    let mut tally = Tally::default();
    for record in records {
        tally.count(record);
        sink.record(record)?;
    }
    let ended = tally.last_time().unwrap_or_default();
    sink.trailer(&Trailer::new(ended, &tally))?;
    Ok(sink.flush()?)
}

/// A folder with logs, in which kaprobe runs.
struct Logs(TempDir);

impl Logs {
    fn new() -> TestResult<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn log(&self, name: &str, host: &str, records: &[Record]) -> TestResult<String> {
        let path = self.path(name);
        write(&path, Format::Json, NARROW, &[header(host)], records)?;
        Ok(fs::read_to_string(path)?)
    }

    fn replay(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kaprobe"));
        command.arg("replay").args(args).current_dir(self.0.path());
        command
    }

    /// Runs a replay that must exit with a code. Returns its stdout and stderr.
    fn run(&self, args: &[&str], code: i32) -> TestResult<(String, String)> {
        texts(&self.replay(args).stdin(Stdio::null()).output()?, code)
    }

    /// Runs a replay that must exit with 0. Returns its stdout.
    fn shown(&self, args: &[&str]) -> TestResult<String> {
        Ok(self.run(args, 0)?.0)
    }
}

/// Checks the exit code of a run. Returns its stdout and stderr.
fn texts(output: &Output, code: i32) -> TestResult<(String, String)> {
    let (out, err) = (
        String::from_utf8(output.stdout.clone())?,
        String::from_utf8(output.stderr.clone())?,
    );
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    Ok((out, err))
}

#[test]
fn replay_equals_the_trace() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("run.jsonl", "mq1", &records())?;
    let plain: &[(&str, Format, TextStyle)] = &[
        ("", Format::Text, NARROW),
        (
            "--wide",
            Format::Text,
            TextStyle {
                wide: true,
                ..NARROW
            },
        ),
        (
            "--no-header",
            Format::Text,
            TextStyle {
                heading: false,
                ..NARROW
            },
        ),
        (
            "--time=rfc3339",
            Format::Text,
            TextStyle {
                time: TimeFormat::Rfc3339,
                ..NARROW
            },
        ),
        (
            "--time=unix",
            Format::Text,
            TextStyle {
                time: TimeFormat::Unix,
                ..NARROW
            },
        ),
        (
            "--time=mono",
            Format::Text,
            TextStyle {
                time: TimeFormat::Mono,
                ..NARROW
            },
        ),
        (
            "--time=relative",
            Format::Text,
            TextStyle {
                time: TimeFormat::Relative,
                ..NARROW
            },
        ),
        ("--json", Format::Json, NARROW),
        ("--format=csv", Format::Csv, NARROW),
    ];
    for (flag, format, style) in plain {
        let live = logs.path("live");
        write(&live, *format, *style, &[header("mq1")], &records())?;
        let args: Vec<_> = ["run.jsonl", flag]
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(logs.shown(&args)?, fs::read_to_string(live)?, "{flag}");
    }
    logs.shown(&["run.jsonl", "-o", "again.jsonl"])?;
    assert_eq!(fs::read_to_string(logs.path("again.jsonl"))?, log);

    let piped = logs
        .replay(&["-", "--json"])
        .stdin(File::open(logs.path("run.jsonl"))?)
        .output()?;
    assert_eq!(texts(&piped, 0)?.0, log);
    Ok(())
}

/// The text of a log with these records, which is written to a file of this name.
fn log_text(logs: &Logs, name: &str, header: &Header, records: &[Record]) -> TestResult<String> {
    let path = logs.path(name);
    write(
        &path,
        Format::Json,
        NARROW,
        std::slice::from_ref(header),
        records,
    )?;
    Ok(fs::read_to_string(path)?)
}

/// A log that was continued in another file, restarted, or cut off by kill -9: what is
/// shown, what is said, and what is written again.
#[test]
fn a_log_of_several_parts_is_read_as_it_was_written() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("run.jsonl", "mq1", &records())?;
    let part =
        |name: &str, header: &Header, records: &[Record]| log_text(&logs, name, header, records);
    let (first, second) = (header("mq1"), header("mq1").next_part());
    let all = records();
    let (before, after) = all.split_at(3);
    let ended = part("1.jsonl", &first, before)?;
    let ended = ended.strip_suffix("}}\n").ok_or("no trailer")?;
    let next = part("2.jsonl", &second, after)?;
    let continued = format!("{ended},\"continued\":true}}}}\n{next}");
    let (killed, _) = log.trim_end().rsplit_once('\n').ok_or("one line")?;
    let killed = format!("{killed}\n");
    let restarted = [log.clone(), log.clone()].concat();
    let after_kill = [killed.clone(), log.clone()].concat();
    let text = logs.shown(&["run.jsonl", "-q"])?;
    let twice = [text.as_str(), text.split_once('\n').ok_or("no heading")?.1].concat();

    let missing = "ended without a trailer: kaprobe was killed, or still writes it";
    let another = "another trace follows in the same log, of host mq1";
    let rows: [(&str, &str, &str, &[&str]); 4] = [
        ("continued", &continued, &text, &[]),
        ("killed", &killed, &text, &[missing]),
        ("restarted", &restarted, &twice, &[another]),
        ("after_kill", &after_kill, &twice, &[missing, another]),
    ];
    for (name, log, shown, said) in rows {
        fs::write(logs.path(name), log)?;
        let (out, err) = logs.run(&[name, "-q"], 0)?;
        assert_eq!(out, shown, "{name}");
        assert_eq!(err.lines().count(), said.len(), "{name}: {err}");
        for (line, said) in err.lines().zip(said) {
            assert!(line.ends_with(said), "{name}: {err}");
        }
        if name == "continued" || name == "killed" {
            assert_eq!(logs.shown(&[name, "--json", "-q"])?, log, "{name}");
        }
    }
    // In files of their own, in any order.
    fs::write(
        logs.path("1.jsonl"),
        format!("{ended},\"continued\":true}}}}\n"),
    )?;
    for flag in ["--wide", "--json", "--format=csv", "--summary"] {
        let one = logs.shown(&["continued", "-q", flag])?;
        for [a, b] in [["1.jsonl", "2.jsonl"], ["2.jsonl", "1.jsonl"]] {
            let args = [a, b, "-q", flag];
            assert_eq!(
                logs.run(&args, 0)?,
                (one.clone(), String::new()),
                "{args:?}"
            );
        }
    }
    // Numbers go on where a trace follows another.
    let again = logs.shown(&["after_kill", "--json", "-q"])?;
    let trailers = again
        .lines()
        .filter(|line| line.starts_with("{\"trailer\""));
    assert_eq!(trailers.count(), 1, "{again}");
    assert!(again.trim_end().ends_with("}}"), "{again}");
    Ok(())
}

/// Records that lead to verdicts: a connection that survives an idle time, one that dies
/// after a longer idle time, and one whose peer is unreachable.
fn verdict_records() -> Vec<Record> {
    let of_socket = |sock, mut record: Record| {
        record.sock = Some(sock);
        record.endpoints.get_or_insert_default().rport =
            40_000 + u16::try_from(sock).unwrap_or_default();
        record
    };
    let mut received = of_socket(2, record(910_000, 0, EventName::Closed));
    received.event = EventName::RstReceived;
    received.ages.idle_ms = Some(905_000);
    (received.ages.lastrcv_ms, received.ages.lastack_ms) = (Some(905_000), Some(905_000));
    (received.ages.lastsnd_ms, received.unacked) = (Some(200), Some(1));
    received.unsent = Some(false);
    let mut timeout = of_socket(3, record(920_000, 0, EventName::Timeout));
    (timeout.probe, timeout.next_ms) = (None, None);
    timeout.cause = Some(Cause::ProbeCount);
    let mut answered = of_socket(1, record(903_004, 0, EventName::Answered));
    answered.answered_after_ms = Some(3);
    vec![
        of_socket(1, record(900_000, 0, EventName::Probe)),
        of_socket(3, record(901_000, 0, EventName::Probe)),
        of_socket(1, record(903_000, 0, EventName::Early)),
        answered,
        lost(904_000, 0),
        received.clone(),
        of_socket(2, record(910_001, 0, EventName::Closed)),
        timeout,
        of_socket(3, record(920_001, 0, EventName::Closed)),
    ]
}

/// The plan of a trace with these flags.
fn plan(flags: &[&str]) -> TestResult<TracePlan> {
    let words = ["kaprobe", "trace"].iter().chain(flags);
    let cli::Action::Run(cli::Command::Trace(args)) = cli::parse(words)? else {
        return Err("not a trace".into());
    };
    Ok(TracePlan::new(*args)?)
}

/// The header and the records of a trace with these flags.
fn traced(flags: &[&str]) -> TestResult<(Header, Vec<Record>)> {
    let plan = plan(flags)?;
    let header = Header {
        filters: plan.given,
        timeouts: vec![HostTimeout {
            what: Escaped::from("conntrack"),
            netns: 4_026_531_840,
            seconds: 8,
            ..HostTimeout::default()
        }],
        ..header("mq1")
    };
    let judge = Judge::new(MAX_SOCKETS, &header.host_timeouts());
    let mut pipeline = Pipeline::new(Filter::new(plan.records), judge);
    let mut records = Vec::new();
    for mut record in verdict_records() {
        pipeline.push(0, &mut record, |it| records.push(it.clone()));
    }
    Ok((header, records))
}

/// With any flags, a replay shows the same verdicts as the trace. It makes verdicts again
/// if the log has the records for them.
#[test]
fn verdicts_equal_those_of_the_trace() -> TestResult {
    let logs = Logs::new()?;
    let (_, whole) = traced(&[])?;
    let verdicts = whole.iter().filter(|it| it.verdict.is_some()).count();
    assert!(verdicts >= 2, "{whole:?}");
    let traces: &[&[&str]] = &[
        &[],
        &["-e", "all"],
        &["-e", "verdict"],
        &["-e", "verdict,closed"],
        &[
            "-e",
            "probe,answered,timeout,fin_wait2,rst_sent,rst_received,closed",
        ],
        &["-e", "rst_received"],
        &["-c", "5"],
        &["-p", "4242"],
        &["-p", "1"],
    ];
    for flags in traces {
        let (header, records) = traced(flags)?;
        let headers = [header];
        for (format, flag) in [
            (Format::Text, "--format=text"),
            (Format::Json, "--format=json"),
            (Format::Csv, "--format=csv"),
        ] {
            let (live, log) = (logs.path("live"), logs.path("run.jsonl"));
            write(&live, format, NARROW, &headers, &records)?;
            write(&log, Format::Json, NARROW, &headers, &records)?;
            let replayed = logs.shown(&["run.jsonl", flag])?;
            assert_eq!(replayed, fs::read_to_string(live)?, "{flags:?}");
        }
    }
    // This log has no verdicts, but the records for them.
    let (header, records) = traced(traces[4])?;
    write(
        &logs.path("run.jsonl"),
        Format::Json,
        NARROW,
        &[header],
        &records,
    )?;
    let shown = logs.shown(&["run.jsonl", "-e", "verdict", "--json"])?;
    assert_eq!(
        shown.matches("\"event\":\"verdict\"").count(),
        verdicts,
        "{shown}"
    );
    Ok(())
}

/// A log says how many sockets its trace remembered. A replay remembers as many, so it makes
/// the same verdicts.
#[test]
fn verdicts_of_many_sockets_equal_those_of_the_trace() -> TestResult {
    const RESETS: u32 = 10;
    let logs = Logs::new()?;
    let filter = plan(&[])?.records;
    let count = u32::try_from(MAX_SOCKETS.get())? + RESETS;
    let of_socket = |number: u32, mut record: Record| {
        record.sock = Some(u64::from(number) + 1);
        record.endpoints.get_or_insert_default().raddr =
            IpAddr::from((10 << 24 | number).to_be_bytes());
        record
    };
    let probes = (0..count).map(|it| of_socket(it, record(it / 100, 0, EventName::Probe)));
    // Of the sockets that were seen least recently. The verdict depends on their probe.
    let resets = (0..RESETS).map(|it| {
        let mut reset = record(3_000, 0, EventName::RstReceived);
        reset.unsent = Some(false);
        of_socket(it, reset)
    });
    let remembering = |sockets: u32| Header {
        max_sockets: Some(sockets),
        ..header("mq1")
    };
    let judged = |header: &Header| {
        let judge = Judge::new(header.max_sockets(), &header.host_timeouts());
        let mut pipeline = Pipeline::new(Filter::new(filter.clone()), judge);
        let mut records = Vec::new();
        for mut record in probes.clone().chain(resets.clone()) {
            pipeline.push(0, &mut record, |it| records.push(it.clone()));
        }
        records
    };
    let replayed = |header: &Header, records: &[Record]| {
        write(
            &logs.path("log"),
            Format::Json,
            NARROW,
            std::slice::from_ref(header),
            records,
        )?;
        logs.shown(&["log", "-e", "verdict", "--json"])
    };
    let expected = |records: &[Record]| {
        let verdicts = records.iter().filter(|it| it.verdict.is_some());
        let known = |it: &&Record| it.confidence == Some(Confidence::High);
        (verdicts.clone().count(), verdicts.filter(known).count())
    };
    let counts = |shown: &str| {
        let [all, high] = [r#""event":"verdict""#, r#""confidence":"high""#];
        (shown.matches(all).count(), shown.matches(high).count())
    };
    let (many, few) = (remembering(2 * count), remembering(count / 2));
    let all = RESETS as usize;
    for (header, known) in [(many, all), (few, 0)] {
        let records = judged(&header);
        assert_eq!(expected(&records), (all, known));
        assert_eq!(counts(&replayed(&header, &records)?), (all, known));
    }
    Ok(())
}

/// The host's own timeouts change during a trace. A replay judges each record by those of
/// its time, and shows the change itself.
#[test]
fn timeouts_count_from_their_change_on() -> TestResult {
    let netns = 4_026_531_840;
    let conntrack = HostTimeout {
        what: Escaped::from("conntrack"),
        netns,
        seconds: 8,
        ..HostTimeout::default()
    };
    let change = |ms, timeouts| {
        let at = record(ms, 0, EventName::Closed);
        TimeoutsChange {
            time: at.time,
            mono_ns: at.mono_ns,
            host: Some(Escaped::from("mq1")),
            namespaces: vec![NetnsTimeouts {
                netns,
                timeouts,
                routes: None,
            }],
        }
    };
    let mut deaths = verdict_records();
    deaths.retain(|it| it.event == EventName::RstReceived);
    let death = |ms, sock: u16| -> TestResult<Record> {
        let mut death = deaths.first().ok_or("no death")?.clone();
        let at = record(ms, 0, EventName::Closed);
        (death.time, death.mono_ns, death.sock) = (at.time, at.mono_ns, Some(sock.into()));
        death.retransmits = Some(0);
        death.endpoints.get_or_insert_default().rport = sock;
        Ok(death)
    };
    let header = header("mq1");
    let filter = RecordFilter {
        events: EventName::ALL.iter().copied().collect(),
        ..RecordFilter::default()
    };
    let filter = Filter::new(filter);
    let mut pipeline = Pipeline::new(filter, Judge::new(MAX_SOCKETS, &header.host_timeouts()));
    let mut log = vec![serde_json::to_string(&HeaderLine { header })?];
    let steps = [
        (death(910_000, 1)?, change(911_000, vec![conntrack])),
        (death(920_000, 2)?, change(921_000, vec![])),
        (death(930_000, 3)?, change(931_000, vec![])),
    ];
    for (mut death, timeouts) in steps {
        pipeline.push(0, &mut death, |it| {
            // As the sink adds it.
            it.host = Some(Escaped::from("mq1"));
            log.extend(serde_json::to_string(it));
        });
        pipeline.apply(0, &timeouts.namespaces);
        log.push(serde_json::to_string(&TimeoutsLine { timeouts })?);
    }
    let log = log.join("\n") + "\n";
    schema::check_log(&log)?;
    let named = |text: &str| {
        let verdicts = text.lines().filter(|it| it.contains("\"verdict\":"));
        let named = verdicts.map(|it| it.contains("this host's conntrack"));
        named.collect::<Vec<_>>()
    };
    assert_eq!(named(&log), [false, true, false], "{log}");
    let logs = Logs::new()?;
    fs::write(logs.path("a.jsonl"), &log)?;
    assert_eq!(logs.shown(&["a.jsonl", "--json"])?, log);

    // Merged with another, the lines name their hosts. The verdicts stay.
    fs::write(logs.path("b.jsonl"), log.replace("\"mq1\"", "\"mq2\""))?;
    let merged = logs.shown(&["a.jsonl", "b.jsonl", "--json"])?;
    assert_eq!(named(&merged), [false, false, true, true, false, false]);
    let lines: Vec<_> = merged
        .lines()
        .filter(|it| it.contains("{\"timeouts\":"))
        .collect();
    assert_eq!(lines.len(), 6, "{merged}");
    for line in &lines {
        schema::check_line(line)?;
        assert!(line.contains("\"host\":\"mq"), "{line}");
    }
    fs::write(logs.path("merged.jsonl"), &merged)?;
    assert_eq!(logs.shown(&["merged.jsonl", "--json"])?, merged);
    Ok(())
}

#[test]
fn summary_equals_that_of_a_trace() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    let (_, summary) = logs.run(&["run.jsonl"], 0)?;
    assert!(summary.starts_with("kaprobe: 6 records: 3 probe, 1 closed, 1 lost, 1 answered\nkaprobe: 7 sockets seen\nkaprobe: events lost: 12 by tcp_keepalive_timer"), "{summary}");
    assert_eq!(logs.run(&["run.jsonl", "-q"], 0)?.1, "");
    Ok(())
}

/// The summary counts records that pass the filters, per remote endpoint, and shows what
/// the judge has learned by the end of each trace.
#[test]
fn summary_counts_by_remote_endpoint() -> TestResult {
    let logs = Logs::new()?;
    let (header, records) = traced(&[])?;
    let log = logs.path("run.jsonl");
    write(&log, Format::Json, NARROW, &[header], &records)?;
    let rows = |args: &[&str]| -> TestResult<Vec<serde_json::Value>> {
        let json = logs.shown(&[&["--summary", "--json", "-q"], args].concat())?;
        Ok(json
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    };
    let all = rows(&["run.jsonl"])?;
    let [row, total] = all.as_slice() else {
        return Err(format!("not one client address: {all:?}").into());
    };
    assert_eq!(
        (&row["raddr"], &row["lport"]),
        (&"10.0.0.2".into(), &5672.into())
    );
    assert_eq!(row["connections"], 3, "{row}");
    assert_eq!(row["events"]["timeout"], 1, "{row}");
    let verdicts: Vec<_> = (0..2)
        .map(|n| row["verdicts"][n]["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, [Some("peer_unreachable"), Some("idle_eviction")]);
    assert_eq!(row["idle_at_death"][1]["from_ms"], 700_000);
    // The judge's knowledge at the end, which no verdict contains.
    let survived = &row["idle_timeout"];
    assert_eq!(survived["learned_of"], "network", "{all:?}");
    assert_eq!(survived["survived_ms"], 2_794, "{all:?}");
    assert_eq!(survived["believed"], false);
    assert_eq!(total["total"]["lost"], 12);
    let probes = &total["total"]["probes"];
    let [sent, answered, unanswered] =
        ["sent", "answered", "unanswered"].map(|it| probes[it].as_u64().unwrap_or_default());
    assert!(sent > 0 && sent == answered + unanswered, "{total}");
    assert_eq!(row["events"]["probe"], sent, "{row}");
    // With a filter, it is not known which were answered.
    let filtered = rows(&["run.jsonl", "-e", "probe"])?;
    let last = filtered.last().ok_or("no total")?;
    assert!(last["total"].get("probes").is_none(), "{last}");

    // Two traces in one log: sockets with equal numbers are different sockets.
    let once = fs::read_to_string(&log)?;
    fs::write(logs.path("twice.jsonl"), [&*once, &once].concat())?;
    let twice = rows(&["twice.jsonl"])?;
    assert_eq!(twice[0]["connections"], 6, "{twice:?}");
    let filtered = rows(&["run.jsonl", "-D", "40003", "-e", "verdict"])?;
    assert_eq!(filtered.len(), 2, "{filtered:?}");
    assert_eq!(filtered[0]["events"], serde_json::json!({"verdict": 1}));

    let text = logs.shown(&["--summary", "run.jsonl"])?;
    assert!(text.is_ascii(), "not ASCII in a pipe: {text}");
    assert!(text.lines().all(|it| it.len() <= 80), "{text}");
    assert!(text.starts_with("REMOTE  ") && text.contains("#"), "{text}");
    let (_, err) = logs.run(&["--summary", "run.jsonl", "--format", "csv"], 2)?;
    assert!(err.contains("--summary is text or JSON lines"), "{err}");
    let (_, err) = logs.run(&["--summary", "run.jsonl", "-o", "x.csv"], 2)?;
    assert!(err.contains("'--summary' cannot be used with"), "{err}");
    Ok(())
}

#[test]
fn filters_equal_those_of_a_trace() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    // `lost` passes every filter.
    let rows: &[(&[&str], &str)] = &[
        (&[], "probe probe answered probe lost closed"),
        (&["-e", "default"], "probe probe answered probe lost closed"),
        (&["-e", "answered,closed"], "answered lost closed"),
        (&["-P", "443"], "probe lost"),
        (&["-L", "5000-6000"], "probe probe answered lost closed"),
        (&["-D", "1"], "lost"),
        (&["--addr", "10.0.0.2"], "probe probe answered lost closed"),
        (&["--addr", "fd00::/8"], "probe lost"),
        (&["-6"], "probe lost"),
        (&["-4", "-e", "probe"], "probe probe lost"),
        (&["-p", "4242", "-e", "closed"], "lost closed"),
        (&["--comm", "nginx"], "lost"),
        (&["--netns", "7"], "probe lost"),
        (&["--netns", "blue"], "probe lost"),
        (&["--netns", "1,blue"], "probe lost"),
        (&["--netns", "red"], "lost"),
        (&["-c", "2"], "probe probe"),
    ];
    for (flags, events) in rows {
        let args = [&["run.jsonl", "--json"], *flags].concat();
        let log = logs.shown(&args)?;
        let shown = schema::check_log(&log)?;
        let names: Vec<_> = shown.iter().filter_map(|it| it["event"].as_str()).collect();
        assert_eq!(names.join(" "), *events, "{flags:?}");
        let numbers: Vec<_> = shown.iter().filter_map(|it| it["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
    Ok(())
}

/// The header lists a replay's filters, so that missing records are explained.
#[test]
fn header_lists_the_filters_of_replays() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    logs.shown(&["run.jsonl", "-o", "once.jsonl", "-P", "443,5672", "-c", "9"])?;
    logs.shown(&["once.jsonl", "-o", "twice.jsonl", "-e", "probe"])?;
    let log = fs::read_to_string(logs.path("twice.jsonl"))?;
    schema::check_log(&log)?;
    let first: HeaderLine = serde_json::from_str(log.lines().next().unwrap_or_default())?;
    let narrowed: Vec<_> = first.header.narrowed.iter().flatten().collect();
    assert_eq!(
        format!("{narrowed:?}"),
        r#"[("count", ["9"]), ("port", ["443", "5672"]), ("events", ["probe"])]"#
    );
    assert_eq!(first.header.filters, header("").filters);
    Ok(())
}

#[test]
fn logs_of_several_hosts_are_merged() -> TestResult {
    let logs = Logs::new()?;
    let at = |times: &[u32]| -> Vec<Record> {
        let numbered = times.iter().zip(1..);
        numbered
            .map(|(ms, seq)| record(*ms, seq, EventName::Probe))
            .collect()
    };
    logs.log("a.jsonl", "client", &at(&[0, 30, 60]))?;
    logs.log("b.jsonl", "server one", &at(&[10, 30, 40, 70]))?;
    logs.log("c.jsonl", "empty", &[])?;
    let args = ["a.jsonl", "b.jsonl", "c.jsonl", "-q"];
    let text = logs.shown(&args)?;
    let words = |line: &str, at: usize| line.split_ascii_whitespace().nth(at).map(str::to_owned);
    let hosts: Vec<_> = text.lines().filter_map(|line| words(line, 1)).collect();
    let (a, b) = ("client", "server\\x20one");
    assert_eq!(hosts, ["HOST", a, b, a, b, b, a, b], "{text}");

    let relative = logs.shown(&[&args[..], &["--time", "relative", "-H"]].concat())?;
    let times: Vec<_> = relative.lines().filter_map(|line| words(line, 0)).collect();
    let seconds = [0, 10, 30, 30, 40, 60, 70].map(|ms| format!("0.{ms:03}000"));
    assert_eq!(times, seconds);

    let json = logs.shown(&[&args[..], &["--json"]].concat())?;
    let values = json
        .lines()
        .map(schema::check_line)
        .collect::<Result<Vec<_>, _>>()?;
    assert!(values[..3].iter().all(|it| it.get("header").is_some()));
    assert_eq!(values[4]["host"], "server one");
    assert_eq!(values[4]["seq"], 2);

    let csv = logs.shown(&[&args[..], &["--format", "csv"]].concat())?;
    assert!(
        csv.starts_with("time,mono_ns,seq,event,host,sock,"),
        "{csv}"
    );

    // A merged log replays the same.
    fs::write(logs.path("merged.jsonl"), &json)?;
    assert_eq!(logs.shown(&["merged.jsonl", "-q"])?, text);
    assert_eq!(logs.shown(&["merged.jsonl", "-q", "--json"])?, json);
    Ok(())
}

/// A reset that a server sent, and its arrival at the client, each by its own clock.
fn reset(sent_ms: u32, arrived_ms: u32) -> (Record, Record) {
    let mut sent = record(sent_ms, 0, EventName::Closed);
    sent.event = EventName::RstSent;
    sent.state = Some(State::Close);
    sent.direction = Some(Direction::Active);
    sent.reason = Some(Escaped::from("SK_RST_REASON_TCP_ABORT_ON_CLOSE"));
    let mut arrived = record(arrived_ms, 0, EventName::Closed);
    arrived.event = EventName::RstReceived;
    (arrived.probes_out, arrived.unacked) = (Some(0), Some(1));
    arrived.unsent = Some(false);
    arrived.retransmits = Some(0);
    arrived.endpoints = arrived.endpoints.map(|it| {
        let flow = it.flow().reversed();
        Endpoints::new(flow.local(), flow.remote(), it.netns)
    });
    (sent, arrived)
}

/// The sender of a reset is known though the clocks of the hosts differ, either way. Beyond a
/// second it is not, and the text does not ask for a log that it has.
#[test]
fn a_reset_is_joined_though_clocks_differ() -> TestResult {
    let logs = Logs::new()?;
    let log = |name: &str, host: &str, records: &[Record]| {
        let all = Header {
            filters: BTreeMap::new(),
            ..header(host)
        };
        write(&logs.path(name), Format::Json, NARROW, &[all], records)
    };
    let joined = "the other end is on server: ";
    let apart = "the log of server, which has that address, shows no such reset at that time";
    for (sent_ms, text) in [
        (9_000, joined),
        (9_999, joined),
        (10_900, joined),
        (12_000, apart),
    ] {
        let (sent, arrived) = reset(sent_ms, 10_000);
        let busy = |ms| record(ms, 0, EventName::Probe);
        log("client.jsonl", "client", &[arrived, lost(10_001, 0)])?;
        let server = [busy(1), sent, busy(sent_ms + 1)];
        log("server.jsonl", "server", &server)?;
        for order in [
            ["client.jsonl", "server.jsonl"],
            ["server.jsonl", "client.jsonl"],
        ] {
            let shown = logs.shown(&[&order[..], &["-q", "--json"]].concat())?;
            let values: Vec<serde_json::Value> = shown
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            let is_verdict =
                |it: &&serde_json::Value| it["host"] == "client" && it["event"] == "verdict";
            let verdict = values.iter().find(is_verdict).ok_or("no verdict")?;
            let advice = verdict["advice"].as_str().unwrap_or_default();
            assert!(advice.contains(text), "{sent_ms}: {advice}");
            assert!(!advice.contains("see the peer's log"), "{advice}");
            // Each log keeps its order.
            for host in ["client", "server"] {
                let own = values.iter().filter(|it| it["host"] == host);
                let times = own.filter_map(|it| it["mono_ns"].as_u64());
                assert!(times.is_sorted(), "{shown}");
            }
        }
    }
    Ok(())
}

/// What can't be read is reported once everything before it is shown, though it was read
/// ahead.
#[test]
fn an_error_ahead_comes_in_its_turn() -> TestResult {
    let logs = Logs::new()?;
    let all = |host| Header {
        filters: BTreeMap::new(),
        ..header(host)
    };
    let (sent, arrived) = reset(10_500, 10_000);
    let file = |name: &str, host, records: &[Record]| {
        write(
            &logs.path(name),
            Format::Json,
            NARROW,
            &[all(host)],
            records,
        )
    };
    file(
        "client.jsonl",
        "client",
        &[arrived, record(10_600, 0, EventName::Closed)],
    )?;
    file(
        "server.jsonl",
        "server",
        &[record(1, 0, EventName::Probe), sent],
    )?;
    // A compressed log that breaks off.
    let [gzip, _] = compressed(&fs::read_to_string(logs.path("server.jsonl"))?)?;
    fs::write(logs.path("server.jsonl.gz"), &gzip[..gzip.len() - 12])?;
    let (shown, _) = logs.run(&["client.jsonl", "server.jsonl.gz", "-q", "--json"], 1)?;
    assert!(shown.contains("\"host\":\"server\""), "{shown}");
    Ok(())
}

#[test]
fn hosts_with_equal_names_are_distinguished_by_log() -> TestResult {
    let logs = Logs::new()?;
    logs.log("a.jsonl", "web", &records())?;
    // Another host of that name. A log with the same header would be a copy.
    let mut other = header("web");
    other.started.0 += 1;
    let path = logs.path("b.jsonl");
    write(&path, Format::Json, NARROW, &[other], &records())?;
    fs::write(
        logs.path("c.jsonl"),
        serde_json::to_string(&record(1, 1, EventName::Closed))?,
    )?;
    let (json, err) = logs.run(&["a.jsonl", "b.jsonl", "c.jsonl", "--json"], 0)?;
    for host in ["\"web(a.jsonl)\"", "\"web(b.jsonl)\"", "\"c.jsonl\""] {
        assert!(
            json.contains(&format!("\"host\":{host},\"sock\"")),
            "{json}"
        );
    }
    assert!(
        err.contains("c.jsonl:1: a record before any header"),
        "{err}"
    );
    Ok(())
}

#[test]
fn bad_lines_are_reported_by_file_and_line() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("good.jsonl", "mq1", &records())?;
    let headless = log.lines().skip(1).collect::<Vec<_>>().join("\n");
    let newer = log
        .replacen(VERSION, "1.999", 1)
        .replacen("\"seq\"", "\"new\":{},\"seq\"", 1);
    let broken = log.replacen("\"mono_ns\":", "\"mono_ns\":x", 1);
    let major = log.replacen(VERSION, "2.0", 1);
    let twice = [log.as_str(), &log].concat();
    let trailer = log.find("{\"trailer\"").ok_or("no trailer")?;
    let killed = [&log[..trailer - 9], "\n", &log].concat();
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], i32, usize, &str)] = &[
        ("cut", &log.as_bytes()[..trailer - 9], 0, 5, "kaprobe: log:7: the log breaks off in this line, without a trailer: kaprobe was killed, or still writes it\n"),
        ("cut in its trailer", &log.as_bytes()[..log.len() - 9], 0, 6, "kaprobe: log:8: the log breaks off in this line, without a trailer: kaprobe was killed, or still writes it\n"),
        ("killed", killed.as_bytes(), 0, 11, "kaprobe: log:7: the log breaks off in this line, without a trailer: kaprobe was killed, or still writes it\nkaprobe: log:8: another trace follows in the same log, of host mq1\n"),
        ("no line end", log.trim_end().as_bytes(), 0, 6, ""),
        ("newer", newer.as_bytes(), 0, 6, "kaprobe: log:2: unknown field new left out\n"),
        ("broken", broken.as_bytes(), 1, 5, "kaprobe: log:2: skipped, not a record: column 52: expected value\n"),
        ("counted", broken.as_bytes(), 1, 5, "kaprobe: 1 line skipped: not a record\n"),
        ("no header", headless.as_bytes(), 0, 6, "kaprobe: log:1: a record before any header: its host and filters are unknown\n"),
        ("appended", twice.as_bytes(), 0, 12, "kaprobe: log:9: another trace follows in the same log, of host mq1\n"),
        ("empty", b"", 0, 0, "kaprobe: log:1: the log is empty\n"),
        ("text", b"one\ntwo\n", 1, 0, "kaprobe: log: not a log of kaprobe: text\n"),
        ("no log", b"\x7fELF\x02\x01\n\xff\xfe\n", 1, 0, "kaprobe: log: not a log of kaprobe: an ELF binary\n"),
        ("another major", major.as_bytes(), 1, 0, "kaprobe: log:1: log format 2.0, this kaprobe reads "),
    ];
    for (what, log, code, shown, message) in rows {
        fs::write(logs.path("log"), log)?;
        let (text, err) = logs.run(&["log", "-H"], *code)?;
        assert_eq!(text.lines().count(), *shown, "{what}: {text}");
        assert!(err.contains(message), "{what}: {err}");
    }
    // A replay that fails at the start leaves no file.
    fs::write(logs.path("log"), major)?;
    logs.run(&["log", "-o", "out.csv"], 1)?;
    assert!(!logs.path("out.csv").exists());

    fs::write(logs.path("log"), twice)?;
    assert_eq!(
        logs.shown(&["log", "--json"])?
            .matches("{\"header\":")
            .count(),
        2
    );
    Ok(())
}

/// The text as gzip and as zstd, in two parts each, as appended logs are.
fn compressed(text: &str) -> io::Result<[Vec<u8>; 2]> {
    let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
    let (one, two) = text.split_at(text.len() / 2);
    for part in [one, two] {
        let mut encoder = GzEncoder::new(gzip, Compression::fast());
        encoder.write_all(part.as_bytes())?;
        gzip = encoder.finish()?;
        zstd.extend(compress_to_vec(part.as_bytes(), CompressionLevel::Fastest));
    }
    Ok([gzip, zstd])
}

/// A compressed log is read whatever its name, also from standard input. One that is cut off
/// is shown as far as it goes, and is an error.
#[test]
fn compressed_logs_are_read() -> TestResult {
    let logs = Logs::new()?;
    let many: Vec<_> = std::iter::repeat_n(records(), 500).flatten().collect();
    let log = logs.log("run.jsonl", "mq1", &many)?;
    let text = logs.shown(&["run.jsonl", "-q"])?;
    for (bytes, name) in compressed(&log)?.iter().zip(["run.jsonl.gz", "anything"]) {
        fs::write(logs.path(name), bytes)?;
        assert_eq!(logs.shown(&[name, "-q"])?, text, "{name}");
        let file = File::open(logs.path(name))?;
        let piped = logs.replay(&["-", "-q"]).stdin(file).output()?;
        assert_eq!(texts(&piped, 0)?.0, text, "{name}");

        fs::write(logs.path("cut"), &bytes[..bytes.len() - 9])?;
        let (shown, err) = logs.run(&["cut", "-q"], 1)?;
        assert!(!shown.is_empty() && text.starts_with(&shown), "{name}");
        assert!(err.contains("kaprobe: cannot read cut: "), "{name}: {err}");
        assert!(err.lines().count() <= 2, "{name}: {err}");
    }
    Ok(())
}

/// A log that is given twice, by whatever name, is read once.
#[test]
fn a_log_is_read_once() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    std::os::unix::fs::symlink("run.jsonl", logs.path("link.jsonl"))?;
    fs::hard_link(logs.path("run.jsonl"), logs.path("hard.jsonl"))?;
    let (once, _) = logs.run(&["run.jsonl"], 0)?;
    for (also, name) in [
        ("run.jsonl", "run.jsonl"),
        ("./run.jsonl", "./run.jsonl"),
        ("link.jsonl", "link.jsonl"),
        ("hard.jsonl", "hard.jsonl"),
    ] {
        let (shown, err) = logs.run(&["run.jsonl", also], 0)?;
        assert_eq!(shown, once, "{also}");
        let note = format!("kaprobe: {name}: the same file as run.jsonl: read once\n");
        assert!(err.starts_with(&note), "{err}");
    }
    let file = File::open(logs.path("run.jsonl"))?;
    let piped = logs.replay(&["run.jsonl", "-"]).stdin(file).output()?;
    let (shown, err) = texts(&piped, 0)?;
    assert_eq!(shown, once);
    assert!(
        err.contains("standard input: the same file as run.jsonl"),
        "{err}"
    );
    Ok(())
}

/// An audit must not pass because a log could not tell its timeouts.
#[test]
fn an_audit_fails_without_its_logs() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("run.jsonl", "mq1", &records())?;
    let [gzip, _] = compressed(&log)?;
    let foreign: &[(&str, &[u8], &str)] = &[
        (
            "csv",
            b"a,b,c,d\n1,2,3,4\n",
            "log: not a log of kaprobe: a CSV file",
        ),
        ("text", b"one\ntwo\n", "log: not a log of kaprobe: text"),
        ("empty", b"", "log: not a log of kaprobe: empty"),
        ("blank", b"\n\n", "log: not a log of kaprobe: empty"),
        ("json", b"{\"a\":1}\n", "log: not a log of kaprobe: JSON"),
        ("cut gzip", &gzip[..gzip.len() - 9], "cannot read log: "),
        (
            "another major",
            br#"{"header":{"version":"2.0"}}"#,
            "log:1: log format 2.0",
        ),
    ];
    let audit = |log: &str| -> TestResult<(String, String)> {
        let mut audit = Command::new(env!("CARGO_BIN_EXE_kaprobe"));
        audit
            .args(["audit", "--log", log])
            .current_dir(logs.0.path());
        texts(&audit.output()?, 1)
    };
    for (what, bytes, message) in foreign {
        fs::write(logs.path("log"), bytes)?;
        let (shown, err) = audit("log")?;
        assert!(shown.is_empty(), "{what}: {shown}");
        assert!(
            err.lines()
                .any(|it| it.starts_with(&format!("kaprobe: {message}"))),
            "{what}: {err}"
        );
    }
    let (_, err) = audit(".")?;
    assert!(
        err.contains(".: a folder without segments of kaprobe record"),
        "{err}"
    );
    Ok(())
}

#[test]
fn an_impossible_replay_is_one_line_of_error() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("run.jsonl", "mq1", &records())?;
    std::os::unix::fs::symlink("run.jsonl", logs.path("link.jsonl"))?;
    let rows: &[(&[&str], i32, &str)] = &[
        (&[], 2, "required arguments were not provided: <LOG>"),
        (&["none.jsonl"], 1, "cannot read none.jsonl: No such file"),
        (
            &["run.jsonl", "none\u{1b}[2J.jsonl"],
            1,
            "cannot read none\\u{1b}[2J.jsonl: No such file",
        ),
        (&["."], 1, ".: a folder without segments of kaprobe record"),
        (&["-", "-"], 2, "standard input can be read only once"),
        (
            &["run.jsonl", "--netns", "pid:1"],
            2,
            "--netns pid:1: a log knows a network namespace by its inode number and its name only",
        ),
        (
            &["run.jsonl", "--cgroup", "/x"],
            2,
            "unexpected argument '--cgroup'",
        ),
        (
            &["run.jsonl", "-o", "run.jsonl"],
            1,
            "cannot write run.jsonl: it exists",
        ),
        (
            &["run.jsonl", "-o", "link.jsonl", "--force"],
            2,
            "--output run.jsonl: is also a log to read",
        ),
    ];
    for (args, code, message) in rows {
        let (shown, err) = logs.run(args, *code)?;
        assert!(shown.is_empty(), "{args:?}: {shown}");
        assert!(
            err.starts_with("kaprobe: ") && err.contains(message),
            "{args:?}: {err}"
        );
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    }
    assert_eq!(fs::read_to_string(logs.path("run.jsonl"))?, log);
    Ok(())
}

#[test]
fn a_closed_stdout_is_not_a_failure() -> TestResult {
    let logs = Logs::new()?;
    let many: Vec<_> = std::iter::repeat_n(records(), 2_000).flatten().collect();
    logs.log("run.jsonl", "mq1", &many)?;
    let mut child = logs
        .replay(&["run.jsonl", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    assert_eq!(texts(&output, 0)?.1, "");
    Ok(())
}

/// The peak resident memory of a process, kB.
fn peak(child: &Child) -> TestResult<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let peak = line.and_then(|it| it.split_ascii_whitespace().next());
    Ok(peak.ok_or("no VmHWM")?.parse()?)
}

/// Writes a log with a number of records, and keeps it open until signalled.
fn feed(
    path: impl AsRef<OsStr>,
    host: &str,
    count: u32,
    end: &std::sync::mpsc::Receiver<()>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(fs::OpenOptions::new().write(true).open(path.as_ref())?);
    writeln!(
        out,
        "{}",
        serde_json::to_string(&HeaderLine {
            header: header(host)
        })?
    )?;
    for n in 0..count {
        let ns = u64::from(n) * 1_000;
        let time = WallTime(WALL_NS.saturating_add_unsigned(ns));
        // Each record has its own socket, process and address.
        write!(
            out,
            r#"{{"time":"{time}","mono_ns":{ns},"seq":{n},"event":"closed","sock":{n},"pid":{n},"comm":"c{n}","#
        )?;
        write!(
            out,
            r#""family":"inet","laddr":"10.0.{}.{}","lport":{},"raddr":"10.0.0.1","rport":1,"#,
            n / 256 % 256,
            n % 256,
            n % 65536,
        )?;
        writeln!(out, r#""netns":1,"cookie":{n},"new{}":1}}"#, n % 500)?;
    }
    out.flush()?;
    // The sender is dropped as the signal, so an error is normal.
    let _ended = end.recv();
    Ok(())
}

/// The peak memory of a replay of two logs, once it has shown `count` records.
fn memory_of(count: u32) -> TestResult<u64> {
    let logs = Logs::new()?;
    let mut feeders = Vec::new();
    for host in ["a", "b"] {
        let path = logs.path(host);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
        let (end, ended) = std::sync::mpsc::channel();
        let feeder = thread::spawn(move || feed(path, host, count / 2, &ended));
        feeders.push((end, feeder));
    }
    let mut child = logs
        .replay(&["a", "b", "-H", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut shown = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    // The last record waits until the other log ends.
    let mut line = Vec::new();
    for _ in 1..count {
        line.clear();
        shown.read_until(b'\n', &mut line)?;
    }
    let peak = peak(&child)?;
    let (ends, feeders): (Vec<_>, Vec<_>) = feeders.into_iter().unzip();
    drop(ends);
    for feeder in feeders {
        feeder.join().map_err(|_| "a feeder panicked")??;
    }
    io::copy(&mut shown, &mut io::sink())?;
    assert!(child.wait()?.success());
    Ok(peak)
}

#[test]
fn memory_is_independent_of_log_size() -> TestResult {
    let (few, many) = (memory_of(10_000)?, memory_of(1_000_000)?);
    println!("peak memory: {few} kB of 10,000 records, {many} kB of 1,000,000");
    assert!(many < few + 1_024, "{few} kB, then {many} kB");
    Ok(())
}

/// The peak memory of a replay of this log by standard input, kB, once it has read all of it.
fn memory_of_hostile(args: &[&str], lines: impl Iterator<Item = String>) -> TestResult<u64> {
    let logs = Logs::new()?;
    logs.log("other.jsonl", "other", &[])?;
    let mut child = logs
        .replay(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut log = io::BufWriter::new(child.stdin.take().ok_or("no stdin")?);
    for line in lines {
        log.write_all(line.as_bytes())?;
        log.write_all(b"\n")?;
    }
    log.flush()?;
    let peak = peak(&child)?;
    drop(log);
    child.wait()?;
    Ok(peak)
}

/// Headers and texts of any number and length do not fill the memory.
#[test]
fn a_hostile_log_does_not_fill_memory() -> TestResult {
    let long = |len: usize, n: usize| format!("{n}{}", "x".repeat(len));
    let one = serde_json::to_string(&HeaderLine {
        header: header("web"),
    })?;
    let headers = (0..60).map(|n| {
        let mut header = header("web");
        header
            .filters
            .insert("x".to_owned(), vec![long(1_000_000, n)]);
        serde_json::to_string(&HeaderLine { header }).unwrap_or_default()
    });
    // Each is about a connection of its own, and several headers make a merged log.
    let verdict = |n: usize, len: usize| {
        let record = serde_json::to_value(record(0, 0, EventName::Verdict));
        let mut fields = record.unwrap_or_default();
        fields["verdict"] = "peer_unreachable".into();
        fields["lport"] = (n % 65_536).into();
        fields["host"] = long(len, n).into();
        fields.to_string()
    };
    let head = || std::iter::repeat_n(one.clone(), 2);
    let names = head().chain((0..4_000).map(|n| verdict(n, 16_000)));
    let long_names = head().chain((0..60).map(|n| verdict(n, 1_000_000)));
    let args = ["-", "other.jsonl", "-q"];
    for (what, peak) in [
        ("headers", memory_of_hostile(&args, headers)?),
        ("names", memory_of_hostile(&args, names)?),
        ("long names", memory_of_hostile(&args, long_names.clone())?),
        (
            "summary",
            memory_of_hostile(&[&args[..], &["--summary"]].concat(), long_names)?,
        ),
    ] {
        println!("{what}: {peak} kB");
        assert!(peak < 50_000, "{what}: {peak} kB");
    }
    Ok(())
}
