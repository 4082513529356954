//! `kaprobe audit --observe` with real connections.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{ChildStderr, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::snapshot::inode;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::wait::{HANG, wait_until};
use kaprobe_testkit::{command, netns, schema};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// The pause between heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A heartbeat keeps a connection alive without keepalive. Connections that are silent,
/// that begin or that end meanwhile are told from it.
pub fn a_heartbeat_keeps_a_connection_alive() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let heart = connect_to(&listener)?;
    let (silent, ends) = (connect_to(&listener)?, connect_to(&listener)?);
    let port = heart.0.local_addr()?.port().to_string();
    let times = ["--idle-timeout", "8s", "--observe", "10s"];
    // On a slow machine it takes seconds to start: the heart must not stand still meanwhile.
    let has_ended = AtomicBool::new(false);
    let (all, alone, begins) = thread::scope(|scope| {
        let beating = scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                beat(&heart)?;
            }
            Ok::<_, Error>(())
        });
        let observed = (|| {
            let mut all = Observing::start(&times)?;
            let mut alone = Observing::start(&[&times[..], &["-P", &port]].concat())?;
            drop(ends);
            let begins = connect_to(&listener)?;
            wait_until("both audits end", || {
                Ok(all.has_ended()? && alone.has_ended()?)
            })?;
            Ok::<_, Error>((all, alone, begins))
        })();
        has_ended.store(true, Ordering::Relaxed);
        let beaten = beating.join().map_err(|_| anyhow!("the heart panicked"))?;
        beaten.and(observed)
    })?;

    let all = all.finish()?;
    ensure!(all.status.code() == Some(5), "{:?}", all.status);
    ensure!(all.connections.len() == 6, "{:#?}", all.connections);
    ensure!(all.ended == Some(2), "{:?} ended", all.ended);
    let (mut beating, mut quiet) = (Vec::new(), Vec::new());
    for end in [&heart.0, &heart.1] {
        beating.push(all.of(end)?);
    }
    for end in [&silent.0, &silent.1, &begins.0, &begins.1] {
        quiet.push(all.of(end)?);
    }
    for it in beating {
        ensure!(it["fate"] == "kept_by_traffic", "{it}");
        ensure!(it["why"] == "keepalive_off" && it["set"].is_null(), "{it}");
    }
    for it in &quiet {
        ensure!(it["fate"] == "unprotected" && it["set"].is_string(), "{it}");
    }
    let observed = |it: &Value| it["observed_ms"].as_u64().context("not observed");
    let silent_ms = quiet[0]["observed_silence_min_ms"].as_u64();
    // Ages are known to within 30 ms.
    ensure!(silent_ms >= Some(observed(quiet[0])? - 30), "{}", quiet[0]);
    ensure!(observed(quiet[2])? < observed(quiet[0])?, "{}", quiet[2]);

    let alone = alone.finish()?;
    ensure!(alone.status.success(), "{:?}", alone.status);
    ensure!(alone.connections.len() == 2, "{:#?}", alone.connections);
    Ok(())
}

/// A signal ends the observation, and the connections are judged by what was seen.
pub fn a_signal_ends_the_observation() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (near, _far) = connect_to(&listener)?;
    let mut audit = Observing::start(&["--idle-timeout", "350s", "--observe", "1h"])?;
    kill_process(Pid::from_child(&audit.child), Signal::TERM)?;
    wait_until("the audit ends", || audit.has_ended())?;
    let audit = audit.finish()?;
    ensure!(audit.status.code() == Some(5), "{:?}", audit.status);
    let connection = audit.of(&near)?;
    ensure!(connection["fate"] == "unprotected", "{connection}");
    let observed_ms = connection["observed_ms"].as_u64();
    ensure!(observed_ms.is_some_and(|ms| ms < 3_600_000), "{connection}");
    Ok(())
}

/// Sends a heartbeat, and waits for the next.
fn beat((near, far): &(TcpStream, TcpStream)) -> Result<()> {
    for (mut from, mut to) in [(near, far), (far, near)] {
        to.set_read_timeout(Some(HANG))?;
        from.write_all(b"!")?;
        to.read_exact(&mut [0])?;
    }
    thread::sleep(HEARTBEAT);
    Ok(())
}

/// An audit that observes.
struct Observing {
    child: Killed,
    err: BufReader<ChildStderr>,
}

impl Observing {
    /// Starts an audit, and waits until it observes.
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = command::kaprobe()?
            .args(["audit", "--loopback", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut err = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut line = String::new();
        err.read_line(&mut line)?;
        ensure!(line.starts_with("kaprobe: observing "), "{line}");
        Ok(Self {
            child: Killed(child),
            err,
        })
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What the audit says. It has ended.
    fn finish(mut self) -> Result<ObservedAudit> {
        let status = self.child.wait()?;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut out = self.child.stdout.take().context("no stdout")?;
        out.read_to_string(&mut stdout)?;
        self.err.read_to_string(&mut stderr)?;
        let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
        let (mut connections, mut ended) = (HashMap::new(), None);
        for line in stdout.lines() {
            let value = schema::check(&validator, line).map_err(Error::msg)?;
            match value["inode"].as_u64() {
                Some(inode) => drop(connections.insert(inode, value)),
                None => ended = value["summary"]["observed"]["ended"].as_u64(),
            }
        }
        ensure!(!connections.is_empty(), "{stdout}{stderr}");
        Ok(ObservedAudit {
            status,
            connections,
            ended,
        })
    }
}

/// What an audit says.
struct ObservedAudit {
    status: ExitStatus,
    connections: HashMap<u64, Value>,
    /// Number of connections that ended meanwhile.
    ended: Option<u64>,
}

impl ObservedAudit {
    fn of(&self, end: &TcpStream) -> Result<&Value> {
        let found = self.connections.get(&inode(end)?);
        found.context("a connection is not in the audit")
    }
}
