//! Logs over a long time: rotated, renamed, removed, continued after a restart, and what
//! SIGHUP does.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, ensure};
use kaprobe_testkit::command::{kaprobe, run};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{schema, streams};
use rustix::process::{Signal, ioctl_tiocsctty, setsid};
use serde_json::Value;

use crate::outputs::{Ended, Traced, open_load, reported, text};

/// The logs in this folder whose names start so, oldest first.
fn parts(folder: &FilePath, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let rest = text(path.strip_prefix(folder)?)?.strip_prefix(name);
        let number = rest.map(|it| it.trim_start_matches('.').parse::<u32>().unwrap_or(0));
        found.extend(number.map(|number| (number, path.clone())));
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Checks that files are the parts of one trace, each whole, from part `first` on. Returns
/// the probes in them.
fn check_parts(files: &[PathBuf], first: u64) -> Result<u64> {
    let mut probes = 0;
    for (index, file) in files.iter().enumerate() {
        let name = file.display();
        let log = fs::read_to_string(file)?;
        schema::check_log(&log).map_err(Error::msg)?;
        let line = |line: Option<&str>| -> Result<Value> {
            Ok(serde_json::from_str(line.context("empty")?)?)
        };
        let (head, last) = (line(log.lines().next())?, line(log.lines().last())?);
        let part = first + index as u64;
        let said = head["header"]["part"].as_u64().unwrap_or(1);
        ensure!(said == part, "{name} is part {said}, not {part}");
        let continued = last["trailer"]["continued"].as_bool() == Some(true);
        let is_last = index + 1 == files.len();
        ensure!(continued != is_last, "{name} ends in {last}");
        probes += reported(kaprobe::sink::options::Format::Json, &log)?;
    }
    Ok(probes)
}

/// Replays the files as one log. Returns its exit code, stdout and stderr.
fn replay(files: &[PathBuf]) -> Result<(Option<i32>, String, String)> {
    let all: String = files
        .iter()
        .map(fs::read_to_string)
        .collect::<Result<_, _>>()?;
    let mut command = kaprobe()?;
    command.args(["replay", "--json", "--quiet", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(all.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| Error::msg("panicked"))??;
    let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok((output.status.code(), out?, err?))
}

/// A log goes on in a new file when it is long or old enough, when SIGHUP comes after a
/// rename, and when it was removed or truncated. Nothing is lost between the files.
pub fn log_goes_on_in_new_files() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    let names = ["long.jsonl", "few.jsonl", "moved.jsonl", "old.jsonl"];
    let [long, few, moved, old] = names.map(file);
    let size = ["--rotate-size", "256KiB"];
    let age = ["--rotate-age", "1s", "--rotate-keep", "1000"];
    let start = |log: &FilePath, more: &[&str]| {
        let arguments = [&["-o", text(log)?], more].concat();
        Traced::start("rotated", &arguments, Stdio::null(), log)
    };
    let mut all = vec![
        start(&long, &[&size[..], &["--rotate-keep", "1000"]].concat())?,
        start(&few, &[&size[..], &["--rotate-keep", "2"]].concat())?,
        start(&moved, &[])?,
        start(&old, &age)?,
    ];
    all.iter_mut().try_for_each(Traced::wait_ready)?;
    let before = KernelCounters::read()?.keepalive;
    let alone = OwnCpu::take()?;
    let load = open_load()?;
    let wait_for_records = || {
        wait_until("the log has records", || {
            Ok(fs::read_to_string(&moved).is_ok_and(|log| log.contains("\"event\":\"probe\"")))
        })
    };
    wait_for_records()?;
    fs::rename(&moved, file("moved.jsonl.2"))?;
    all[2].signal(Signal::HUP)?;
    wait_for_records()?;
    // Renamed, and no signal.
    fs::rename(&moved, file("moved.jsonl.1"))?;
    wait_for_records()?;
    wait_until("four files", || {
        let count = |name| Ok::<_, Error>(parts(dir.path(), name)?.len());
        Ok(count("long.jsonl")? >= 4 && count("old.jsonl")? >= 4)
    })?;
    load.end()?;
    drop(alone);
    let probes = KernelCounters::read()?.keepalive - before;
    for it in all {
        it.signal(Signal::TERM)?;
        let Ended {
            what,
            status,
            stderr,
            ..
        } = it.finish()?;
        ensure!(status.success(), "{what}: {status}: {stderr}");
    }

    for name in ["long.jsonl", "moved.jsonl", "old.jsonl"] {
        let files = parts(dir.path(), name)?;
        let found = check_parts(&files, 1)?;
        ensure!(found == probes, "{files:?} have {found} probes of {probes}");
        let (code, out, err) = replay(&files)?;
        ensure!(code == Some(0) && err.is_empty(), "{code:?} {err}");
        let all: String = files
            .iter()
            .map(fs::read_to_string)
            .collect::<Result<_, _>>()?;
        let differs = out.lines().zip(all.lines()).find(|(out, all)| out != all);
        ensure!(out == all, "the replay of {files:?} differs: {differs:?}");
        // The files one by one, the latest first.
        let mut one_by_one = kaprobe()?;
        one_by_one.args(["replay", "--json", "--quiet"]);
        let output = one_by_one.args(files.iter().rev()).output()?;
        ensure!(output.stdout == all.as_bytes(), "{output:?}");
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    let files = parts(dir.path(), "few.jsonl")?;
    ensure!(files.len() == 3, "kept {files:?}");
    let head = fs::read_to_string(&files[0])?;
    let head: Value = serde_json::from_str(head.lines().next().context("empty")?)?;
    check_parts(
        &files,
        head["header"]["part"].as_u64().context("the first part")?,
    )?;
    Ok(())
}

/// A log that is removed or truncated is noticed, and goes on at its path.
pub fn removed_log_is_noticed() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let [removed, truncated] = ["removed.jsonl", "truncated.csv"].map(|it| dir.path().join(it));
    let mut all = Vec::new();
    for log in [&removed, &truncated] {
        let mut started = Traced::start("cut", &["-o", text(log)?], Stdio::null(), log)?;
        started.wait_ready()?;
        all.push(started);
    }
    let load = open_load()?;
    let has_records = |log: &FilePath| {
        wait_until("the log has records", || {
            let is_record = |line: &str| line.contains("probe");
            Ok(fs::read_to_string(log).is_ok_and(|log| log.lines().skip(1).any(is_record)))
        })
    };
    has_records(&removed)?;
    has_records(&truncated)?;
    fs::remove_file(&removed)?;
    OpenOptions::new()
        .write(true)
        .open(&truncated)?
        .set_len(0)?;
    has_records(&removed)?;
    has_records(&truncated)?;
    load.end()?;
    for (it, said) in all
        .into_iter()
        .zip(["was removed or renamed", "was truncated"])
    {
        it.signal(Signal::INT)?;
        let ended = it.finish()?;
        ensure!(ended.status.success(), "{}: {}", ended.what, ended.stderr);
        ended.says(said)?;
        // It has its heading again.
        let first = ended.log.lines().next().unwrap_or_default();
        ensure!(
            first.starts_with("{\"header\"") || first.starts_with("time,mono_ns"),
            "starts with {first}"
        );
    }
    Ok(())
}

/// A trace continues its log, also one that was killed, and refuses any other file.
pub fn restart_continues_the_log() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    let log = file("log.jsonl");
    let load = open_load()?;
    let traced = || {
        let mut traced = Traced::start("again", &["-o", text(&log)?], Stdio::null(), &log)?;
        let before = fs::read_to_string(&log).unwrap_or_default().lines().count();
        traced.wait_ready()?;
        wait_until("more records", || {
            Ok(fs::read_to_string(&log)?.lines().count() > before + 10)
        })?;
        anyhow::Ok(traced)
    };
    let first = traced()?;
    let second = run(&["trace", "--duration", "1s", "-o", text(&log)?])?;
    let refused = String::from_utf8(second.stderr)?;
    ensure!(
        second.status.code() == Some(1) && refused.contains("another kaprobe writes it"),
        "{refused}"
    );
    first.signal(Signal::INT)?;
    first.finish()?;
    let killed = traced()?;
    killed.signal(Signal::KILL)?;
    killed.finish()?;
    // SIGKILL cuts a write short if it comes in the middle; now it always did.
    let cut = OpenOptions::new().write(true).open(&log)?;
    cut.set_len(cut.metadata()?.len() - 9)?;
    drop(cut);
    let last = traced()?;
    last.signal(Signal::TERM)?;
    last.finish()?;
    load.end()?;
    let whole = fs::read_to_string(&log)?;
    let count = |what: &str| whole.lines().filter(|it| it.starts_with(what)).count();
    let marks = (count("{\"header\""), count("{\"trailer\""));
    ensure!(marks == (3, 2), "headers and trailers: {marks:?}");
    let (code, _, said) = replay(std::slice::from_ref(&log))?;
    ensure!(
        code == Some(0) && said.matches("another trace follows").count() == 2,
        "{code:?}: {said}"
    );
    ensure!(said.matches("without a trailer").count() == 1, "{said}");

    // Anything else is refused, and not touched.
    for (name, content) in [
        ("foreign.jsonl", "{\"time\":1}\n"),
        ("text.csv", "TIME PID\n"),
        ("old.jsonl", "{\"header\":{\"version\":\"2.0\"}}\n"),
        ("table.txt", "time,mono_ns\n"),
    ] {
        let path = file(name);
        fs::write(&path, content)?;
        let output = run(&["trace", "--duration", "1s", "-o", text(&path)?])?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(1) && stderr.contains("not a log of this format"),
            "{name}: {stderr}"
        );
        ensure!(fs::read_to_string(&path)? == content, "{name} was touched");
    }
    Ok(())
}

