//! With `--rtt`, kaprobe reports each answer once, when it arrives.

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::log::Record;
use kaprobe_testkit::netns;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::{play, scenarios};
use regex::Regex;

/// Scenarios, and a regular expression for the probe and answer events of a connection.
const EXPECTED: &[(Scenario, &str)] = &[
    (scenarios::ANSWERED, "(probe/1 answered/1 ){2,}"),
    (
        scenarios::RECOVERS,
        "probe/1 probe/2 (probe/3 )?answered/[23] (probe/1 answered/1 )+",
    ),
    (scenarios::SILENT, "probe/1 probe/2 probe/3 "),
    // The peer's own probes do not answer ours.
    (scenarios::SILENT_PEER_PROBES, "probe/1 probe/2 probe/3 "),
];

/// With `--rtt` each answer follows its probe, and has a round-trip time. Without it the
/// answer is inferred at the next firing, with the same probe number and less precise
/// time.
pub fn answers_are_reported_on_arrival() -> Result<()> {
    netns::enter_new()?;
    let here = ["--netns", "/proc/self/ns/net"];
    let seen = Kaprobe::trace(&[&here[..], &["--rtt"]].concat())?;
    let derived = Kaprobe::trace(&here)?.ready()?;
    let seen = seen.ready()?;
    let mut scripted = EXPECTED
        .iter()
        .flat_map(|(scenario, _)| Path::ALL.map(|path| ScriptedConnection::new(*scenario, path)))
        .collect::<std::io::Result<Vec<_>>>()?;
    {
        let _alone = OwnCpu::take()?;
        play::play_out(&mut scripted)?;
    }
    let (seen, derived) = (seen.stop()?, derived.stop()?);
    let netns = netns::inode()?;
    let (all, late) = (seen.by_connection()?, derived.by_connection()?);
    for player in &scripted {
        let (name, connection) = (player.scenario.name, (netns, player.local, player.remote));
        let records: Vec<_> = all
            .get(&connection)
            .into_iter()
            .flatten()
            .filter(|it| ["probe", "answered"].contains(&it.event()))
            .collect();
        let events: String = records.iter().map(|it| it.label() + " ").collect();
        let expected = EXPECTED
            .iter()
            .find(|(it, _)| it.name == player.scenario.name);
        let expected = expected.map_or("", |(_, expected)| expected);
        ensure!(
            Regex::new(&format!("^(?:{expected})$"))?.is_match(&events),
            "{name} {connection:?}: {events}"
        );
        let answers: Vec<_> = records
            .iter()
            .filter(|it| it.event() == "answered")
            .collect();
        ensure!(
            answers.iter().all(|it| it.number("rtt_us").is_some()),
            "{name}: not reported on arrival: {answers:?}"
        );
        let late: Vec<_> = late
            .get(&connection)
            .into_iter()
            .flatten()
            .filter(|it| it.event() == "answered")
            .collect();
        for (seen, derived) in answers.iter().zip(late) {
            let after_ms = |it: &Record| it.number("answered_after_ms");
            ensure!(
                seen.label() == derived.label()
                    && after_ms(seen) <= after_ms(derived).map(|ms| ms + TICK_MS),
                "{name}: {seen:?}\n{derived:?}"
            );
        }
    }
    Ok(())
}

/// The longest tick of a kernel.
const TICK_MS: u64 = 10;
