//! `kaprobe report`: the file that it writes, as a parser of HTML reads it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use html5ever::tendril::TendrilSink as _;
use html5ever::{ParseOpts, parse_document};
use kaprobe::model::header::{Filters, Header};
use kaprobe::model::host_timeout::HostTimeout;
use kaprobe::model::named::Named as _;
use kaprobe::model::record::{EventName, Record};
use kaprobe::model::remedy::SetIn;
use kaprobe::model::socket::{Ages, Endpoints};
use kaprobe::model::time::{Instant, WallTime};
use kaprobe::model::values::{Confidence, Hook, LostWhy, State, VerdictName};
use kaprobe::sink::options::Format;
use kaprobe::sink::{self, Head};
use kaprobe::text::escape::Escaped;
use kaprobe_testkit::fixtures::{NARROW, WALL_NS, header};
use markup5ever_rcdom::{Handle, NodeData, RcDom};

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// The attributes that the template writes.
const ATTRIBUTES: &str = "aria-describedby aria-hidden aria-labelledby charset class content d height href \
    http-equiv id lang name points r role scope style text-anchor viewbox viewBox width x y";

/// What a report may not have, in whatever place.
const ELEMENTS: &str = "article b body caption circle code defs desc details div figcaption \
    figure footer h1 h2 h3 head header html li main meta p path pre rect section span style \
    summary svg table tbody td text th thead title tr ul use";

/// Texts that mean something in HTML, in SVG, in a shell, or on a terminal.
const HOSTILE: [&str; 10] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onload='alert(1)",
    "]]><svg onload=alert(1)>",
    "&lt;b&gt;&#60;i&#62;&amp",
    "</title></style></svg></td></table><h1>",
    "{{ title }}{% include \"x\" %}",
    "a\u{202e}b\u{200b}c\u{feff}",
    "a\nb\0c\u{1b}[2J\u{85}",
    "`$(reboot)`; reboot \\",
];

/// What a parser makes of a report.
#[derive(Default)]
struct Parsed {
    elements: BTreeSet<String>,
    /// Names and values of attributes.
    attributes: BTreeSet<(String, String)>,
    /// All text besides the style sheet.
    text: String,
    /// The texts of code blocks, which readers copy.
    code: Vec<String>,
}

impl Parsed {
    fn new(page: &str) -> TestResult<Self> {
        let dom = parse_document(RcDom::default(), ParseOpts::default()).one(page);
        let errors = dom.errors.borrow();
        assert!(errors.is_empty(), "{errors:?}");
        let mut parsed = Self::default();
        parsed.walk(&dom.document);
        Ok(parsed)
    }

    fn walk(&mut self, node: &Handle) {
        let mut is_code = false;
        match &node.data {
            NodeData::Element { name, attrs, .. } => {
                let name = name.local.to_string();
                for it in attrs.borrow().iter() {
                    let pair = (it.name.local.to_string(), it.value.to_string());
                    self.attributes.insert(pair);
                }
                is_code = name == "pre";
                let is_style = name == "style";
                self.elements.insert(name);
                if is_style {
                    return;
                }
            }
            NodeData::Text { contents } => self.text.push_str(&contents.borrow()),
            NodeData::Comment { contents } => panic_on_comment(contents),
            _ => {}
        }
        let before = self.text.len();
        node.children.borrow().iter().for_each(|it| self.walk(it));
        if is_code {
            self.code.push(self.text[before..].to_owned());
        }
    }

