//! Starts the kaprobe under test, waits until it traces, stops it, and reads its output.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::process::{ChildStdout, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child::Killed;
use crate::log::TraceLog;
use crate::wait::wait_until;
use crate::{command, doctor};

/// The argument of `-e` that selects every event.
pub const ALL_EVENTS: &str = "all";

/// The reading end of kaprobe's standard output.
#[derive(Debug)]
enum Out {
    Read(JoinHandle<Result<Vec<String>>>),
    #[expect(dead_code, reason = "held open, not read")]
    Unread(ChildStdout),
    Closed,
}

/// A running kaprobe. Killed when dropped.
#[derive(Debug)]
pub struct Kaprobe {
    child: Killed,
    arguments: Vec<OsString>,
    out: Out,
    err: Option<JoinHandle<Result<String>>>,
    dir: TempDir,
}

impl Kaprobe {
    /// Starts `kaprobe trace --json` with these arguments, in this thread's network
    /// namespace. It may not trace yet: see [`Self::ready`]. It takes no snapshot, so it
    /// does not see the existing sockets of other tests.
    pub fn trace(arguments: &[&str]) -> Result<Self> {
        Self::trace_from_snapshot(&[&["--no-snapshot"], arguments].concat())
    }

    /// Like [`Self::trace`], but starts with a snapshot of the existing sockets.
    pub fn trace_from_snapshot(arguments: &[&str]) -> Result<Self> {
        Self::spawn(arguments, |out| {
            Out::Read(thread::spawn(move || {
                Ok(BufReader::new(out).lines().collect::<Result<_, _>>()?)
            }))
        })
    }

    /// Like [`Self::trace`], but leaves its output unread until [`Self::close_stdout`].
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
        // Reads continuously: a full pipe would block kaprobe.
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

    /// Closes the reading end of kaprobe's standard output.
    pub fn close_stdout(&mut self) {
        self.out = Out::Closed;
    }

    /// Waits until kaprobe traces.
    pub fn ready(mut self) -> Result<Self> {
        let file = self.dir.path().join("ready");
        wait_until("kaprobe is ready", || {
            if let Some(status) = self.child.try_wait()? {
                let stderr = self.stderr();
                bail!("kaprobe {:?}: {status}\n{stderr}", self.arguments);
            }
            Ok(file.exists())
        })?;
        Ok(self)
    }

    /// The pid of kaprobe.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to kaprobe.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Stops kaprobe with SIGINT and reads its log. An error unless it exits with 0.
    pub fn stop(self) -> Result<TraceLog> {
        self.signal(Signal::INT)?;
        self.finish()?.clean()
    }

    /// Waits until kaprobe exits.
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
            stderr: self.stderr(),
            arguments: self.arguments.clone(),
        })
    }

    fn stderr(&mut self) -> String {
        match self.err.take().map(JoinHandle::join) {
            Some(Ok(Ok(text))) => text,
            _ => "(stderr is not readable)".into(),
        }
    }
}

/// The result of a kaprobe that has exited.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// The lines of standard output.
    pub lines: Vec<String>,
    /// The text of standard error.
    pub stderr: String,
    arguments: Vec<OsString>,
}

impl Finished {
    /// Parses the log. An error unless kaprobe exited with 0.
    pub fn clean(self) -> Result<TraceLog> {
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
        TraceLog::parse(&lines).with_context(|| format!("kaprobe {arguments:?}\n{stderr}"))
    }
}

/// Starts one kaprobe per way to attach, all at the same time.
pub fn one_per_way(arguments: &[&str]) -> Result<Vec<(String, Kaprobe)>> {
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
