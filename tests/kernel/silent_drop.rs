//! Real servers and clients of Debian behind a router that forgets silent connections
//! without a word. The verdict's advice is followed as it says, and nothing dies any more.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::ipvs::Host;
use kaprobe_testkit::log::Record;
use kaprobe_testkit::package::{Root, on_host_only};
use kaprobe_testkit::postgres::Postgres;
use kaprobe_testkit::router::RoutedNetwork;
use kaprobe_testkit::traces::{Logs, Traces};
use kaprobe_testkit::wait::{HANG, wait_until};
use kaprobe_testkit::{netns, proc_net};

/// Rules that drop what belongs to no connection that a segment of was seen in 5 s.
const FORGETFUL: &str = "table ip forgetful {
    set known {
        type ipv4_addr . inet_service . ipv4_addr . inet_service
        flags dynamic, timeout
        timeout 5s
    }
    chain from_client {
        tcp flags & (syn | ack) == syn update @known { ip saddr . tcp sport . ip daddr . tcp dport } accept
        ip saddr . tcp sport . ip daddr . tcp dport @known update @known { ip saddr . tcp sport . ip daddr . tcp dport } accept
        drop
    }
    chain from_server {
        ip daddr . tcp dport . ip saddr . tcp sport @known update @known { ip daddr . tcp dport . ip saddr . tcp sport } accept
        drop
    }
    chain through {
        type filter hook forward priority 0
        iifname eth1 meta l4proto tcp jump from_client
        iifname eth2 meta l4proto tcp jump from_server
    }
}";

/// Longer than the router remembers, and long enough for a box to forget a connection.
pub const SILENCE: Duration = Duration::from_millis(5_500);

const POSTGRESQL: u16 = 5_432;
const REDIS: u16 = 6_379;

/// A network whose router forgets, and whose hosts give up soon.
pub fn network() -> Result<RoutedNetwork> {
    let network = RoutedNetwork::build()?;
    network.rules(&network.router, FORGETFUL)?;
    for host in [&network.client, &network.server] {
        // After fewer, a machine that was busy once gives up before there is a stall.
        host.on(|| netns::set_ipv4_sysctl("tcp_retries2", 4))?;
    }
    Ok(network)
}

/// psql sends after a silence, and a server sends the answer to a long query.
pub fn postgresql() -> Result<()> {
    on_host_only()?;
    let network = network()?;
    let (client, server) = (&network.client, &network.server);
    let postgres = Postgres::make((server.address, POSTGRESQL).into())?;
    let _server = server.on(|| postgres.start())?;
    let session = |parameters: &str| client.on(|| postgres.session(parameters));

    let traces = Traces::start(&[client, server])?;
    let watch = session("keepalives_idle=1 keepalives_interval=1")?;
    let mut waiting = Vec::new();
    for round in 0..2 {
        let (mut idle, mut long) = (session("")?, session("")?);
        long.send("select pg_sleep(5.5);")?;
        thread::sleep(SILENCE);
        idle.send("select 2;")?;
        ensure!(idle.answer()?.is_none(), "the connection survived");
        // The one that is watched, and those whose clients have given up, are left.
        wait_until("the server has given up", || {
            Ok(server.on(|| connections_to(POSTGRESQL))? == 2 + round)
        })?;
        waiting.push(long);
    }
    let logs = traces.stop()?;
    drop((watch, waiting));
    let of_psql = dropped(&logs, client, true)?;
    let of_server = dropped(&logs, server, false)?;
    let parameters = setting(of_psql, "in libpq", " in its connection string")?;
    let lines = setting(of_server, "in PostgreSQL", " in postgresql.conf")?;
    ensure!(lines.contains("tcp_keepalives_idle"), "{lines}");

    client.on(|| postgres.configure(&lines.replace("; ", "\n")))?;
    let traces = Traces::start(&[client, server])?;
    let (mut idle, mut long) = (session(&parameters)?, session("")?);
    long.send("select pg_sleep(5.5);")?;
    thread::sleep(SILENCE);
    idle.send("select 2;")?;
    ensure!(idle.answer()?.as_deref() == Some("2"), "{parameters}");
    ensure!(long.answer()?.is_some(), "{lines}");
    nothing_died(traces.stop()?)
}

