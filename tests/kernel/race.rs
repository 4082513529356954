//! What another processor does to a socket while its timer fires makes no record false.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path};
use kaprobe::traffic::sockopt::tcp_info;
use kaprobe_testkit::cpu::{self, OwnCpu};
use kaprobe_testkit::log::TraceLog;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::{ALL_EVENTS, one_per_way};
use kaprobe_testkit::traffic::load::{Load, LoadMember, allow_open_files};
use rustix::net::connect_unspec;

/// Number of connections of a round: their timers fire together, on one processor.
const CONNECTIONS: usize = 640;
/// Number of rounds. In every second one, all peers are silent, and the timers are met as
/// keepalive gives up.
const ROUNDS: u8 = 4;
/// The time from arming a timer until it fires first, and from then on.
const PERIOD: Duration = Duration::from_secs(1);
/// The time after which no more timers are met: most have fired.
const MEETING: Duration = Duration::from_millis(500);
/// How far ahead of the timer that fired last the other processor acts, in connections: it
/// needs as long to reach a socket as some timers need to fire.
const AHEAD: usize = 8;
/// `TCP_ESTABLISHED`, include/net/tcp_states.h.
const TCP_ESTABLISHED: u8 = 1;

/// What the other processor does to a connection.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The peer sends a reset.
    PeerResets,
    /// The peer goes without a word: a reset answers the next segment.
    PeerVanishes,
    /// The peer sends data.
    PeerSends,
    /// The process sends data.
    Sends,
    /// The process disconnects the socket, which stays open.
    Disconnects,
    /// The process resets the connection.
    Aborts,
    /// The process turns keepalive off.
    TurnsOff,
    /// The process sets TCP_KEEPIDLE to a time after the end of the round.
    Sets,
}

impl Act {
    const ALL: [Self; 8] = [
        Self::PeerResets,
        Self::PeerVanishes,
        Self::PeerSends,
        Self::Sends,
        Self::Disconnects,
        Self::Aborts,
        Self::TurnsOff,
        Self::Sets,
    ];

    fn perform(self, pair: &mut Pair) -> Result<()> {
        match self {
            Self::PeerResets => connect_unspec(pair.far()?)?,
            Self::PeerVanishes => pair.vanish()?,
            // A connection that has ended meanwhile takes no data.
            Self::PeerSends => drop(pair.far_sends()),
            Self::Sends => drop(pair.send()),
            Self::Disconnects => connect_unspec(pair.near()?)?,
            Self::Aborts => pair.abort()?,
            Self::TurnsOff => pair.disarm()?,
            Self::Sets => Keepalive::new(10, 10, 1).apply(pair.near()?)?,
        }
        Ok(())
    }
}

/// Resets, vanishing peers, data, disconnects and changed settings meet the timers as they
/// fire. For every way to attach, records and counted losses equal the kernel's counters,
/// and no connection whose peer answers is told as given up.
pub fn other_processors_make_no_record_false() -> Result<()> {
    netns::enter_new()?;
    allow_open_files(CONNECTIONS as u64)?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net", "-e", ALL_EVENTS])?;
    let last = cpu::last()?;
    let alone = OwnCpu::take()?;
    cpu::pin(last)?;
    let before = KernelCounters::read()?;
    let mut answering = BTreeSet::new();
    for number in 0..ROUNDS {
        let gives_up = number % 2 == 1;
        let ends = round(number, gives_up, last)?;
        if !gives_up {
            answering.extend(ends);
        }
    }
    let after = KernelCounters::read()?;
    drop(alone);
    let probes = after.keepalive - before.keepalive;
    let gave_up = after.abort_on_timeout - before.abort_on_timeout;
    ensure!(
        probes > 500 && gave_up > 50,
        "too little to count: {after:?}"
    );
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        check(&log, &answering, probes, gave_up).with_context(|| way)?;
    }
    Ok(())
}

