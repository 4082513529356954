//! The recorder: what its folder says equals the kernel's counters, over a restart and after
//! SIGKILL.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::process::Stdio;

use anyhow::{Context, Error, Result, bail, ensure};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::command::{kaprobe, run};
use kaprobe_testkit::netns;
use kaprobe_testkit::schema;
use kaprobe_testkit::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::outputs::{play_load, text};

/// Probes of a run.
const ENOUGH: u64 = 1_200;

/// A running recorder.
struct Recorder {
    child: Killed,
    dir: TempDir,
}

impl Recorder {
    /// Starts one, and waits until it records.
    fn start(folder: &FilePath) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let mut command = kaprobe()?;
        command
            .args(["record", "--no-snapshot", "--netns", "/proc/self/ns/net"])
            .args(["--alive-interval", "1s", "--segment-age", "2s"])
            .args(["--max-size", "64MiB", "--dir"])
            .arg(folder)
            .arg("--ready-file")
            .arg(file("ready"))
            .stdin(Stdio::null())
            .stdout(File::create(file("stdout"))?)
            .stderr(File::create(file("stderr"))?);
        let child = Killed(command.spawn()?);
        let mut started = Self { child, dir };
        wait_until("the recorder is ready", || {
            if let Some(status) = started.child.try_wait()? {
                bail!("{status}: {}", started.said("stderr")?);
            }
            Ok(started.dir.path().join("ready").exists())
        })?;
        Ok(started)
    }

    fn said(&self, stream: &str) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join(stream))?)
    }

    /// Ends it by a signal. Returns its exit code.
    fn end(mut self, signal: Signal) -> Result<Option<i32>> {
        kill_process(Pid::from_child(&self.child), signal)?;
        let mut status = None;
        wait_until("the recorder ends", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        let (out, err) = (self.said("stdout")?, self.said("stderr")?);
        ensure!(out.is_empty(), "on stdout: {out}");
        ensure!(err.contains("records to "), "no line at the start: {err}");
        Ok(status.context("no status")?.code())
    }
}

/// Replays the folder. Returns its stdout and stderr.
fn replay(folder: &FilePath, arguments: &[&str]) -> Result<(String, String)> {
    let output = run(&[&["replay", text(folder)?], arguments].concat())?;
    let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
    let (out, err) = (out?, err?);
    ensure!(
        output.status.success(),
        "{arguments:?}: {}: {err}",
        output.status
    );
    Ok((out, err))
}

/// The number of probes in the folder, by the summary.
fn probes(folder: &FilePath) -> Result<u64> {
    let (out, _) = replay(folder, &["--summary", "--json", "-q"])?;
    let mut sum = 0;
    for line in out.lines() {
        let line: Value = serde_json::from_str(line)?;
        let count = |event: &str| line["events"][event].as_u64().unwrap_or(0);
        sum += count("probe") + count("probe_congested");
        let lost = line["total"]["lost"].as_u64().unwrap_or(0);
        ensure!(lost == 0, "{lost} events lost");
    }
    Ok(sum)
}

/// The folder says what the kernel counted: after an end in order, a restart, and a kill, which
/// takes no more than what was not written yet.
pub fn folder_equals_the_counters() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("kept");

    let first = Recorder::start(&folder)?;
    let second = run(&["record", "--no-snapshot", "--dir", text(&folder)?])?;
    let said = String::from_utf8(second.stderr)?;
    let expected = format!(
        "another kaprobe records there: process {}",
        first.child.id()
    );
    ensure!(
        second.status.code() == Some(1) && said.contains(&expected),
        "{said}"
    );
    let mut sent = play_load(ENOUGH)?;
    ensure!(first.end(Signal::TERM)? == Some(0));
    let found = probes(&folder)?;
    ensure!(found == sent, "{found} probes in the folder, {sent} sent");

    let restarted = Recorder::start(&folder)?;
    sent += play_load(ENOUGH)?;
    ensure!(restarted.end(Signal::INT)? == Some(0));
    let found = probes(&folder)?;
    ensure!(
        found == sent,
        "after a restart: {found} probes, {sent} sent"
    );
    let (out, err) = replay(&folder, &["--json"])?;
    // Each segment has a header and a trailer.
    let mut parts = Vec::new();
    for line in out.lines() {
        if line.starts_with("{\"header\"") {
            parts.push(String::new());
        }
        let part = parts.last_mut().context("no header")?;
        part.push_str(line);
        part.push('\n');
    }
    ensure!(parts.len() > 2, "{} segments", parts.len());
    for part in parts {
        schema::check_log(&part).map_err(Error::msg)?;
    }
    ensure!(out.contains(r#""event":"alive""#), "no sums");
    ensure!(!err.contains("trailer"), "{err}");

    let killed = Recorder::start(&folder)?;
    let more = play_load(ENOUGH)?;
    ensure!(killed.end(Signal::KILL)?.is_none());
    let found = probes(&folder)?;
    ensure!(
        (sent..=sent + more).contains(&found),
        "{found}, not {sent} and {more} more"
    );
    Recorder::start(&folder)?.end(Signal::TERM)?;
    let again = probes(&folder)?;
    ensure!(
        again == found,
        "{again} after another start, {found} before"
    );
    let (_, err) = replay(&folder, &["--summary"])?;
    ensure!(
        err.contains("without a trailer"),
        "the gap is not named: {err}"
    );

    let (all, _) = replay(&folder, &["--since", "-1d", "-qH"])?;
    let (none, _) = replay(&folder, &["--until", "-1d", "-qH"])?;
    ensure!(all.lines().count() > 100 && none.is_empty(), "{none}");
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{:?}: {mode:o}", entry.file_name());
    }
    let mode = fs::metadata(&folder)?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "{mode:o}");
    Ok(())
}
