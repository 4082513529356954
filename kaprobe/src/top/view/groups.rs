//! The table of groups, and what is known of the selected one.

use crate::text::cell::NOTHING;
use crate::text::units::{Ms, plural};
use crate::top::grouping::program;
use crate::top::model::GroupRow;
use crate::top::view::look::Tone;
use crate::top::view::table::{Cell, TableColumn, fixed};
use crate::top::view::words;

/// The columns of the table.
pub(super) const fn columns<'a>() -> [TableColumn<GroupRow<'a>>; 11] {
    [
        fixed("PROGRAM", 12, |_, row: &GroupRow<'_>| {
            Cell::plain(program(row.id))
        })
        .growing(),
        fixed("REMOTE", 16, |_, row: &GroupRow<'_>| {
            Cell::plain(row.id.peers.to_string())
        })
        .growing(),
        fixed("CONN", 5, |_, row: &GroupRow<'_>| {
            Cell::plain(row.sums.connections.to_string())
        })
        .right(),
        fixed("KEEPALIVE", 11, |_, row: &GroupRow<'_>| {
            let tone = match row.sums.keepalive_off {
                0 => Tone::Plain,
                _ => Tone::Warning,
            };
            Cell::new(words::keepalive(row.sums), tone)
        }),
        fixed("IDLE", 8, |look, row: &GroupRow<'_>| {
            Cell::plain(look.sparkline(&row.sums.idle))
        }),
        fixed("LONGEST", 7, |_, row: &GroupRow<'_>| {
            let longest = row.sums.idle_ms.map(|it| Ms(it.1).to_string());
            Cell::plain(longest.unwrap_or_else(|| NOTHING.to_owned()))
        })
        .right(),
        fixed("PROBES", 13, |_, row: &GroupRow<'_>| {
            let counts = row.counts;
            match counts.probes {
                0 => Cell::plain(""),
                sent => Cell::plain(format!("{sent}/{}", counts.answered)),
            }
        })
        .right(),
        fixed("UNANSW", 6, |_, row: &GroupRow<'_>| {
            Cell::count(row.sums.unanswered, Tone::Bad)
        })
        .right(),
        fixed("STALL", 5, |_, row: &GroupRow<'_>| {
            Cell::count(row.sums.stalled, Tone::Bad)
        })
        .right(),
        fixed("VERDICTS", 8, |_, row: &GroupRow<'_>| {
            Cell::count(row.counts.verdict_count(), Tone::Bad)
        })
        .right(),
        fixed("RISK", 5, |_, row: &GroupRow<'_>| {
            Cell::count(words::at_risk(row.sums), Tone::Warning)
        })
        .right(),
    ]
}

/// The places of the columns, the most important first.
pub(super) const WORTH: [usize; 11] = [0, 1, 2, 9, 10, 7, 3, 4, 8, 5, 6];

/// What is known of a group, in sentences.
pub(super) fn about(row: &GroupRow<'_>) -> Vec<String> {
    let (sums, counts) = (row.sums, row.counts);
    let (program, workload) = (program(row.id), row.id.workload.suffix());
    let mut place = format!("{program}{workload} to {}", row.id.peers);
    match row.netns_name {
        Some(name) => place.push_str(&format!(", netns {name} ({})", row.id.netns)),
        None => place.push_str(&format!(", netns {}", row.id.netns)),
    }
    let connections = plural(sums.connections, "connection", "connections");
    let mut now = format!("{place}: {connections}");
    if let Some(idle) = sums.idle_ms {
        now.push_str(&format!(", idle for {}", words::span(idle)));
    }
    let mut lines = vec![now];
    if sums.connections > 0 {
        lines.push(format!("keepalive: {}", words::keepalive_in_full(sums)));
    }
    lines.push(words::probes(sums, counts));
    let mut ends = Vec::new();
    if !counts.verdicts.is_empty() {
        ends.push(format!("verdicts: {}", words::verdicts(counts)));
    }
    if let Some(bounds) = &counts.learned {
        ends.push(format!("idle timeout learned: {}", words::learned(bounds)));
    }
    let fates = words::fates(sums);
    if !fates.is_empty() {
        ends.push(format!("fate: {fates}"));
    }
    lines.push(ends.join("; "));
    lines.retain(|line| !line.is_empty());
    lines
}
