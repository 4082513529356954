//! A tracer at work, in a process of its own.

use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe_testkit::clock::monotonic;
use kaprobe_testkit::command;
use rustix::process::{Pid, Signal, kill_process};
use wait4::{ResUse, Wait4 as _};

use crate::usage::has_thread;

/// How long anything may take before something is wrong.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often to look at what can't be waited for.
const TICK: Duration = Duration::from_millis(2);

/// A process that traces. Killed when dropped.
pub struct Tracer {
    /// Until it has been waited for.
    child: Option<Child>,
    pid: Pid,
    begun: Duration,
}

impl Tracer {
    /// Starts `kaprobe trace`; returns once it traces.
    pub fn kaprobe(arguments: &[&str], stdout: Stdio) -> Result<Self> {
        // Its programs run before they are armed, and do nothing then.
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

    /// Starts bpftrace with a script; it may not trace yet.
    pub fn bpftrace(options: &[&str], script: &str, stdout: Stdio) -> Result<Self> {
        let mut command = peer("KAPROBE_BENCH_BPFTRACE")?;
        command.arg("-q").args(options).args(["-e", script]);
        Self::start(command, stdout)
    }

    /// Starts any other.
    pub fn start(mut command: Command, stdout: Stdio) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null());
        let begun = monotonic();
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self {
            pid: Pid::from_child(&child),
            child: Some(child),
            begun,
        })
    }

    /// Returns what there is to be seen, once there is.
    pub fn until<T>(&mut self, see: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(seen) = see()? {
                return Ok(seen);
            }
            if let Some(used) = self.ended()? {
                bail!("it ended before it traced: {}", used.status);
            }
            ensure!(start.elapsed() < DEADLINE, "it traces nothing");
            thread::sleep(TICK);
        }
    }

    /// Returns once it does no more than trace: kaprobe begins with a snapshot of the
    /// sockets that are there, on a thread of its own.
    pub fn settle(&mut self) -> Result<()> {
        let pid = self.pid;
        self.until(|| Ok((!has_thread(pid, "snapshot")?).then_some(())))
    }

    /// When it was begun, by CLOCK_MONOTONIC, which events are stamped with.
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What it has used in all, once it has ended.
    fn ended(&mut self) -> Result<Option<ResUse>> {
        let child = self.child.as_mut().context("it has ended before")?;
        let used = child.try_wait4()?;
        if used.is_some() {
            // Its pid may be another's from now on.
            self.child = None;
        }
        Ok(used)
    }

    /// Ctrl-C; returns what it has used in all, once it has ended.
    pub fn stop(mut self) -> Result<ResUse> {
        kill_process(self.pid, Signal::INT).context("cannot interrupt it")?;
        let start = Instant::now();
        loop {
            if let Some(used) = self.ended()? {
                ensure!(used.status.success(), "{}", used.status);
                return Ok(used);
            }
            ensure!(start.elapsed() < DEADLINE, "it does not end");
            thread::sleep(TICK);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ended already or not: nothing of it stays in the kernel.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A peer that `cargo xtask bench` has put there: the words of a command.
pub fn peer(variable_name: &str) -> Result<Command> {
    let words = env::var(variable_name).with_context(|| variable_name.to_owned())?;
    let mut words = words.split('\x1f');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Ok(command)
}
