use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use ruzstd::decoding::StreamingDecoder;

use super::*;
use crate::condense::Condenser;
use crate::model::header::Header;
use crate::model::owner::Owner;
use crate::model::record::{EventName, Record};
use crate::model::segment::SegmentName;
use crate::model::socket::{Ages, Endpoints, Identity, Process, Settings};
use crate::model::tally::Tally;
use crate::model::time::{Instant, TimeWindow, WallTime};
use crate::model::values::{LostWhy, Origin, State};
use crate::replay::input::{self, Input};
use crate::replay::{Item, Merge, RemarkKind};
use crate::sink::interface::{Encoder as _, Head, Sink as _};
use crate::sink::json::JsonLines;
use crate::sink::options::RecorderFolder;
use crate::sink::segments::folder::SegmentFolder;
use crate::sink::segments::log::Now;
use crate::text::escape::Escaped;

const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(20_000).expect("it is not zero");

/// 2024-05-06T07:08:09Z.
const WALL_NS: i64 = 1_714_979_289_000_000_000;

/// A recorder that is given the time and writes a frame for each record.
struct Recorder {
    log: SegmentLog,
    encoder: JsonLines<Vec<u8>>,
    began: std::time::Instant,
    /// Time since then.
    now: Duration,
    /// How far the wall clock was set forward.
    set_ns: i64,
}

fn header(started: i64) -> Header {
    Header {
        version: crate::model::header::VERSION.to_owned(),
        host: Escaped::from("mq1"),
        kernel: Escaped::from("6.12"),
        started: WallTime(WALL_NS + started),
        hz: 250,
        alive_ms: Some(3_600_000),
        ..Header::default()
    }
}

fn recording(dir: &Path, max_size: u64) -> RecorderFolder {
    RecorderFolder {
        dir: dir.to_owned(),
        max_size,
        segment_size: max_size / 8,
        segment_age: Duration::from_secs(3_600),
    }
}

fn record(seq: u64) -> Record {
    Record {
        seq,
        sock: Some(seq),
        endpoints: Some(Endpoints::default()),
        ..Record::new(
            Instant {
                mono_ns: seq * 1_000,
                wall_ns: WALL_NS + seq.cast_signed(),
            },
            EventName::Closed,
        )
    }
}

impl Recorder {
    fn open(dir: &Path, max_size: u64, started: i64) -> io::Result<Self> {
        let mut encoder = JsonLines::new(Vec::new());
        let header = header(started);
        let log = SegmentLog::open(&recording(dir, max_size), encoder.twin(), header.clone())?;
        encoder.head(&Head::from(&header))?;
        encoder.take();
        Ok(Self {
            log,
            encoder,
            began: std::time::Instant::now(),
            now: Duration::ZERO,
            set_ns: 0,
        })
    }

    fn time(&self) -> Now {
        let ns = i64::try_from(self.now.as_nanos()).unwrap_or(i64::MAX);
        Now {
            wall: WallTime(WALL_NS + ns + self.set_ns),
            mono: self.began + self.now,
        }
    }

