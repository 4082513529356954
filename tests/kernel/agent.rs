//! The agent: its counters equal the kernel's while it is scraped without pause, it answers
//! only what it should, and it tells systemd how it does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kaprobe_testkit::agent::Agent;
use kaprobe_testkit::command::run;
use kaprobe_testkit::http::{self, HttpResponse};
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::wait::{HANG, wait_until};
use rustix::process::Signal;

use crate::outputs::{play_load, text};

/// Probes of a run.
const ENOUGH: u64 = 1_200;

/// Clients that scrape without pause.
const SCRAPERS: usize = 10;

/// Clients of each kind that do what they should not.
const BAD: usize = 3;

/// The flags that keep the agent to this thread's network namespace.
const HERE: [&str; 3] = ["--no-snapshot", "--netns", "/proc/self/ns/net"];

/// Clients that ask all the time, some of them badly.
struct Clients {
    end: Arc<AtomicBool>,
    /// Good answers, and refusals of what is broken.
    answers: Arc<[AtomicU64; 2]>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let mut clients = Self {
            end: Arc::default(),
            answers: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..SCRAPERS {
            clients.ask(0, move || Ok(http::get(address, "/metrics")?.status == 200));
        }
        for _ in 0..BAD {
            clients.ask(1, move || {
                let broken = http::send(address, b"\x16\x03\x01 no HTTP at all\r\n\r\n")?;
                Ok(broken.status == 400)
            });
            // They read one byte, and then nothing; or they do not end their request.
            clients.ask(1, move || {
                let mut slow = [request(address, "\r\n")?, request(address, "X-")?];
                slow[0].read_exact(&mut [0])?;
                let refused = http::send(address, b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n")?;
                Ok(refused.status == 405)
            });
        }
        clients
    }

    /// Starts a thread that asks until the end. It may be cut to make room for others, but not
    /// be answered otherwise.
    fn ask(&mut self, kind: usize, act: impl Fn() -> Result<bool> + Send + 'static) {
        let (end, answers) = (Arc::clone(&self.end), Arc::clone(&self.answers));
        self.threads.push(thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match act() {
                    Ok(is_right) => ensure!(is_right, "a wrong answer"),
                    Err(_) => continue,
                }
                answers[kind].fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }));
    }

    fn answers(&self) -> [u64; 2] {
        [0, 1].map(|kind| self.answers[kind].load(Ordering::Relaxed))
    }

    fn end(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

/// Sends the beginning of a request.
fn request(address: SocketAddr, end: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HANG))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\n{end}")?;
    Ok(stream)
}

/// Probes that the metrics have, of the host and of all series.
fn probes(metrics: &HttpResponse) -> Result<[f64; 2]> {
    let congested = metrics.metric("kaprobe_records_total", "\"probe_congested\"")?;
    let host = metrics.metric("kaprobe_records_total", "\"probe\"")?;
    let series = metrics.metric("kaprobe_probes_sent_total", "")?;
    Ok([host + congested, series + congested])
}

/// While ten clients scrape without pause, and others send what is broken or read slowly, the
/// counters equal the kernel's and nothing is lost.
pub fn counters_equal_the_kernels() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("kept");
    let to = ["--dir", text(&folder)?, "--segment-age", "1s"];
    let arguments = [&to[..], &HERE].concat();
    let mut agent = Agent::start(&arguments)?;
    let clients = Clients::start(agent.address);
    let before = KernelCounters::read()?;
    let sent = play_load(ENOUGH)?;
    wait_until("the metrics have all probes", || {
        Ok(probes(&agent.metrics()?)?[0] >= sent as f64)
    })?;
    let [good, bad] = clients.answers();
    ensure!(
        good > SCRAPERS as u64 && bad > 0,
        "{good} and {bad} answers"
    );
    clients.end()?;
    let gave_up = KernelCounters::read()?.abort_on_timeout - before.abort_on_timeout;
    let metrics = agent.metrics()?;
    let found = probes(&metrics)?;
    ensure!(found == [sent as f64; 2], "{found:?} probes, {sent} sent");
    let found = metrics.metric("kaprobe_give_ups_total", "")?;
    ensure!(
        found == gave_up as f64,
        "{found} gave up, {gave_up} by the kernel"
    );
    let settled = metrics.metric("kaprobe_probes_answered_total", "")?
        + metrics.metric("kaprobe_probes_unanswered_total", "")?;
    ensure!(
        settled > 0.0 && settled <= sent as f64,
        "{settled} of {sent} settled"
    );
    ensure!(
        metrics.metric("kaprobe_events_lost_total", "").is_err(),
        "{metrics:?}"
    );
    ensure!(metrics.metric("kaprobe_recorder_records_lost_total", "")? == 0.0);
    for code in ["\"200\"", "\"400\"", "\"405\""] {
        ensure!(
            metrics.metric("kaprobe_http_requests_total", code)? > 0.0,
            "{code}"
        );
    }
    ensure!(metrics.metric("process_cpu_seconds_total", "")? > 0.0);
    ensure!(metrics.metric("process_resident_memory_bytes", "")? > 1e6);
    agent.wait_told("WATCHDOG=1")?;
    // A slow processor compresses all that waits for longer than an end may take.
    let segments = |agent: &Agent| agent.metrics()?.metric("kaprobe_recorder_segments", "");
    let written = segments(&agent)? + 2.0;
    wait_until("all is written", || Ok(segments(&agent)? >= written))?;
    let ended = agent.end()?;
    let is_told = ended.told.iter().any(|it| it == "STOPPING=1");
    ensure!(ended.code == Some(0) && is_told, "{ended:?}");
    let replayed = run(&["replay", text(&folder)?, "--summary", "-q"])?;
    let said = String::from_utf8(replayed.stderr)?;
    ensure!(replayed.status.success() && said.is_empty(), "{said}");
    Ok(())
}

