//! A replay of a log shows the same as the trace of the real traffic.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::script::ScriptedConnection;
use kaprobe_testkit::command::run;
use kaprobe_testkit::netns;
use kaprobe_testkit::tracer::{ALL_EVENTS, Kaprobe};
use kaprobe_testkit::traffic::{play, scenarios};
use rustix::process::Signal;

/// The formats of the file output. Standard output is JSON.
const FORMATS: &[&[&str]] = &[
    &["--format", "csv"],
    &["--format", "text"],
    &["--format", "text", "--wide", "--time", "relative"],
];

/// Output is equal byte for byte, for every selection of events and every format.
pub fn replay_equals_the_trace() -> Result<()> {
    netns::enter_new()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| -> Result<String> {
        let path = folder.path().join(name);
        Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
    };
    let scenarios = [
        scenarios::ANSWERED,
        scenarios::SILENT,
        scenarios::USER_TIMEOUT,
        scenarios::VANISHED,
        scenarios::EARLY,
        scenarios::FIN_WAIT2_TIME_WAIT,
    ];
    let mut scripted = scenarios
        .into_iter()
        .flat_map(|it| [Path::V4, Path::V6].map(|path| ScriptedConnection::new(it, path)))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut running = Vec::new();
    for (number, format) in FORMATS.iter().enumerate() {
        for events in [ALL_EVENTS, "default", "probe,verdict"] {
            let file = path(&format!("{number}-{events}"))?;
            let flags = ["--netns", "/proc/self/ns/net", "-e", events, "-o", &file];
            let kaprobe = Kaprobe::trace(&[&flags[..], format].concat())?;
            running.push((format, file, kaprobe));
        }
    }
    let running: Vec<_> = running
        .into_iter()
        .map(|(format, file, kaprobe)| Ok((format, file, kaprobe.ready()?)))
        .collect::<Result<_>>()?;
    play::play_out(&mut scripted)?;
    drop(scripted);
    for (format, file, kaprobe) in running {
        kaprobe.signal(Signal::INT)?;
        let ended = kaprobe.finish()?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let log: String = ended.lines.iter().map(|line| format!("{line}\n")).collect();
        let records = ended.lines.len() - 1;
        ensure!(records > 0, "nothing was traced\n{}", ended.stderr);
        let log_file = path("log.jsonl")?;
        fs::write(&log_file, &log)?;
        let replayed = run(&[&["replay", &log_file], *format].concat())?;
        compare(&replayed.stdout, &fs::read(&file)?, &file)?;
        let replayed = run(&["replay", &log_file, "--json"])?;
        compare(&replayed.stdout, log.as_bytes(), "the log")?;
    }
    Ok(())
}

/// Fails with the first line that differs.
fn compare(replayed: &[u8], traced: &[u8], what: &str) -> Result<()> {
    let lines = |all: &[u8]| -> Vec<String> {
        let lines = all.split_inclusive(|&byte| byte == b'\n');
        lines
            .map(|it| String::from_utf8_lossy(it).into_owned())
            .collect()
    };
    let (replayed, traced) = (lines(replayed), lines(traced));
    let pairs = replayed.iter().zip(&traced);
    for (replayed, traced) in pairs {
        ensure!(replayed == traced, "{what}:\n{traced}became\n{replayed}");
    }
    let (after, before) = (replayed.len(), traced.len());
    ensure!(after == before, "{what}: {before} lines became {after}");
    Ok(())
}
