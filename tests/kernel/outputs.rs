//! Outputs that stall, fill up or lose their reader: none holds up the trace, another
//! output, or the end, and what an output lacks it reports as lost.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use kaprobe::sink::options::Format;
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::traffic::load::Load;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, mounts, schema, streams};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The events that the kernel counts in TCPKeepAlive.
const PROBES: [&str; 2] = ["probe", "probe_congested"];
/// Connections that each send a probe per second.
const CONNECTIONS: u32 = 400;
/// More probes than any screen here takes: a pipe takes 64 KiB.
const ENOUGH: u64 = 2_000;

/// A running kaprobe. Standard error is a file.
pub struct Traced {
    what: String,
    child: Killed,
    /// The output that is compared with the kernel.
    checked: PathBuf,
    /// Its screen, if it is a pipe; not read until it has ended.
    screen: Option<ChildStdout>,
    dir: TempDir,
}

/// What became of it.
pub struct Ended {
    pub what: String,
    pub status: ExitStatus,
    pub log: String,
    format: Format,
    pub stderr: String,
}

impl Traced {
    /// Starts a trace with these arguments. `checked` is its log, or the file that its
    /// screen is.
    pub fn start(
        what: &str,
        arguments: &[&str],
        screen: impl Into<Stdio>,
        checked: &Path,
    ) -> Result<Self> {
        Self::start_with(what, arguments, screen, checked, |_| ())
    }

    /// Like [`Self::start`], after a change of the command.
    pub fn start_with(
        what: &str,
        arguments: &[&str],
        screen: impl Into<Stdio>,
        checked: &Path,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = command::kaprobe()?;
        command
            .args(["trace", "--no-snapshot", "--netns", "/proc/self/ns/net"])
            .arg("--ready-file")
            .arg(dir.path().join("ready"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(screen)
            .stderr(File::create(dir.path().join("stderr"))?);
        change(&mut command);
        let mut child = Killed(command.spawn()?);
        Ok(Self {
            what: format!("{what}, {arguments:?}"),
            screen: child.stdout.take(),
            child,
            checked: checked.to_owned(),
            dir,
        })
    }

    fn stderr(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join("stderr"))?)
    }

    pub fn wait_ready(&mut self) -> Result<()> {
        let ready = self.dir.path().join("ready");
        let (child, what) = (&mut self.child, &self.what);
        wait_until("kaprobe is ready", || {
            if let Some(status) = child.try_wait()? {
                bail!("{what}: {status}");
            }
            Ok(ready.exists())
        })
        .with_context(|| self.stderr().unwrap_or_default())
    }

