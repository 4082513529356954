//! Nothing is missed and nothing is invented: what kaprobe reports equals what the
//! kernel counts.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::clock::monotonic_ns;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, Counters};
use kaprobe_testkit::tracer::one_per_way;
use kaprobe_testkit::traffic::load::{Load, LoadMember, allow_open_files};
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// How many connections of each of three kinds of address.
const CONNECTIONS: u32 = 80;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(20);

/// Two of three answer every probe; the others die one after another, most by the
/// count, some by TCP_USER_TIMEOUT.
fn members() -> impl Iterator<Item = LoadMember> {
    (0..CONNECTIONS).map(|n| {
        let answered = n % 3 != 0;
        let keepalive = Keepalive::new(1, 1, 2 + n % 16);
        LoadMember {
            keepalive: if n % 12 == 0 {
                keepalive.user_timeout(1500 + 100 * n)
            } else {
                keepalive
            },
            answered,
        }
    })
}

fn open_load() -> Result<Vec<Load>> {
    allow_open_files(u64::from(CONNECTIONS) * 3)?;
    Path::ALL
        .iter()
        .map(|path| Ok(Load::open(*path, path.loopback(), members())?))
        .collect()
}

/// By every way to attach, `probe` and `probe_congested` records equal the growth of
/// TCPKeepAlive, and `timeout` records that of TCPAbortOnTimeout.
pub fn equals_the_kernels_counters() -> Result<()> {
    netns::enter_new()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let _alone = OwnCpu::take()?;
    let before = Counters::read()?;
    let load = open_load()?;
    thread::sleep(WATCHED);
    load.into_iter().try_for_each(Load::end)?;
    let after = Counters::read()?;
    let probes = after.keepalive - before.keepalive;
    let timeouts = after.abort_on_timeout - before.abort_on_timeout;
    ensure!(
        probes > 2_000 && timeouts > 20,
        "too little to count: {after:?}"
    );
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        let said = (
            log.count(PROBES),
            log.count(&["timeout"]),
            log.count(&["lost"]),
        );
        ensure!(
            said == (probes, timeouts, 0),
            "{way}: (probes, timeouts, lost) is {said:?}; the kernel counted {probes}, {timeouts}",
        );
    }
    Ok(())
}

/// The events that the kernel counts in TCPKeepAlive.
const PROBES: &[&str] = &["probe", "probe_congested"];

/// With next to no room in the ring buffer, and kaprobe stopped for a while, what is
/// delivered and what is reported as lost still add up to what the kernel counts.
pub fn counts_what_it_loses() -> Result<()> {
    netns::enter_new()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net", "--buffer-size", "4096"])?;
    let _alone = OwnCpu::take()?;
    let before = Counters::read()?;
    for (_, kaprobe) in &kaprobes {
        kaprobe.signal(Signal::STOP)?;
    }
    let load = open_load()?;
    wait_until("some hundred probes were sent", || {
        Ok(Counters::read()?.keepalive - before.keepalive > 500)
    })?;
    for (_, kaprobe) in &kaprobes {
        kaprobe.signal(Signal::CONT)?;
    }
    let (resumed, resumed_ns) = (Counters::read()?, monotonic_ns());
    wait_until("some more were sent", || {
        Ok(Counters::read()?.keepalive - resumed.keepalive > 200)
    })?;
    load.into_iter().try_for_each(Load::end)?;
    let after = Counters::read()?;
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        ensure!(
            log.lost(PROBES) > 0,
            "{way}: nothing was lost, so nothing was shown"
        );
        for (kinds, counted) in [
            (PROBES, after.keepalive - before.keepalive),
            (
                &["timeout"],
                after.abort_on_timeout - before.abort_on_timeout,
            ),
        ] {
            let (delivered, lost) = (log.count(kinds), log.lost(kinds));
            ensure!(
                delivered + lost == counted,
                "{way}: {kinds:?}: {delivered} delivered + {lost} lost; the kernel counted {counted}",
            );
        }
        let delivered_again = log.records.iter().any(|record| {
            PROBES.contains(&record.event()) && record.number("mono_ns") > Some(resumed_ns)
        });
        ensure!(delivered_again, "{way}: it did not recover");
    }
    Ok(())
}
