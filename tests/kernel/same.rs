//! Every way to attach reports the same records for the same traffic, and the records
//! match the script.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::script::{Scenario, ScriptedConnection};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::egress::Egress;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::netns;
use kaprobe_testkit::tracer::{ALL_EVENTS, one_per_way};
use kaprobe_testkit::traffic::{play, scenarios};
use regex::Regex;

/// A scenario, and a regular expression for the events of its connection, each followed
/// by a space. Repetition is unbounded only if it depends on the machine's speed.
const EXPECTED: &[(Scenario, &str)] = &[
    (
        scenarios::ANSWERED,
        "probe/1 (answered/1 probe/1 )+(answered/1 )?ABORTED",
    ),
    (
        scenarios::ACCEPTED,
        "probe/1 (answered/1 probe/1 )+(answered/1 )?ABORTED",
    ),
    (
        scenarios::SILENT,
        "probe/1 probe/2 probe/3 rst_sent timeout/probe_count verdict/peer_unreachable closed ",
    ),
    (
        scenarios::SYSCTL,
        "probe/1 probe/2 probe/3 rst_sent timeout/probe_count verdict/peer_unreachable closed ",
    ),
    (
        scenarios::USER_TIMEOUT,
        "probe/1 probe/2 rst_sent timeout/user_timeout verdict/user_timeout closed ",
    ),
    (
        scenarios::RECOVERS,
        "probe/1 probe/2 (answered/2 |probe/3 answered/3 )probe/1 (answered/1 probe/1 )*(answered/1 )?ABORTED",
    ),
    (
        scenarios::VANISHED,
        "probe/1 rst_received verdict/probe_reset closed ",
    ),
    (scenarios::DATA_PENDING, "(data_pending ){2,}ABORTED"),
    (
        scenarios::WINDOW_SHUT,
        "(data_pending ){2,}(early )*probe/1 (answered/1 )?ABORTED",
    ),
    (scenarios::ORPHAN, "(data_pending ){2,}closed "),
    (
        scenarios::EARLY,
        "(early ){2,}probe/1 (answered/1 )?ABORTED",
    ),
    (scenarios::BUSY, "(busy ){2,}(data_pending )?early ABORTED"),
    (
        scenarios::LOCAL_DROP,
        "probe/1 probe/2 probe/3 rst_sent timeout/probe_count verdict/peer_unreachable closed ",
    ),
    (
        scenarios::CONGESTED,
        "(probe_congested ){2,}probe/1 (answered/1 )?ABORTED",
    ),
    (
        scenarios::FIN_WAIT2_TIME_WAIT,
        "fin_wait2/time_wait verdict/fin_wait2 closed ",
    ),
    (
        scenarios::FIN_WAIT2_RESET,
        "rst_sent fin_wait2/reset verdict/fin_wait2 closed ",
    ),
    (scenarios::SYN_SENT, "not_rearmed closed "),
];

/// The last events of a connection that its script resets.
const ABORTED: &str = "rst_sent verdict/aborted_locally closed ";

/// Events of data that is not acknowledged for a while. It depends on the kernel's timeouts
/// whether a script lasts as long; `endings_stalled` tests them.
const STALL: [&str; 3] = ["stalled ", "verdict/path_lost ", "resumed "];

/// Fields that differ between traces: times, `sock` (a number within one trace), and the
/// owner, which may have closed the socket before the lookup. The advice names the owner.
/// tests/kernel/owner.rs tests the owner.
const VARYING_FIELDS: &[&str] = &[
    "time",
    "mono_ns",
    "firing_ns",
    "seq",
    "sock",
    "pid",
    "comm",
    "advice",
    "idle_ms",
    "heard_ms",
    "lastrcv_ms",
    "lastack_ms",
    "lastsnd_ms",
    "next_ms",
    "late_ms",
    "answered_after_ms",
    "stalled_ms",
    "silent_ms",
    "dead_in_ms",
    "evidence",
];

