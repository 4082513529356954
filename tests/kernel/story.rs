//! Kaprobe's main use case: a balancer with direct server return forgets an idle
//! connection, and the client's next segment reaches a server that never had it. kaprobe
//! runs on each host; a replay of the three logs combines them.
//!
//! `--nocapture` prints the replay.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use kaprobe_testkit::command::run;
use kaprobe_testkit::ipvs::{Host, Network, SERVICE, accepted, exchange, expect_death};
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::netns::KernelCounters;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::{HANG, wait_until};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tempfile::TempDir;

/// The balancer's idle timeout, s.
pub const FORGETS_S: u32 = 12;

/// TCP_KEEPCNT of both ends.
const PROBES: u32 = 3;

/// Running traces on the client and on both servers.
struct HostTraces {
    kaprobes: [(&'static str, Kaprobe); 3],
    logs: TempDir,
}

impl HostTraces {
    fn start(network: &Network) -> Result<Self> {
        let logs = tempfile::tempdir()?;
        let [first, second] = &network.servers;
        let start = |host: &Host| -> Result<_> {
            let log = logs.path().join(format!("{}.jsonl", host.name));
            let log = log.to_str().context("the path is not UTF-8")?;
            let kaprobe = host.on(|| Kaprobe::trace(&["--netns", host.name, "-o", log]))?;
            Ok((host.name, kaprobe))
        };
        let kaprobes = [start(&network.client)?, start(first)?, start(second)?];
        let [client, first, second] = kaprobes;
        let ready = |(name, kaprobe): (_, Kaprobe)| -> Result<_> { Ok((name, kaprobe.ready()?)) };
        Ok(Self {
            kaprobes: [ready(client)?, ready(first)?, ready(second)?],
            logs,
        })
    }

    /// Stops the traces. Returns the log of each host, and a replay of all three.
    fn stop(self) -> Result<StoryLogs> {
        let Self { kaprobes, logs } = self;
        let by_host = kaprobes.map(|(name, kaprobe)| (name, kaprobe.stop()));
        let files = by_host.each_ref().map(|(name, _)| {
            let file = logs.path().join(format!("{name}.jsonl"));
            file.to_string_lossy().into_owned()
        });
        let [a, b, c] = &files;
        let replay = |flags: &[&str]| -> Result<String> {
            output(&run(&[&["replay", a, b, c], flags].concat())?)
        };
        if env::args().any(|argument| argument == "--nocapture") {
            println!("\n$ kaprobe replay client.jsonl server1.jsonl server2.jsonl");
            print!("{}", replay(&["--quiet"])?);
        }
        let page = output(&run(&["report", a, b, c])?)?;
        let merged: Vec<Value> = replay(&["--json"])?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        for file in &files {
            ensure!(fs::metadata(file)?.len() > 0, "{file} is empty");
        }
        let logs = by_host.map(|(name, log)| log.map(|log| (name, log)));
        let [client, first, second] = logs;
        Ok(StoryLogs {
            logs: [client?, first?, second?],
            merged,
            page,
        })
    }
}

fn output(output: &Output) -> Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// The logs of the hosts, their merged replay, and their report.
struct StoryLogs {
    logs: [(&'static str, TraceLog); 3],
    merged: Vec<Value>,
    /// The report of the three logs.
    page: String,
}

impl StoryLogs {
    fn of(&self, host: &str) -> Result<&TraceLog> {
        let log = self.logs.iter().find(|(name, _)| *name == host);
        Ok(&log.with_context(|| format!("no log of {host}"))?.1)
    }

    /// The only record of a host with a label.
    fn one(&self, host: &str, label: &str) -> Result<&Record> {
        let log = self.of(host)?;
        let all: Vec<_> = log
            .records
            .iter()
            .filter(|it| it.label() == label)
            .collect();
        match all.as_slice() {
            [one] => Ok(one),
            _ => bail!("{} times {label} on {host}: {:#?}", all.len(), log.records),
        }
    }

    /// Checks that the last verdict describes each host's part, and cites all other
    /// verdicts.
    fn check_story(&self, [owner, other]: [&str; 2]) -> Result<()> {
        let verdicts = self.merged.iter().filter(|it| it["event"] == "verdict");
        let verdicts: Vec<_> = verdicts.collect();
        let last = verdicts.last().context("no verdict in the replay")?;
        let story = last["story"].as_str().unwrap_or_default();
        for part in [
            "client sent after ".to_owned(),
            format!("{other} answered with a reset, having no such connection"),
            format!("{owner} held its end until it gave up after "),
        ] {
            ensure!(story.contains(&part), "{part:?} is missing: {last}");
        }
        let evidence = last["evidence"].as_array().context("no evidence")?;
        for verdict in &verdicts {
            let is_named = evidence.contains(&verdict["seq"]);
            ensure!(is_named || verdict == last, "{verdict} is not in {last}");
        }
        Ok(())
    }

    /// Checks that the report shows the eviction, the stray segment and the zombie, each on
    /// the lane of its host.
    fn check_page(&self, [owner, other]: [&str; 2]) -> Result<()> {
        let reset = format!("the reset that {other} sent and client received");
        let verdict = |host: &str, verdict: &str| format!("<b>{host}</b>: {verdict}");
        for part in [
            "has no such connection".to_owned(),
            "zombie: the other end is gone".to_owned(),
            reset,
            verdict("client", "idle_eviction"),
            verdict(other, "stray_segment"),
            verdict(owner, "peer_unreachable"),
        ] {
            ensure!(self.page.contains(&part), "{part:?} is not in the report");
        }
        Ok(())
    }

    /// The number of records with an event, on all hosts.
    fn count(&self, event: &str) -> u64 {
        self.logs.iter().map(|(_, log)| log.count(&[event])).sum()
    }
}

/// A connection through the balancer.
pub struct BalancedConnection {
    /// The end of the client.
    pub client: TcpStream,
    /// The end of the server that has it.
    pub server: TcpStream,
    /// The server that has the connection, and the other server.
    owner: &'static str,
    other: &'static str,
}

/// Listens on both servers, connects, and exchanges data. `client_s` and `server_s` turn
/// keepalive on at one end, with that time and interval in seconds.
pub fn connect(
    network: &Network,
    client_s: Option<u64>,
    server_s: Option<u64>,
) -> Result<BalancedConnection> {
    let probes = |seconds| {
        TcpKeepalive::new()
            .with_time(Duration::from_secs(seconds))
            .with_interval(Duration::from_secs(seconds))
            .with_retries(PROBES)
    };
    let listen = |host: &Host| {
        host.on(|| {
            let listener = TcpListener::bind(SERVICE)?;
            if let Some(seconds) = server_s {
                SockRef::from(&listener).set_tcp_keepalive(&probes(seconds))?;
            }
            Ok(listener)
        })
    };
    let [first, second] = &network.servers;
    let listeners = [listen(first)?, listen(second)?];
    let mut client = network.client.on(|| Ok(TcpStream::connect(SERVICE)?))?;
    client.set_read_timeout(Some(HANG))?;
    if let Some(seconds) = client_s {
        SockRef::from(&client).set_tcp_keepalive(&probes(seconds))?;
    }
    let (mut server, owner, other) = match accepted(&listeners)? {
        0 => (listeners[0].accept()?.0, first.name, second.name),
        _ => (listeners[1].accept()?.0, second.name, first.name),
    };
    server.set_read_timeout(Some(HANG))?;
    exchange(&mut client, &mut server)?;
    Ok(BalancedConnection {
        client,
        server,
        owner,
        other,
    })
}

/// The connection is idle until the balancer has forgotten it.
pub fn balancer_forgets_an_idle_connection() -> Result<()> {
    let network = Network::build(FORGETS_S)?;
    let watch = HostTraces::start(&network)?;
    // The server probes, but too late to keep the balancer's entry alive.
    let server_s = u64::from(FORGETS_S) * 2;
    let BalancedConnection {
        mut client,
        mut server,
        owner,
        other,
    } = connect(&network, None, Some(server_s))?;
    let ends: (SocketAddr, SocketAddr) = (client.local_addr()?, client.peer_addr()?);
    ensure!(network.remembered()? == 1, "the balancer has no connection");
    wait_until("the balancer has forgotten", || {
        Ok(network.remembered()? == 0)
    })?;

    client.write_all(b"ping")?;
    expect_death(&mut client, ErrorKind::ConnectionReset)?;
    // The server does not know of the reset: it has a zombie.
    let zombie = network
        .servers
        .iter()
        .find(|it| it.name == owner)
        .context("no server")?;
    let zombies = zombie.on(|| {
        let sockets = run(&["sockets", "--state", "established", "--json"])?;
        let lines = output(&sockets)?;
        let rows = lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()?;
        Ok(rows)
    })?;
    let is_it = |row: &&Value| row["rport"] == ends.0.port() && row["lport"] == ends.1.port();
    ensure!(
        zombies.iter().filter(is_it).count() == 1,
        "no zombie on {owner}: {zombies:?}"
    );
    // The client's host answers the server's probes with resets, but the balancer does
    // not forward them to this server: its probes stay unanswered.
    expect_death(&mut server, ErrorKind::TimedOut)?;
    let counters = network.client.on(KernelCounters::read)?;
    ensure!(
        (counters.estab_resets, counters.out_rsts) == (1, PROBES.into()),
        "{counters:?}"
    );
    drop((client, server));

    let logs = watch.stop()?;
    let received = logs.one("client", "rst_received")?;
    let verdict = logs.one("client", "verdict/idle_eviction")?;
    let (_, local, remote) = verdict.connection()?;
    ensure!(
        (local, remote) == ends,
        "of another connection: {verdict:?}"
    );
    let middlebox = verdict.text("middlebox").unwrap_or_default();
    let named = format!("({FORGETS_S}s)");
    ensure!(
        middlebox.contains("ipvs") && middlebox.contains(&named),
        "{verdict:?}"
    );
    let idle_ms = verdict.number("idle_ms").context("no idle age")?;
    ensure!(idle_ms >= u64::from(FORGETS_S) * 1000, "{verdict:?}");
    let advice = verdict.text("advice").unwrap_or_default();
    let set = format!("TCP_KEEPIDLE={}", FORGETS_S / 2);
    ensure!(advice.contains(&set), "{advice}");
    ensure!(received.number("unacked") == Some(1), "{received:?}");

    let sent = logs.one(other, "rst_sent")?;
    ensure!(sent.text("direction") == Some("passive"), "{sent:?}");
    ensure!(sent.number("len") == Some(4), "{sent:?}");
    let stray = logs.one(other, "verdict/stray_segment")?;
    let (_, local, remote) = stray.connection()?;
    ensure!((remote, local) == ends, "of another connection: {stray:?}");

    logs.one(owner, "timeout/probe_count")?;
    let dead = logs.one(owner, "verdict/peer_unreachable")?;
    let (_, local, remote) = dead.connection()?;
    ensure!((remote, local) == ends, "of another connection: {dead:?}");
    // The resets in answer to the probes have no verdict: the client had the connection.
    let log = logs.of("client")?;
    let answers = log
        .records
        .iter()
        .filter(|it| it.text("direction") == Some("passive"));
    ensure!(answers.count() == PROBES as usize, "{log:?}");
    logs.check_story([owner, other])?;
    logs.check_page([owner, other])?;
    ensure!(logs.count("verdict") == 3, "{:?}", logs.logs);
    Ok(())
}

/// The client probes at half the idle timeout: the balancer keeps the connection.
pub fn keepalive_preserves_the_balancer_entry() -> Result<()> {
    let network = Network::build(FORGETS_S)?;
    let watch = HostTraces::start(&network)?;
    let probes_s = u64::from(FORGETS_S) / 2;
    let BalancedConnection {
        mut client,
        mut server,
        owner,
        ..
    } = connect(&network, Some(probes_s), None)?;
    // Without the first two probes, the balancer would forget before the third.
    wait_until("three probes are sent", || {
        Ok(network.client.on(KernelCounters::read)?.keepalive >= 3)
    })?;
    ensure!(
        network.remembered()? == 1,
        "the balancer has forgotten the connection"
    );
    exchange(&mut client, &mut server)?;
    drop((client, server));

    let logs = watch.stop()?;
    let log = logs.of("client")?;
    let probes = log.count(&["probe"]);
    ensure!(probes >= 3, "{:?}", log.records);
    ensure!(log.count(&["answered"]) == probes, "{:?}", log.records);
    for event in ["rst_sent", "rst_received", "timeout", "verdict", "lost"] {
        ensure!(logs.count(event) == 0, "{event}: {:?}", logs.logs);
    }
    ensure!(
        !logs
            .of(owner)?
            .records
            .iter()
            .any(|it| it.event() != "closed"),
        "{:?}",
        logs.logs
    );
    Ok(())
}
