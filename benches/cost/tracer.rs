//! Runs a tracer as a child process.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe_testkit::clock::monotonic;
use kaprobe_testkit::command;
use rustix::process::{Pid, Signal, kill_process};
use wait4::{ResUse, Wait4 as _};

use crate::usage::has_thread;

/// The longest time to wait for a tracer.
const DEADLINE: Duration = Duration::from_secs(120);
/// The polling interval.
const TICK: Duration = Duration::from_millis(2);

/// A running tracer. Killed when dropped.
pub struct TracerProcess {
    /// `None` once the process has been waited for.
    child: Option<Child>,
    pid: Pid,
    started: Duration,
}

impl TracerProcess {
    /// Starts `kaprobe trace`, and returns once it traces.
    pub fn kaprobe(arguments: &[&str], stdout: Stdio) -> Result<Self> {
        // Attached programs are not enough: they do nothing until they are armed.
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready");
        let mut command = command::kaprobe()?;
        command
            .args(["trace", "--ready-file"])
            .arg(&ready)
            .args(arguments);
        let mut tracer = Self::start(command, stdout)?;
        tracer.until(|| Ok(ready.exists().then_some(())))?;
        Ok(tracer)
    }

    /// Starts bpftrace with a script. It may not trace yet.
    pub fn bpftrace(options: &[&str], script: &str, stdout: Stdio) -> Result<Self> {
        let mut command = peer("KAPROBE_BENCH_BPFTRACE")?;
        command.arg("-q").args(options).args(["-e", script]);
        Self::start(command, stdout)
    }

    /// Starts any tracer.
    pub fn start(mut command: Command, stdout: Stdio) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null());
        let started = monotonic();
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self {
            pid: Pid::from_child(&child),
            child: Some(child),
            started,
        })
    }

    /// Polls a function until it returns a value.
    pub fn until<T>(&mut self, poll: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(value) = poll()? {
                return Ok(value);
            }
            if let Some(used) = self.ended()? {
                bail!("the tracer ended before it traced: {}", used.status);
            }
            ensure!(start.elapsed() < DEADLINE, "the tracer traces nothing");
            thread::sleep(TICK);
        }
    }

    /// Waits until the startup work is done: kaprobe takes a snapshot of the existing
    /// sockets on another thread.
    pub fn settle(&mut self) -> Result<()> {
        let pid = self.pid;
        self.until(|| Ok((!has_thread(pid, "snapshot")?).then_some(())))
    }

    /// The start time by CLOCK_MONOTONIC, the clock of event timestamps.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// The pid of the tracer.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The total resource usage if the process has ended.
    fn ended(&mut self) -> Result<Option<ResUse>> {
        let child = self
            .child
            .as_mut()
            .context("the tracer has already ended")?;
        let used = child.try_wait4()?;
        if used.is_some() {
            // From now on the pid may belong to another process.
            self.child = None;
        }
        Ok(used)
    }

    /// Stops the tracer with SIGINT. Returns its total resource usage.
    pub fn stop(mut self) -> Result<ResUse> {
        kill_process(self.pid, Signal::INT).context("cannot interrupt the tracer")?;
        let start = Instant::now();
        loop {
            if let Some(used) = self.ended()? {
                ensure!(used.status.success(), "{}", used.status);
                return Ok(used);
            }
            ensure!(start.elapsed() < DEADLINE, "the tracer does not end");
            thread::sleep(TICK);
        }
    }
}

impl Drop for TracerProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The tracer may have ended before. An error changes nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command of a peer, from an environment variable that `cargo xtask bench` sets.
pub fn peer(variable_name: &str) -> Result<Command> {
    let words = env::var(variable_name).with_context(|| variable_name.to_owned())?;
    let mut words = words.split('\x1f');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Ok(command)
}
