//! The table of a group's connections, and what is known of one.

use crate::census::sums::LiveConnection;
use crate::model::named::Named as _;
use crate::model::peers::Peers;
use crate::model::remedy::SetIn;
use crate::text::cell::{NOTHING, endpoint, netns};
use crate::text::columns::{Cells, Column};
use crate::text::cut::ENDPOINT_WIDTH;
use crate::text::units::Ms;
use crate::top::model::ConnectionRow;
use crate::top::view::look::{Look, Tone};
use crate::top::view::table::{Cell, TableColumn, count, value};
use crate::top::view::words;

/// The columns of the table. The first is the end that differs from connection to connection.
pub(super) fn columns<'a>(peers: Peers) -> [TableColumn<ConnectionRow<'a>>; 8] {
    [
        match peers {
            Peers::Clients(_) => TableColumn(end("REMOTE"), |_, row| {
                Cell::plain(endpoint(row.endpoints.remote()))
            }),
            Peers::Server(..) => TableColumn(end("LOCAL"), |_, row| {
                Cell::plain(endpoint(row.endpoints.local()))
            }),
        },
        TableColumn(value("PID", 2, 7), |_, row| {
            let pid = row.pid().map(|it| it.to_string());
            Cell::plain(pid.unwrap_or_else(|| NOTHING.to_owned()))
        }),
        TableColumn(value("STATUS", 7, 16), status),
        TableColumn(value("KEEPALIVE", 5, 11), |_, row| {
            Cell::plain(match row.live {
                Some(live) => words::settings(&live.assessment.settings),
                None => NOTHING.to_owned(),
            })
        }),
        TableColumn(count("IDLE", 6, 7), |_, row| {
            time(row.live.and_then(|it| it.assessment.ages.idle_ms))
        }),
        TableColumn(count("NEXT", 1, 7), |_, row| {
            time(row.live.and_then(|it| it.assessment.keepalive_next_ms))
        }),
        TableColumn(count("UNANSW", 4, 6), |_, row| {
            let out = row.live.and_then(|it| it.assessment.probes_out);
            Cell::count(out.unwrap_or(0).into(), Tone::Bad)
        }),
        TableColumn(count("DEAD-IN", 3, 7), |_, row| {
            time(row.live.and_then(|it| it.assessment.dead_in_ms))
        }),
    ]
}

/// The column of an end.
const fn end(heading: &'static str) -> Column {
    Column::of_worth(heading, 8, Cells::Endpoints).at_least(ENDPOINT_WIDTH)
}

fn time(ms: Option<u64>) -> Cell {
    Cell::plain(ms.map_or_else(|| NOTHING.to_owned(), |ms| Ms(ms).to_string()))
}

/// The fate or state of a connection that lives; of one that does not, its verdict.
fn status(_: &Look, row: &ConnectionRow<'_>) -> Cell {
    if let Some(live) = row.live {
        if is_unanswered(live) {
            return Cell::new("unanswered", Tone::Bad);
        }
        return match live.fate() {
            Some(fate) if words::RISKS.contains(&fate) => Cell::new(fate.name(), Tone::Bad),
            Some(fate) => Cell::plain(fate.name()),
            None => Cell::plain(live.state.name()),
        };
    }
    let timeline = row.timeline;
    match timeline.and_then(|it| it.verdict) {
        Some(verdict) => Cell::new(verdict.name(), Tone::Bad),
        None if timeline.is_some_and(|it| it.is_over) => Cell::new("closed", Tone::Faint),
        None => Cell::new("not in snapshot", Tone::Faint),
    }
}

/// Whether a probe is known not to be answered. The fate supposes that the peer is there.
fn is_unanswered(live: &LiveConnection) -> bool {
    live.assessment.probes_out >= Some(2)
}

/// What is known of a connection, and the last that happened to it, in sentences.
pub(super) fn about_with_last(row: &ConnectionRow<'_>) -> Vec<String> {
    let mut lines = about(row);
    let last = row.timeline.and_then(|it| it.lines.back());
    lines.extend(last.map(|it| format!("last: {}", it.text)));
    lines
}

/// What is known of a connection, in sentences.
pub(super) fn about(row: &ConnectionRow<'_>) -> Vec<String> {
    let [local, remote] = [row.endpoints.local(), row.endpoints.remote()].map(endpoint);
    let mut lines = Vec::new();
    let Some(live) = row.live else {
        let pid = row.pid().map(|pid| format!(", of process {pid}"));
        lines.push(format!("{local} to {remote}{}", pid.unwrap_or_default()));
        return lines;
    };
    let it = &live.assessment;
    let owner = it
        .process
        .label()
        .unwrap_or_else(|| "owner not known".to_owned());
    lines.push(format!(
        "{local} to {remote}, {owner}: {}",
        live.state.name()
    ));
    let mut now = vec![format!("keepalive {}", words::settings(&it.settings))];
    let ages = [
        ("idle", it.ages.idle_ms),
        ("next timer in", it.keepalive_next_ms),
        ("stalled for", it.transfer.stalled_ms),
        ("dead in", it.dead_in_ms),
    ];
    now.extend(
        ages.into_iter()
            .filter_map(|(name, ms)| Some(format!("{name} {}", Ms(ms?)))),
    );
    if let Some(out) = it.probes_out.filter(|&out| out > 0) {
        now.push(format!("{out} probes not answered"));
    }
    lines.push(now.join(", "));
    if let Some(fate) = live.fate() {
        lines.push(match it.why {
            _ if is_unanswered(live) => format!("fate: {}, if the peer answers", fate.name()),
            Some(why) => format!("fate: {} ({})", fate.name(), why.name()),
            None => format!("fate: {}", fate.name()),
        });
    }
    lines.extend(remedy(live));
    lines
}

/// Which settings would save a connection, and where they are changed. What that reaches
/// besides, `kaprobe audit` says.
fn remedy(live: &LiveConnection) -> Option<String> {
    let it = &live.assessment;
    let set = it.set.as_ref().filter(|_| live.is_judged)?;
    let place = match it.set_in? {
        SetIn::Program => "in the program".to_owned(),
        SetIn::Peer => "in the program at the remote end".to_owned(),
        SetIn::Sysctl => format!(
            "in netns {}, for every program there that sets none of its own",
            netns(it.netns_name.as_ref(), it.endpoints.netns)
        ),
    };
    let mut text = format!("would save it, {place}: {set}");
    if let (Some(own), Some(apply)) = (&it.own.program_set, &it.own.program_apply) {
        text.push_str(&format!("; in its own words: {own} {apply}"));
    }
    Some(text)
}