    /// Writes records as a frame, and ends a segment that is full.
    fn put(&mut self, records: &[Record]) -> io::Result<()> {
        self.now += Duration::from_secs(5);
        let mut tally = Tally::default();
        for record in records {
            self.encoder.record(record)?;
            tally.count(record);
        }
        let lines = self.encoder.take();
        self.log.put(&lines, &tally, self.time())?;
        if self.log.is_full(self.time()) {
            self.log.end_segment(true, self.time())?;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        let now = self.time();
        self.log.end_segment(false, now)
    }
}

/// What is read of a folder.
#[derive(Debug, Default)]
struct Read {
    /// The numbers of the records, without those of lost ones.
    numbers: Vec<u64>,
    lost: u64,
    remarks: Vec<RemarkKind>,
    /// The hosts and traces that are told apart.
    logs: usize,
}

fn read(dir: &Path) -> Result<Read, String> {
    let open = input::open(&[Input::File(dir.to_owned())], &TimeWindow::default());
    let open = open.map_err(|why| format!("{why:#}"))?;
    let names: Vec<_> = open.iter().map(|it| it.name.clone()).collect();
    let mut merge = Merge::new(open);
    let mut all = Read::default();
    let mut remarks = Vec::new();
    let mut on_remark = |_, remark: crate::replay::Remark| remarks.push(remark.kind);
    let failed = |(file, why): (usize, crate::replay::LogError)| why.of(&names[file]).to_string();
    all.logs = merge.start(&mut on_remark).map_err(failed)?.len();
    while let Some((_, item)) = merge.next(&mut on_remark).map_err(failed)? {
        match item {
            Item::Record(it) if it.event == EventName::Lost => all.lost += it.lost.unwrap_or(0),
            Item::Record(it) => all.numbers.push(it.seq),
            _ => {}
        }
    }
    all.remarks = remarks;
    Ok(all)
}

/// The segments of a folder, and their sizes, in the order of their names.
fn segments(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if SegmentName::parse(&name).is_some() {
            all.push((name, entry.metadata()?.len()));
        }
    }
    all.sort();
    Ok(all)
}

#[test]
fn a_segment_cut_at_any_byte_has_all_whole_frames() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path(), 1 << 20, 0)?;
    recorder.put(&[record(1), record(2)])?;
    let now = recorder.time();
    recorder.log.end_segment(true, now)?;
    // Where each frame of the second segment ends, and the last record until there.
    let mut ends = Vec::new();
    let newest = || -> io::Result<_> { Ok(segments(dir.path())?.pop().unwrap_or_default()) };
    for seq in 3..8 {
        recorder.put(&[record(seq)])?;
        ends.push((newest()?.1, seq));
    }
    recorder.end()?;
    let path = dir.path().join(newest()?.0);
    let whole = fs::read(&path)?;
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut])?;
        let read = read(dir.path())?;
        let last = ends.iter().rev().find(|it| it.0 <= cut as u64);
        let last = last.map_or(2, |it| it.1);
        let expected: Vec<u64> = (1..=last).collect();
        assert_eq!(read.numbers, expected, "{cut}: {read:?}");
        let names_gap = |it: &RemarkKind| {
            matches!(
                it,
                RemarkKind::NoTrailer
                    | RemarkKind::Cut
                    | RemarkKind::CutAtStart
                    | RemarkKind::Unreadable(_)
            )
        };
        let is_empty = cut == 0 && read.remarks.contains(&RemarkKind::Empty);
        assert!(
            is_empty || read.remarks.iter().any(names_gap),
            "{cut}: {read:?}"
        );
        assert_eq!(read.logs, 1, "{cut}");
    }
    Ok(())
}

