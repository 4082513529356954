//! `kaprobe replay`: what a log recorded is what is shown, without any privilege.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use kaprobe::cli;
use kaprobe::correlate::MAX_SOCKETS;
use kaprobe::filter::Filter;
use kaprobe::model::header::VERSION;
use kaprobe::model::header::{Header, HeaderLine, HostTimeout};
use kaprobe::model::record::{EventName, Record};
use kaprobe::model::socket::Endpoints;
use kaprobe::model::time::Instant;
use kaprobe::model::time::WallTime;
use kaprobe::model::values::{Cause, Hook, LostWhy, Origin, State};
use kaprobe::sink::options::{Format, TextStyle, TimeFormat};
use kaprobe::sink::{self, Head};
use kaprobe::text::escape::Escaped;
use kaprobe::trace::plan::TracePlan;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_testkit::fixtures::{NARROW, WALL_NS, header};
use kaprobe_testkit::schema;
use tempfile::TempDir;

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// A record of a socket, so many ms after the start.
fn record(ms: u32, seq: u64, event: EventName) -> Record {
    let ns = u64::from(ms) * 1_000_000;
    let at = Instant {
        mono_ns: 1_000_000_000_000 + ns,
        wall_ns: WALL_NS.saturating_add_unsigned(ns),
    };
    let [here, there] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
    let mut record = Record::new(at, event);
    record.seq = seq;
    record.sock = Some(seq % 7 + 1);
    record.process.pid = Some(4242);
    record.process.comm = Some(Escaped::from_bytes(b"be\x1bam \xff"));
    record.endpoints = Some(Endpoints::new((here, 5672), (there, 40_000), 4_026_531_840));
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
    let like = record(ms, seq, EventName::Lost);
    let mut lost = Record {
        time: like.time,
        mono_ns: like.mono_ns,
        seq,
        event: EventName::Lost,
        ..Record::default()
    };
    lost.hook = Some(Hook::KeepaliveTimer);
    lost.lost_why = Some(LostWhy::RingBuffer);
    lost.lost = Some(12);
    lost
}

/// Records as a trace makes them: an answer is told late, and happened before. An
/// IPv6 socket without an owner is among them.
fn records() -> Vec<Record> {
    let mut v6 = record(30, 4, EventName::Probe);
    let [here, there] = [1, 2].map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]));
    v6.endpoints = Some(Endpoints::new((here, 443), (there, 40_000), 7));
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

/// What a trace writes of these.
fn write(
    path: &Path,
    format: Format,
    style: TextStyle,
    headers: &[Header],
    of: &[Record],
) -> TestResult {
    let mut sink = sink::to(File::create(path)?, format, style, false);
    sink.head(&Head {
        headers,
        hosts: false,
    })?;
    of.iter().try_for_each(|record| sink.record(record))?;
    Ok(sink.flush()?)
}

/// A folder with logs, and kaprobe run in it.
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

    /// Standard output and standard error of a replay that ends with this code.
    fn told(&self, args: &[&str], code: i32) -> TestResult<(String, String)> {
        told(&self.replay(args).stdin(Stdio::null()).output()?, code)
    }

    /// Standard output of a replay that goes well.
    fn shown(&self, args: &[&str]) -> TestResult<String> {
        Ok(self.told(args, 0)?.0)
    }
}

fn told(output: &Output, code: i32) -> TestResult<(String, String)> {
    let (out, err) = (
        String::from_utf8(output.stdout.clone())?,
        String::from_utf8(output.stderr.clone())?,
    );
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    Ok((out, err))
}

#[test]
fn a_replay_is_what_the_trace_was() -> TestResult {
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
    assert_eq!(told(&piped, 0)?.0, log);
    Ok(())
}

