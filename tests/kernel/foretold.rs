//! The end that `kaprobe sockets` foretells is the end that comes.

use std::io::{self, BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use serde_json::Value;

use super::exact::monotonic_ns;
use super::support::kaprobe::{Kaprobe, binary, wait_until};
use super::support::log::{self, Record};
use super::support::netns;

/// Settings that end by count, by TCP_USER_TIMEOUT, and by what is inherited. None ends
/// so close to a user timeout that a late timer would make it a probe less: the wheel is
/// late by up to an eighth (kernel/time/timer.c).
const SETTINGS: [Keepalive; 8] = [
    Keepalive::SYSCTL,
    Keepalive {
        probes: Some(1),
        ..Keepalive::SYSCTL
    },
    Keepalive::new(1, 1, 3),
    Keepalive::new(1, 2, 1),
    Keepalive::new(3, 1, 2),
    // Passed before the first probe: the end comes with the one after.
    Keepalive::new(1, 1, 9).user_timeout(500),
    Keepalive::new(1, 1, 9).user_timeout(2500),
    // The count is not asked: this outlives it.
    Keepalive::new(1, 1, 1).user_timeout(4500),
];

/// The grain of what is foretold: a tick is 10 ms at most, and each firing is rounded to
/// one.
const TICK_MS: u64 = 10;

/// Snapshots before the first probe, with probes out, and after a peer was heard, against
/// the `timeout` records.
pub fn ends_come_as_foretold() -> Result<()> {
    netns::enter_new()?;
    let sysctls = [
        ("tcp_keepalive_time", 2),
        ("tcp_keepalive_intvl", 1),
        ("tcp_keepalive_probes", 2),
    ];
    for (name, value) in sysctls {
        netns::set_ipv4_sysctl(name, value)?;
    }
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net"])?.ready()?;
    let mut pairs = Vec::new();
    for (settings, path) in SETTINGS.into_iter().zip(Path::ALL.into_iter().cycle()) {
        for side in [Side::Client, Side::Server] {
            pairs.push(Planned::bind(path)?.connect(side, settings)?);
        }
    }
    let mut watch = Watch::start()?;
    let near: Vec<_> = pairs.iter().map(|it| (it.local, it.remote)).collect();
    let far: Vec<_> = pairs.iter().map(|it| (it.remote, it.local)).collect();
    // Those heard in the middle of an idle time have a timer that fires, and sleeps on.
    watch.until(&near[..4], |row| row["idle_ms"].as_u64() > Some(500))?;
    pairs[..4].iter().try_for_each(Pair::far_sends)?;
    watch.until(&far[..4], |row| row["sendq"] == 0)?;
    pairs.iter().try_for_each(Pair::silence)?;

    let mut rows = watch.until(&near, |row| row["dead_in_ms"].is_u64())?;
    rows.extend(watch.until(&near[2..8], |row| row["probes_out"].as_u64() > Some(0))?);
    let mut left: Vec<_> = pairs.iter().collect();
    wait_until("every connection has ended", || {
        let alive = |pair: &&Pair| pair.near()?.take_error().map(|it| it.is_none());
        let still = left.iter().map(alive).collect::<io::Result<Vec<_>>>()?;
        let mut still = still.into_iter();
        left.retain(|_| still.next() == Some(true));
        Ok(left.is_empty())
    })?;
    let log = kaprobe.stop()?;
    let records = log.by_connection()?;
    let netns = netns::inode()?;
    for ((local, remote), row) in &rows {
        let records = records
            .get(&(netns, *local, *remote))
            .context("no records")?;
        compare(row, records).with_context(|| format!("{row}\n{records:?}"))?;
    }
    Ok(())
}

/// Local and remote address.
type Ends = (SocketAddr, SocketAddr);

/// A `kaprobe sockets --watch` of this network namespace.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start() -> Result<Self> {
        let mut child = Command::new(binary())
            .args(["sockets", "--json", "--watch=20ms"])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { child, lines })
    }

    /// A row of each socket, later than this call, as it was when it was so.
    fn until(&mut self, of: &[Ends], so: impl Fn(&Value) -> bool) -> Result<Vec<(Ends, Value)>> {
        let start = monotonic_ns()?;
        let mut missing = of.to_vec();
        let mut rows = Vec::new();
        while !missing.is_empty() {
            let line = self.lines.next().context("it ended")??;
            let row: Value = serde_json::from_str(&line)?;
            let ends = log::ends(row.as_object().context("no row")?)?;
            let at = missing.iter().position(|it| *it == ends);
            if let Some(at) = at.filter(|_| row["mono_ns"].as_u64() > Some(start) && so(&row)) {
                missing.swap_remove(at);
                rows.push((ends, row));
            }
        }
        Ok(rows)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ended already or not: nothing is left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record of the end says the very rule, and the time to the tick, but for what the
/// timers were late until then by their own records.
fn compare(row: &Value, firings: &[&Record]) -> Result<()> {
    let taken = row["mono_ns"].as_u64().context("mono_ns")?;
    let since = firings
        .iter()
        .filter(|it| it.number("mono_ns") > Some(taken));
    let mut late_ms = 0;
    let mut count = 1;
    for firing in since {
        let late = || firing.number("late_ms").context("no late_ms");
        match firing.event() {
            // It sleeps until a time that does not hang on when it fired.
            "early" => {}
            "probe" => late_ms += late()?,
            // Put off, not ended.
            "busy" => late_ms += late()? + firing.number("next_ms").context("no next_ms")?,
            "timeout" => {
                late_ms += late()?;
                let foretold =
                    taken / 1_000_000 + row["dead_in_ms"].as_u64().context("dead_in_ms")? + late_ms;
                let came = firing.number("mono_ns").context("mono_ns")? / 1_000_000;
                ensure!(
                    firing.text("cause") == row["dead_by"].as_str(),
                    "another rule"
                );
                ensure!(
                    came.abs_diff(foretold) <= count * TICK_MS,
                    "foretold {foretold}, came {came}"
                );
                return Ok(());
            }
            _ => continue,
        }
        count += 1;
    }
    bail!("no end")
}
