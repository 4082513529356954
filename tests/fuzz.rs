//! Fuzzes the log reader and the decoder of ring buffer events, for a limited time.
//!
//! Inputs are valid inputs with changes: they reach more code than noise does. A failing
//! input is minimized and kept in `tests/corpus/`, which every run tries first.
//! `KAPROBE_FUZZ_SECONDS` is the time for new inputs.

use kaprobe::model::alive::Alive;
use kaprobe::model::field::Fields as _;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kaprobe::correlate::Correlator;
use kaprobe::model::event::{Event, Lost};
use kaprobe::model::header::{Header, HeaderLine};
use kaprobe::model::host_timeout::{HostTimeout, HostTimeouts};
use kaprobe::model::named::Named as _;
use kaprobe::model::record::Record;
use kaprobe::model::time::{self, WallTime};
use kaprobe::model::values::{Hook, LostWhy};
use kaprobe::replay::{Item, Log};
use kaprobe::sink::options::{Format, TextStyle, TimeFormat};
use kaprobe::sink::{self, Head};
use kaprobe::text::escape::Escaped;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_ebpf::wire::{self, flag, kind};
use kaprobe_testkit::fixtures::{self, NARROW, bytes, decoder, every_event};
use kaprobe_testkit::schema;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestError, TestRunner};
use serde::Deserialize as _;
use serde_json::Value;

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// A function that processes an input, and returns an error if something is wrong.
type FuzzTarget = fn(&[u8]) -> Result<(), String>;

/// The number of sockets that a correlator or judge keeps.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(8).expect("it is not zero");