/// A part of a segment is overwritten, as by a disk: the others are read.
#[test]
fn a_damaged_segment_hides_no_other() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path(), 1 << 20, 0)?;
    for seq in 1..=3 {
        recorder.put(&[record(seq)])?;
        let now = recorder.time();
        recorder.log.end_segment(true, now)?;
    }
    recorder.put(&[record(4)])?;
    recorder.end()?;
    let all = segments(dir.path())?;
    let zeros = vec![0; 300];
    fs::write(dir.path().join(&all[0].0), &zeros)?;
    let third = dir.path().join(&all[2].0);
    let mut bytes = fs::read(&third)?;
    bytes.extend(zeros);
    fs::write(&third, bytes)?;
    let read = read(dir.path())?;
    assert_eq!(read.numbers, [2, 3, 4]);
    let unreadable = |it: &&RemarkKind| matches!(it, RemarkKind::Unreadable(_));
    assert_eq!(
        read.remarks.iter().filter(unreadable).count(),
        2,
        "{read:?}"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_folder_keeps_the_newest_records_within_its_room(
        frames in prop::collection::vec(1..200_u64, 20..120),
        kills in prop::collection::btree_set(0..120_usize, 0..4),
    ) {
        const ROOM: u64 = 64 * 1024;
        let dir = tempfile::tempdir()?;
        let mut recorder = Recorder::open(dir.path(), ROOM, 0)?;
        let mut seq = 0;
        for (nth, records) in frames.iter().enumerate() {
            if kills.contains(&nth) {
                drop(recorder);
                recorder = Recorder::open(dir.path(), ROOM, nth as i64 * 1_000)?;
            }
            let frame: Vec<_> = (seq + 1..=seq + records).map(record).collect();
            seq += records;
            recorder.put(&frame)?;
            let size: u64 = segments(dir.path())?.iter().map(|it| it.1).sum();
            prop_assert!(size <= ROOM, "{size}");
        }
        recorder.end()?;
        let size: u64 = segments(dir.path())?.iter().map(|it| it.1).sum();
        prop_assert!(size <= ROOM, "{size}");
        let read = read(dir.path()).map_err(TestCaseError::fail)?;
        let first = read.numbers.first().copied().unwrap_or(seq);
        prop_assert_eq!(read.numbers, (first..=seq).collect::<Vec<_>>());
        prop_assert_eq!(read.lost, 0);
        // What is removed at once is a segment.
        prop_assert!(first == 1 || size > ROOM / 2, "{} {}", first, size);
    }
}

/// Somebody removes the open segment: the next frame begins another.
#[test]
fn a_removed_segment_is_noticed() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path(), 1 << 20, 0)?;
    recorder.put(&[record(1)])?;
    for (name, _) in segments(dir.path())? {
        std::fs::remove_file(dir.path().join(name))?;
    }
    // Not one of its own, whatever the name.
    std::fs::create_dir(
        dir.path()
            .join("kaprobe-00000009-20240506T070809Z.jsonl.zst"),
    )?;
    recorder.put(&[record(2)])?;
    recorder.end()?;
    assert_eq!(read(dir.path())?.numbers, [2]);
    Ok(())
}

#[test]
fn ten_restarts_and_a_clock_that_jumps_keep_the_order() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut seq = 0;
    for run in 0..10_i64 {
        // Every other start finds the clock set back by a day.
        let set_ns = if run % 2 == 0 { 0 } else { -86_400_000_000_000 };
        let mut recorder = Recorder::open(dir.path(), 1 << 20, set_ns + run)?;
        recorder.set_ns = set_ns;
        for nth in 0..6 {
            if nth == 3 {
                recorder.set_ns += 7_200_000_000_000;
                assert!(recorder.log.is_full(recorder.time()), "the clock was set");
                let now = recorder.time();
                recorder.log.end_segment(true, now)?;
            }
            seq += 1;
            recorder.put(&[record(seq)])?;
        }
        if run % 3 > 0 {
            recorder.end()?;
        }
    }
    let names: Vec<_> = segments(dir.path())?.into_iter().map(|it| it.0).collect();
    let numbers = names.iter().filter_map(|it| SegmentName::parse(it));
    let numbers: Vec<_> = numbers.map(|it| it.number).collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    let read = read(dir.path())?;
    assert_eq!(read.numbers, (1..=seq).collect::<Vec<_>>());
    let ended_without = |it: &&RemarkKind| **it == RemarkKind::NoTrailer;
    assert_eq!(read.remarks.iter().filter(ended_without).count(), 4);
    assert_eq!(read.logs, 1);
    Ok(())
}

#[test]
fn two_recorders_do_not_share_a_folder() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let first = SegmentFolder::open(dir.path(), 1 << 20)?;
    let second = SegmentFolder::open(dir.path(), 1 << 20);
    let pid = std::process::id();
    let expected = format!("another kaprobe records there: process {pid}");
    assert_eq!(second.err().map(|it| it.to_string()), Some(expected));
    drop(first);
    SegmentFolder::open(dir.path(), 1 << 20)?;
    Ok(())
}

