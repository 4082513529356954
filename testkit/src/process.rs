//! Child processes that hold sockets: this test binary again, with a [`Task`].

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path as FilePath, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::{env, fs};

use crate::traffic::ends::{set_far_keepalive, set_near_keepalive};
use crate::traffic::load::{Load, LoadMember, allow_open_files};
use crate::traffic::scenarios;
use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path};
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use crate::child::Killed;
use crate::log::ConnectionId;
use crate::traffic::play;
use crate::{mounts, netns};

/// The environment variable that passes a [`Task`] as JSON.
const TASK: &str = "KAPROBE_TEST_TASK";

/// The task of a child process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    /// The name of the process.
    pub comm: String,
    /// Whether it enters its own network and mount namespaces.
    pub own_namespaces: bool,
    /// The cgroup that it joins.
    pub cgroup: Option<PathBuf>,
    /// The names of the scenarios that it plays, each over every kind of address.
    pub plays: Vec<String>,
    /// The idle connections that it holds.
    pub holds: Option<Held>,
}

/// Idle connections whose peers answer probes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The local and remote address.
    pub address: IpAddr,
    /// The number of connections.
    pub count: u32,
    /// The keepalive time and interval in seconds. The default is the sysctls.
    pub seconds: Option<u32>,
}

/// An action of the connections that a process holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Act {
    /// Both ends send a byte.
    Talk,
    /// Both ends rearm their timers: each fires one keepalive time after the last segment
    /// from the peer (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
    Arm,
}

impl Task {
    /// A task that plays scenarios under a process name.
    pub fn new(comm: &str, plays: &[Scenario]) -> Self {
        Self {
            comm: comm.into(),
            plays: plays.iter().map(|scenario| scenario.name.into()).collect(),
            ..Self::default()
        }
    }
}

/// The message of a process once its sockets have addresses.
#[derive(Debug, Serialize, Deserialize)]
struct Addresses {
    netns: u64,
    connections: Vec<(String, SocketAddr, SocketAddr)>,
}

/// A process that runs a task. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Killed,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The task that it runs.
    pub task: Task,
    /// The inode number of its network namespace.
    pub netns: u64,
    /// The scenario and the addresses of each of its connections.
    pub connections: Vec<(String, ConnectionId)>,
}

impl Process {
    /// Starts the process. Returns once its addresses are known; it has sent nothing yet.
    pub fn start(task: Task) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(TASK, serde_json::to_string(&task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let addresses: Addresses = serde_json::from_str(&line)
            .with_context(|| format!("process {:?} said {line:?}", task.comm))?;
        let connections = addresses
            .connections
            .into_iter()
            .map(|(name, local, remote)| (name, (addresses.netns, local, remote)))
            .collect();
        Ok(Self {
            stdin: child.stdin.take(),
            child: Killed(child),
            stdout,
            task,
            netns: addresses.netns,
            connections,
        })
    }

    /// The pid of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts playing, and returns at once.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the process was dismissed")?;
        Ok(writeln!(stdin, "go")?)
    }

    /// Waits until the scenarios have ended. The process still holds its sockets.
    pub fn wait_played(&mut self) -> Result<()> {
        self.expect_line("played")
    }

    /// Starts an action of the held connections, and returns at once.
    pub fn start_act(&mut self, act: Act) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the process was dismissed")?;
        Ok(writeln!(stdin, "{}", serde_json::to_string(&act)?)?)
    }

    /// Waits until the action is done.
    pub fn wait_done(&mut self) -> Result<()> {
        self.expect_line("done")
    }

    fn expect_line(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let comm = &self.task.comm;
        ensure!(
            line.trim_end() == expected,
            "process {comm:?} said {line:?}"
        );
        Ok(())
    }

    /// Tells the process to drop its sockets and exit. Returns at once.
    pub fn request_exit(&mut self) {
        self.stdin = None;
    }

    /// Tells the process to exit, and waits for it.
    pub fn dismiss(mut self) -> Result<()> {
        self.request_exit();
        let status = self.child.wait()?;
        ensure!(status.success(), "process {:?}: {status}", self.task.comm);
        Ok(())
    }
}

/// Starts a `sleep` with a descriptor as its standard input, which it ignores.
pub fn sleeper(mut sleep: Command, stdin: OwnedFd) -> Result<Killed> {
    Ok(Killed(sleep.arg("1000").stdin(stdin).spawn()?))
}

/// Runs the task of this process. `None` if it has no task.
pub fn run_if_task() -> Option<ExitCode> {
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
    if task.own_namespaces {
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
    let addresses = Addresses {
        netns: netns::inode()?,
        connections: played.chain(held).collect(),
    };
    println!("{}", serde_json::to_string(&addresses)?);
    let mut lines = io::stdin().lines();
    lines.next().context("dismissed before it started")??;
    play::play_out(&mut scripted)?;
    println!("played");
    // The input ends when the process is dismissed.
    for line in lines {
        let (act, held) = (serde_json::from_str(&line?)?, task.holds.as_ref());
        let keepalive = held.context("the process holds nothing")?.keepalive();
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
            set_near_keepalive(pair, keepalive)?;
            set_far_keepalive(pair, keepalive)
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
    let member = LoadMember {
        keepalive: held.keepalive(),
        answered: true,
    };
    let members = (0..held.count).map(|_| member);
    Ok(Load::open(Path::V4, held.address, members)?)
}

fn scenario(name: &str) -> Result<Scenario> {
    let all = scenarios::ALL.iter().chain(scenarios::ALL_ENDLESS);
    all.copied()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}"))
}

fn join_cgroup(cgroup: &FilePath) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("join {}", cgroup.display()))
}
