//! What the host feels: a request and its response over loopback, again and again, with
//! and without a tracer.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{array, env};

use anyhow::{Context as _, Result, anyhow, ensure};
use kaprobe_testkit::doctor;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::tracer::Tracer;

/// How long each subject is measured at a time, and how many times in a round: often
/// and briefly, as what else goes on changes by the second.
const WATCHED: Duration = Duration::from_secs(1);
const TIMES: u32 = 3;
/// Connections, each with a client and a server.
const PAIRS: usize = 2;
/// Idle connections beside them whose timers fire each second, and are told of: what a
/// host with 75,000 of them has, at the default interval.
const IDLE: u32 = 1_000;
/// How long a tracer may find its way: owners are looked up.
const SETTLED: Duration = Duration::from_millis(500);
/// Bytes of a request, and of a response.
const BYTES: usize = 128;

/// Measures each subject in turn.
pub fn measure(plan: Plan) -> Result<()> {
    let _idle = Holders::spread(IDLE, 1)?;
    let way = doctor::best_way()?;
    let kaprobe = |more: &[&str]| Tracer::kaprobe(&[&["--json"], more].concat(), Stdio::null());
    for _ in 0..plan.rounds * TIMES {
        print("off", play())?;
        print("kaprobe", kaprobe(&[]).and_then(beside))?;
        print("kaprobe --rtt", kaprobe(&["--rtt"]).and_then(beside))?;
        // The snapshot that it begins with, too.
        print("kaprobe, starting", kaprobe(&[]).and_then(|_it| play()))?;
        let folder = OutputFolder::new()?;
        let bpftrace = Script::Facts(Form::Csv).start(&way, &[], &folder);
        print("bpftrace", bpftrace.and_then(beside))?;
        // Off once more: as far as two of the same differ, nothing is told.
        print("off again", play())?;
    }
    Ok(())
}

/// Plays beside a tracer that does no more than trace.
fn beside(mut tracer: Tracer) -> Result<Responses> {
    tracer.settle()?;
    thread::sleep(SETTLED);
    play()
}

fn print(subject: &str, told: Result<Responses>) -> Result<()> {
    let numbers: &[Number<'_, Responses>] = &[
        ("response.throughput", "requests/s", &|it| {
            it.requests as f64 / it.seconds
        }),
        ("response.p50", "us", &|it| it.p50_us),
        ("response.p99", "us", &|it| it.p99_us),
        ("response.cpu", "us/request", &|it| {
            it.cpu_us / it.requests as f64
        }),
    ];
    print_all(subject, told, numbers)
}

/// What a process that played clients and servers tells.
#[derive(Serialize, Deserialize)]
struct Responses {
    requests: usize,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    /// CPU time of the process, softirqs that interrupted it among it.
    cpu_us: f64,
}

/// Plays it in a process of its own, whose CPU time is its own.
fn play() -> Result<Responses> {
    let output = Command::new(env::current_exe()?)
        .arg("respond")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the load: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the load tells nothing")
}

/// Plays all clients and servers, and tells how that went.
pub fn respond() -> Result<()> {
    let pairs: [_; PAIRS] = array::from_fn(|_| connection());
    let begun = Instant::now();
    let clients = pairs.map(|pair| -> Result<_> {
        let (client, server) = pair?;
        // It ends with its client.
        thread::spawn(move || serve(server));
        Ok(thread::spawn(move || ask(client, begun + WATCHED)))
    });
    let mut took = Vec::new();
    for client in clients {
        took.extend(client?.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| -> Result<f64> {
        let took = took.get(took.len() * share / 100);
        Ok(took.context("no response")?.as_secs_f64() * 1e6)
    };
    let told = Responses {
        requests: took.len(),
        seconds,
        p50_us: at(50)?,
        p99_us: at(99)?,
        cpu_us: cpu()?.as_secs_f64() * 1e6,
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

/// Both ends of a connection whose keepalive is on, as that of a long-lived one is.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
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

fn serve(mut end: TcpStream) -> Result<()> {
    let mut bytes = [0; BYTES];
    while end.read_exact(&mut bytes).is_ok() {
        end.write_all(&bytes)?;
    }
    Ok(())
}

/// Asks until then; returns how long each response took.
fn ask(mut end: TcpStream, until: Instant) -> Result<Vec<Duration>> {
    let mut bytes = [0; BYTES];
    let mut took = Vec::new();
    loop {
        let asked = Instant::now();
        if asked >= until {
            return Ok(took);
        }
        end.write_all(&bytes)?;
        end.read_exact(&mut bytes)?;
        took.push(asked.elapsed());
    }
}

/// CPU time of this process.
fn cpu() -> Result<Duration> {
    let clock = rustix::time::ClockId::ProcessCPUTime;
    Ok(Duration::try_from(rustix::time::clock_gettime(clock))?)
}
