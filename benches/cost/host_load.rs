//! What the programs of a host do while a tracer runs: loads whose throughput and latency
//! show what the tracer takes from them. Each plays in a process of its own.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{array, env};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use socket2::{SockFilter, SockRef, TcpKeepalive};

/// The time of one play.
const WATCHED: Duration = Duration::from_secs(1);
/// Clients that play at once, each with a server.
const CLIENTS: usize = 2;
/// The bytes of a request, and of a response.
const BYTES: usize = 128;
/// Connections that each client opens and closes in a second.
const CONNECTIONS_A_SECOND: u32 = 2_500;
/// The bytes of a block. A sender that loses segments sends blocks without a pause.
const BLOCK: usize = 64 << 10;
/// One segment of this many is lost.
const LOSES_ONE_OF: u32 = 100;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostLoad {
    /// Requests and responses on lasting connections, as fast as they can.
    Requests,
    /// 5,000 connections a second, each opened, used for one request, and closed.
    Connections,
    /// Blocks sent as fast as they can, with one segment in a hundred lost each way.
    Lossy,
}

impl HostLoad {
    /// The name, which is also that of its measurement.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "response",
            Self::Connections => "connections",
            Self::Lossy => "lossy",
        }
    }

    fn of(name: &str) -> Result<Self> {
        let all = [Self::Requests, Self::Connections, Self::Lossy];
        let found = all.into_iter().find(|it| it.name() == name);
        found.with_context(|| format!("no load {name}"))
    }

    /// Plays in a new process, so that its CPU time can be measured.
    pub fn play(self) -> Result<Played> {
        let output = Command::new(env::current_exe()?)
            .args(["play", self.name()])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the load: {}", output.status);
        serde_json::from_slice(&output.stdout).context("the load printed no result")
    }
}

/// The result of a process that played clients and servers. An exchange is a request with
/// its response, a connection, or a block.
#[derive(Serialize, Deserialize)]
pub struct Played {
    pub exchanges: usize,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time of the process, including softirqs that interrupted it.
    pub cpu_us: f64,
}

/// Plays all clients and servers of a load, and prints the result.
pub fn play(name: &str) -> Result<()> {
    let begin = match HostLoad::of(name)? {
        HostLoad::Requests => begin_requests,
        HostLoad::Connections => begin_connections,
        HostLoad::Lossy => begin_blocks,
    };
    let started = Instant::now();
    let clients: [_; CLIENTS] = array::from_fn(|_| begin(started + WATCHED));
    let mut took = Vec::new();
    for client in clients {
        took.extend(client?.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| -> Result<f64> {
        let took = took.get(took.len() * share / 100);
        Ok(took.context("no exchange")?.as_secs_f64() * 1e6)
    };
    let played = Played {
        exchanges: took.len(),
        seconds,
        p50_us: at(50)?,
        p99_us: at(99)?,
        cpu_us: cpu()?.as_secs_f64() * 1e6,
    };
    println!("{}", serde_json::to_string(&played)?);
    Ok(())
}

/// A client until a deadline; it returns the time of each exchange.
type Client = JoinHandle<Result<Vec<Duration>>>;

fn begin_requests(until: Instant) -> Result<Client> {
    let (client, server) = connection()?;
    // A server ends when its client ends.
    thread::spawn(move || serve(server));
    Ok(thread::spawn(move || send_requests(client, until)))
}

fn begin_connections(until: Instant) -> Result<Client> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let server = listener.local_addr()?;
    thread::spawn(move || -> Result<()> {
        loop {
            serve(listener.accept()?.0)?;
        }
    });
    Ok(thread::spawn(move || open_connections(server, until)))
}

fn begin_blocks(until: Instant) -> Result<Client> {
    let (client, server) = connection()?;
    for end in [&client, &server] {
        lose_segments(end)?;
    }
    thread::spawn(move || send_blocks(client));
    Ok(thread::spawn(move || receive_blocks(server, until)))
}

/// Both ends of a connection with keepalive on, as on a long-lived connection.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        SockRef::from(end).set_tcp_keepalive(&keepalive)?;
    }
    Ok((client, server))
}

/// Answers requests until the client closes.
fn serve(mut end: TcpStream) -> Result<()> {
    let mut bytes = [0; BYTES];
    while end.read_exact(&mut bytes).is_ok() {
        end.write_all(&bytes)?;
    }
    Ok(())
}

fn send_requests(mut end: TcpStream, until: Instant) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= until {
            return Ok(took);
        }
        request(&mut end)?;
        took.push(sent.elapsed());
    }
}

fn request(end: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    end.write_all(&bytes)?;
    end.read_exact(&mut bytes)
}

/// Opens connections at an even pace. A connection that is late is opened at once.
fn open_connections(server: SocketAddr, until: Instant) -> Result<Vec<Duration>> {
    let started = Instant::now();
    let pace = Duration::from_secs(1) / CONNECTIONS_A_SECOND;
    let mut took = Vec::new();
    for n in 0.. {
        let due = started + pace * n;
        if due >= until {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let opened = Instant::now();
        let mut end = TcpStream::connect(server)?;
        end.set_nodelay(true)?;
        request(&mut end)?;
        drop(end);
        took.push(opened.elapsed());
    }
    Ok(took)
}

/// Makes a socket lose segments that come in: a classic BPF filter drops one in
/// [`LOSES_ONE_OF`], by the kernel's random numbers (`SKF_AD_RANDOM`, linux/filter.h).
fn lose_segments(end: &TcpStream) -> Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    SockRef::from(end).attach_filter(&[
        SockFilter::new(LOAD, 0, 0, random),
        SockFilter::new(AT_LEAST, 0, 1, u32::MAX / LOSES_ONE_OF),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    Ok(())
}

/// Sends until the peer closes.
fn send_blocks(mut end: TcpStream) {
    let block = vec![0; BLOCK];
    while end.write_all(&block).is_ok() {}
}

/// Receives blocks until a deadline. Returns how long each took to come.
fn receive_blocks(mut end: TcpStream, until: Instant) -> Result<Vec<Duration>> {
    // Beyond the deadline, a sender that waits for a timer of the kernel is not waited for.
    let mut block = vec![0; BLOCK];
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        let left = until.saturating_duration_since(began);
        if left.is_zero() {
            return Ok(took);
        }
        end.set_read_timeout(Some(left))?;
        match end.read_exact(&mut block) {
            Ok(()) => took.push(began.elapsed()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(took),
            Err(why) => bail!(why),
        }
    }
}

/// CPU time of this process.
fn cpu() -> Result<Duration> {
    let clock = rustix::time::ClockId::ProcessCPUTime;
    Ok(Duration::try_from(rustix::time::clock_gettime(clock))?)
}
