//! The idle timeouts that this host applies count for the connections that pass them, and
//! for no others.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::sockopt;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::ipvs::{Host, expect_death};
use kaprobe_testkit::router::{RoutedNetwork, connect};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, netns};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};

/// The idle timeout of conntrack on the router and on the host that is not connected, s.
const TRACKED_S: u32 = 4;

/// `audit` judges the connections through the router by the router's timeout, and those of
/// the host that is not connected by its own. The neighbours have none, on a cable or on
/// the router's bridge.
pub fn audit_applies_them_on_the_path() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let RoutedNetwork {
        client,
        router,
        server,
        bridged: [outward, here, there],
        left,
        right,
        alone,
        ..
    } = &network;
    let _tracking = [network.track(router, 8_000)?, network.track(alone, 4_000)?];
    let _open = [
        connect(client, server)?,
        connect(outward, server)?,
        connect(here, there)?,
        connect(left, right)?,
        connect(alone, alone)?,
    ];
    let routed = "8000000 conntrack this host's conntrack in netns router, on the default route";
    let own = "4000000 conntrack this host's conntrack in netns alone, the connection's own";
    for (host, expected) in [
        (client, routed),
        (server, routed),
        (outward, routed),
        (here, "unknown no_timeout"),
        (there, "unknown no_timeout"),
        (left, "unknown no_timeout"),
        (right, "unknown no_timeout"),
        (alone, own),
    ] {
        for row in audit(host)? {
            let words = ["fate", "why"].map(|name| row[name].as_str().unwrap_or_default());
            let found = match row["timeout_ms"].as_u64() {
                None => words.join(" "),
                Some(ms) => {
                    let of = row["timeout_of"].as_str().unwrap_or_default();
                    let about = row["timeout_about"].as_str().unwrap_or_default();
                    format!("{ms} {of} {about}")
                }
            };
            ensure!(found == expected, "{}: {found}", host.name);
        }
    }
    Ok(())
}

/// The connections of a host, as `audit` without a timeout shows them.
fn audit(host: &Host) -> Result<Vec<Value>> {
    let arguments = ["audit", "--loopback", "--json", "--netns", host.name];
    let output = command::run(&arguments)?;
    let stdout = String::from_utf8(output.stdout)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(5),
        "{:?}: {stdout}{stderr}",
        output.status
    );
    let lines = stdout.lines().map(serde_json::from_str::<Value>);
    let mut rows = lines.collect::<Result<Vec<_>, _>>()?;
    rows.retain(|it| it["fate"].is_string());
    ensure!(
        !rows.is_empty(),
        "no connections on {}: {stdout}{stderr}",
        host.name
    );
    Ok(rows)
}

/// Connections die when they are probed after [`TRACKED_S`]. The verdict names the router
/// for the one through it, and nothing of this host for the one between the neighbours. A
/// replay says the same.
pub fn verdicts_name_them_on_the_path() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let RoutedNetwork {
        client,
        router,
        server,
        left,
        right,
        alone,
        ..
    } = &network;
    let _tracking = [
        network.track(router, TRACKED_S)?,
        network.track(alone, TRACKED_S)?,
    ];
    let _alone = OwnCpu::take()?;
    let routed = connect(client, server)?;
    let direct = connect(left, right)?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let log = log.to_str().context("the path is not UTF-8")?;
    let trace = Kaprobe::trace(&["--netns", "client", "--netns", "left", "-o", log])?.ready()?;
    die(routed)?;
    die(direct)?;
    trace.stop()?;
    let on_path = "this host's conntrack in netns router, on the default route (4s)";
    let expected = BTreeMap::from([
        (client.address.to_string(), Some(on_path.to_owned())),
        (left.address.to_string(), None),
    ]);
    let logged = fs::read_to_string(log)?;
    ensure!(named(&logged)? == expected, "{logged}");
    let replayed = command::run(&["replay", "--json", log])?;
    let replayed = String::from_utf8(replayed.stdout)?;
    ensure!(replayed == logged, "{logged}{replayed}");
    Ok(())
}

