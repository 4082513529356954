//! Kaprobe's records equal the kernel's counters exactly.

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::clock::monotonic_ns;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::one_per_way;
use kaprobe_testkit::traffic::load::{Load, LoadMember, allow_open_files};
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// The number of connections for each of the three kinds of address.
const CONNECTIONS: u32 = 80;
/// The probes, and the connections that were given up, that are enough to compare.
const ENOUGH: (u64, u64) = (2_000, 20);

/// Two of three peers answer every probe. The other connections die one after another,
/// most by the probe count, some by TCP_USER_TIMEOUT.
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

/// For every way to attach, the number of `probe` and `probe_congested` records equals
/// the growth of TCPKeepAlive, and the number of `timeout` records that of
/// TCPAbortOnTimeout.
pub fn records_equal_the_counters() -> Result<()> {
    netns::enter_new()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let _alone = OwnCpu::take()?;
    let before = KernelCounters::read()?;
    let counted = || {
        let now = KernelCounters::read()?;
        anyhow::Ok((
            now.keepalive - before.keepalive,
            now.abort_on_timeout - before.abort_on_timeout,
        ))
    };
    let load = open_load()?;
    wait_until("there is enough to compare", || {
        let (probes, timeouts) = counted()?;
        Ok(probes > ENOUGH.0 && timeouts > ENOUGH.1)
    })?;
    Load::end_all(load)?;
    let (probes, timeouts) = counted()?;
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        log.nothing_was_skipped(Some(FIRING))?;
        let reported = (log.count(PROBES), log.count(&["timeout"]));
        ensure!(
            reported == (probes, timeouts),
            "{way}: (probes, timeouts) is {reported:?}; the kernel counted {probes}, \
             {timeouts}",
        );
    }
    Ok(())
}

/// The hook of these events. With PREEMPT_RT the kernel may skip others, where the same
/// program was preempted (`__bpf_trace_run`, kernel/trace/bpf_trace.c).
const FIRING: &str = "tcp_keepalive_timer";

/// The events that the kernel counts in TCPKeepAlive.
const PROBES: &[&str] = &["probe", "probe_congested"];

/// With a tiny ring buffer, and while kaprobe is stopped, delivered and lost events add
/// up to the kernel's counters.
pub fn lost_events_are_counted() -> Result<()> {
    netns::enter_new()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net", "--buffer-size", "4096"])?;
    let _alone = OwnCpu::take()?;
    let before = KernelCounters::read()?;
    for (_, kaprobe) in &kaprobes {
        kaprobe.signal(Signal::STOP)?;
    }
    let load = open_load()?;
    wait_until("500 probes were sent", || {
        Ok(KernelCounters::read()?.keepalive - before.keepalive > 500)
    })?;
    for (_, kaprobe) in &kaprobes {
        kaprobe.signal(Signal::CONT)?;
    }
    let (resumed, resumed_ns) = (KernelCounters::read()?, monotonic_ns());
    // The timers fire together, once a second. More probes than fire at one time: else all
    // of them may fall before kaprobe has emptied its buffer.
    wait_until("600 more probes were sent", || {
        Ok(KernelCounters::read()?.keepalive - resumed.keepalive > 600)
    })?;
    Load::end_all(load)?;
    let after = KernelCounters::read()?;
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        log.nothing_was_skipped(Some(FIRING))?;
        ensure!(
            log.lost(PROBES) > 0,
            "{way}: nothing was lost, so the test shows nothing"
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
                "{way}: {kinds:?}: {delivered} delivered + {lost} lost; the kernel counted \
                 {counted}; {:?}",
                log.losses(),
            );
        }
        let delivered_again = log.records.iter().any(|record| {
            PROBES.contains(&record.event()) && record.number("mono_ns") > Some(resumed_ns)
        });
        ensure!(delivered_again, "{way}: kaprobe did not recover");
    }
    Ok(())
}