/// A file with the name of a segment whose number leaves none for the next: the recorder says so
/// at its start, and not at its end.
#[test]
fn a_number_that_leaves_none_is_refused_at_the_start() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let name = "kaprobe-18446744073709551615-20240506T070809Z.jsonl.zst";
    fs::write(dir.path().join(name), "")?;
    let opened = SegmentFolder::open(dir.path(), 1 << 20);
    let expected = format!("no number is left after {name}: move that file away");
    assert_eq!(opened.err().map(|it| it.to_string()), Some(expected));
    fs::rename(dir.path().join(name), dir.path().join("other"))?;
    let mut recorder = Recorder::open(dir.path(), 1 << 20, 0)?;
    recorder.put(&[record(1)])?;
    recorder.end()
}

/// A file system of its own, which is soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|why| why.to_string())?;
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap_or_default();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("kaprobe", dir.path(), "tmpfs", flags, size.as_c_str())
            .map_err(|why| why.to_string())?;
        Ok(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _gone = rustix::mount::unmount(self.0.path(), flags);
    }
}

#[test]
fn on_a_full_disk_the_oldest_make_room_and_what_is_lost_is_counted()
-> Result<(), Box<dyn std::error::Error>> {
    let disk = match SmallDisk::new(256 * 1024) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: no file system can be mounted: {why}");
            return Ok(());
        }
    };
    let dir = disk.0.path().join("kept");
    let mut recorder = Recorder::open(&dir, 1 << 20, 0)?;
    recorder.log.set_segment_size(32 * 1024);
    let put = |recorder: &mut Recorder, from: u64| {
        let frame: Vec<_> = (from..from + 100).map(record).collect();
        recorder.put(&frame)
    };
    let mut seq = 1;
    // Far more than the disk takes.
    for _ in 0..400 {
        put(&mut recorder, seq)?;
        seq += 100;
    }
    let read_now = read(&dir)?;
    let first = read_now.numbers.first().copied().unwrap_or_default();
    assert_eq!(read_now.numbers, (first..seq).collect::<Vec<_>>());
    assert!(first > 1 && read_now.lost == 0, "{first}");
    // Others take all of the disk, and nothing is left to remove.
    let now = recorder.time();
    recorder.log.end_segment(true, now)?;
    let other = disk.0.path().join("other");
    let fill = || fs::write(&other, vec![7; 256 * 1024]);
    let mut failures = 0;
    for _ in 0..40 {
        let _full = fill();
        failures += u64::from(put(&mut recorder, seq).is_err());
        seq += 100;
    }
    assert!(failures > 0);
    fs::remove_file(&other)?;
    put(&mut recorder, seq)?;
    seq += 100;
    recorder.end()?;
    let read = read(&dir)?;
    let distinct: BTreeSet<_> = read.numbers.iter().collect();
    assert_eq!(distinct.len(), read.numbers.len(), "nothing twice");
    let last: Vec<_> = (seq - 100..seq).collect();
    assert!(read.numbers.ends_with(&last));
    assert!(read.lost > 0 && read.lost % 100 == 0, "{}", read.lost);
    Ok(())
}

/// Whether a line of a child says that a record is written.
const WRITTEN: &str = "written ";
const CHILD_DIR: &str = "KAPROBE_TEST_RECORD_DIR";
const CHILD_FIRST: &str = "KAPROBE_TEST_RECORD_FIRST";

/// Records until it is killed.
#[test]
#[ignore = "a part of killed_recorders_lose_nothing_that_was_written"]
fn child_that_records() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::var_os(CHILD_DIR).ok_or("it is started by another test")?;
    let first: u64 = std::env::var(CHILD_FIRST)?.parse()?;
    let mut recorder = Recorder::open(Path::new(&dir), 1 << 30, first.cast_signed())?;
    recorder.log.set_segment_size(1_500);
    for seq in first.. {
        recorder.put(&[record(seq)])?;
        writeln!(io::stdout(), "{WRITTEN}{seq}")?;
    }
    Ok(())
}

