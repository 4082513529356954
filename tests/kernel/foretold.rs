//! The end that `kaprobe sockets` foretells is the end that comes.

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use serde_json::Value;

use kaprobe_testkit::clock::monotonic_ns;
use kaprobe_testkit::command;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::log::{self, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::unacknowledged;
use kaprobe_testkit::wait::wait_until;

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

/// For how long nothing is heard before a peer is: those sleep two seconds.
const HALF_WAY: Duration = Duration::from_millis(500);

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
    let kaprobe = Kaprobe::trace(&["-e", "all", "--netns", "/proc/self/ns/net"])?.ready()?;
    // Each firing is counted with, so none may go unseen; and some live for two seconds,
    // so what takes snapshots may not wait for a CPU.
    let _alone = OwnCpu::take()?;
    let _any = TcpListener::bind("127.0.0.1:0")?;
    let watch = Watch::start()?;
    let mut pairs = Vec::new();
    for (settings, path) in SETTINGS.into_iter().zip(Path::ALL.into_iter().cycle()) {
        for side in [Side::Client, Side::Server] {
            pairs.push(Planned::bind(path)?.connect(side, settings)?);
        }
    }
    // Those heard in the middle of an idle time have a timer that fires, and sleeps on.
    thread::sleep(HALF_WAY);
    pairs[..4].iter().try_for_each(Pair::far_sends)?;
    wait_until("what was sent is acknowledged", || {
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
    // A timer that is firing says nothing of the next.
    rows.retain(|it| {
        it["mono_ns"].as_u64() > Some(silent_ns) && it["keepalive_next_ms"].as_u64() > Some(0)
    });
    let log = kaprobe.stop()?;
    ensure!(log.count(&["early"]) > 0, "no timer slept on");
    ensure!(
        rows.iter().any(|it| it["probes_out"].as_u64() > Some(0)),
        "no probe was out in any snapshot"
    );
    let records = log.by_connection()?;
    let netns = netns::inode()?;
    for Pair { local, remote, .. } in &pairs {
        let ends = (*local, *remote);
        let of_it: Vec<_> = rows.iter().filter(|it| ends_of(it) == Some(ends)).collect();
        ensure!(!of_it.is_empty(), "{ends:?} is in no snapshot");
        let records = records
            .get(&(netns, *local, *remote))
            .context("no records")?;
        for row in of_it {
            compare(row, records).with_context(|| format!("{row}\n{records:?}"))?;
        }
    }
    Ok(())
}

/// Local and remote address of a row.
fn ends_of(row: &Value) -> Option<(SocketAddr, SocketAddr)> {
    log::addresses(row.as_object()?).ok()
}

/// A `kaprobe sockets --watch` of this network namespace.
struct Watch {
    child: Child,
    rows: JoinHandle<io::Result<String>>,
}

impl Watch {
    /// Returns once it shows sockets: there has to be one.
    fn start() -> Result<Self> {
        let mut child = command::kaprobe()?
            .args(["sockets", "--json", "--watch=100ms"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut first = String::new();
        ensure!(stdout.read_line(&mut first)? > 0, "it ended");
        Ok(Self {
            child,
            rows: thread::spawn(|| io::read_to_string(stdout)),
        })
    }

    /// All that it wrote, but for the line that it was killed in.
    fn end(mut self) -> Result<Vec<Value>> {
        self.child.kill()?;
        self.child.wait()?;
        let rows = self.rows.join().map_err(|_| anyhow!("its reader died"))??;
        let (whole, _rest) = rows.rsplit_once('\n').context("it wrote nothing")?;
        Ok(whole
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    }
}

/// The record of the end says the very rule, and the time to the tick, but for what the
/// firings themselves took until then: that a timer was late, by its own record, and that
/// one armed the next late, which its `next_ms` counts from.
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
        // Where it was armed by one of these firings, that one's record says for when.
        let due_in = || planned.map_or_else(due_in, Ok);
        planned = Some(match firing.event() {
            // It sleeps until a time that does not hang on when it fired.
            "early" => due_in()? + number("late_ms")? + number("next_ms")?,
            "probe" => due_in()? + number("next_ms")?,
            // Put off, not ended.
            "busy" => due_in()?,
            "timeout" => {
                let (came, foretold) = (due_in()?, row["dead_in_ms"].as_u64());
                ensure!(
                    firing.text("cause") == row["dead_by"].as_str(),
                    "another rule"
                );
                let foretold = foretold.context("dead_in_ms")?;
                ensure!(
                    came.abs_diff(foretold) <= count * TICK_MS,
                    "foretold in {foretold} ms, came in {came}"
                );
                return Ok(());
            }
            _ => continue,
        });
        count += 1;
    }
    bail!("no end")
}