/// Records that verdicts rest on: a connection that outlives an idle time, one that a
/// longer one kills, one whose peer is gone, and a reset that nobody asked for.
fn ends() -> Vec<Record> {
    let of = |sock, mut record: Record| {
        record.sock = Some(sock);
        record.endpoints.get_or_insert_default().rport =
            40_000 + u16::try_from(sock).unwrap_or_default();
        record
    };
    let mut received = of(2, record(910_000, 0, EventName::Closed));
    received.event = EventName::RstReceived;
    received.ages.idle_ms = Some(905_000);
    (received.ages.lastrcv_ms, received.ages.lastack_ms) = (Some(905_000), Some(905_000));
    (received.ages.lastsnd_ms, received.unacked) = (Some(200), Some(1));
    received.unsent = Some(false);
    let mut timeout = of(3, record(920_000, 0, EventName::Timeout));
    (timeout.probe, timeout.next_ms) = (None, None);
    timeout.cause = Some(Cause::ProbeCount);
    let mut answered = of(1, record(903_004, 0, EventName::Answered));
    answered.answered_after_ms = Some(3);
    vec![
        of(1, record(900_000, 0, EventName::Probe)),
        of(3, record(901_000, 0, EventName::Probe)),
        of(1, record(903_000, 0, EventName::Early)),
        answered,
        lost(904_000, 0),
        received.clone(),
        of(2, record(910_001, 0, EventName::Closed)),
        timeout,
        of(3, record(920_001, 0, EventName::Closed)),
    ]
}

/// The records of a trace to which these flags were given, and the header of its log.
fn traced(flags: &[&str]) -> TestResult<(Header, Vec<Record>)> {
    let words = ["kaprobe", "trace"].iter().chain(flags);
    let cli::Action::Run(cli::Command::Trace(args)) = cli::parse(words)? else {
        return Err("no trace".into());
    };
    let plan = TracePlan::new(*args)?;
    let header = Header {
        filters: plan.given,
        timeouts: vec![HostTimeout {
            what: Escaped::from("ipvs"),
            netns: 4_026_531_840,
            seconds: 900,
        }],
        ..header("mq1")
    };
    let judge = Judge::new(MAX_SOCKETS, &header.timeouts);
    let mut pipeline = Pipeline::new(Filter::new(plan.records), judge);
    let mut records = Vec::new();
    for mut record in ends() {
        pipeline.push(0, &mut record, |it| records.push(it.clone()));
    }
    Ok((header, records))
}

/// Whatever was asked for: verdicts are made anew where the log has what they rest on,
/// and are those that were made.
#[test]
fn verdicts_are_those_of_the_trace() -> TestResult {
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
    // A log made without them has what they rest on.
    let (header, records) = traced(traces[4])?;
    write(
        &logs.path("run.jsonl"),
        Format::Json,
        NARROW,
        &[header],
        &records,
    )?;
    let anew = logs.shown(&["run.jsonl", "-e", "verdict", "--json"])?;
    assert_eq!(anew.matches("\"verdict\":").count(), verdicts, "{anew}");
    Ok(())
}

#[test]
fn the_summary_is_that_of_a_trace() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    let (_, summary) = logs.told(&["run.jsonl"], 0)?;
    assert!(summary.starts_with("kaprobe: 6 records: 3 probe, 1 closed, 1 lost, 1 answered\nkaprobe: 7 sockets seen\nkaprobe: events lost: 12 by tcp_keepalive_timer"), "{summary}");
    assert_eq!(logs.told(&["run.jsonl", "-q"], 0)?.1, "");
    Ok(())
}