/// SIGHUP ends a trace without a log, and one whose terminal is gone; not one that nohup
/// started.
pub fn hangup_ends_only_what_it_should() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    // Whoever started this test may ignore it, as nohup does.
    let hangs_up = |command: &mut Command| {
        // SAFETY: signal(2) is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
    };
    let no_log = FilePath::new("/dev/null");
    let mut alone = Traced::start_with("no log", &[], Stdio::null(), no_log, hangs_up)?;
    alone.wait_ready()?;
    alone.signal(Signal::HUP)?;
    let ended = alone.finish()?;
    ensure!(ended.status.success(), "{}: {}", ended.what, ended.stderr);

    let arguments = ["-o", text(&log)?];
    let nohup = |command: &mut Command| {
        // SAFETY: signal(2) is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                Ok(())
            });
        }
    };
    let mut kept = Traced::start_with("nohup", &arguments, Stdio::null(), &log, nohup)?;
    kept.wait_ready()?;
    let status = fs::read_to_string(format!("/proc/{}/status", kept.pid()))?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.context("no SigIgn")?.trim(), 16)?;
    ensure!(ignored & 1 != 0, "SIGHUP is not ignored: {ignored:x}");
    kept.signal(Signal::HUP)?;
    kept.signal(Signal::INT)?;
    kept.finish()?.check(0, 0)?;
    fs::remove_file(&log)?;

    let (master, terminal) = streams::terminal()?;
    let session = |command: &mut Command| {
        hangs_up(command);
        command.stdin(terminal);
        // SAFETY: these system calls are async-signal-safe, and touch no memory. Standard
        // input is open.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                Ok(ioctl_tiocsctty(BorrowedFd::borrow_raw(0))?)
            });
        }
    };
    let mut hung_up = Traced::start_with("terminal", &arguments, Stdio::null(), &log, session)?;
    hung_up.wait_ready()?;
    drop(master);
    hung_up.finish()?.check(0, 0)?;
    Ok(())
}
