//! The scenarios change the kernel's counters as expected. Runs without kaprobe.

use std::ops::RangeInclusive;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::egress::Egress;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::traffic::{play, scenarios};

/// A scenario, and the growth of each counter in one run.
struct ScenarioCase {
    scenario: Scenario,
    probes: RangeInclusive<u64>,
    gave_up: u64,
    estab_resets: u64,
    out_rsts: RangeInclusive<u64>,
}

const fn row(
    scenario: Scenario,
    probes: RangeInclusive<u64>,
    gave_up: u64,
    estab_resets: u64,
    out_rsts: RangeInclusive<u64>,
) -> ScenarioCase {
    ScenarioCase {
        scenario,
        probes,
        gave_up,
        estab_resets,
        out_rsts,
    }
}

const ROWS: &[ScenarioCase] = &[
    // A script that ends with an abort resets two established ends. It takes one reset if
    // the peer receives it in time, and one from each end if not: a busy kernel delivers
    // segments later (`__do_softirq` leaves the rest to ksoftirqd).
    row(scenarios::ANSWERED, 2..=3, 0, 2, 1..=2),
    row(scenarios::ACCEPTED, 2..=3, 0, 2, 1..=2),
    row(scenarios::SILENT, 3..=3, 1, 2, 2..=2),
    row(scenarios::SYSCTL, 3..=3, 1, 2, 2..=2),
    row(scenarios::USER_TIMEOUT, 2..=2, 1, 2, 2..=2),
    row(scenarios::RECOVERS, 4..=5, 0, 2, 1..=2),
    row(scenarios::VANISHED, 1..=1, 0, 2, 1..=1),
    row(scenarios::DATA_PENDING, 0..=0, 0, 2, 2..=2),
    row(scenarios::WINDOW_SHUT, 1..=2, 0, 2, 1..=2),
    row(scenarios::ORPHAN, 0..=0, 0, 0, 0..=0),
    row(scenarios::EARLY, 1..=1, 0, 2, 1..=2),
    row(scenarios::BUSY, 0..=0, 0, 2, 1..=2),
    row(scenarios::LOCAL_DROP, 3..=3, 1, 2, 2..=2),
    row(scenarios::CONGESTED, 3..=5, 0, 2, 1..=2),
    row(scenarios::FIN_WAIT2_TIME_WAIT, 0..=0, 0, 0, 0..=0),
    // Only the peer is counted, in CLOSE_WAIT.
    row(scenarios::FIN_WAIT2_RESET, 0..=0, 0, 1, 1..=1),
    row(scenarios::SYN_SENT, 0..=0, 0, 0, 0..=0),
];

/// Runs all scenarios at once, each in its own namespace.
pub fn scenarios_move_the_counters() -> Result<()> {
    let _egress = Egress::attach()?;
    // How often a timer fires depends on when the scripts go on.
    let _alone = OwnCpu::take()?;
    let runs: Vec<_> = ROWS
        .iter()
        .flat_map(|row| Path::ALL.map(|path| (row, path)))
        .map(|(row, path)| {
            (
                row,
                path,
                thread::spawn(move || play_in_own_namespace(row.scenario, path)),
            )
        })
        .collect();
    let differences: Vec<String> = runs
        .into_iter()
        .map(|(row, path, run)| {
            let counted = run.join().map_err(|_| anyhow!("panicked"))?;
            let name = row.scenario.name;
            let c = counted.with_context(|| format!("{name} {path:?}"))?;
            let same = row.probes.contains(&c.keepalive)
                && row.gave_up == c.abort_on_timeout
                && row.estab_resets == c.estab_resets
                && row.out_rsts.contains(&c.out_rsts);
            Ok((!same).then(|| format!("{name} {path:?}: {c:?}")))
        })
        .filter_map(Result::transpose)
        .collect::<Result<_>>()?;
    ensure!(differences.is_empty(), "\n{}", differences.join("\n"));
    Ok(())
}

fn play_in_own_namespace(scenario: Scenario, path: Path) -> Result<KernelCounters> {
    netns::enter_new()?;
    for name in ["tcp_keepalive_time", "tcp_keepalive_intvl"] {
        netns::set_ipv4_sysctl(name, 1)?;
    }
    netns::set_ipv4_sysctl("tcp_keepalive_probes", 3)?;
    let mut scripted = [ScriptedConnection::new(scenario, path)?];
    play::play_out(&mut scripted)?;
    KernelCounters::read()
}