/// Redis answers a client that waited for an element of a list.
pub fn redis() -> Result<()> {
    on_host_only()?;
    let network = network()?;
    let (client, server) = (&network.client, &network.server);
    let root = Root::of("redis-server")?;
    let address = SocketAddr::from((server.address, REDIS));
    let bind = server.address.to_string();
    let arguments = [
        "--bind",
        &bind,
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        "/tmp",
    ];
    let _server = server.on(|| root.serve("usr/bin/redis-server", &arguments, address))?;
    let connect = || -> Result<TcpStream> {
        let stream = client.on(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(HANG))?;
        Ok(stream)
    };

    let traces = Traces::start(&[server])?;
    let mut waits = connect()?;
    waits.write_all(b"BLPOP list 5.5\r\n")?;
    let mut nothing = [0; b"*-1\r\n".len()];
    wait_until("the server has given up", || {
        Ok(server.on(|| connections_to(REDIS))? == 0)
    })?;
    let logs = traces.stop()?;
    let verdict = last(&logs, server)?;
    check(verdict, "medium", "never acknowledged")?;
    let set = setting(verdict, "in Redis", " by `CONFIG SET`")?;
    ensure!(set.starts_with("tcp-keepalive "), "{set}");
    drop(waits);

    let mut sets = connect()?;
    sets.write_all(format!("CONFIG SET {set}\r\n").as_bytes())?;
    let mut ok = [0; b"+OK\r\n".len()];
    sets.read_exact(&mut ok)?;
    ensure!(&ok == b"+OK\r\n", "{ok:?}");
    drop(sets);
    let traces = Traces::start(&[client, server])?;
    let mut waits = connect()?;
    waits.write_all(b"BLPOP list 5.5\r\n")?;
    waits.read_exact(&mut nothing)?;
    ensure!(&nothing == b"*-1\r\n", "{nothing:?}");
    nothing_died(traces.stop()?)
}

/// The number of established connections of this network namespace to one of its ports.
fn connections_to(port: u16) -> Result<usize> {
    let rows = proc_net::rows()?;
    let own = rows
        .iter()
        .filter(|it| it.local == port && it.is_established);
    Ok(own.count())
}

/// Checks the verdicts on two connections that died after a silence, first when they stalled
/// and then when the kernel gave up. Returns the last.
fn dropped<'a>(logs: &'a Logs, host: &Host, others_work: bool) -> Result<&'a Record> {
    let own = logs.logs.iter().find(|(name, _)| *name == host.name);
    let (_, log) = own.context("no log")?;
    let steps = log
        .records
        .iter()
        .filter_map(|it| match it.label().as_str() {
            "stalled" | "timeout/retransmission" | "verdict/silent_drop" => {
                Some((it.label(), it.text("confidence").unwrap_or_default()))
            }
            _ => None,
        });
    let steps: Vec<_> = steps.collect();
    let names: Vec<_> = steps.iter().map(|(label, _)| label.as_str()).collect();
    let death = [
        "stalled",
        "verdict/silent_drop",
        "timeout/retransmission",
        "verdict/silent_drop",
    ];
    ensure!(names == [death, death].concat(), "{steps:#?}");
    // Another connection may be heard before the first stall is reported.
    let stalled = steps[1].1;
    ensure!(
        stalled == "low" || others_work && stalled == "medium",
        "{steps:#?}"
    );
    ensure!((steps[3].1, steps[7].1) == ("medium", "high"), "{steps:#?}");
    let stalled = log.records.iter().find(|it| it.event() == "stalled");
    let stalled = stalled.context("no stall")?;
    ensure!(stalled.number("retransmits") == Some(3), "{stalled:#?}");
    let verdict = last(logs, host)?;
    check(verdict, "high", "never acknowledged")?;
    if others_work {
        check(
            verdict,
            "high",
            "another connection to the same address was heard meanwhile",
        )?;
    }
    Ok(verdict)
}

/// The last verdict of a host.
fn last<'a>(logs: &'a Logs, host: &Host) -> Result<&'a Record> {
    logs.of(host).pop().context("no verdict")
}

/// Checks that a verdict is `silent_drop` with this confidence, and words of its advice.
fn check(verdict: &Record, confidence: &str, words: &str) -> Result<()> {
    let found = ["verdict", "confidence"].map(|name| verdict.text(name).unwrap_or_default());
    let advice = verdict.text("advice").unwrap_or_default();
    let is_it = found == ["silent_drop", confidence] && advice.contains(words);
    ensure!(is_it, "not {confidence}, {words:?}: {verdict:#?}");
    Ok(())
}

/// A program's own setting, as the advice says it.
fn setting(verdict: &Record, program: &str, until: &str) -> Result<String> {
    let advice = verdict.text("advice").unwrap_or_default();
    let said = advice.split("; ").position(|it| it.starts_with(program));
    let said = said.with_context(|| format!("no {program}: {advice}"))?;
    let said: Vec<_> = advice.split("; ").skip(said).collect();
    let said = said.join("; ");
    let (_, said) = said.split_once(": ").context("no setting")?;
    let (setting, _) = said
        .split_once(until)
        .with_context(|| format!("no {until}: {said}"))?;
    Ok(setting.to_owned())
}

/// Checks that no connection stalled, and that there is no verdict of failure.
fn nothing_died(logs: Logs) -> Result<()> {
    for (name, log) in &logs.logs {
        let bad = log.records.iter().find(|it| {
            let is_close = it.text("verdict") == Some("idle_close");
            // Clients of dead connections that ended before the trace still send their FINs.
            let was_closed = it.text("state") == Some("FIN_WAIT1");
            let is_bad = it.event() == "stalled" || it.event() == "verdict" && !is_close;
            is_bad && !was_closed
        });
        ensure!(bad.is_none(), "{name}: {bad:#?}");
    }
    Ok(())
}
