//! `kaprobe sockets` predicts when and why a connection dies; the kernel confirms it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use serde_json::Value;

use kaprobe_testkit::clock::monotonic_ns;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::log::{self, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::snapshot::SocketsWatch;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::unacknowledged;
use kaprobe_testkit::wait::wait_until;

/// Settings that end by probe count, by TCP_USER_TIMEOUT, and by inherited values. No
/// probe is so close to a user timeout that a late timer changes the number of probes:
/// the timer wheel is late by up to an eighth (kernel/time/timer.c).
const SETTINGS: [Keepalive; 8] = [
    Keepalive::SYSCTL,
    Keepalive {
        probes: Some(1),
        ..Keepalive::SYSCTL
    },
    Keepalive::new(1, 1, 3),
    Keepalive::new(1, 2, 1),
    Keepalive::new(3, 1, 2),
    // The timeout passes before the first probe. The second firing ends the connection.
    Keepalive::new(1, 1, 9).user_timeout(500),
    Keepalive::new(1, 1, 9).user_timeout(2500),
    // A user timeout overrides the probe count.
    Keepalive::new(1, 1, 1).user_timeout(4500),
];

/// The tolerance per firing: each is rounded to a tick, which is 10 ms at most.
const TICK_MS: u64 = 10;

/// The idle time before some peers send a byte. The timers of their connections wait 2 s.
const HALF_WAY: Duration = Duration::from_millis(500);

/// Compares snapshots before the first probe, with probes out, and after data from a peer
/// with the `timeout` records.
pub fn predicted_ends_match_the_kernel() -> Result<()> {
    netns::enter_new()?;
    let sysctls = [
        ("tcp_keepalive_time", 2),
        ("tcp_keepalive_intvl", 1),
        ("tcp_keepalive_probes", 2),
    ];
    for (name, value) in sysctls {
        netns::set_ipv4_sysctl(name, value)?;
    }
    let kaprobe = Kaprobe::trace(&["-e", "all", "--netns", "/proc/self/ns/net"])?.ready()?;
    // No firing may be missed: each one counts. Some connections live for only two
    // seconds, so the snapshots must not wait for a CPU.
    let _alone = OwnCpu::take()?;
    let _any = TcpListener::bind("127.0.0.1:0")?;
    let watch = SocketsWatch::start()?;
    let mut pairs = Vec::new();
    for (settings, path) in SETTINGS.into_iter().zip(Path::ALL.into_iter().cycle()) {
        for side in [Side::Client, Side::Server] {
            pairs.push(Planned::bind(path)?.connect(side, settings)?);
        }
    }
    // Data in the middle of an idle time: the timer fires early and is rearmed.
    thread::sleep(HALF_WAY);
    pairs[..4].iter().try_for_each(Pair::far_sends)?;
    wait_until("the data is acknowledged", || {
        let unheard = pairs[..4].iter().map(|pair| unacknowledged(pair.far()?));
        Ok(unheard.sum::<io::Result<i32>>()? == 0)
    })?;
    pairs.iter().try_for_each(Pair::silence)?;
    let silent_ns = monotonic_ns();
    let mut left: Vec<_> = pairs.iter().collect();
    wait_until("every connection has ended", || {
        let alive = |pair: &&Pair| pair.near()?.take_error().map(|it| it.is_none());
        let still = left.iter().map(alive).collect::<io::Result<Vec<_>>>()?;
        let mut still = still.into_iter();
        left.retain(|_| still.next() == Some(true));
        Ok(left.is_empty())
    })?;
    let mut rows = watch.end()?;
    // While a timer fires, its next expiry is unknown.
    rows.retain(|it| {
        it["mono_ns"].as_u64() > Some(silent_ns) && it["keepalive_next_ms"].as_u64() > Some(0)
    });
    let log = kaprobe.stop()?;
    ensure!(log.count(&["early"]) > 0, "no timer fired early");
    ensure!(
        rows.iter().any(|it| it["probes_out"].as_u64() > Some(0)),
        "no probe was out in any snapshot"
    );
    let records = log.by_connection()?;
    let netns = netns::inode()?;
    for Pair { local, remote, .. } in &pairs {
        let ends = (*local, *remote);
        let own_rows: Vec<_> = rows
            .iter()
            .filter(|it| addresses(it) == Some(ends))
            .collect();
        ensure!(!own_rows.is_empty(), "{ends:?} is in no snapshot");
        let records = records
            .get(&(netns, *local, *remote))
            .context("no records")?;
        for row in own_rows {
            compare(row, records).with_context(|| format!("{row}\n{records:?}"))?;
        }
    }
    Ok(())
}

/// The local and remote address of a row.
fn addresses(row: &Value) -> Option<(SocketAddr, SocketAddr)> {
    log::addresses(row.as_object()?).ok()
}

/// Compares a row with the `timeout` record: same rule, and same time to the tick, less
/// the delays of the firings until then. A firing's record has its own delay; `next_ms`
/// counts from the time of the firing.
fn compare(row: &Value, firings: &[&Record]) -> Result<()> {
    let taken = row["mono_ns"].as_u64().context("mono_ns")?;
    let since = firings
        .iter()
        .filter(|it| it.number("mono_ns") > Some(taken));
    let mut planned = None;
    let mut count = 1;
    for firing in since {
        let number = |name| firing.number(name).with_context(|| format!("no {name}"));
        let due_in = || {
            let fired_in = (number("mono_ns")? - taken) / 1_000_000;
            Ok::<_, Error>(fired_in.saturating_sub(number("late_ms")?))
        };
        // If an earlier firing of this list armed the timer, its record has the time.
        let due_in = || planned.map_or_else(due_in, Ok);
        planned = Some(match firing.event() {
            // The next expiry does not depend on the time of this firing.
            "early" => due_in()? + number("late_ms")? + number("next_ms")?,
            "probe" => due_in()? + number("next_ms")?,
            // Deferred.
            "busy" => due_in()?,
            "timeout" => {
                let (actual, predicted) = (due_in()?, row["dead_in_ms"].as_u64());
                ensure!(
                    firing.text("cause") == row["dead_by"].as_str(),
                    "another rule"
                );
                let predicted = predicted.context("dead_in_ms")?;
                ensure!(
                    actual.abs_diff(predicted) <= count * TICK_MS,
                    "predicted in {predicted} ms, died in {actual}"
                );
                return Ok(());
            }
            _ => continue,
        });
        count += 1;
    }
    bail!("no timeout record")
}