/// Opens the connections, and meets their timers from another processor than `timers`.
/// Returns their local ends.
fn round(number: u8, gives_up: bool, timers: usize) -> Result<Vec<SocketAddr>> {
    let member = |n| {
        let keepalive = Keepalive::new(1, 1, 1);
        LoadMember {
            keepalive: if n % 5 == 0 {
                keepalive.user_timeout(1_500)
            } else {
                keepalive
            },
            answered: !gives_up,
        }
    };
    // Every round has its own address, so no two connections have the same ends.
    let address = IpAddr::from([127, 0, 1, number]);
    let load = Load::open(Path::V4, address, (0..CONNECTIONS).map(member))?;
    let ends = load.pairs().iter().map(|pair| pair.local).collect();
    // From here on all timers run together.
    for pair in load.pairs() {
        pair.disarm()?;
        pair.near()?.set_keepalive(true)?;
    }
    let armed = Instant::now();
    let met = thread::spawn(move || -> Result<Load> {
        cpu::pin_real_time(usize::from(timers == 0))?;
        let mut load = load;
        let due = armed + PERIOD * if gives_up { 2 } else { 1 };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        meet(load.pairs_mut(), gives_up, due + MEETING)?;
        // The connections that were left alone give up too.
        thread::sleep((due + PERIOD).saturating_duration_since(Instant::now()));
        Ok(load)
    });
    met.join().map_err(|_| anyhow!("panicked"))??.end()?;
    Ok(ends)
}

/// Acts on connections just before their timers fire.
///
/// The timers fire together at a tick of the timer wheel, the one that was armed last first
/// (`calc_index` and `enqueue_timer`, kernel/time/timer.c). As the first firing arms them
/// again, the second has the opposite order.
fn meet(pairs: &mut [Pair], gives_up: bool, until: Instant) -> Result<()> {
    if !gives_up {
        pairs.reverse();
    }
    let mut acts = Act::ALL.iter().cycle();
    let mut ahead = (1..=AHEAD).cycle();
    let mut untouched = vec![true; pairs.len()];
    let mut next = 0;
    while Instant::now() < until {
        while next < pairs.len() && (!untouched[next] || has_fired(&pairs[next], gives_up)?) {
            next += 1;
        }
        let target = next + ahead.next().unwrap_or(AHEAD);
        if target >= pairs.len() {
            return Ok(());
        }
        if next > 0 && untouched[target] {
            untouched[target] = false;
            let act = acts.next().unwrap_or(&Act::Aborts);
            act.perform(&mut pairs[target])
                .with_context(|| format!("{act:?}"))?;
        }
    }
    Ok(())
}

/// Whether the timer of a connection has sent its probe or, later, given up.
fn has_fired(pair: &Pair, gives_up: bool) -> Result<bool> {
    let info = tcp_info(pair.near()?)?;
    Ok(if gives_up {
        info.state != TCP_ESTABLISHED
    } else {
        info.probes_out == 1
    })
}

fn check(
    log: &TraceLog,
    answering: &BTreeSet<SocketAddr>,
    probes: u64,
    gave_up: u64,
) -> Result<()> {
    ensure!(log.count(&["unclassified"]) == 0, "unclassified");
    for record in &log.records {
        let false_end = record.event() == "timeout"
            && answering.contains(&record.connection().context("a socket")?.1);
        ensure!(!false_end, "the peer answered: {record:?}");
    }
    let lost: u64 = log
        .records
        .iter()
        .filter(|it| it.text("hook") == Some("tcp_keepalive_timer"))
        .filter_map(|it| it.number("lost"))
        .sum();
    // What is not known may have been a probe or an end.
    let unknown = lost + log.count(&["changed_meanwhile"]);
    for (kinds, counted) in [
        (&["probe", "probe_congested"][..], probes),
        (&["timeout"], gave_up),
    ] {
        let told = log.count(kinds);
        ensure!(
            told <= counted && counted <= told + unknown,
            "{kinds:?}: {told} told, {unknown} unknown or lost; the kernel counted {counted}",
        );
    }
    Ok(())
}