    /// The pid of kaprobe.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has ended, whatever its outputs do.
    pub fn finish(mut self) -> Result<Ended> {
        let mut ended = None;
        wait_until(&format!("{} ends", self.what), || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        Ok(Ended {
            status: ended.context("no status")?,
            format: match self.checked.extension().and_then(|it| it.to_str()) {
                Some("csv") => Format::Csv,
                Some("txt") => Format::Text,
                _ => Format::Json,
            },
            log: fs::read_to_string(&self.checked)?,
            stderr: self.stderr()?,
            what: self.what,
        })
    }
}

impl Ended {
    /// Checks the exit code, and that the log has or reports as lost exactly as many
    /// probes as the kernel counted.
    pub fn check(&self, code: i32, probes: u64) -> Result<()> {
        let Self { what, stderr, .. } = self;
        ensure!(
            self.status.code() == Some(code),
            "{what}: {}, not {code}: {stderr}",
            self.status
        );
        let reported = reported(self.format, &self.log)?;
        ensure!(
            reported == probes,
            "{what}: {reported} probes in the log or lost there; the kernel counted {probes}: {stderr}"
        );
        if self.format == Format::Json {
            schema::check_log(&self.log).map_err(anyhow::Error::msg)?;
            let last = self.log.lines().last().unwrap_or_default();
            ensure!(last.starts_with("{\"trailer\":"), "{what}: ends in {last}");
        }
        Ok(())
    }
}

impl Ended {
    pub fn says(&self, text: &str) -> Result<()> {
        let Self { what, stderr, .. } = self;
        ensure!(
            stderr.contains(text),
            "{what}: no {text:?} on stderr: {stderr}"
        );
        Ok(())
    }
}

/// The number of probes that an output has or reports as lost.
pub fn reported(format: Format, text: &str) -> Result<u64> {
    let mut lines = text.lines();
    let heading = lines.next().context("empty")?;
    let names: Vec<_> = heading.split(',').collect();
    let column = |line: &str, name: &str| -> Option<String> {
        let index = names.iter().position(|it| *it == name)?;
        Some(line.split(',').nth(index)?.to_owned())
    };
    let mut sum = 0;
    for line in lines {
        let (event, kind, lost) = match format {
            Format::Json => {
                let line: serde_json::Value = serde_json::from_str(line)?;
                let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                (text("event"), text("lost_kind"), line["lost"].as_u64())
            }
            Format::Csv => {
                let text = |name| column(line, name).unwrap_or_default();
                (text("event"), text("lost_kind"), text("lost").parse().ok())
            }
            Format::Text => {
                let words: Vec<_> = line.split_ascii_whitespace().collect();
                let word = |index: usize| words.get(index).copied().unwrap_or_default();
                (word(5).into(), word(7).into(), word(6).parse().ok())
            }
        };
        if PROBES.contains(&event.as_str()) {
            sum += 1;
        } else if event == "lost" && PROBES.contains(&kind.as_str()) {
            sum += lost.context("a loss without a count")?;
        }
    }
    Ok(sum)
}

pub fn open_load() -> Result<Load> {
    Ok(Load::each_second(CONNECTIONS, true)?)
}

/// Plays traffic until the kernel has sent more than this number of probes. Returns the number
/// that it counted.
pub fn play_load(enough: u64) -> Result<u64> {
    let before = KernelCounters::read()?.keepalive;
    let alone = OwnCpu::take()?;
    let load = open_load()?;
    wait_until("enough probes were sent", || {
        Ok(KernelCounters::read()?.keepalive > before + enough)
    })?;
    load.end()?;
    drop(alone);
    Ok(KernelCounters::read()?.keepalive - before)
}

/// Plays traffic to all of them, and stops them while it goes on. Returns how each
/// ended, and the probes that the kernel counted.
fn play(mut all: Vec<Traced>) -> Result<(Vec<Ended>, u64)> {
    all.iter_mut().try_for_each(Traced::wait_ready)?;
    // Exact counts need the traffic to end first. The screens are still stalled.
    let probes = play_load(ENOUGH)?;
    all.iter().try_for_each(|it| it.signal(Signal::TERM))?;
    let ended = all.into_iter().map(Traced::finish);
    Ok((ended.collect::<Result<_>>()?, probes))
}

pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// A screen that stalls stops neither the log, in any format, nor the end: a pipe that
/// nobody reads, and a terminal that was stopped.
pub fn stalled_screen_holds_up_nothing() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = |name| dir.path().join(name);
    let rows: [(&str, &[&str]); 3] = [
        ("text.jsonl", &[]),
        ("json.csv", &["--json"]),
        ("json.txt", &["--json", "--quiet"]),
    ];
    let mut all = Vec::new();
    for (name, arguments) in rows {
        let log = file(name);
        let arguments = [&["-o", text(&log)?], arguments].concat();
        all.push(Traced::start(
            "an unread pipe",
            &arguments,
            Stdio::piped(),
            &log,
        )?);
    }
    let (master, terminal) = streams::stopped_terminal()?;
    let log = file("terminal.jsonl");
    let arguments = ["--json", "-o", text(&log)?];
    let stopped = Traced::start("a stopped terminal", &arguments, terminal, &log)?;
    all.push(stopped);
    let screens: Vec<_> = all.iter_mut().map(|it| it.screen.take()).collect();

    let (ended, probes) = play(all)?;
    for it in &ended {
        // The screen is cut off, and the exit code says so.
        it.check(1, probes)?;
        it.says("standard output takes no more: ")?;
    }
    // What the pipes took is whole lines.
    for mut screen in screens.into_iter().flatten() {
        let mut text = String::new();
        screen.read_to_string(&mut text)?;
        ensure!(text.ends_with('\n'), "ends in {:?}", text.lines().last());
    }
    drop(master);
    Ok(())
}

/// A log that stalls, or whose reader has gone, does not hold up the screen.
pub fn stalled_log_holds_up_nothing() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = |name| dir.path().join(name);
    let mut all = Vec::new();
    let mut readers = Vec::new();
    for (what, screen) in [("unread", "unread.jsonl"), ("dead", "dead.jsonl")] {
        let (fifo, screen) = (file(what), file(screen));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        readers.push(rustix::fs::open(&fifo, flags, Mode::empty())?);
        let arguments = ["-o", text(&fifo)?, "--force", "--format", "csv", "--json"];
        let output = File::create(&screen)?;
        let mut started = Traced::start(&format!("a FIFO {what}"), &arguments, output, &screen)?;
        started.wait_ready()?;
        all.push(started);
    }
    // The last one has no reader from now on.
    readers.truncate(1);
    let (ended, probes) = play(all)?;
    for it in &ended {
        it.check(1, probes)?;
    }
    ended[0].says("takes no more: ")?;
    ended[1].says("Broken pipe")?;
    Ok(())
}

