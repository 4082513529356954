//! The table of groups, and what is known of the selected one.

use crate::text::cell::NOTHING;
use crate::text::columns::{Cells, Column};
use crate::text::units::{Ms, plural};
use crate::top::grouping::program;
use crate::top::model::GroupRow;
use crate::top::view::look::Tone;
use crate::top::view::table::{Cell, TableColumn, count, value};
use crate::top::view::words;

/// The columns of the table. What names a group comes first, then what is wrong. Each is as
/// wide as most of its cells, so that it stays where it is.
pub(super) const fn columns<'a>() -> [TableColumn<GroupRow<'a>>; 11] {
    [
        TableColumn(
            Column::of_worth("PROGRAM", 11, Cells::Names(12)),
            |_, row| Cell::plain(program(row.id)),
        ),
        TableColumn(
            Column::of_worth("REMOTE", 10, Cells::Endpoints).at_least(16),
            |_, row| Cell::plain(row.id.peers.to_string()),
        ),
        TableColumn(count("CONN", 6, 5), |_, row| {
            Cell::plain(row.sums.connections.to_string())
        }),
        TableColumn(value("KEEPALIVE", 5, 11), |_, row| {
            let tone = match row.sums.keepalive_off {
                0 => Tone::Plain,
                _ => Tone::Warning,
            };
            Cell::new(words::keepalive(row.sums), tone)
        }),
        TableColumn(value("IDLE", 4, 8), |look, row| {
            Cell::plain(look.sparkline(&row.sums.idle))
        }),
        TableColumn(count("LONGEST", 3, 7), |_, row| {
            let longest = row.sums.idle_ms.map(|it| Ms(it.1).to_string());
            Cell::plain(longest.unwrap_or_else(|| NOTHING.to_owned()))
        }),
        TableColumn(count("PROBES", 2, 13), |_, row| {
            let counts = row.counts;
            match counts.probes {
                0 => Cell::plain(""),
                sent => Cell::plain(format!("{sent}/{}", counts.answered)),
            }
        }),
        TableColumn(count("UNANSW", 7, 6), |_, row| {
            Cell::count(row.sums.unanswered, Tone::Bad)
        }),
        // Rare, unlike the others that are counted.
        TableColumn(Column::of_finding("STALL", 8).right(), |_, row| {
            Cell::count(row.sums.stalled, Tone::Bad)
        }),
        TableColumn(count("VERDICTS", 9, 8), |_, row| {
            Cell::count(row.counts.verdict_count(), Tone::Bad)
        }),
        TableColumn(count("RISK", 8, 5), |_, row| {
            Cell::count(words::at_risk(row.sums), Tone::Warning)
        }),
    ]
}

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
    // What is wrong comes before facts: a low screen cuts the end.
    let mut lines = vec![now, ends.join("; "), words::probes(sums, counts)];
    if sums.connections > 0 {
        lines.push(format!("keepalive: {}", words::keepalive_in_full(sums)));
    }
    lines.retain(|line| !line.is_empty());
    lines
}
