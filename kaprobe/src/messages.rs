//! Writes the messages of a trace or a replay to standard error: how each hook was attached,
//! and at the end the counts of records, sockets and losses.

use std::io;

use rustix::io::Errno;

use crate::filter::FilterCounts;
use crate::kernel::Attached;
use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::values::Hook;
use crate::sink::OutputLosses;
use crate::stderr;
use crate::text::units::plural;

/// The counts that a trace or a replay reports at its end.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records shown and events lost.
    pub counts: FilterCounts,
    /// Sockets seen, shown or not.
    pub sockets: u64,
    /// Sockets evicted for lack of room.
    pub evicted: u64,
    /// Events of sockets that did not fit in the kernel's table.
    pub untracked: u64,
    /// Processes whose descriptors could not be read.
    pub unreadable: usize,
    /// How many searches for owners have failed, and why the last one did.
    pub failed_searches: Option<(u64, Errno)>,
    /// Sockets of the snapshot whose owners did not fit in the cache.
    pub dropped_owners: u64,
    /// Changes of owners that the kernel could not report: all were checked again.
    pub unreported_changes: u64,
    /// Sockets of the snapshot seen so far, if the trace ended before the snapshot.
    pub partial_snapshot: Option<u64>,
    /// Probes that were not answered, or not yet. `None` if a filter leaves out probes or answers.
    pub unanswered: Option<u64>,
    /// What each output lost.
    pub outputs: Vec<OutputLosses>,
}

/// Reports how each hook was attached, and which parts are missing.
pub fn banner(attached: &[Attached], without: &[String]) {
    stderr::lines(banner_lines(attached, without));
}

/// Reports how the timers are traced, and whether parts are missing: `kaprobe doctor` names
/// them.
pub fn brief_banner(attached: &[Attached], without: &[String]) {
    stderr::line(brief_banner_line(attached, without));
}

/// Reports the counts of the snapshot at the start of a trace, and why it failed.
pub fn snapshot(sockets: u64, zombies: u64, outcome: &anyhow::Result<()>) {
    stderr::line(snapshot_line(sockets, zombies, outcome));
}

/// Reports the counts of a trace or a replay.
pub fn summary(outcome: &Outcome) {
    stderr::lines(summary_lines(outcome));
}

/// Reports the counts of a trace, without what is as it should be.
pub fn brief_summary(outcome: &Outcome) {
    stderr::lines(brief_summary_lines(outcome));
}

fn brief_banner_line(attached: &[Attached], without: &[String]) -> String {
    let timers = attached.iter().find(|it| it.hook == Hook::KeepaliveTimer);
    let by = timers.map_or(String::new(), |it| format!("; by {}", it.mode));
    let is_refused = attached.iter().any(|it| !it.refused.is_empty());
    let see = match is_refused || !without.is_empty() {
        true => "; limits: kaprobe doctor",
        false => "",
    };
    format!("problems only (-v shows all){by}{see}")
}

fn banner_lines(attached: &[Attached], without: &[String]) -> Vec<String> {
    let mut lines = Vec::with_capacity(attached.len() + without.len());
    for Attached {
        hook,
        mode,
        refused,
    } in attached
    {
        let mut line = format!("{hook} by {mode}");
        if !refused.is_empty() {
            let refused: Vec<_> = refused.iter().map(|(mode, _)| mode.name()).collect();
            let refused = refused.join(", ");
            line.push_str(&format!(" ({refused} refused: see kaprobe doctor)"));
        }
        lines.push(line);
    }
    lines.extend(without.iter().map(|missing| format!("without {missing}")));
    lines
}

fn snapshot_line(sockets: u64, zombies: u64, outcome: &anyhow::Result<()>) -> String {
    let sockets = plural(sockets, "socket", "sockets");
    let zombies = plural(zombies, "zombie", "zombies");
    match outcome {
        Ok(()) => format!("snapshot: {sockets}, {zombies}"),
        Err(why) => format!("snapshot: {sockets}, {zombies}, then it failed: {why:#}"),
    }
}

