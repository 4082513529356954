//! What is measured: a tracer at work.

use std::env;
use std::process::{Child, Command, Stdio, id};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;

use crate::floor;
use crate::stats::Snapshot;

/// How long a tracer may take to see a first firing.
const DEADLINE: Duration = Duration::from_secs(120);

/// A tracer that has seen firings.
pub enum Subject {
    /// Empty programs, which this process holds.
    Floor {
        /// Holds them attached.
        _ebpf: Ebpf,
    },
    /// A process of its own.
    Process(Child),
}

impl Subject {
    /// Attaches the empty programs.
    pub fn floor(way: &str) -> Result<Self> {
        let started = Self::Floor {
            _ebpf: floor::attach(way)?,
        };
        started.seen()
    }

    /// Starts `kaprobe trace` by one way, its log into nothing.
    pub fn kaprobe(way: &str, arguments: &[&str]) -> Result<Self> {
        let kaprobe = env::var_os("KAPROBE_BIN").context("KAPROBE_BIN is not set")?;
        let mut command = Command::new(kaprobe);
        command.args(["trace", "--attach", way, "--json"]);
        // Its programs run before they are armed, and do nothing then.
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready");
        command.arg("--ready-file").arg(&ready).args(arguments);
        Self::process(command)?.until(|_| Ok(ready.exists()))
    }

    /// Starts bpftrace with a script.
    pub fn bpftrace(script: &str) -> Result<Self> {
        let words = env::var("KAPROBE_BENCH_BPFTRACE").context("there is no bpftrace")?;
        let mut words = words.split('\x1f');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["-e", script]);
        Self::process(command)
    }

    fn process(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Self::Process(child).seen()
    }

    /// Returns once firings are seen: by the kernel's statistics, the same for all.
    fn seen(self) -> Result<Self> {
        self.until(|subject| Ok(Snapshot::of(subject.pid())?.runs() > 0))
    }

    /// Returns once something is so.
    fn until(mut self, is_so: impl Fn(&Self) -> Result<bool>) -> Result<Self> {
        let start = Instant::now();
        while !is_so(&self)? {
            if let Self::Process(child) = &mut self
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended before it saw a firing: {status}");
            }
            ensure!(start.elapsed() < DEADLINE, "it saw no firing");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Floor { .. } => id(),
            Self::Process(child) => child.id(),
        }
    }

    /// ns for each firing in the kernel, over a while.
    pub fn ns_per_firing(&self, over: Duration) -> Result<f64> {
        let before = Snapshot::of(self.pid())?;
        thread::sleep(over);
        let after = Snapshot::of(self.pid())?;
        after.ns_per_firing(&before).context("no timer fired")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // Ended already or not: nothing of it stays in the kernel.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