#[test]
fn killed_recorders_lose_nothing_that_was_written() -> Result<(), Box<dyn std::error::Error>> {
    const RUNS: u64 = 200;
    let dir = tempfile::tempdir()?;
    let mut written = Vec::new();
    for run in 0..RUNS {
        let first = run * 1_000_000 + 1;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "sink::segments::tests::child_that_records"])
            .args(["--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        // The moment differs: the child goes on meanwhile.
        let enough = 1 + run * 7 % 23;
        let mut last = 0;
        for line in BufReader::new(out).lines() {
            let line = line?;
            if let Some(seq) = line.rsplit(WRITTEN).next().and_then(|it| it.parse().ok()) {
                last = seq;
            }
            if last >= first + enough {
                break;
            }
        }
        child.kill()?;
        child.wait()?;
        assert!(
            last >= first + enough,
            "run {run} has ended by itself at {last}"
        );
        written.extend(first..=last);
    }
    let read = read(dir.path())?;
    let numbers: BTreeSet<_> = read.numbers.iter().copied().collect();
    assert_eq!(numbers.len(), read.numbers.len(), "nothing is read twice");
    let missing: Vec<_> = written.iter().filter(|it| !numbers.contains(it)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Each kill is named that left a segment without its end.
    let named = |it: &&RemarkKind| {
        matches!(
            it,
            RemarkKind::NoTrailer | RemarkKind::Cut | RemarkKind::CutAtStart | RemarkKind::Empty
        )
    };
    let named = read.remarks.iter().filter(named).count() as u64;
    let mut cut = 0;
    for (name, _) in segments(dir.path())? {
        cut += u64::from(!has_trailer(&fs::read(dir.path().join(name))?));
    }
    assert!(cut > 0 && named == cut, "{named} of {cut}");
    Ok(())
}

/// Whether the last whole frame of a segment is its trailer.
fn has_trailer(mut segment: &[u8]) -> bool {
    let mut last = String::new();
    while let Ok(mut frame) = StreamingDecoder::new(&mut segment) {
        let mut text = String::new();
        if frame.read_to_string(&mut text).is_err() {
            break;
        }
        last = text;
    }
    last.starts_with("{\"trailer\"")
}

/// A probe of a healthy connection to a message broker, and its answer.
fn healthy(connection: u64, minute: u64, noise: &mut impl FnMut() -> u64) -> [Record; 2] {
    let at_ns = (minute * 60 + connection % 60) * 1_000_000_000 + noise() % 1_000_000;
    let at = |ns: u64| Instant {
        mono_ns: ns,
        wall_ns: WALL_NS.saturating_add_unsigned(ns),
    };
    let client = [10, 0, (connection / 250) as u8, (connection % 250) as u8];
    let of_connection = Record {
        sock: Some(connection + 1),
        process: Owner::from(Process {
            pid: Some(1_200),
            comm: Some(Escaped::from("beam.smp")),
            unit: Some(Escaped::from("rabbitmq-server.service")),
            ..Process::UNKNOWN
        }),
        endpoints: Some(Endpoints::new(
            (IpAddr::from([10, 0, 255, 1]), 5672),
            (
                IpAddr::from(client),
                32_768 + (connection * 7_919 % 28_000) as u16,
            ),
            4_026_531_840,
        )),
        identity: Identity {
            inode: Some(1_000_000 + connection * 37 + connection * connection % 31),
            cookie: Some(900_000 + connection * 11 + connection * connection % 7),
            uid: Some(111),
            cgroup: Some(5_021),
            orphan: Some(false),
        },
        state: Some(State::Established),
        settings: Settings {
            keepalive: Some(true),
            keepalive_time_ms: Some(60_000),
            keepalive_time_from: Some(Origin::Socket),
            keepalive_intvl_ms: Some(10_000),
            keepalive_intvl_from: Some(Origin::Socket),
            keepalive_probes: Some(6),
            keepalive_probes_from: Some(Origin::Socket),
            ..Settings::default()
        },
        ..Record::default()
    };
    let idle_ms = 60_000 + noise() % 12 * 4;
    let data_ms = (minute + 1) * 60_000;
    let probe = Record {
        event: EventName::Probe,
        probe: Some(1),
        probes_out: Some(1),
        ages: Ages::new(data_ms, idle_ms, data_ms),
        time: WallTime(at(at_ns).wall_ns),
        mono_ns: at_ns,
        ..of_connection.clone()
    };
    // Some answers take longer than a tick, so that they show what was survived.
    let after_ms = noise() % 30;
    let answer_ns = at_ns + after_ms * 1_000_000 + noise() % 1_000_000;
    let answer = Record {
        event: EventName::Answered,
        probe: Some(1),
        probes_out: Some(0),
        answered_after_ms: Some(after_ms),
        time: WallTime(at(answer_ns).wall_ns),
        mono_ns: answer_ns,
        ..of_connection
    };
    [probe, answer]
}

/// The bytes that a recorder writes of so many healthy connections in so many hours, with a
/// sum an hour.
fn healthy_size(connections: u64, hours: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path(), 1 << 30, 0)?;
    let mut condenser = Condenser::new(MAX_CONNECTIONS);
    let mut state = 12_345_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut seq, mut kept) = (0, Vec::new());
    for minute in 0..hours * 60 {
        for connection in 0..connections {
            for mut record in healthy(connection, minute, &mut noise) {
                seq += 1;
                record.seq = seq;
                condenser.push(&mut record, &mut |it| kept.push(it.clone()));
            }
        }
        if minute % 60 == 59 {
            let ns = (minute + 1) * 60_000_000_000;
            let at = Instant {
                mono_ns: ns,
                wall_ns: WALL_NS.saturating_add_unsigned(ns),
            };
            condenser.end_sums(at, &mut |it| kept.push(it.clone()));
        }
        // The frames of a recorder have a megabyte of lines.
        for frame in kept.chunks(1_200) {
            recorder.put(frame)?;
        }
        kept.clear();
    }
    recorder.end()?;
    let sums = read(dir.path())?.numbers.len() as u64;
    assert!(sums >= connections * hours, "{sums}");
    Ok(segments(dir.path())?.iter().map(|it| it.1).sum())
}