    /// Checks that the page has nothing that the template does not write.
    fn check(&self) {
        let elements: BTreeSet<_> = ELEMENTS.split_whitespace().collect();
        let attributes: BTreeSet<_> = ATTRIBUTES.split_whitespace().collect();
        for it in &self.elements {
            assert!(elements.contains(it.as_str()), "<{it}>");
        }
        for (name, value) in &self.attributes {
            assert!(attributes.contains(name.as_str()), "{name}={value}");
            let is_own = value.chars().all(|it| matches!(it, ' '..='~' | '→'));
            assert!(is_own, "{name}={value:?}");
            match name.as_str() {
                "href" => assert!(value.starts_with('#'), "{value}"),
                "style" => assert_eq!(value, "position:absolute"),
                _ => {}
            }
        }
        let is_visible =
            |it: char| it == '\n' || it.escape_debug().count() == 1 || "'\"\\".contains(it);
        let hidden: String = self.text.chars().filter(|it| !is_visible(*it)).collect();
        assert_eq!(hidden, "", "in the text");
    }
}

fn panic_on_comment(contents: &str) {
    assert!(contents.is_empty(), "a comment: {contents}");
}

/// A folder in which kaprobe runs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> TestResult<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Writes a log without a trailer.
    fn log(&self, name: &str, header: Header, records: &[Record]) -> TestResult {
        let file = File::create(self.0.path().join(name))?;
        let mut sink = sink::to(file, Format::Json, NARROW, false);
        sink.head(&Head::from(&header))?;
        for record in records {
            sink.record(record)?;
        }
        Ok(sink.flush()?)
    }

    fn report(&self, arguments: &[&str]) -> TestResult<Output> {
        let kaprobe = env!("CARGO_BIN_EXE_kaprobe");
        let mut command = Command::new(kaprobe);
        command.arg("report").args(arguments).env("TZ", "UTC");
        let run = command.current_dir(self.0.path()).stdin(Stdio::null());
        Ok(run.output()?)
    }

    /// A report that is made without fault.
    fn page(&self, arguments: &[&str]) -> TestResult<String> {
        let output = self.report(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn record(nth: u32, event: EventName) -> Record {
    let ns = u64::from(nth) * 1_000_000_000;
    let at = Instant {
        mono_ns: 1_000_000_000_000 + ns,
        wall_ns: WALL_NS.saturating_add_unsigned(ns),
    };
    let mut record = Record::new(at, event);
    record.seq = u64::from(nth) + 1;
    record.sock = Some(1);
    let [client, server] = [1, 2].map(|host| std::net::IpAddr::from([10, 0, 0, host]));
    record.endpoints = Some(Endpoints::new((client, 40_000), (server, 5672), 7));
    record.process.pid = Some(42);
    record.process.comm = Some("java".into());
    record.settings.keepalive = Some(false);
    record
}

/// Records in which every name is this text.
fn hostile_records(text: &str) -> Vec<Record> {
    let name = || Some(Escaped::from(text));
    let mut lost = record(3, EventName::Lost);
    (lost.lost, lost.hook, lost.lost_why) = (Some(3), Some(Hook::SetState), Some(LostWhy::Missed));
    let mut records = vec![
        record(0, EventName::Probe),
        record(1, EventName::RstSent),
        record(2, EventName::Verdict),
        lost,
        record(4, EventName::FinSent),
    ];
    for it in &mut records {
        it.process.comm = name();
        it.process.cmdline = name();
        it.process.unit = name();
        it.netns_name = name();
        it.actor.by_pid = Some(43);
        it.actor.by_comm = name();
        it.reason = name();
        it.ages.idle_ms = Some(61_000);
        if it.event == EventName::Verdict {
            it.verdict = Some(VerdictName::IdleEviction);
            it.confidence = Some(Confidence::Low);
            it.middlebox = name();
            it.advice = name().map(|it| Box::new(it.into()));
            it.story = name();
            it.set_in = Some(SetIn::Sysctl);
            it.set = name();
        }
    }
    records
}

fn hostile_header(text: &str) -> Header {
    let word = text.to_owned();
    Header {
        host: Escaped::from(text),
        kernel: Escaped::from(text),
        kaprobe: word.clone(),
        hooks: [(word.clone(), word.clone())].into(),
        // Its verdicts are taken as they are.
        filters: [
            ("events".to_owned(), vec!["verdict".to_owned()]),
            (word.clone(), vec![word]),
        ]
        .into(),
        timeouts: vec![HostTimeout {
            what: Escaped::from(text),
            netns_name: Some(Escaped::from(text)),
            seconds: 60,
            ..HostTimeout::default()
        }],
        ..header("mq")
    }
}

#[test]
fn hostile_names_add_nothing_to_the_page() -> TestResult {
    for (nth, text) in HOSTILE.into_iter().enumerate() {
        let folder = Folder::new()?;
        let records = hostile_records(text);
        // A name that is a path would not be in this folder.
        let name = format!("{}.jsonl", text.replace(['/', '\0'], "_"));
        folder.log(&name, hostile_header(text), &records)?;
        folder.log("other.jsonl", header("other"), &records)?;
        for logs in [&[name.as_str()][..], &[&name, "other.jsonl"]] {
            let arguments = [&["--comm", text.trim_matches('\0')][..], logs].concat();
            let arguments = if text.contains('\0') {
                logs.to_vec()
            } else {
                arguments
            };
            let parsed = Parsed::new(&folder.page(&arguments)?)?;
            parsed.check();
            let shown = Escaped::from(text);
            assert!(parsed.text.contains(shown.as_str()), "{nth}: {text:?}");
            // What a log calls settings is no command.
            let code = parsed.code.concat();
            assert!(!code.contains(shown.as_str()), "{nth}: {code}");
        }
    }
    Ok(())
}

#[test]
fn the_page_is_one_file_that_asks_for_nothing() -> TestResult {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let folder = Folder::new()?;
    for logs in [
        &[
            "story/client.jsonl",
            "story/server1.jsonl",
            "story/server2.jsonl",
        ][..],
        &["verdicts.jsonl"],
        &["records.jsonl", "verdicts.jsonl"],
    ] {
        let logs: Vec<_> = logs
            .iter()
            .map(|it| golden.join(it).to_string_lossy().into_owned())
            .collect();
        let logs: Vec<_> = logs.iter().map(String::as_str).collect();
        let page = folder.page(&logs)?;
        Parsed::new(&page)?.check();
        for outside in [
            "url(",
            "@import",
            "http:",
            "https:",
            "<script",
            "javascript:",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
    Ok(())
}

/// The text of the report of three hosts' logs.
fn story() -> TestResult<Parsed> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/story");
    let folder = Folder::new()?;
    let logs = ["client", "server1", "server2"].map(|it| golden.join(format!("{it}.jsonl")));
    let logs: Vec<_> = logs.iter().map(|it| it.to_string_lossy()).collect();
    let logs: Vec<_> = logs.iter().map(AsRef::as_ref).collect();
    Parsed::new(&folder.page(&logs)?)
}

#[test]
fn three_hosts_show_the_eviction_the_stray_segment_and_the_zombie() -> TestResult {
    let text = story()?.text;
    for part in [
        // The five sentences.
        "From 2026-11-30 09:38:13 to 2026-11-30 09:39:55 (UTC, 101.6s), 3 hosts (client, server1, \
         server2) recorded 15 records on 1 connection.",
        "1 of 1 connections had a problem: the verdicts are 1 idle_eviction, 1 peer_unreachable, 1 \
         stray_segment; 3 probes were sent, no answer is known.",
        "The most telling connection is 10.9.0.1:36868 → 10.9.0.100:5672: client sent after 12.0s \
         of silence and was reset; server1 answered with a reset, having no such connection; \
         server2 held its end until it gave up after 97.8s of silence: a box between forgot the \
         connection, and sent it elsewhere.",
        "this host's ipvs in netns balancer, which has the service 10.9.0.100:5672 (12s).",
        "Nothing is known to be missing",
        // The timeline.
        "has no such connection",
        "silent 12.0s",
        "zombie: the other end is gone",
        "the reset that server1 sent and client received",
        // The advice.
        "setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){6}, sizeof(int));",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    Ok(())
}

/// Settings are commands only in the words that kaprobe writes.
#[test]
fn a_sysctl_command_names_the_namespace_by_number() -> TestResult {
    for (set, expected) in [
        (
            "net.ipv4.tcp_keepalive_time=175",
            Some("sysctl -w net.ipv4.tcp_keepalive_time=175"),
        ),
        ("net.ipv4.tcp_keepalive_time=1;reboot", None),
        ("net.ipv4.tcp_keepalive_time=$(reboot)", None),
        ("kernel.panic=1", None),
        ("-w", None),
        ("", None),
    ] {
        let folder = Folder::new()?;
        let mut records = hostile_records("java");
        for it in &mut records {
            it.set = it.set.as_ref().map(|_| Escaped::from(set));
        }
        folder.log("log.jsonl", hostile_header("mq"), &records)?;
        let code = Parsed::new(&folder.page(&["log.jsonl"])?)?.code.concat();
        match expected {
            Some(command) => {
                assert!(
                    code.contains(command) && code.contains("$1 == 7 "),
                    "{code}"
                );
            }
            None => assert_eq!(code, "", "{set}"),
        }
    }
    Ok(())
}

/// A log is not trusted: it may have any times and ages.
#[test]
fn any_time_and_age_is_shown() -> TestResult {
    let folder = Folder::new()?;
    let unfiltered = Header {
        filters: Filters::new(),
        ..header("mq")
    };
    let mut records = Vec::new();
    for (nth, wall_ns) in (0..).zip([i64::MIN, 0, i64::MAX, -1, WALL_NS]) {
        for event in EventName::ALL.iter().copied() {
            let mut it = record(nth, event);
            it.time = WallTime(wall_ns);
            it.mono_ns = u64::MAX - u64::from(nth);
            it.ages = Ages::new(u64::MAX, u64::MAX, 0);
            (it.lost, it.probe) = (Some(u64::MAX), Some(1));
            (it.unacked, it.state) = (Some(u32::MAX), Some(State::Established));
            records.push(it);
        }
    }
    folder.log("log.jsonl", unfiltered, &records)?;
    let output = folder.report(&["log.jsonl"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    Parsed::new(&String::from_utf8(output.stdout)?)?.check();
    Ok(())
}

#[test]
fn what_is_missing_is_said() -> TestResult {
    let folder = Folder::new()?;
    let mut lost = record(5, EventName::Lost);
    (lost.lost, lost.hook, lost.lost_why) = (Some(7), Some(Hook::SetState), Some(LostWhy::Missed));
    let records = [record(0, EventName::Probe), lost];
    // The log has no trailer, and its trace lacks hooks.
    folder.log("log.jsonl", header("mq"), &records)?;
    let text = Parsed::new(&folder.page(&["log.jsonl"])?)?.text;
    for part in [
        "7 events were lost",
        "1 trace lacked hooks",
        "the logs are not perfect (1 remark",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(text.contains(Hook::ReceiveReset.name()), "{text}");
    let text = Parsed::new(&folder.page(&["log.jsonl", "-P", "9"])?)?.text;
    assert!(text.contains("filters left records out"), "{text}");
    assert!(
        text.contains("The logs have no record of a connection."),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_file_that_exists_stays_unless_forced() -> TestResult {
    let folder = Folder::new()?;
    folder.log("log.jsonl", header("mq"), &[record(0, EventName::Probe)])?;
    let file = folder.0.path().join("report.html");
    for (arguments, code, message) in [
        (&["log.jsonl", "-o", "report.html"][..], 0, ""),
        (
            &["log.jsonl", "-o", "report.html"],
            1,
            "it exists; --force overwrites it",
        ),
        (&["log.jsonl", "-o", "report.html", "--force"], 0, ""),
        (
            &["log.jsonl", "-o", "log.jsonl", "--force"],
            2,
            "is also a log to read",
        ),
        (&["log.jsonl", "-o", "-"], 2, "leave --output out"),
        (&["log.jsonl", "-o", "pages/"], 2, "not the name of a file"),
        (&["log.jsonl", "--force"], 2, "--output"),
        (&["none.jsonl", "-o", "none.html"], 1, "none.jsonl"),
        (&[], 2, "LOG"),
    ] {
        let output = folder.report(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        if code == 0 {
            let page = fs::read_to_string(&file)?;
            assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        }
    }
    assert!(!folder.0.path().join("none.html").exists());
    Ok(())
}

/// Logs that are made to fill a page: each text as long as it may be, as many marks, traces and
/// remarks.
#[test]
fn a_hostile_log_makes_no_large_page() -> TestResult {
    const MOST: usize = 4 << 20;
    let folder = Folder::new()?;
    let long = "<&".repeat(600);
    let mut log = String::new();
    for trace in 0..40_u32 {
        let mut header = hostile_header(&long);
        header.started = WallTime(header.started.0 + i64::from(trace));
        let timeouts = vec![header.timeouts[0].clone(); 20];
        header.timeouts = timeouts;
        let mut records = Vec::new();
        let rounds = if trace < 6 { 8 } else { 0_u32 };
        for nth in 0..rounds {
            for mut it in hostile_records(&long) {
                it.sock = Some(u64::from(trace % 8) + 1);
                let port = u16::try_from(5_000 + trace)?;
                let ends = [1, 2].map(|host| std::net::IpAddr::from([10, 0, 0, host]));
                it.endpoints = Some(Endpoints::new((ends[0], 40_000), (ends[1], port), 7));
                it.time.0 += i64::from(nth) * 10_000_000_000;
                it.mono_ns += u64::from(nth) * 10_000_000_000;
                records.push(it);
            }
        }
        folder.log("part.jsonl", header, &records)?;
        log += &fs::read_to_string(folder.0.path().join("part.jsonl"))?;
    }
    let field = format!(",\"{}\":1}}\n", "f".repeat(100_000));
    let log = log.replacen("}\n", &field, 60);
    fs::write(folder.0.path().join("log.jsonl"), &log)?;
    let page = folder.page(&["log.jsonl"])?;
    assert!(
        page.len() < MOST,
        "{} of a log of {}",
        page.len(),
        log.len()
    );
    Ok(())
}

/// A log of many connections is read once, and the page stays small.
#[test]
fn the_page_of_many_connections_is_bounded() -> TestResult {
    const CONNECTIONS: u32 = 10_000;
    let folder = Folder::new()?;
    let mut records = Vec::new();
    for nth in 0..CONNECTIONS {
        let mut reset = record(nth, EventName::RstReceived);
        reset.sock = Some(u64::from(nth) + 1);
        let client = std::net::IpAddr::from((0x0a01_0000 + nth).to_be_bytes());
        let server = std::net::IpAddr::from([10, 0, 0, 2]);
        reset.endpoints = Some(Endpoints::new((client, 40_000), (server, 5672), 7));
        reset.ages = Ages::new(351_000, 351_000, 0);
        reset.state = Some(State::Established);
        (reset.unacked, reset.probes_out) = (Some(1), Some(0));
        let mut closed = reset.clone();
        closed.event = EventName::Closed;
        records.extend([reset, closed]);
    }
    let unfiltered = Header {
        filters: Filters::new(),
        ..header("mq")
    };
    folder.log("log.jsonl", unfiltered, &records)?;
    let page = folder.page(&["log.jsonl"])?;
    assert!(page.len() < 300_000, "{}", page.len());
    let text = Parsed::new(&page)?.text;
    let all = format!("{CONNECTIONS} of {CONNECTIONS} connections had problems");
    assert!(text.contains(&all), "{text:.2000}");
    let others = "other connections to the same service ended with the same verdicts";
    assert!(text.contains(others), "{text:.5000}");
    Ok(())
}