/// Tries the corpus, then generated inputs until the time is up.
fn fuzz(name: &str, target: FuzzTarget, inputs: impl Strategy<Value = Vec<u8>>) -> TestResult {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/corpus")
        .join(name);
    for path in files(&corpus)? {
        target(&fs::read(&path)?).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    let seconds = std::env::var("KAPROBE_FUZZ_SECONDS").unwrap_or("3".to_owned());
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut tried = 0;
    while Instant::now() < end {
        let config = Config {
            cases: 64,
            failure_persistence: None,
            ..Config::default()
        };
        tried += config.cases;
        let ran = TestRunner::new(config)
            .run(&inputs, |input| target(&input).map_err(TestCaseError::fail));
        match ran {
            Ok(()) => {}
            Err(TestError::Abort(why)) => return Err(why.to_string().into()),
            Err(TestError::Fail(why, input)) => {
                let mut hash = DefaultHasher::new();
                input.hash(&mut hash);
                let path = corpus.join(format!("{:016x}", hash.finish()));
                fs::create_dir_all(&corpus)?;
                fs::write(&path, &input)?;
                return Err(format!("{why}; the input is {}", path.display()).into());
            }
        }
    }
    println!("{name}: {tried} inputs");
    Ok(())
}

fn files(folder: &Path) -> TestResult<Vec<PathBuf>> {
    let entries = folder
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

/// A writer whose bytes can be read while a sink owns a clone of it.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes records in a format, and returns the text.
fn written(format: Format, time: TimeFormat, records: &[Record]) -> io::Result<String> {
    let style = TextStyle {
        time,
        wide: true,
        ..NARROW
    };
    let out = SharedBuffer::default();
    let mut sink = sink::to(out.clone(), format, style, false);
    let headers = [header()];
    sink.head(&Head {
        headers: &headers,
        hosts: true,
    })?;
    records.iter().try_for_each(|record| sink.record(record))?;
    sink.flush()?;
    let bytes = out.0.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8(bytes.clone()).map_err(io::Error::other)
}

fn header() -> Header {
    Header {
        timeouts: vec![HostTimeout {
            what: Escaped::from("ipvs"),
            netns: 0,
            seconds: 900,
            ..HostTimeout::default()
        }],
        ..fixtures::header("mq1")
    }
}

/// Checks records from any input: verdicts can be made, each record is one line without
/// control characters, and is read back unchanged. Returns the log.
fn check(records: Vec<Record>, timeouts: &HostTimeouts) -> Result<String, String> {
    let mut pipeline = Pipeline::new(every_event(), Judge::new(CAPACITY, timeouts));
    let mut shown = Vec::new();
    for mut record in records {
        pipeline.push(0, &mut record, |it| shown.push(it.clone()));
    }
    let mut log = String::new();
    let formats = [
        (Format::Json, TimeFormat::Clock),
        (Format::Csv, TimeFormat::Clock),
        (Format::Text, TimeFormat::Clock),
        (Format::Text, TimeFormat::Rfc3339),
        (Format::Text, TimeFormat::Relative),
    ];
    for (format, time) in formats {
        let text = written(format, time, &shown).map_err(|why| why.to_string())?;
        if text.lines().count() != 1 + shown.len() {
            return Err(format!("not one line for each record: {text}"));
        }
        if text.contains(|c: char| c != '\n' && c.is_control()) {
            return Err(format!("a control character: {text:?}"));
        }
        if format == Format::Json {
            let read = read(text.as_bytes());
            let read = read.into_iter().filter_map(|item| match item {
                Item::Record(record) => Some(*record),
                Item::Header(_) | Item::Timeouts(_) | Item::Trailer(_) => None,
            });
            if read.collect::<Vec<_>>() != shown {
                return Err(format!("not read back unchanged: {text}"));
            }
            log = text;
        }
    }
    Ok(log)
}

/// Reads a log up to the first error.
fn read(log: &[u8]) -> Vec<Item> {
    let mut log = Log::new(log);
    let mut items = Vec::new();
    while let Ok(Some(item)) = log.next(&mut |remark| {
        let _text = remark.to_string();
    }) {
        items.push(item);
    }
    items
}

fn log_reader(log: &[u8]) -> Result<(), String> {
    let items = read(log);
    let lines = log.iter().filter(|&&byte| byte == b'\n').count() + 1;
    if items.len() > lines {
        return Err(format!("{} items of {lines} lines", items.len()));
    }
    for part in [log.len() / 3, log.len() / 2, log.len().saturating_sub(1)] {
        let mut start = read(&log[..part]);
        // A part of an invalid line may be a valid line.
        if part > 0 && log[part - 1] != b'\n' {
            start.pop();
        }
        if !items.starts_with(&start) {
            return Err(format!(
                "cut at {part}: the items are not the first items of the whole log"
            ));
        }
    }
    let (mut records, mut timeouts) = (Vec::new(), HostTimeouts::default());
    for item in items {
        match item {
            Item::Record(record) => records.push(*record),
            Item::Header(header) => timeouts = header.host_timeouts(),
            Item::Timeouts(it) => Judge::new(CAPACITY, &timeouts).apply(&it.namespaces),
            Item::Trailer(_) => {}
        }
    }
    check(records, &timeouts).map(drop)
}

/// Decodes and correlates bytes of the ring buffer into records.
fn decode_records(wire: &[u8]) -> Vec<Record> {
    let decoder = decoder();
    let mut correlator = Correlator::new(CAPACITY);
    let mut records = Vec::new();
    for bytes in wire.chunks(wire::EVENT_SIZE) {
        if let Ok(event) = decoder.decode(bytes) {
            correlator.push(&event, &mut |record| records.push(record.clone()));
        }
    }
    let lost = Lost {
        at: time::Instant {
            mono_ns: 0,
            wall_ns: 0,
        },
        hook: Hook::KeepaliveTimer,
        kind: None,
        why: LostWhy::Missed,
        count: u64::MAX,
    };
    correlator.push(&Event::Lost(lost), &mut |record| {
        records.push(record.clone())
    });
    records
}

fn wire_decoder(wire: &[u8]) -> Result<(), String> {
    let log = check(decode_records(wire), &HostTimeouts::default())?;
    schema::check_log(&log).map(drop)
}

/// A valid event of a kind, at a second of the trace.
fn wire_event(kind: u16, second: u32) -> Vec<u8> {
    let mut raw = wire::Event {
        version: wire::VERSION,
        kind,
        flags: flag::KEEPOPEN | flag::PENDING_AFTER | flag::HAS_REASON,
        cause: wire::cause::PROBE_COUNT,
        state: 1,
        mono_ns: u64::from(second) * 1_000_000_000,
        born_ns: 7,
        jiffies: second * 250,
        reason: 15,
        ..wire::Event::EMPTY
    };
    raw.socket.sk = 9;
    raw.socket.family = 2;
    raw.socket.laddr[..4].copy_from_slice(&[10, 0, 0, 1]);
    raw.socket.raddr[..4].copy_from_slice(&[10, 0, 0, 2]);
    bytes(&raw).to_vec()
}

const NUMBERS: [u64; 9] = [
    0,
    1,
    2,
    10,
    0x7f,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// A strategy for events of one socket, with some numbers changed.
fn wires() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![select(&NUMBERS[..]), any::<u64>()];
    let changes = vec(
        (any::<Index>(), select(vec![1_usize, 2, 4, 8]), number),
        0..6,
    );
    let event = (0..kind::COUNT, changes).prop_map(|(kind, changes)| (kind, changes));
    let cut = prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (vec(event, 0..8), cut).prop_map(|(events, cut)| {
        let mut all = Vec::new();
        for (second, (kind, changes)) in (0..).zip(events) {
            let mut event = wire_event(kind, second);
            for (at, size, number) in changes {
                // Skips the version and the kind: other values are rejected at once.
                let at = (4 + at.index(event.len() - 4)) / size * size;
                let bytes = number.to_ne_bytes();
                let end = (at + size).min(event.len());
                if at >= 4 {
                    event[at..end].copy_from_slice(&bytes[..end - at]);
                }
            }
            all.extend(event);
        }
        if let Some(cut) = cut {
            all.truncate(cut.index(all.len() + 1));
        }
        all
    })
}

/// Log lines: one for each kind of record, and some headers.
fn lines() -> Vec<String> {
    let wire = (0..).zip(0..kind::COUNT);
    let wire: Vec<_> = wire
        .flat_map(|(second, kind)| wire_event(kind, second))
        .collect();
    let records = written(Format::Json, TimeFormat::Clock, &decode_records(&wire));
    let mut lines: Vec<_> = records
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    for version in ["1.999", "2.0"] {
        let header = Header {
            version: version.to_owned(),
            ..header()
        };
        lines.extend(serde_json::to_string(&HeaderLine { header }));
    }
    lines.push(String::new());
    lines
}

/// Texts to insert into logs at any place.
const TOKENS: &[&str] = &[
    "\n",
    "\r",
    "{",
    "}",
    "[",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "{}",
    "[1,2]",
    "-1",
    "0.5",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\\u001b[2J\"",
    "\"\\ud800\"",
    "\"\\\\x\\\\u{110000}\"",
    "\"=1+1\"",
    "\"a b\"",
    "\u{feff}",
    "\u{202e}",
    "\"1677-09-21T00:12:43.145224192Z\"",
    "\"2262-04-11T23:47:16.854775807Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"2016-12-31T23:59:60Z\"",
    "\"2024-05-06T07:08:09.1+01:00\"",
    "\"::ffff:1.2.3.4\"",
    "\"fe80::1%eth0\"",
    "\"4294967295\"",
    "\"+5\"",
    "\"rst_received\"",
    "\"verdict\"",
    "\"lost\"",
];

/// A change of a log.
#[derive(Clone, Debug)]
enum Change {
    /// Replaces the value of a field.
    Value(Index, &'static str),
    /// Inserts a text.
    Insert(Index, &'static str),
    /// Replaces a byte.
    Byte(Index, u8),
    /// Removes bytes.
    Remove(Index, usize),
    /// Repeats bytes.
    Repeat(Index, usize, usize),
}

impl Change {
    fn apply(&self, log: &mut Vec<u8>) {
        match self {
            Self::Value(which, token) => {
                let starts = log.windows(2).enumerate().filter(|(_, it)| *it == b"\":");
                let starts: Vec<_> = starts.map(|(at, _)| at + 2).collect();
                if starts.is_empty() {
                    return;
                }
                let start = starts[which.index(starts.len())];
                let ends = |byte: &u8| matches!(byte, b',' | b'}');
                let length = log[start..].iter().position(ends).unwrap_or_default();
                log.splice(start..start + length, token.bytes());
            }
            Self::Insert(at, token) => {
                let at = at.index(log.len() + 1);
                log.splice(at..at, token.bytes());
            }
            Self::Byte(at, byte) if !log.is_empty() => {
                let at = at.index(log.len());
                log[at] = *byte;
            }
            Self::Byte(..) => {}
            Self::Remove(at, length) => {
                let at = at.index(log.len() + 1);
                log.drain(at..(at + length).min(log.len()));
            }
            Self::Repeat(at, length, times) => {
                let at = at.index(log.len() + 1);
                let part = log[at..(at + length).min(log.len())].repeat(*times);
                log.splice(at..at, part);
            }
        }
    }
}

/// A strategy for logs of a few lines, with changes.
fn logs() -> impl Strategy<Value = Vec<u8>> {
    let token = || select(TOKENS);
    let change = prop_oneof![
        4 => (any::<Index>(), token()).prop_map(|(at, token)| Change::Value(at, token)),
        2 => (any::<Index>(), token()).prop_map(|(at, token)| Change::Insert(at, token)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (any::<Index>(), 1..200_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (any::<Index>(), 1..20_usize, 1..300_usize)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
    ];
    let lines = vec(select(lines()), 0..5);
    (lines, vec(change, 0..6), any::<bool>()).prop_map(|(lines, changes, ended)| {
        let mut log = lines.join("\n").into_bytes();
        if ended {
            log.push(b'\n');
        }
        for change in &changes {
            change.apply(&mut log);
        }
        log
    })
}

#[test]
fn log_reader_survives_any_log() -> TestResult {
    fuzz("log", log_reader, logs())
}

#[test]
fn wire_decoder_survives_any_bytes() -> TestResult {
    fuzz("wire", wire_decoder, wires())
}

/// Candidate values for a field, made from a number and a text: numbers, words,
/// addresses.
fn values(number: u64, text: &str) -> Vec<Value> {
    let [a, b, c, d, ..] = number.to_be_bytes();
    let v6 = u128::from(number) << 64 | u128::from(number.swap_bytes());
    let mut values = vec![
        number.into(),
        (number % (1 << 32)).into(),
        (number % (1 << 16)).into(),
        number.is_multiple_of(2).into(),
        vec![number, 1].into(),
        WallTime(number.cast_signed()).to_string().into(),
        IpAddr::from([a, b, c, d]).to_string().into(),
        IpAddr::from(v6.to_be_bytes()).to_string().into(),
        (number % (1 << 32)).to_string().into(),
        "SYN|ACK".into(),
        text.into(),
    ];
    // The schema contains all words that a record may hold.
    let quoted = schema::SCHEMA.split('"').skip(1).step_by(2);
    let words: Vec<_> = quoted.filter(|word| word.len() < 24).collect();
    let first = usize::try_from(number % words.len() as u64).unwrap_or_default();
    let some = words.iter().cycle().skip(first).take(words.len());
    values.extend(some.map(|word| (*word).into()));
    values
}

/// Sets a field of a record. A record has all fields of its endpoints or none, and of a sum of
/// answered probes, so setting one adds the others.
fn with_field(mut record: Value, name: &str, value: Value) -> Value {
    let endpoints = serde_json::json!({
        "family": "inet", "laddr": "10.0.0.1", "lport": 1, "raddr": "10.0.0.2", "rport": 2,
        "netns": 1,
    });
    let sum = serde_json::json!({"probes_answered": 1, "since_ns": 1, "answered_ns": 1});
    for (group, has_field) in [
        (&endpoints, endpoints.get(name).is_some()),
        (&sum, Alive::NAMES.contains(&name)),
    ] {
        for (field, default) in group.as_object().into_iter().flatten() {
            if has_field && record.get(field).is_none() {
                record[field] = default.clone();
            }
        }
    }
    record[name] = value;
    record
}

/// Makes a record with these fields, each with a valid value.
fn record_of(fields: &[(Index, u64, String)]) -> Result<Record, serde_json::Error> {
    let mut record = serde_json::json!({
        "time": "2024-05-06T07:08:09.000000000Z", "mono_ns": 1, "seq": 1, "event": "probe"
    });
    for (which, number, text) in fields {
        let name = Record::NAMES[which.index(Record::NAMES.len())];
        let values = values(*number, text);
        let first = usize::from(number.to_be_bytes()[3]) % 11;
        for value in values[first..].iter().chain(&values[..first]) {
            let with = with_field(record.clone(), name, value.clone());
            if Record::deserialize(&with).is_ok() {
                record = with;
                break;
            }
        }
    }
    Record::deserialize(record)
}

proptest! {
    #![proptest_config(Config { cases: 64, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_record_is_read_back_unchanged(
        fields in vec((any::<Index>(), any::<u64>(), any::<String>()), 0..16)
    ) {
        let record = record_of(&fields).map_err(|why| TestCaseError::fail(why.to_string()))?;
        let line = serde_json::to_string(&record).unwrap_or_default();
        let expected = [Item::Record(Box::new(record))];
        prop_assert_eq!(read(line.as_bytes()), expected, "{}", line);
    }
}

#[test]
fn every_field_has_a_valid_candidate_value() {
    for name in Record::NAMES {
        let record = serde_json::json!({
            "time": "2024-05-06T07:08:09.000000000Z", "mono_ns": 1, "seq": 1, "event": "probe"
        });
        let fits = values(1 << 40 | 7, "text")
            .into_iter()
            .any(|value| Record::deserialize(with_field(record.clone(), name, value)).is_ok());
        assert!(fits, "{name}");
    }
}

/// The unchanged inputs must be valid; otherwise the fuzzing would test nothing.
#[test]
fn unchanged_inputs_are_valid() -> TestResult {
    let log = lines().join("\n");
    let events = read(log.as_bytes())
        .into_iter()
        .filter_map(|item| match item {
            Item::Record(record) => Some(record.event.name()),
            Item::Header(_) | Item::Timeouts(_) | Item::Trailer(_) => None,
        });
    let events: std::collections::BTreeSet<_> = events.collect();
    for event in [
        "probe",
        "timeout",
        "rst_sent",
        "closed",
        "lost",
        "fin_wait2",
    ] {
        assert!(events.contains(event), "{event} is not in {log}");
    }
    Ok(())
}
