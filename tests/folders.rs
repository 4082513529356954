//! `kaprobe replay` reads the folder of a recorder: each connection once, and what is missing
//! or damaged is said.

use std::fs;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use kaprobe::model::header::Header;
use kaprobe::model::record::{EventName, Record};
use kaprobe::model::segment::SegmentName;
use kaprobe::model::time::WallTime;
use kaprobe_testkit::fixtures::{WALL_NS, header};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use crate::{Logs, TestResult, log_text, record, texts};

/// One hour, ms.
const HOUR_MS: u32 = 3_600_000;

fn zstd(text: &str) -> Vec<u8> {
    compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
}

/// The name of a segment that begins so many hours after the start.
fn name(number: u64, hour: u32) -> String {
    let ns = i64::from(hour * HOUR_MS) * 1_000_000;
    let began = WallTime(WALL_NS + ns);
    SegmentName { number, began }.to_string()
}

/// The header of a part of a trace.
fn part(number: u32) -> Header {
    Header {
        part: (number > 1).then_some(number),
        ..header("mq1")
    }
}

/// The lines of a segment: a header, records and a trailer.
fn lines(logs: &Logs, header: &Header, records: &[Record]) -> TestResult<Vec<String>> {
    let text = log_text(logs, "lines", header, records)?;
    Ok(text.split_inclusive('\n').map(str::to_owned).collect())
}

/// A record of the one connection that all parts have, in this hour.
fn probe(hour: u32) -> Record {
    Record {
        sock: Some(1),
        ..record(hour * HOUR_MS, u64::from(hour) + 1, EventName::Probe)
    }
}

/// Four segments of one trace, an hour each, with a probe in each. Each line is a frame.
fn four(logs: &Logs) -> TestResult<Vec<String>> {
    fs::create_dir(logs.path("kept"))?;
    let mut names = Vec::new();
    for number in 1..=4 {
        let lines = lines(logs, &part(number), &[probe(number - 1)])?;
        let frames: Vec<_> = lines.iter().flat_map(|it| zstd(it)).collect();
        let name = format!("kept/{}", name(number.into(), number - 1));
        fs::write(logs.path(&name), frames)?;
        names.push(name);
    }
    Ok(names)
}

/// The connections and probes of a folder, by its summary. And what is said.
fn counts(logs: &Logs, args: &[&str], code: i32) -> TestResult<(u64, u64, String)> {
    let args = [args, &["--summary", "--json", "-q"]].concat();
    let (out, err) = logs.run(&args, code)?;
    let (mut connections, mut probes) = (0, 0);
    for line in out.lines() {
        let line: Value = serde_json::from_str(line)?;
        connections += line["connections"].as_u64().unwrap_or(0);
        probes += line["events"]["probe"].as_u64().unwrap_or(0);
    }
    Ok((connections, probes, err))
}

#[test]
fn what_is_missing_in_a_folder_is_named_and_no_connection_counts_twice() -> TestResult {
    let logs = Logs::new()?;
    let names = four(&logs)?;
    let whole = counts(&logs, &["kept"], 0)?;
    assert_eq!(whole, (1, 4, String::new()));
    let second = logs.path(&names[1]);
    let bytes = fs::read(&second)?;
    let cut = |frames: usize| -> Vec<u8> {
        // Frames begin with these bytes.
        let starts = bytes.windows(4).enumerate();
        let starts = starts.filter(|(_, it)| *it == [0x28, 0xb5, 0x2f, 0xfd]);
        let at = starts.map(|(at, _)| at).nth(frames);
        bytes[..at.unwrap_or(bytes.len())].to_vec()
    };
    let mut flipped = bytes.clone();
    let last = cut(2).len() - 1;
    flipped[last] ^= 1;
    let damaged = "damaged: the log up to here ended without a trailer, but its trace goes on: \
                   records may be missing";
    let end = "a log is damaged: records may be missing";
    let third = format!(
        "{}:1: segment 2 of this log is missing before this line",
        names[2]
    );
    let said = |line: u64, what: &str| format!("{}:{line}: {what}", names[1]);
    let checksum =
        "the rest of this segment is left out: zstd frame 2 is damaged: its checksum differs";
    /// What the second segment holds, if it is there; the exit code, the probes, the messages.
    type Row<'a> = (Option<&'a [u8]>, i32, u64, Vec<String>);
    #[rustfmt::skip]
    let rows: [Row<'_>; 6] = [
        (None, 0, 3, vec![third]),
        (Some(&[]), 0, 3, vec![said(1, "the log is empty")]),
        (Some(&bytes[..8]), 1, 3, vec![said(1, damaged), end.to_owned()]),
        (Some(&cut(2)), 1, 4, vec![said(2, damaged), end.to_owned()]),
        (Some(&bytes[..cut(2).len() - 3]), 1, 3, vec![said(1, damaged), end.to_owned()]),
        (Some(&flipped), 1, 3, vec![said(2, checksum), end.to_owned()]),
    ];
    for (contents, code, probes, lines) in rows {
        match contents {
            Some(contents) => fs::write(&second, contents)?,
            None => fs::remove_file(&second)?,
        }
        let lines: String = lines.iter().map(|it| format!("kaprobe: {it}\n")).collect();
        assert_eq!(counts(&logs, &["kept"], code)?, (1, probes, lines));
    }
    // The last one: the recorder was killed, or still writes.
    fs::write(&second, &bytes)?;
    let fourth = fs::read(logs.path(&names[3]))?;
    fs::write(logs.path(&names[3]), &fourth[..fourth.len() - 3])?;
    let (.., err) = counts(&logs, &["kept"], 0)?;
    let killed =
        "the log up to here ended without a trailer: kaprobe was killed, or still writes it";
    assert_eq!(err, format!("kaprobe: {}:2: {killed}\n", names[3]));
    Ok(())
}