fn summary_lines(outcome: &Outcome) -> Vec<String> {
    let counts = &outcome.counts;
    let events = counts.events.iter();
    let events: Vec<_> = events
        .map(|(event, count)| format!("{count} {}", event.name()))
        .collect();
    let mut records = plural(counts.records, "record", "records");
    if !events.is_empty() {
        records = format!("{records}: {}", events.join(", "));
    }
    let mut lines = vec![
        records,
        format!("{} seen", plural(outcome.sockets, "socket", "sockets")),
    ];
    lines.extend(lost_line(counts));
    lines.extend(loss_lines(outcome));
    lines
}

fn brief_summary_lines(outcome: &Outcome) -> Vec<String> {
    let counts = &outcome.counts;
    let count = |event| counts.events.get(&event).copied().unwrap_or_default();
    let unanswered = outcome.unanswered.filter(|it| *it > 0);
    let unanswered = unanswered.map_or(String::new(), |it| format!(", {it} not"));
    let mut lines = vec![format!(
        "{} of {}: {}, {} answered{unanswered}, {}",
        plural(counts.records, "event", "events"),
        plural(outcome.sockets, "socket", "sockets"),
        plural(count(EventName::Probe), "probe", "probes"),
        count(EventName::Answered),
        plural(count(EventName::Verdict), "verdict", "verdicts"),
    )];
    lines.extend(lost_line(counts));
    lines.extend(loss_lines(outcome));
    lines
}

/// What was lost, by where. `None` if nothing was.
fn lost_line(counts: &FilterCounts) -> Option<String> {
    let by_hook = counts.lost.iter().filter(|(_, lost)| **lost > 0);
    let mut all: Vec<_> = by_hook
        .map(|(hook, lost)| format!("{lost} by {hook}"))
        .collect();
    if counts.lost_by_outputs > 0 {
        all.push(format!("{} by output", counts.lost_by_outputs));
    }
    (!all.is_empty()).then(|| format!("events lost: {}", all.join(", ")))
}