/// The ports that listen in a process's network namespace.
fn listening(pid: u32) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let rows = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        for row in rows.lines().skip(1) {
            let fields: Vec<_> = row.split_ascii_whitespace().collect();
            if fields.get(3) == Some(&"0A") {
                let port = fields[1].rsplit_once(':').context("no port")?.1;
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(ports)
}

/// Waits until the server closes a connection without an answer.
fn is_cut(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Err(why) if why.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("not cut: {other:?}"),
    }
}

/// It answers three paths, GET and HEAD, and nothing that is broken, large, or slow.
pub fn only_what_it_should_is_answered() -> Result<()> {
    netns::enter_new()?;
    let agent = Agent::start(&HERE)?;
    let address = agent.address;
    ensure!(
        listening(agent.pid())? == [address.port()].into(),
        "other ports listen"
    );
    ensure!(agent.get("/healthz")?.status == 200);
    wait_until("it is ready", || Ok(agent.get("/readyz")?.status == 200))?;
    let metrics = agent.metrics()?;
    ensure!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    ensure!(
        metrics
            .head
            .contains("application/openmetrics-text; version=1.0.0"),
        "{metrics:?}"
    );
    let asked = |request: &str| http::send(address, request.as_bytes());
    let head = asked("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    // Without --config there is nothing to read again, and nothing to be good or bad.
    agent.signal(Signal::HUP)?;
    wait_until("it says so", || {
        Ok(agent.said()?.contains("there is no --config to read again"))
    })?;
    let reload = "kaprobe_config_last_reload_successful";
    ensure!(agent.metrics()?.metric(reload, "").is_err(), "a reload");
    let long = "x".repeat(20_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
        ("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404),
        (
            "DELETE /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            405,
        ),
        ("GET /healthz\r\n\r\n".to_owned(), 400),
        (format!("GET /healthz HTTP/1.1\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431),
        (
            format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100)),
            431,
        ),
    ] {
        let response = asked(&request)?;
        let shown = &request[..request.len().min(60)];
        ensure!(response.status == status, "{shown:?}: {response:?}");
    }
    // One connection more than may be open takes the place of the first.
    let mut open = Vec::new();
    for _ in 0..65 {
        open.push(request(address, "")?);
    }
    is_cut(&mut open[0])?;
    // The others are too slow.
    open.iter_mut().try_for_each(is_cut)?;
    let metrics = agent.metrics()?;
    ensure!(metrics.metric("kaprobe_http_requests_total", "\"431\"")? == 3.0);
    ensure!(metrics.metric("kaprobe_http_connections_cut_total", "crowded")? >= 1.0);
    ensure!(metrics.metric("kaprobe_http_connections_cut_total", "slow")? >= 60.0);
    ensure!(agent.end()?.code == Some(0));
    Ok(())
}

/// SIGHUP reads the file again; one that makes no sense changes nothing.
pub fn settings_are_read_again() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("agent.toml");
    let file_name = text(&file)?;
    fs::write(&file, "nonsense = 1\n")?;
    let refused = run(&["agent", "--listen", "127.0.0.1:0", "--config", file_name])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(
        !refused.status.success() && said.contains("line 1: nonsense: no such setting"),
        "{said}"
    );

    fs::write(&file, "idle-timeout = '350s'\ninterval = '1s'\n")?;
    let arguments = [&["--config", file_name][..], &HERE].concat();
    let mut agent = Agent::start(&arguments)?;
    let reloaded = |agent: &Agent| {
        let metrics = agent.metrics()?;
        metrics.metric("kaprobe_config_last_reload_successful", "")
    };
    ensure!(reloaded(&agent)? == 1.0);
    for (settings, is_good) in [
        ("interval = 'soon'\n", 0.0),
        ("[interval\n", 0.0),
        ("idle-timeout = '60s'\nport = 80\nseries = 3\n", 1.0),
    ] {
        fs::write(&file, settings)?;
        agent.forget_told()?;
        agent.signal(Signal::HUP)?;
        agent.wait_told("RELOADING=1")?;
        agent.wait_told("READY=1")?;
        ensure!(
            reloaded(&agent)? == is_good,
            "{settings}: {}",
            agent.said()?
        );
        ensure!(agent.get("/healthz")?.status == 200);
    }
    ensure!(
        agent.said()?.contains("the settings stay as they are"),
        "{}",
        agent.said()?
    );
    wait_until("the connections are judged", || {
        let judged = agent.metrics()?.metric("kaprobe_fates_judged", "");
        Ok(judged.is_ok_and(|it| it == 1.0))
    })?;
    ensure!(agent.end()?.code == Some(0));
    Ok(())
}