/// On a full disk, the log gives up its last lines to report what it lost. Once there is
/// room again, it goes on.
pub fn full_disk_is_reported_in_the_log() -> Result<()> {
    netns::enter_new()?;
    mounts::enter_new()?;
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk");
    fs::create_dir(&disk)?;
    let size = c"size=512k";
    mount("none", &disk, "tmpfs", MountFlags::empty(), Some(size))?;
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 256 * 1024])?;
    let freed = disk.join("freed.jsonl");
    let freed_screen = dir.path().join("freed.txt");
    let arguments = ["-o", text(&freed)?];
    let mut first = Traced::start("freed", &arguments, File::create(&freed_screen)?, &freed)?;
    first.wait_ready()?;

    let before = KernelCounters::read()?.keepalive;
    let alone = OwnCpu::take()?;
    let load = open_load()?;
    let is_full = "cannot write";
    wait_until("the disk is full", || Ok(first.stderr()?.contains(is_full)))?;
    fs::remove_file(&filler)?;
    wait_until("the log goes on", || {
        Ok(fs::read_to_string(&freed)?.contains("\"lost_why\":\"output\""))
    })?;
    load.end()?;
    drop(alone);
    let probes = KernelCounters::read()?.keepalive - before;
    first.signal(Signal::INT)?;
    let first = first.finish()?;
    // That something is missing is a failure, although the log reports it.
    first.check(1, probes)?;
    first.says("reported there as lost")?;
    let screen = fs::read_to_string(freed_screen)?;
    ensure!(
        reported(Format::Text, &screen)? == probes,
        "the screen lacks probes"
    );
    fs::remove_file(&freed)?;

    let mut all = Vec::new();
    for name in ["full.jsonl", "full.csv", "full.txt"] {
        let log = disk.join(name);
        all.push(Traced::start(
            "full",
            &["-o", text(&log)?],
            Stdio::null(),
            &log,
        )?);
    }
    let (ended, probes) = play(all)?;
    for it in &ended {
        it.check(1, probes)?;
        it.says("No space left on device")?;
    }
    Ok(())
}

/// A second signal ends a trace at once. What is lost by that is said, and a log that it cuts
/// off has no trailer.
pub fn second_signal_tells_what_is_lost() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let arguments = ["-o", text(&log)?];
    let mut twice = Traced::start("twice", &arguments, Stdio::piped(), &log)?;
    twice.wait_ready()?;
    let before = KernelCounters::read()?.keepalive;
    let load = open_load()?;
    wait_until("the screen takes no more", || {
        Ok(KernelCounters::read()?.keepalive > before + ENOUGH)
    })?;
    // Both are pending when it goes on.
    for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
        twice.signal(signal)?;
    }
    let twice = twice.finish()?;
    load.end()?;
    ensure!(twice.status.code() == Some(130), "{}", twice.status);
    twice.says("standard output: ")?;
    twice.says(" records are not in it")?;
    let last = twice.log.lines().last().unwrap_or_default();
    let is_cut_off = !last.starts_with("{\"trailer\":");
    let replayed = command::run(&["replay", "-q", text(&log)?])?;
    let remarks = String::from_utf8(replayed.stderr)?;
    let said = [
        twice.stderr.contains("ended by a second signal"),
        remarks.contains("ended without a trailer"),
    ];
    ensure!(said == [is_cut_off; 2], "{}{remarks}{last}", twice.stderr);
    Ok(())
}

/// A standard error that nobody reads holds up neither the start nor the end.
pub fn stalled_stderr_holds_up_nothing() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let (unread, full) = io::pipe()?;
    rustix::io::ioctl_fionbio(&full, true)?;
    while rustix::io::write(&full, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false)?;
    let mut command = command::kaprobe()?;
    command
        .args([
            "trace",
            "--netns",
            "/proc/self/ns/net",
            "--duration",
            "5s",
            "-o",
        ])
        .arg(&log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full);
    let load = open_load()?;
    let mut child = Killed(command.spawn()?);
    let mut status = None;
    wait_until("kaprobe ends", || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    load.end()?;
    drop(unread);
    let log = fs::read_to_string(log)?;
    let records = schema::check_log(&log).map_err(anyhow::Error::msg)?;
    ensure!(status.is_some_and(|it| it.success()), "{status:?}");
    ensure!(!records.is_empty(), "the log is empty");
    ensure!(log.contains("{\"trailer\":"), "the log has no trailer");
    Ok(())
}
