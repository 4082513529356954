//! Processes that hold sockets: this test binary, started again with a task.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path as FilePath, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use crate::traffic::ends::{far_asks, near_asks};
use crate::traffic::load::{Load, Member, allow_open_files};
use crate::traffic::scenarios;
use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path};
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use crate::child::Killed;
use crate::log::Connection;
use crate::mounts;
use crate::netns;
use crate::traffic::play;

/// Holds a [`Task`] as JSON in a process that has one.
const TASK: &str = "KAPROBE_TEST_TASK";

/// What a process is to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    /// What it calls itself.
    pub comm: String,
    /// Whether it goes into network and mount namespaces of its own.
    pub apart: bool,
    /// The cgroup it goes into.
    pub cgroup: Option<PathBuf>,
    /// The scenarios it plays, by name, each over every kind of address.
    pub plays: Vec<String>,
    /// The idle connections that it holds.
    pub holds: Option<Held>,
}

/// Idle connections, with probes that are answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The address that they are from and to.
    pub address: IpAddr,
    /// How many there are.
    pub count: u32,
    /// How many seconds each timer fires apart; as the sysctls say, where not given.
    pub seconds: Option<u32>,
}

/// What the connections that a process holds can be made to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Act {
    /// Each end sends a byte.
    Talk,
    /// The timer of each end is set anew: to fire the keepalive time after the peer was
    /// last heard (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
    Arm,
}

impl Task {
    /// A task with a name and scenarios.
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
struct Addresses {
    netns: u64,
    connections: Vec<(String, SocketAddr, SocketAddr)>,
}

/// A process that does a task. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Killed,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it does.
    pub task: Task,
    /// The network namespace it is in, by inode number.
    pub netns: u64,
    /// The scenario and the addresses of each of its connections.
    pub connections: Vec<(String, Connection)>,
}

impl Process {
    /// Starts it; once this returns its addresses are known, and nothing is sent.
    pub fn start(task: Task) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(TASK, serde_json::to_string(&task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let told: Addresses = serde_json::from_str(&line)
            .with_context(|| format!("process {:?} said {line:?}", task.comm))?;
        let connections = told
            .connections
            .into_iter()
            .map(|(name, local, remote)| (name, (told.netns, local, remote)))
            .collect();
        Ok(Self {
            stdin: child.stdin.take(),
            child: Killed(child),
            stdout,
            task,
            netns: told.netns,
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
        self.says("played")
    }

    /// Has the connections that it holds do something; returns at once.
    pub fn ask(&mut self, act: Act) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it was dismissed")?;
        Ok(writeln!(stdin, "{}", serde_json::to_string(&act)?)?)
    }

    /// Returns once they have.
    pub fn done(&mut self) -> Result<()> {
        self.says("done")
    }

    fn says(&mut self, what: &str) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let comm = &self.task.comm;
        ensure!(line.trim_end() == what, "process {comm:?} said {line:?}");
        Ok(())
    }

    /// Lets it drop its sockets and end; returns at once.
    pub fn let_go(&mut self) {
        self.stdin = None;
    }

    /// The same, and waits for its end.
    pub fn dismiss(mut self) -> Result<()> {
        self.let_go();
        let status = self.child.wait()?;
        ensure!(status.success(), "process {:?}: {status}", self.task.comm);
        Ok(())
    }
}

/// Starts a `sleep` that knows nothing of what it has for its standard input.
pub fn sleeper(mut sleep: Command, stdin: OwnedFd) -> Result<Killed> {
    Ok(Killed(sleep.arg("1000").stdin(stdin).spawn()?))
}

/// In a process that was given a task: does it.
pub fn play_if_asked() -> Option<ExitCode> {
    let task = env::var(TASK).ok()?;
    Some(match play(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{task}: {e:#}");
            ExitCode::FAILURE
        }
    })
}

fn play(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task)?;
    set_name(&CString::new(task.comm.as_str())?)?;
    if let Some(cgroup) = &task.cgroup {
        join_cgroup(cgroup)?;
    }
    if task.apart {
        mounts::enter_new()?;
        netns::enter_new()?;
    }
    let mut scripted = task
        .plays
        .iter()
        .flat_map(|name| Path::ALL.map(|path| (name, path)))
        .map(|(name, path)| Ok(ScriptedConnection::new(scenario(name)?, path)?))
        .collect::<Result<Vec<_>>>()?;
    let load = task.holds.as_ref().map(hold).transpose()?;
    let held = load.iter().flat_map(Load::pairs);
    let held = held.map(|pair| ("held".into(), pair.local, pair.remote));
    let played = scripted
        .iter()
        .map(|it| (it.scenario.name.into(), it.local, it.remote));
    let told = Addresses {
        netns: netns::inode()?,
        connections: played.chain(held).collect(),
    };
    println!("{}", serde_json::to_string(&told)?);
    let mut lines = io::stdin().lines();
    lines.next().context("dismissed before it began")??;
    play::play_out(&mut scripted)?;
    println!("played");
    // Until dismissed.
    for line in lines {
        let (act, held) = (serde_json::from_str(&line?)?, task.holds.as_ref());
        let keepalive = held.context("it holds nothing")?.keepalive();
        let mut pairs = load.iter().flat_map(Load::pairs);
        pairs.try_for_each(|pair| act_on(pair, act, keepalive))?;
        println!("done");
    }
    Ok(load.map_or(Ok(()), Load::end)?)
}

fn act_on(pair: &Pair, act: Act, keepalive: Keepalive) -> io::Result<()> {
    match act {
        Act::Talk => {
            pair.send()?;
            pair.far_sends()
        }
        Act::Arm => {
            near_asks(pair, keepalive)?;
            far_asks(pair, keepalive)
        }
    }
}

impl Held {
    fn keepalive(&self) -> Keepalive {
        let every = |seconds| Keepalive::new(seconds, seconds, 9);
        self.seconds.map_or(Keepalive::SYSCTL, every)
    }
}

fn hold(held: &Held) -> Result<Load> {
    allow_open_files(held.count.into())?;
    let member = Member {
        keepalive: held.keepalive(),
        answered: true,
    };
    let members = (0..held.count).map(|_| member);
    Ok(Load::open(Path::V4, held.address, members)?)
}

fn scenario(name: &str) -> Result<Scenario> {
    let all = scenarios::ALL.iter().chain(scenarios::LASTING);
    all.copied()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}"))
}

fn join_cgroup(cgroup: &FilePath) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("join {}", cgroup.display()))
}
