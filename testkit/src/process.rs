//! Processes that hold sockets: this test binary, started again with a part to play.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use crate::traffic::load::{Load, Member, allow_open_files};
use crate::traffic::scenarios;
use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use serde::{Deserialize, Serialize};

use crate::log::Connection;
use crate::mounts;
use crate::netns;
use crate::traffic::play;

/// Holds a [`Part`] as JSON in a process that has one to play.
const PART: &str = "KAPROBE_TEST_PART";

/// What a process is to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// What it calls itself.
    pub comm: String,
    /// Whether it goes into network and mount namespaces of its own.
    pub apart: bool,
    /// The cgroup it goes into.
    pub cgroup: Option<PathBuf>,
    /// The scenarios it plays, by name, each over every kind of address.
    pub plays: Vec<String>,
    /// How many idle connections it holds, from and to which address.
    pub holds: Option<(IpAddr, u32)>,
}

impl Part {
    /// A part with a name and scenarios.
    pub fn new(comm: &str, plays: &[Scenario]) -> Self {
        Self {
            comm: comm.into(),
            plays: plays.iter().map(|scenario| scenario.name.into()).collect(),
            ..Self::default()
        }
    }
}

/// What a process says once its sockets have their addresses.
#[derive(Debug, Serialize, Deserialize)]
struct Cast {
    netns: u64,
    connections: Vec<(String, SocketAddr, SocketAddr)>,
}

/// A process that plays a part. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it does.
    pub part: Part,
    /// The network namespace it is in, by inode number.
    pub netns: u64,
    /// The scenario and the addresses of each of its connections.
    pub connections: Vec<(String, Connection)>,
}

impl Process {
    /// Starts it; once this returns its addresses are known, and nothing is sent.
    pub fn start(part: Part) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(PART, serde_json::to_string(&part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let cast: Cast = serde_json::from_str(&line)
            .with_context(|| format!("process {:?} said {line:?}", part.comm))?;
        let connections = cast
            .connections
            .into_iter()
            .map(|(name, local, remote)| (name, (cast.netns, local, remote)))
            .collect();
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            stdout,
            part,
            netns: cast.netns,
            connections,
        })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it connect and play; returns at once.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it was dismissed")?;
        Ok(writeln!(stdin, "go")?)
    }

    /// Returns once it has played to the end. It still holds its sockets.
    pub fn played(&mut self) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(
            line == "played\n",
            "process {:?} said {line:?}",
            self.part.comm
        );
        Ok(())
    }

    /// Lets it drop its sockets and end, and waits for that.
    pub fn dismiss(mut self) -> Result<()> {
        self.stdin = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "process {:?}: {status}", self.part.comm);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already or not: either way there is nothing left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `sleep` that knows nothing of what it has for its standard input. Killed when dropped.
#[derive(Debug)]
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts it.
    pub fn start(mut sleep: Command, stdin: OwnedFd) -> Result<Self> {
        sleep.arg("1000").stdin(stdin);
        Ok(Self(sleep.spawn()?))
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Ended already or not: either way there is nothing left to do about it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a process that was given a part: plays it.
pub fn play_if_asked() -> Option<ExitCode> {
    let part = env::var(PART).ok()?;
    Some(match play(&part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{part}: {e:#}");
            ExitCode::FAILURE
        }
    })
}

fn play(part: &str) -> Result<()> {
    let part: Part = serde_json::from_str(part)?;
    set_comm(&part.comm)?;
    if let Some(cgroup) = &part.cgroup {
        join_cgroup(cgroup)?;
    }
    if part.apart {
        mounts::enter_new()?;
        netns::enter_new()?;
    }
    let mut actors = part
        .plays
        .iter()
        .flat_map(|name| Path::ALL.map(|path| (name, path)))
        .map(|(name, path)| Ok(ScriptedConnection::new(scenario(name)?, path)?))
        .collect::<Result<Vec<_>>>()?;
    let load = part.holds.map(hold).transpose()?;
    let held = load.iter().flat_map(Load::pairs);
    let held = held.map(|pair| ("held".into(), pair.local, pair.remote));
    let acted = actors
        .iter()
        .map(|actor| (actor.scenario.name.into(), actor.local, actor.remote));
    let cast = Cast {
        netns: netns::inode()?,
        connections: acted.chain(held).collect(),
    };
    println!("{}", serde_json::to_string(&cast)?);
    let mut lines = io::stdin().lines();
    lines.next().context("dismissed before it began")??;
    play::play_out(&mut actors)?;
    println!("played");
    // Until dismissed.
    lines.for_each(drop);
    Ok(())
}

fn hold((address, count): (IpAddr, u32)) -> Result<Load> {
    allow_open_files(count.into())?;
    let member = Member {
        keepalive: Keepalive::SYSCTL,
        answered: true,
    };
    Ok(Load::open(Path::V4, address, (0..count).map(|_| member))?)
}

fn scenario(name: &str) -> Result<Scenario> {
    let all = scenarios::ALL.iter().chain(scenarios::LASTING);
    all.copied()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}"))
}

fn set_comm(comm: &str) -> Result<()> {
    let name = CString::new(comm)?;
    // SAFETY: PR_SET_NAME reads a string that ends in NUL.
    let done = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    ensure!(done == 0, "prctl: {}", io::Error::last_os_error());
    Ok(())
}

fn join_cgroup(cgroup: &FilePath) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("join {}", cgroup.display()))
}
