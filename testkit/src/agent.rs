//! Runs `kaprobe agent`, and takes what it tells systemd.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child::Killed;
use crate::command::kaprobe;
use crate::http::{self, HttpResponse};
use crate::wait::wait_until;

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Killed,
    service: UnixDatagram,
    /// What it has told systemd so far.
    told: Vec<String>,
    dir: TempDir,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Agent {
    /// Starts an agent with these arguments on a free port of loopback, in this thread's
    /// network namespace, and waits until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let service = UnixDatagram::bind(file("notify"))?;
        service.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut command = kaprobe()?;
        command
            .args(["agent", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("NOTIFY_SOCKET", file("notify"))
            .env("WATCHDOG_USEC", "2000000")
            .stdin(Stdio::null())
            .stdout(File::create(file("stdout"))?)
            .stderr(File::create(file("stderr"))?);
        let mut agent = Self {
            child: Killed(command.spawn()?),
            service,
            told: Vec::new(),
            dir,
            address: ([127, 0, 0, 1], 0).into(),
        };
        agent.wait_told("READY=1")?;
        let status = agent.told.iter().find_map(|it| it.strip_prefix("STATUS="));
        let status = status.context("no status")?;
        let at = status
            .split_once("http://")
            .and_then(|(_, it)| it.split_once('/'));
        agent.address = at.context("no address")?.0.parse()?;
        Ok(agent)
    }

    /// Gets a page of it. This thread is in its network namespace.
    pub fn get(&self, path: &str) -> Result<HttpResponse> {
        http::get(self.address, path)
    }

    /// The metrics.
    pub fn metrics(&self) -> Result<HttpResponse> {
        self.get("/metrics")
    }

    /// Waits until it tells systemd this, after what was waited for before.
    pub fn wait_told(&mut self, line: &str) -> Result<()> {
        wait_until(&format!("the agent says {line}"), || {
            self.listen()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{status}: {}", self.said()?);
            }
            Ok(self.told.iter().any(|it| it == line))
        })
    }

    /// Forgets what it has told systemd so far.
    pub fn forget_told(&mut self) -> Result<()> {
        self.listen()?;
        self.told.clear();
        Ok(())
    }

    fn listen(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        while let Ok(size) = self.service.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
            self.told.extend(text.lines().map(str::to_owned));
        }
        Ok(())
    }

    /// What it said on standard error.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join("stderr"))?)
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends it with SIGTERM.
    pub fn end(mut self) -> Result<EndedAgent> {
        self.forget_told()?;
        self.signal(Signal::TERM)?;
        let mut status = None;
        wait_until("the agent ends", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        self.listen()?;
        Ok(EndedAgent {
            code: status.context("no status")?.code(),
            told: self.told.clone(),
            said: self.said()?,
        })
    }
}

/// An agent that was ended.
#[derive(Clone, Debug)]
pub struct EndedAgent {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it told systemd since it was to end.
    pub told: Vec<String>,
    /// What it said on standard error.
    pub said: String,
}