/// The bound for 10,000 connections and a day is 20 MB: 2,000 bytes for one.
#[test]
fn healthy_connections_take_little_room() -> Result<(), Box<dyn std::error::Error>> {
    let (connections, hours) = (300, 24);
    let bytes = healthy_size(connections, hours)?;
    let of_one_a_day = bytes * 24 / hours / connections;
    assert!(of_one_a_day <= 2_000, "{of_one_a_day}");
    Ok(())
}

#[test]
#[ignore = "takes minutes without optimizations; docs/record.md has its figure"]
fn ten_thousand_healthy_connections_take_20_mb_a_day() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = healthy_size(10_000, 24)?;
    println!("{bytes} bytes");
    assert!(bytes <= 20_000_000, "{bytes}");
    Ok(())
}

#[test]
fn what_was_lost_is_told_by_the_next_frame() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path(), 1 << 20, 0)?;
    recorder.put(&[record(1)])?;
    let mut lost = Tally::default();
    (2..=8).for_each(|seq| lost.count(&record(seq)));
    recorder.log.lose(&lost);
    recorder.put(&[record(9)])?;
    recorder.end()?;
    let read = read(dir.path())?;
    assert_eq!((read.numbers, read.lost), (vec![1, 9], 7));
    assert!(read.remarks.is_empty(), "{:?}", read.remarks);
    let whys: Vec<_> = lost.as_lost().iter().map(|it| it.lost_why).collect();
    assert_eq!(whys, [Some(LostWhy::Output)]);
    Ok(())
}