/// By remote endpoint, of what passes the filters; with what was learned to the end of
/// each trace in the log.
#[test]
fn a_summary_counts_by_remote_endpoint() -> TestResult {
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
    let of = |rows: &[serde_json::Value], port: u16| -> serde_json::Value {
        let row = rows.iter().find(|it| it["rport"] == port);
        row.cloned().unwrap_or_default()
    };
    let all = rows(&["run.jsonl"])?;
    assert_eq!(all.len(), 4, "{all:?}");
    let evicted = of(&all, 40_002);
    assert_eq!(evicted["connections"], 1, "{evicted}");
    assert_eq!(evicted["verdicts"][0]["verdict"], "idle_eviction");
    assert_eq!(evicted["idle_at_death"][0]["from_ms"], 700_000);
    let given_up = of(&all, 40_003);
    assert_eq!(given_up["events"]["timeout"], 1, "{given_up}");
    assert_eq!(given_up["verdicts"][0]["verdict"], "peer_unreachable");
    // What no verdict has told: what the judge knows in the end.
    let survived = &given_up["idle_timeout"];
    assert_eq!(survived["learned_of"], "endpoint", "{all:?}");
    assert_eq!(survived["survived_ms"], 2_794, "{all:?}");
    assert_eq!(survived["believed"], false);
    assert_eq!(all[3]["total"]["lost"], 12);

    // Two traces in one log: each socket is another one.
    let once = fs::read_to_string(&log)?;
    fs::write(logs.path("twice.jsonl"), [&*once, &once].concat())?;
    let twice = rows(&["twice.jsonl"])?;
    assert_eq!(of(&twice, 40_002)["connections"], 2, "{twice:?}");
    let filtered = rows(&["run.jsonl", "-D", "40003", "-e", "verdict"])?;
    assert_eq!(filtered.len(), 2, "{filtered:?}");
    assert_eq!(filtered[0]["events"], serde_json::json!({"verdict": 1}));

    let text = logs.shown(&["--summary", "run.jsonl"])?;
    assert!(text.is_ascii(), "a pipe may end up anywhere: {text}");
    assert!(text.lines().all(|it| it.len() <= 80), "{text}");
    assert!(text.starts_with("REMOTE  ") && text.contains("#"), "{text}");
    let (_, said) = logs.told(&["--summary", "run.jsonl", "--format", "csv"], 2)?;
    assert!(said.contains("--summary is text or JSON lines"), "{said}");
    let (_, said) = logs.told(&["--summary", "run.jsonl", "-o", "x.csv"], 2)?;
    assert!(said.contains("'--summary' cannot be used with"), "{said}");
    Ok(())
}

#[test]
fn filters_are_those_of_a_trace() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    // `lost` passes whatever is asked for.
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

/// What a replay left out must not look as if it had not happened.
#[test]
fn the_header_tells_what_a_replay_left_out() -> TestResult {
    let logs = Logs::new()?;
    logs.log("run.jsonl", "mq1", &records())?;
    logs.shown(&["run.jsonl", "-o", "once.jsonl", "-P", "443,5672", "-c", "9"])?;
    logs.shown(&["once.jsonl", "-o", "twice.jsonl", "-e", "probe"])?;
    let log = fs::read_to_string(logs.path("twice.jsonl"))?;
    schema::check_log(&log)?;
    let first: HeaderLine = serde_json::from_str(log.lines().next().unwrap_or_default())?;
    let told: Vec<_> = first.header.narrowed.iter().flatten().collect();
    assert_eq!(
        format!("{told:?}"),
        r#"[("count", ["9"]), ("port", ["443", "5672"]), ("events", ["probe"])]"#
    );
    assert_eq!(first.header.filters, header("").filters);
    Ok(())
}

#[test]
fn logs_of_several_hosts_are_one_story() -> TestResult {
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

    // What was merged stays merged.
    fs::write(logs.path("merged.jsonl"), &json)?;
    assert_eq!(logs.shown(&["merged.jsonl", "-q"])?, text);
    assert_eq!(logs.shown(&["merged.jsonl", "-q", "--json"])?, json);
    Ok(())
}

#[test]
fn hosts_of_one_name_are_told_apart_by_their_logs() -> TestResult {
    let logs = Logs::new()?;
    logs.log("a.jsonl", "web", &records())?;
    logs.log("b.jsonl", "web", &records())?;
    fs::write(
        logs.path("c.jsonl"),
        serde_json::to_string(&record(1, 1, EventName::Closed))?,
    )?;
    let (json, told) = logs.told(&["a.jsonl", "b.jsonl", "c.jsonl", "--json"], 0)?;
    for host in ["\"web(a.jsonl)\"", "\"web(b.jsonl)\"", "\"c.jsonl\""] {
        assert!(
            json.contains(&format!("\"host\":{host},\"sock\"")),
            "{json}"
        );
    }
    assert!(
        told.contains("c.jsonl:1: a record before any header"),
        "{told}"
    );
    Ok(())
}

