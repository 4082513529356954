//! Measures a tracer's effect on the host: requests and responses over loopback, with and
//! without a tracer.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{array, env, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use kaprobe_testkit::doctor;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::tracer::TracerProcess;

/// The time of one measurement, and the measurements per round. Many short ones, because
/// the other load of the machine changes every second.
const WATCHED: Duration = Duration::from_secs(1);
const TIMES: u32 = 3;
/// The number of connections, each with a client and a server.
const PAIRS: usize = 2;
/// Idle connections whose timers fire each second, and are reported. A host with 75,000
/// connections at the default interval has the same rate.
const IDLE: u32 = 1_000;
/// The time for a tracer to look up the owners of sockets.
const SETTLED: Duration = Duration::from_millis(500);
/// The bytes of a request, and of a response.
const BYTES: usize = 128;

/// Measures the subjects in turn.
pub fn measure(plan: Plan) -> Result<()> {
    let _idle = Holders::spread(IDLE, 1)?;
    let way = doctor::best_way()?;
    let kaprobe =
        |flags: &[&str]| TracerProcess::kaprobe(&[&["--json"], flags].concat(), Stdio::null());
    for _ in 0..plan.rounds * TIMES {
        print("off", play())?;
        print("kaprobe", kaprobe(&[]).and_then(play_while_traced))?;
        print(
            "kaprobe --rtt",
            kaprobe(&["--rtt"]).and_then(play_while_traced),
        )?;
        // Includes the snapshot at the start.
        print("kaprobe, starting", kaprobe(&[]).and_then(|_it| play()))?;
        let folder = OutputFolder::new()?;
        let bpftrace = Script::Facts(Form::Csv).start(&way, &[], &folder);
        print("bpftrace", bpftrace.and_then(play_while_traced))?;
        // A second run without a tracer: its difference to the first is noise.
        print("off again", play())?;
    }
    Ok(())
}

/// Plays once a tracer has finished its startup work.
fn play_while_traced(mut tracer: TracerProcess) -> Result<Responses> {
    tracer.settle()?;
    thread::sleep(SETTLED);
    play()
}

fn print(subject: &str, responses: Result<Responses>) -> Result<()> {
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
    print_all(subject, responses, numbers)
}

/// The result of a process that played clients and servers.
#[derive(Serialize, Deserialize)]
struct Responses {
    requests: usize,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    /// CPU time of the process, including softirqs that interrupted it.
    cpu_us: f64,
}

/// Plays in a new process, so that its CPU time can be measured.
fn play() -> Result<Responses> {
    let output = Command::new(env::current_exe()?)
        .arg("respond")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the load: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the load printed no result")
}

/// Plays all clients and servers, and prints the result.
pub fn respond() -> Result<()> {
    let pairs: [_; PAIRS] = array::from_fn(|_| connection());
    let started = Instant::now();
    let clients = pairs.map(|pair| -> Result<_> {
        let (client, server) = pair?;
        // A server ends when its client ends.
        thread::spawn(move || serve(server));
        Ok(thread::spawn(move || {
            send_requests(client, started + WATCHED)
        }))
    });
    let mut took = Vec::new();
    for client in clients {
        took.extend(client?.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| -> Result<f64> {
        let took = took.get(took.len() * share / 100);
        Ok(took.context("no response")?.as_secs_f64() * 1e6)
    };
    let responses = Responses {
        requests: took.len(),
        seconds,
        p50_us: at(50)?,
        p99_us: at(99)?,
        cpu_us: cpu()?.as_secs_f64() * 1e6,
    };
    println!("{}", serde_json::to_string(&responses)?);
    Ok(())
}

/// Both ends of a connection with keepalive on, as on a long-lived connection.
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

/// Sends requests until a deadline. Returns the time of each response.
fn send_requests(mut end: TcpStream, until: Instant) -> Result<Vec<Duration>> {
    let mut bytes = [0; BYTES];
    let mut took = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= until {
            return Ok(took);
        }
        end.write_all(&bytes)?;
        end.read_exact(&mut bytes)?;
        took.push(sent.elapsed());
    }
}

/// CPU time of this process.
fn cpu() -> Result<Duration> {
    let clock = rustix::time::ClockId::ProcessCPUTime;
    Ok(Duration::try_from(rustix::time::clock_gettime(clock))?)
}