/// Runs all scenarios over all kinds of address at once, with every way to attach.
pub fn every_way_reports_the_same() -> Result<()> {
    netns::enter_new()?;
    for name in ["tcp_keepalive_time", "tcp_keepalive_intvl"] {
        netns::set_ipv4_sysctl(name, 1)?;
    }
    netns::set_ipv4_sysctl("tcp_keepalive_probes", 3)?;
    let _egress = Egress::attach()?;
    let mut scripted = scripted()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net", "-e", ALL_EVENTS])?;
    let alone = OwnCpu::take()?;
    play::play_out(&mut scripted)?;
    let connections: Vec<_> = scripted
        .iter()
        .map(|a| (a.scenario, a.local, a.remote))
        .collect();
    drop(scripted);
    drop(alone);

    let logs: Vec<(String, TraceLog)> = kaprobes
        .into_iter()
        .map(|(way, kaprobe)| Ok((way, kaprobe.stop()?)))
        .collect::<Result<_>>()?;
    let mut differences = Vec::new();
    let netns = netns::inode()?;
    for (way, log) in &logs {
        log.nothing_was_skipped(None)?;
        ensure!(
            log.count(&["lost", "unclassified"]) == 0,
            "{way}: lost or unclassified"
        );
        let by_connection = log.by_connection()?;
        for &(scenario, local, remote) in &connections {
            let records = by_connection.get(&(netns, local, remote));
            let events: String = records
                .into_iter()
                .flatten()
                .map(|record| record.label() + " ")
                .filter(|label| !STALL.contains(&label.as_str()))
                .collect();
            if !expected_events(scenario)?.is_match(&events) {
                differences.push(format!("{way}: {} {local}: {events}", scenario.name));
            }
        }
    }
    ensure!(
        differences.is_empty(),
        "other events than expected:\n{}",
        differences.join("\n")
    );
    compare(&logs)
}

fn scripted() -> Result<Vec<ScriptedConnection>> {
    EXPECTED
        .iter()
        .flat_map(|(scenario, _)| Path::ALL.map(|path| (scenario, path)))
        .map(|(scenario, path)| Ok(ScriptedConnection::new(*scenario, path)?))
        .collect()
}

fn expected_events(scenario: Scenario) -> Result<Regex> {
    let (_, events) = EXPECTED
        .iter()
        .find(|(it, _)| it.name == scenario.name)
        .context("no expected events")?;
    let events = events.replace("ABORTED", ABORTED);
    Ok(Regex::new(&format!("^(?:{events})$"))?)
}

/// A record without the fields that differ between traces.
///
/// The tracepoint reports a reset only after it was sent (`tcp_send_active_reset`,
/// net/ipv4/tcp_output.c): on one host its arrival may be reported first. Then the record of
/// the end that sent it cannot make the verdict on the other end surer.
fn comparable_record(record: Record) -> Record {
    let record = record.without(VARYING_FIELDS);
    match (record.event(), record.text("verdict")) {
        // The tracepoint does not have the segment.
        ("rst_received", _) => record.without(&["ttl", "peer_ttl", "from_this_host"]),
        (_, Some("aborted_by_peer")) => record.without(&["confidence"]),
        _ => record,
    }
}

/// Compares each log with the first, connection by connection.
fn compare(logs: &[(String, TraceLog)]) -> Result<()> {
    let comparable: Vec<(&str, BTreeMap<_, Vec<_>>)> = logs
        .iter()
        .map(|(way, log)| {
            let connections = log
                .by_connection()?
                .into_iter()
                .map(|(connection, records)| {
                    let records = records.into_iter().cloned().map(comparable_record);
                    (connection, records.collect())
                })
                .collect();
            Ok((way.as_str(), connections))
        })
        .collect::<Result<_>>()?;
    let Some(((first, reference), others)) = comparable.split_first() else {
        return Ok(());
    };
    for (way, connections) in others {
        ensure!(
            connections.keys().eq(reference.keys()),
            "{way} and {first} saw different connections"
        );
        for (connection, records) in connections {
            ensure!(
                reference.get(connection) == Some(records),
                "{connection:?}\n{first}: {:#?}\n{way}: {records:#?}",
                reference.get(connection),
            );
        }
    }
    Ok(())
}