/// What was lost or forgotten, beside events that are counted by hook.
fn loss_lines(outcome: &Outcome) -> Vec<String> {
    let counts = &outcome.counts;
    let mut lines = Vec::new();
    for hook in &counts.silenced {
        lines.push(format!(
            "{hook} was switched off for some time: how many events it missed is not known"
        ));
    }
    if outcome.evicted > 0 {
        let sockets = plural(outcome.evicted, "socket", "sockets");
        lines.push(format!("{sockets} forgotten for lack of room"));
    }
    if outcome.untracked > 0 {
        let events = plural(outcome.untracked, "event", "events");
        lines.push(format!(
            "{events} of sockets that did not fit in the kernel's table"
        ));
    }
    if outcome.unreadable > 0 {
        let processes = plural(outcome.unreadable as u64, "process", "processes");
        lines.push(format!(
            "{processes} not searched for sockets: owners may be missing"
        ));
    }
    if let Some((failed, why)) = outcome.failed_searches {
        let searches = plural(failed, "search", "searches");
        lines.push(format!(
            "{searches} for owners failed ({}): owners may be missing",
            io::Error::from(why)
        ));
    }
    if outcome.dropped_owners > 0 {
        let sockets = plural(outcome.dropped_owners, "socket", "sockets");
        lines.push(format!("snapshot: no room for the owners of {sockets}"));
    }
    if outcome.unreported_changes > 0 {
        let changes = plural(outcome.unreported_changes, "change", "changes");
        lines.push(format!(
            "{changes} of processes had no room: all owners were checked again"
        ));
    }
    for output in &outcome.outputs {
        let OutputLosses { name, told, untold } = output;
        if *told > 0 {
            let records = plural(*told, "record", "records");
            lines.push(format!(
                "{name}: {records} lost, and reported there as lost"
            ));
        }
        if *untold > 0 {
            lines.push(format!("{name}: {}", output.untold_text()));
        }
    }
    if let Some(sockets) = outcome.partial_snapshot {
        let sockets = plural(sockets, "socket", "sockets");
        lines.push(format!(
            "snapshot: {sockets}, but the trace ended before it"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::model::attach_mode::AttachMode;

    #[test]
    fn the_banner_has_the_chosen_and_the_refused_modes() {
        let attached = [
            Attached {
                hook: Hook::KeepaliveTimer,
                mode: AttachMode::Fentry,
                refused: Vec::new(),
            },
            Attached {
                hook: Hook::SendActiveReset,
                mode: AttachMode::Tracepoint,
                refused: vec![
                    (AttachMode::Fentry, "not permitted".to_owned()),
                    (AttachMode::Kprobe, "this kernel\nhas none".to_owned()),
                ],
            },
        ];
        let without = ["tcp_destroy_sock: no such tracepoint".to_owned()];
        assert_snapshot!(banner_lines(&attached, &without).join("\n"), @r"
        tcp_keepalive_timer by fentry
        tcp_send_active_reset by tracepoint (fentry, kprobe refused: see kaprobe doctor)
        without tcp_destroy_sock: no such tracepoint
        ");
        assert_snapshot!(brief_banner_line(&attached, &without), @"problems only (-v shows all); by fentry; limits: kaprobe doctor");
        assert_snapshot!(brief_banner_line(&attached[..1], &[]), @"problems only (-v shows all); by fentry");
    }

    #[test]
    fn a_failed_snapshot_is_reported() {
        assert_snapshot!(snapshot_line(1_234, 1, &Ok(())), @"snapshot: 1234 sockets, 1 zombie");
        let why = anyhow::anyhow!("exit status: 4");
        assert_snapshot!(snapshot_line(1, 0, &Err(why)), @"snapshot: 1 socket, 0 zombies, then it failed: exit status: 4");
    }

    #[test]
    fn the_summary_has_every_loss() {
        assert_snapshot!(summary_lines(&Outcome::default()).join("\n"), @"
        0 records
        0 sockets seen
        ");
        assert_snapshot!(brief_summary_lines(&Outcome::default()).join("\n"), @"0 events of 0 sockets: 0 probes, 0 answered, 0 verdicts");
        let counts = FilterCounts {
            records: 12,
            events: [
                (EventName::Probe, 8),
                (EventName::Timeout, 3),
                (EventName::Lost, 1),
            ]
            .into(),
            lost: [(Hook::KeepaliveTimer, 40), (Hook::Probe, 0)].into(),
            lost_by_outputs: 3,
            silenced: [Hook::SendReset].into(),
        };
        let outcome = Outcome {
            counts,
            sockets: 1,
            evicted: 2,
            untracked: 1,
            unreadable: 3,
            failed_searches: Some((1, Errno::MFILE)),
            dropped_owners: 2,
            unreported_changes: 3,
            partial_snapshot: Some(1),
            unanswered: Some(5),
            outputs: vec![
                OutputLosses::default(),
                OutputLosses {
                    name: "a.jsonl".to_owned(),
                    told: 7,
                    untold: 1,
                },
            ],
        };
        let brief = brief_summary_lines(&outcome);
        assert_eq!(brief[2..], summary_lines(&outcome)[3..], "every loss");
        assert_snapshot!(brief[..2].join("\n"), @"
        12 events of 1 socket: 8 probes, 0 answered, 5 not, 0 verdicts
        events lost: 40 by tcp_keepalive_timer, 3 by output
        ");
        assert_snapshot!(summary_lines(&outcome).join("\n"), @"
        12 records: 8 probe, 3 timeout, 1 lost
        1 socket seen
        events lost: 40 by tcp_keepalive_timer, 3 by output
        tcp_v4_send_reset was switched off for some time: how many events it missed is not known
        2 sockets forgotten for lack of room
        1 event of sockets that did not fit in the kernel's table
        3 processes not searched for sockets: owners may be missing
        1 search for owners failed (Too many open files (os error 24)): owners may be missing
        snapshot: no room for the owners of 2 sockets
        3 changes of processes had no room: all owners were checked again
        a.jsonl: 7 records lost, and reported there as lost
        a.jsonl: 1 record is not in it
        snapshot: 1 socket, but the trace ended before it
        ");
    }
}
