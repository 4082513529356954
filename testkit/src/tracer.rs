//! Starts the kaprobe under test, waits until it traces, stops it, reads what it said.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::process::{ChildStdout, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child::Killed;
use crate::command;
use crate::doctor;
use crate::log::Log;
use crate::wait::wait_until;

/// Every event there is, for `-e`.
pub const ALL_EVENTS: &str = "all";

/// What becomes of what kaprobe writes to its output.
#[derive(Debug)]
enum Out {
    Read(JoinHandle<Result<Vec<String>>>),
    #[expect(dead_code, reason = "held open, not read")]
    Unread(ChildStdout),
    Closed,
}

/// A kaprobe that is running. Killed when dropped.
#[derive(Debug)]
pub struct Kaprobe {
    child: Killed,
    arguments: Vec<OsString>,
    out: Out,
    err: Option<JoinHandle<Result<String>>>,
    dir: TempDir,
}

impl Kaprobe {
    /// Starts `kaprobe trace --json` with more arguments, in this thread's network
    /// namespace. It may not trace yet: see [`Self::ready`]. What other tests' sockets
    /// are is of no concern to it.
    pub fn trace(arguments: &[&str]) -> Result<Self> {
        Self::trace_from_snapshot(&[&["--no-snapshot"], arguments].concat())
    }

    /// The same, and it starts from the sockets that are there.
    pub fn trace_from_snapshot(arguments: &[&str]) -> Result<Self> {
        Self::spawn(arguments, |out| {
            Out::Read(thread::spawn(move || {
                Ok(BufReader::new(out).lines().collect::<Result<_, _>>()?)
            }))
        })
    }

    /// The same, but nobody reads what it writes to its output, until
    /// [`Self::hang_up`].
    pub fn trace_unread(arguments: &[&str]) -> Result<Self> {
        Self::spawn(&[&["--no-snapshot"], arguments].concat(), Out::Unread)
    }

    fn spawn(arguments: &[&str], read: impl FnOnce(ChildStdout) -> Out) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = command::kaprobe()?;
        command
            .args(["trace", "--json", "--ready-file"])
            .arg(dir.path().join("ready"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let out = read(child.stdout.take().context("no stdout")?);
        let mut err = child.stderr.take().context("no stderr")?;
        // Read all along: a full pipe would stop what is measured.
        let err = thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text)?;
            Ok(text)
        });
        Ok(Self {
            arguments: command.get_args().map(Into::into).collect(),
            child: Killed(child),
            out,
            err: Some(err),
            dir,
        })
    }

    /// Closes the reading end of its output.
    pub fn hang_up(&mut self) {
        self.out = Out::Closed;
    }

    /// Returns once it traces.
    pub fn ready(mut self) -> Result<Self> {
        let file = self.dir.path().join("ready");
        wait_until("kaprobe is ready", || {
            if let Some(status) = self.child.try_wait()? {
                let said = self.said();
                bail!("kaprobe {:?}: {status}\n{said}", self.arguments);
            }
            Ok(file.exists())
        })?;
        Ok(self)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ctrl-C, then [`Self::finish`].
    pub fn stop(self) -> Result<Log> {
        self.signal(Signal::INT)?;
        self.finish()?.clean()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Finished> {
        let mut ended = None;
        wait_until("kaprobe ends", || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        let status = ended.context("no status")?;
        let lines = match mem::replace(&mut self.out, Out::Closed) {
            Out::Read(reader) => reader
                .join()
                .map_err(|_| anyhow!("the reader panicked"))??,
            Out::Unread(_) | Out::Closed => Vec::new(),
        };
        Ok(Finished {
            status,
            lines,
            stderr: self.said(),
            arguments: self.arguments.clone(),
        })
    }

    fn said(&mut self) -> String {
        match self.err.take().map(JoinHandle::join) {
            Some(Ok(Ok(text))) => text,
            _ => "(nothing readable on stderr)".into(),
        }
    }
}

/// What a kaprobe left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub lines: Vec<String>,
    /// What it wrote to stderr.
    pub stderr: String,
    arguments: Vec<OsString>,
}

impl Finished {
    /// Its log; an error when it did not exit with 0.
    pub fn clean(self) -> Result<Log> {
        let Self {
            status,
            lines,
            stderr,
            arguments,
        } = self;
        ensure!(
            status.success(),
            "kaprobe {arguments:?}: {status}\n{stderr}"
        );
        Log::parse(&lines).with_context(|| format!("kaprobe {arguments:?}\n{stderr}"))
    }
}

/// A kaprobe for every way to attach that this kernel has, all at once.
pub fn one_for_each_way(arguments: &[&str]) -> Result<Vec<(String, Kaprobe)>> {
    let starting: Vec<_> = doctor::ways()?
        .into_iter()
        .map(|way| {
            let kaprobe = Kaprobe::trace(&[&["--attach", &way], arguments].concat())?;
            Ok((way, kaprobe))
        })
        .collect::<Result<_>>()?;
    starting
        .into_iter()
        .map(|(way, kaprobe)| Ok((way, kaprobe.ready()?)))
        .collect()
}