#[test]
fn what_is_odd_is_named_by_file_and_line() -> TestResult {
    let logs = Logs::new()?;
    let log = logs.log("good.jsonl", "mq1", &records())?;
    let headless = log.lines().skip(1).collect::<Vec<_>>().join("\n");
    let newer = log
        .replacen(VERSION, "1.999", 1)
        .replacen("\"seq\"", "\"new\":{},\"seq\"", 1);
    let broken = log.replacen("\"mono_ns\":", "\"mono_ns\":x", 1);
    let major = log.replacen(VERSION, "2.0", 1);
    let twice = [log.as_str(), &log].concat();
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], i32, usize, &str)] = &[
        ("cut", &log.as_bytes()[..log.len() - 9], 0, 5, "kaprobe: log:7: the log breaks off in this line: read up to it\n"),
        ("no line end", log.trim_end().as_bytes(), 0, 6, ""),
        ("newer", newer.as_bytes(), 0, 6, "kaprobe: log:2: unknown field new left out\n"),
        ("broken", broken.as_bytes(), 1, 5, "kaprobe: log:2: skipped, not a record: column 52: expected value\n"),
        ("counted", broken.as_bytes(), 1, 5, "kaprobe: 1 line skipped: not a record\n"),
        ("no header", headless.as_bytes(), 0, 6, "kaprobe: log:1: a record before any header: its host and filters are unknown\n"),
        ("appended", twice.as_bytes(), 0, 12, "kaprobe: log:8: another trace follows in the same log, of host mq1\n"),
        ("empty", b"", 0, 0, "kaprobe: log:1: the log is empty\n"),
        ("no log", b"\x7fELF\x02\x01\n\xff\xfe\n", 1, 0, "kaprobe: 2 lines skipped: not records\n"),
        ("another major", major.as_bytes(), 1, 0, "kaprobe: log:1: log format 2.0, this kaprobe reads "),
    ];
    for (what, log, code, shown, said) in rows {
        fs::write(logs.path("log"), log)?;
        let (text, told) = logs.told(&["log", "-H"], *code)?;
        assert_eq!(text.lines().count(), *shown, "{what}: {text}");
        assert!(told.contains(said), "{what}: {told}");
    }
    // Nothing is left behind by what fails before it starts.
    fs::write(logs.path("log"), major)?;
    logs.told(&["log", "-o", "out.csv"], 1)?;
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

#[test]
fn what_can_not_be_is_one_line() -> TestResult {
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
        (&["."], 1, "cannot read .: Is a directory"),
        (&["-", "-"], 2, "standard input can be read only once"),
        (
            &["run.jsonl", "--netns", "pid:1"],
            2,
            "--netns pid:1: a log knows a network namespace by its inode number only",
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
    for (args, code, said) in rows {
        let (shown, told) = logs.told(args, *code)?;
        assert!(shown.is_empty(), "{args:?}: {shown}");
        assert!(
            told.starts_with("kaprobe: ") && told.contains(said),
            "{args:?}: {told}"
        );
        assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
    }
    assert_eq!(fs::read_to_string(logs.path("run.jsonl"))?, log);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_failure() -> TestResult {
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
    assert_eq!(told(&output, 0)?.1, "");
    Ok(())
}

/// Peak memory of a process, kB.
fn peak(child: &Child) -> TestResult<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let peak = line.and_then(|it| it.split_ascii_whitespace().next());
    Ok(peak.ok_or("no VmHWM")?.parse()?)
}

/// Feeds a log of so many records, and keeps it open until told.
fn feed(
    into: impl AsRef<OsStr>,
    host: &str,
    count: u32,
    end: &std::sync::mpsc::Receiver<()>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(fs::OpenOptions::new().write(true).open(into.as_ref())?);
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
        // Each of another socket, of another process, of other ends.
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
    // Whoever waits may have gone.
    let _ended = end.recv();
    Ok(())
}

/// Peak memory of a replay of two logs with so many records between them, once it
/// has shown them all.
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
    // Of the last records of one log, as many as the other has left wait for its end.
    let mut line = Vec::new();
    for _ in 1..count {
        line.clear();
        shown.read_until(b'\n', &mut line)?;
    }
    let peak = peak(&child)?;
    let (ends, feeders): (Vec<_>, Vec<_>) = feeders.into_iter().unzip();
    drop(ends);
    for feeder in feeders {
        feeder.join().map_err(|_| "a feeder died")??;
    }
    io::copy(&mut shown, &mut io::sink())?;
    assert!(child.wait()?.success());
    Ok(peak)
}

#[test]
fn memory_does_not_grow_with_the_logs() -> TestResult {
    let (few, many) = (memory_of(10_000)?, memory_of(1_000_000)?);
    println!("peak memory: {few} kB of 10,000 records, {many} kB of 1,000,000");
    assert!(many < few + 1_024, "{few} kB, then {many} kB");
    Ok(())
}
