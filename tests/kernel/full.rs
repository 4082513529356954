//! When the table of known sockets is full, kaprobe still reports events of other
//! sockets, and says that it cannot follow them.

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::bpf::Table;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::{ALL_EVENTS, Kaprobe};
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// The capacity of the table.
const SOCKETS: u64 = 1_024;
/// The number of connections opened when the table is full. All die unanswered.
const BEYOND: u32 = 20;

/// Every event of sockets beyond the table is reported and counted, but not `closed`.
/// Sockets that were known before are still followed, and so are sockets that get a freed
/// entry.
pub fn reports_sockets_beyond_the_table() -> Result<()> {
    netns::enter_new()?;
    let max = SOCKETS.to_string();
    let arguments = [
        "--netns",
        "/proc/self/ns/net",
        "-e",
        ALL_EVENTS,
        "--max-sockets",
        &max,
    ];
    let kaprobe = Kaprobe::trace(&arguments)?.ready()?;
    let _alone = OwnCpu::take()?;
    let known = open(1, true)?;
    wait_for_probes(2)?;
    let table = Table::of(kaprobe.pid(), "SOCKETS")?;
    // No socket has these addresses.
    let strangers: Vec<u64> = (1..=SOCKETS).collect();
    table.fill(&strangers)?;

    let before = KernelCounters::read()?;
    let beyond = open(BEYOND, false)?;
    wait_until("the sockets beyond have been given up", || {
        let given_up = KernelCounters::read()?.abort_on_timeout - before.abort_on_timeout;
        Ok(given_up == u64::from(BEYOND))
    })?;
    let ends: Vec<_> = beyond.pairs().iter().map(|pair| pair.local).collect();
    beyond.end()?;

    // Frees entries for both ends of the next connections.
    strangers[..4].iter().try_for_each(|&it| table.remove(it))?;
    let probes = KernelCounters::read()?.keepalive;
    let later = open(1, true)?;
    wait_for_probes(probes + 3)?;
    let followed = [&known, &later].map(|load| load.pairs()[0].local);
    known.end()?;
    later.end()?;

    kaprobe.signal(Signal::INT)?;
    let finished = kaprobe.finish()?;
    let stderr = finished.stderr.clone();
    let log = finished.clean()?;
    let records = log.by_connection()?;
    let count = |end, event| {
        let own = records.iter().filter(|((_, local, _), _)| *local == end);
        let own = own.flat_map(|(_, records)| records);
        own.filter(|it| it.event() == event).count()
    };
    for end in followed {
        ensure!(
            count(end, "probe") > 0 && count(end, "closed") == 1,
            "{end} was not followed: {records:?}"
        );
    }
    for &end in &ends {
        let counts = ["probe", "timeout", "rst_sent", "closed"].map(|event| count(end, event));
        ensure!(counts == [2, 1, 1, 0], "{end}: {counts:?}: {records:?}");
    }
    let beyond = records.iter().filter(|((_, local, remote), _)| {
        // Either end of these connections.
        ends.contains(local) || ends.contains(remote)
    });
    let events = beyond.flat_map(|(_, records)| records);
    let events = events.filter(|it| !["answered", "verdict"].contains(&it.event()));
    let note = format!(
        "{} events of sockets that did not fit in the kernel's table",
        events.count()
    );
    ensure!(stderr.contains(&note), "no {note}: {stderr}");
    Ok(())
}

/// Opens connections with keepalive of one second that give up after two probes.
fn open(count: u32, answered: bool) -> Result<Load> {
    let member = LoadMember {
        keepalive: Keepalive::new(1, 1, 2),
        answered,
    };
    let members = (0..count).map(|_| member);
    Ok(Load::open(Path::V4, Path::V4.loopback(), members)?)
}

fn wait_for_probes(count: u64) -> Result<()> {
    wait_until("probes were sent", || {
        Ok(KernelCounters::read()?.keepalive >= count)
    })
}
