//! `kaprobe sockets` shows the same timers as /proc/net/tcp and `ss -o`. It also shows
//! the keepalive timer when another timer hides it from them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpListener;

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path, Planned, Side, deafen};
use kaprobe::traffic::script::Step::{Close, Custom, Send, Silence, Until};
use kaprobe::traffic::script::Wait::State;
use kaprobe::traffic::script::{Scenario, ScriptedConnection, Start, Step};
use kaprobe_testkit::package::Root;
use kaprobe_testkit::timers::{self, Key, Sightings};
use kaprobe_testkit::traffic::ends::{connect_to, far_reads, fill};
use kaprobe_testkit::traffic::play;
use kaprobe_testkit::traffic::steps::FIN_WAIT2;
use kaprobe_testkit::traffic::steps::TestStep::{Fill, Linger2, Probes, Shutdown};
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{netns, snapshot};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

const CLIENT: Start = Start::Connected(Side::Client);
const SERVER: Start = Start::Connected(Side::Server);

const fn scenario(name: &'static str, start: Start, time: u32, steps: &'static [Step]) -> Scenario {
    Scenario {
        name,
        start,
        keepalive: Keepalive::new(time, 500, 3),
        steps,
    }
}

/// Scenarios that lead to each timer, and then stay quiet.
const SCENARIOS: [Scenario; 9] = [
    scenario("keepalive", CLIENT, 100, &[]),
    scenario("keepalive, minutes", CLIENT, 400, &[]),
    scenario("keepalive, hours", SERVER, 7200, &[]),
    scenario("a probe is out", CLIENT, 1, &[Silence, Custom(&Probes(1))]),
    scenario("retransmission", CLIENT, 1000, &[Silence, Send]),
    scenario("window probe", CLIENT, 1000, &[Custom(&Fill)]),
    scenario(
        "FIN_WAIT2, for long",
        CLIENT,
        1000,
        &[
            Custom(&Shutdown),
            Until(State(FIN_WAIT2)),
            Custom(&Linger2(100)),
            Close,
        ],
    ),
    scenario(
        "FIN_WAIT2, for a minute",
        CLIENT,
        1000,
        &[Custom(&Shutdown), Until(State(FIN_WAIT2)), Close],
    ),
    scenario("SYN_SENT", Start::Unheard, 1000, &[]),
];

/// Every socket and timer equals the one that /proc/net/tcp and ss show, with its time
/// left, retransmits and probes.
pub fn timers_equal_ss_and_proc() -> Result<()> {
    netns::enter_new()?;
    let iproute2 = Root::of("iproute2")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _off = connect_to(&listener)?;
    let _half_open = half_open(&listener)?;
    drop(connect_to(&listener)?);
    let mut scripted = Vec::new();
    for scenario in SCENARIOS {
        for path in Path::ALL {
            scripted.push(ScriptedConnection::new(scenario, path)?);
        }
    }
    play::play_out(&mut scripted)?;
    let (mut compared, mut seen) = (HashSet::new(), HashSet::new());
    // Retransmissions and probes back off, so that quiet moments come.
    wait_until("each socket was seen without a change meanwhile", || {
        let ss = timers::from_ss(&iproute2)?;
        let proc = timers::from_proc()?;
        let rows = rows()?;
        let proc = [proc, timers::from_proc()?];
        let ss = [ss, timers::from_ss(&iproute2)?];
        let by_proc = compare(&proc, &rows)?;
        let by_ss = compare(&ss, &rows)?;
        compared.extend(by_proc.intersection(&by_ss).copied());
        seen.extend(proc[1].iter().map(|(key, it)| (it.timer, key.0)));
        Ok(proc[1].keys().all(|key| compared.contains(key)))
    })?;
    for timer in ["on", "keepalive", "timewait", "probe"] {
        for is_v6 in [false, true] {
            ensure!(seen.contains(&(timer, is_v6)), "no {timer}: {seen:?}");
        }
    }
    ensure!(seen.contains(&("off", false)), "no timer is off: {seen:?}");
    Ok(())
}

fn rows() -> Result<HashMap<Key, Value>> {
    let mut rows = HashMap::new();
    for row in snapshot::here()? {
        let duplicate = rows.insert(timers::key(&row)?, row);
        ensure!(duplicate.is_none(), "shown twice: {duplicate:?}");
    }
    Ok(rows)
}

/// Compares the rows of sockets that did not change meanwhile. Returns their keys.
fn compare([before, after]: &[Sightings; 2], rows: &HashMap<Key, Value>) -> Result<HashSet<Key>> {
    for (key, row) in rows {
        let seen = before.contains_key(key) || after.contains_key(key);
        ensure!(seen, "only kaprobe shows {row}");
    }
    let unchanged = before.iter().filter_map(|(key, before)| {
        let after = after.get(key).filter(|after| before.is_unchanged(after))?;
        Some((key, before, after))
    });
    let mut compared = HashSet::new();
    for (key, before, after) in unchanged {
        let row = rows
            .get(key)
            .with_context(|| format!("no row: {before:?}"))?;
        before
            .compare(after, row)
            .with_context(|| format!("{before:?} {after:?} {row}"))?;
        compared.insert(*key);
    }
    Ok(compared)
}

/// A client that does not receive the SYN-ACK: the server's end stays in SYN_RECV.
fn half_open(listener: &TcpListener) -> Result<Socket> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    deafen(&client)?;
    client.set_nonblocking(true)?;
    match client.connect(&listener.local_addr()?.into()) {
        Err(why) if why.raw_os_error() == Some(libc::EINPROGRESS) => Ok(client),
        Err(why) => Err(why.into()),
        Ok(()) => bail!("the client is connected"),
    }
}

/// The time left of a keepalive timer hidden by a retransmission or a window probe equals
/// what /proc/net/tcp shows once the other timer is off.
pub fn hidden_keepalive_timers_are_shown() -> Result<()> {
    netns::enter_new()?;
    let cases: [(&str, PairAction, PairAction); 2] =
        [("on", silence_and_send, hear), ("probe", fill, far_reads)];
    for path in Path::ALL {
        for (timer, hide, show) in cases {
            let pair = Planned::bind(path)?.connect(Side::Client, Keepalive::new(1000, 10, 3))?;
            let key = (path != Path::V4, pair.local.port(), pair.remote.port());
            hide(&pair)?;
            wait_for(key, timer)?;
            let hidden = rows()?.remove(&key).context("no row")?;
            ensure!(hidden["timer"] == timer, "not hidden: {hidden}");
            let expires = timers::expires_ms(&hidden, "keepalive_next_ms");
            let expires = expires.context("no keepalive timer")?;
            wait_until("the other timer is off", || {
                show(&pair)?;
                Ok(timers::from_proc()?
                    .get(&key)
                    .is_some_and(|it| it.timer == "keepalive"))
            })?;
            let shown = timers::from_proc()?
                .remove(&key)
                .context("the socket is gone")?;
            ensure!(
                shown.may_fire_at(expires),
                "{hidden}: not at {expires}: {shown:?}"
            );
        }
    }
    Ok(())
}

type PairAction = fn(&Pair) -> io::Result<()>;

fn silence_and_send(pair: &Pair) -> io::Result<()> {
    pair.silence()?;
    pair.send()
}

fn hear(pair: &Pair) -> io::Result<()> {
    match pair.hear() {
        // The pair already hears.
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn wait_for(key: Key, timer: &str) -> Result<()> {
    wait_until("the timer is pending", || {
        Ok(timers::from_proc()?
            .get(&key)
            .is_some_and(|it| it.timer == timer))
    })
}
