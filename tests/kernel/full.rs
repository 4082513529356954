//! The table of known sockets is full: what its sockets do is told all the same, and that
//! they can't be followed is said.

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::bpf::Table;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, Counters};
use kaprobe_testkit::tracer::{ALL_EVENTS, Kaprobe};
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// How many sockets the table has room for (kaprobe-ebpf/src/ring.rs).
const SOCKETS: u64 = 65_536;
/// How many sockets come when it has none left. All die unanswered.
const BEYOND: u32 = 20;

/// Those beyond are told of, event for event, and counted; no end of theirs is told. Who
/// was known before still is, and so is who finds a place that was given back.
pub fn tells_of_sockets_beyond_its_table() -> Result<()> {
    netns::enter_new()?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-e", ALL_EVENTS])?.ready()?;
    let _alone = OwnCpu::take()?;
    let known = open(1, true)?;
    until_probes(2)?;
    let table = Table::of(kaprobe.pid(), "SOCKETS")?;
    // Not the address of any socket.
    let strangers: Vec<u64> = (1..=SOCKETS).collect();
    table.fill(&strangers)?;

    let before = Counters::read()?;
    let beyond = open(BEYOND, false)?;
    wait_until("the sockets beyond have been given up", || {
        let given_up = Counters::read()?.abort_on_timeout - before.abort_on_timeout;
        Ok(given_up == u64::from(BEYOND))
    })?;
    let ends: Vec<_> = beyond.pairs().iter().map(|pair| pair.local).collect();
    beyond.end()?;

    // Room for both ends of all that follows.
    strangers[..4].iter().try_for_each(|&it| table.remove(it))?;
    let probes = Counters::read()?.keepalive;
    let later = open(1, true)?;
    until_probes(probes + 3)?;
    let followed = [&known, &later].map(|load| load.pairs()[0].local);
    known.end()?;
    later.end()?;

    kaprobe.signal(Signal::INT)?;
    let finished = kaprobe.finish()?;
    let stderr = finished.stderr.clone();
    let log = finished.clean()?;
    let records = log.by_connection()?;
    let count = |end, event| {
        let of_it = records.iter().filter(|((_, local, _), _)| *local == end);
        let of_it = of_it.flat_map(|(_, records)| records);
        of_it.filter(|it| it.event() == event).count()
    };
    for end in followed {
        ensure!(
            count(end, "probe") > 0 && count(end, "closed") == 1,
            "{end} was not followed: {records:?}"
        );
    }
    for &end in &ends {
        let told = ["probe", "timeout", "rst_sent", "closed"].map(|event| count(end, event));
        ensure!(told == [2, 1, 1, 0], "{end}: {told:?}: {records:?}");
    }
    let beyond = records.iter().filter(|((_, local, remote), _)| {
        // Either end of theirs.
        ends.contains(local) || ends.contains(remote)
    });
    let events = beyond.flat_map(|(_, records)| records);
    let events = events.filter(|it| !["answered", "verdict"].contains(&it.event()));
    let said = format!(
        "{} events of sockets that did not fit in the kernel's table",
        events.count()
    );
    ensure!(stderr.contains(&said), "not {said}: {stderr}");
    Ok(())
}

/// Connections with one-second keepalive that give up after two probes.
fn open(count: u32, answered: bool) -> Result<Load> {
    let member = LoadMember {
        keepalive: Keepalive::new(1, 1, 2),
        answered,
    };
    let members = (0..count).map(|_| member);
    Ok(Load::open(Path::V4, Path::V4.loopback(), members)?)
}

fn until_probes(count: u64) -> Result<()> {
    wait_until("probes were sent", || {
        Ok(Counters::read()?.keepalive >= count)
    })
}