/// The known timeouts that each verdict of a log names, by local address.
fn named(log: &str) -> Result<BTreeMap<String, Option<String>>> {
    let text = |record: &Value, name: &str| record[name].as_str().map(str::to_owned);
    let mut named = BTreeMap::new();
    for line in log.lines() {
        let record: Value = serde_json::from_str(line)?;
        if record["event"] == "verdict" {
            let address = text(&record, "laddr").context("no address")?;
            named.insert(address, text(&record, "middlebox"));
        }
    }
    Ok(named)
}

/// Conntrack of the router begins to track while a trace runs. Later verdicts name it, and
/// a replay says the same.
pub fn changes_count_for_later_verdicts() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router) = (&network.client, &network.router);
    let _alone = OwnCpu::take()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let log = log.to_str().context("the path is not UTF-8")?;
    let trace = Kaprobe::trace(&["--netns", "client", "-o", log])?.ready()?;
    die(connect(client, &network.server)?)?;
    let _tracking = network.track(router, TRACKED_S)?;
    let tracked = connect(client, &network.server)?;
    let inode = router.on(netns::inode)?;
    wait_until("the trace has seen that the router tracks", || {
        Ok(changed(&fs::read_to_string(log)?)?.contains(&Some(inode)))
    })?;
    die(tracked)?;
    trace.stop()?;
    let logged = fs::read_to_string(log)?;
    let verdicts = logged
        .lines()
        .filter(|it| it.contains("\"event\":\"verdict\""));
    let named: Vec<_> = verdicts
        .map(|it| it.contains("conntrack in netns router"))
        .collect();
    ensure!(named == [false, true], "{logged}");
    let replayed = command::run(&["replay", "--json", log])?;
    ensure!(replayed.stdout == logged.as_bytes(), "{logged}");
    Ok(())
}

/// Conntrack keeps a connection that one end has closed for a shorter time. The verdict on
/// its end names that time.
pub fn half_closed_connections_have_their_own() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let _tracking = network.track(&network.router, 432_000)?;
    network.router.on(|| {
        let half_closed = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
        fs::write(half_closed, "3").context(half_closed)
    })?;
    let _alone = OwnCpu::take()?;
    let (near, mut far) = connect(&network.client, &network.server)?;
    near.shutdown(Shutdown::Write)?;
    ensure!(far.read(&mut [0])? == 0, "no FIN");
    let trace = Kaprobe::trace(&["--netns", "server"])?.ready()?;
    let probe = TcpKeepalive::new().with_time(Duration::from_secs(TRACKED_S.into()));
    SockRef::from(&far).set_tcp_keepalive(&probe)?;
    sockopt::set_repair(&near)?;
    drop(near);
    wait_until("the probe has drawn a reset", || {
        Ok(far.take_error()?.is_some())
    })?;
    let log = trace.stop()?;
    let verdicts = log.records.iter().filter(|it| it.event() == "verdict");
    let named: Vec<_> = verdicts.map(|it| it.text("middlebox")).collect();
    let expected = "this host's conntrack in netns router, on the default route (3s)";
    ensure!(named == [Some(expected)], "{:#?}", log.records);
    Ok(())
}

/// The network namespaces whose timeouts have changed, by a log.
fn changed(log: &str) -> Result<Vec<Option<u64>>> {
    let mut changed = Vec::new();
    for line in log.lines().filter(|it| it.ends_with('}')) {
        let line: Value = serde_json::from_str(line)?;
        let namespaces = line["timeouts"]["namespaces"].as_array();
        let tracked = namespaces.into_iter().flatten();
        let tracked = tracked.filter(|it| it["timeouts"].is_array());
        changed.extend(tracked.map(|it| it["netns"].as_u64()));
    }
    Ok(changed)
}

/// The far end goes without a word. The near end is probed after [`TRACKED_S`] of silence,
/// and that draws a reset.
fn die((mut near, far): (TcpStream, TcpStream)) -> Result<()> {
    let probe = TcpKeepalive::new().with_time(Duration::from_secs(TRACKED_S.into()));
    SockRef::from(&near).set_tcp_keepalive(&probe)?;
    sockopt::set_repair(&far)?;
    drop(far);
    expect_death(&mut near, ErrorKind::ConnectionReset)
}