/// More segments than a process may have open files.
#[test]
fn a_folder_may_have_more_segments_than_files_may_be_open() -> TestResult {
    let logs = Logs::new()?;
    fs::create_dir(logs.path("kept"))?;
    for number in 1..=100_u32 {
        let lines = lines(&logs, &part(number), &[probe(number)])?.concat();
        let path = format!("kept/{}", name(number.into(), number));
        fs::write(logs.path(&path), zstd(&lines))?;
    }
    let kaprobe = env!("CARGO_BIN_EXE_kaprobe");
    for command in [
        "replay -q --summary --json kept",
        "report kept -o page.html",
    ] {
        let script = format!("ulimit -n 32; exec {kaprobe} {command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(logs.0.path());
        let (out, err) = texts(&shell.output()?, 0)?;
        assert_eq!(err, "", "{command}");
        assert!(
            out.is_empty() || out.contains(r#""connections":1,"events":{"probe":100}"#),
            "{out}"
        );
    }
    Ok(())
}

/// A log and its compressed copy, and a folder and its copy, count once.
#[test]
fn a_copy_is_read_once() -> TestResult {
    let logs = Logs::new()?;
    let names = four(&logs)?;
    let log = lines(&logs, &part(1), &[probe(0), probe(1)])?.concat();
    fs::write(logs.path("run.jsonl"), &log)?;
    fs::write(logs.path("run.jsonl.zst"), zstd(&log))?;
    fs::create_dir(logs.path("copy"))?;
    for name in &names[..3] {
        fs::copy(logs.path(name), logs.path(&name.replace("kept", "copy")))?;
    }
    // The oldest is no longer in the folder.
    fs::remove_file(logs.path(&names[0]))?;
    for args in [
        ["run.jsonl", "run.jsonl.zst"],
        ["run.jsonl.zst", "run.jsonl"],
    ] {
        let (connections, probes, err) = counts(&logs, &args, 0)?;
        assert_eq!((connections, probes), (1, 2), "{err}");
        let said = "kaprobe: run.jsonl.zst:1: it has the same header as run.jsonl: left out, as a copy of it\n";
        assert_eq!(err, said);
    }
    for args in [["kept", "copy"], ["copy", "kept"]] {
        let (connections, probes, err) = counts(&logs, &args, 0)?;
        assert_eq!((connections, probes), (1, 4), "{err}");
        let left_out = err.lines().filter(|it| it.ends_with("as a copy of it"));
        assert_eq!((left_out.count(), err.lines().count()), (2, 2), "{err}");
    }
    Ok(())
}

/// A time of which there is nothing is named, with the times that there are.
#[test]
fn that_nothing_is_of_a_time_is_said() -> TestResult {
    let logs = Logs::new()?;
    four(&logs)?;
    let log = lines(&logs, &part(1), &[probe(0), probe(1)])?.concat();
    fs::write(logs.path("run.jsonl"), &log)?;
    let at = |hour: u32| {
        let ns = i64::from(hour * HOUR_MS) * 1_000_000;
        WallTime(WALL_NS + ns).to_the_second().to_string()
    };
    let (before, later) = ("2001-02-03T04:05:06Z", at(50));
    let of = |first: u32, last: u32| format!("of {} to {}\n", at(first), at(last));
    let nothing = format!("kaprobe: nothing was logged since {later}: the logs are ");
    let rows: [(&[&str], &str, String); 4] = [
        (&["run.jsonl", "--since", &later], &nothing, of(0, 1)),
        (
            &["kept", "--until", before],
            "kaprobe: kept: nothing was recorded until 2001-02-03T04:05:06Z: its segments are of ",
            String::new(),
        ),
        // The folder was written just now, so its segments may have it.
        (&["kept", "--since", &later], &nothing, of(0, 3)),
        (&["kept", "--since", &at(2)], "", String::new()),
    ];
    for (args, start, end) in rows {
        let (.., err) = counts(&logs, args, 0)?;
        assert!(
            err.starts_with(start) && err.ends_with(&end),
            "{args:?}: {err}"
        );
        assert_eq!(err.lines().count(), usize::from(!start.is_empty()), "{err}");
    }
    // Now only the last segment may have it, and is read alone.
    for entry in fs::read_dir(logs.path("kept"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|it| it.to_str());
        let segment = name.and_then(SegmentName::parse);
        if segment.is_some_and(|it| it.number < 4) {
            let old = UNIX_EPOCH + Duration::from_nanos(WALL_NS.unsigned_abs());
            fs::File::open(&path)?.set_modified(old)?;
        }
    }
    let (.., err) = counts(&logs, &["kept", "--since", &later], 0)?;
    assert_eq!(err, format!("{nothing}{}", of(0, 3)));
    Ok(())
}
