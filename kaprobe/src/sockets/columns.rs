//! The columns of `kaprobe sockets` in text: what each shows, and what it is worth.

use crate::model::named::Named as _;
use crate::model::row::{Row, RowSource, Timer};
use crate::model::socket::Settings;
use crate::model::values::{Origin, State};
use crate::sockets::plan::SocketsPlan;
use crate::text::cell::{NOTHING, UNSEEN, put_endpoint, word};
use crate::text::columns::{self, Cells, Column, Hidden, Screen, end_line};
use crate::text::escape::Escaped;
use crate::text::units::{Ms, Put};

/// The columns of the text format.
pub(super) struct Columns(Vec<RowColumn>);

/// A column and the function that appends its cell.
#[derive(Clone, Copy)]
struct RowColumn {
    column: Column,
    worth: u8,
    cells: Cells,
    put: fn(&mut String, &Row),
}

const fn column(
    heading: &'static str,
    width: usize,
    worth: u8,
    cells: Cells,
    put: fn(&mut String, &Row),
) -> RowColumn {
    RowColumn {
        column: Column::new(heading, width),
        worth,
        cells,
        put,
    }
}

/// Shortest names that still tell something.
const NAMES: Cells = Cells::Names(8);

/// What `ss` does not show is worth most, then what names the connection.
#[rustfmt::skip] // One line per column.
const STANDARD: [RowColumn; 12] = [
    column("STATE", 11, 5, NAMES, |line, row| line.push_str(row.state.name())),
    column("RECVQ", 5, 1, Cells::Whole, |line, row| row.recvq.put(line)),
    column("SENDQ", 5, 2, Cells::Whole, |line, row| row.sendq.put(line)),
    column("PID", 7, 7, Cells::Whole, |line, row| put_owner(line, row, row.process.pid)),
    column("COMM", 12, 9, NAMES, put_comm),
    column("LADDR:LPORT", 21, 8, Cells::Endpoints, |line, row| put_endpoint(line, row.endpoints.local())),
    column("RADDR:RPORT", 21, 10, Cells::Endpoints, |line, row| put_endpoint(line, row.endpoints.remote())),
    column("TIMER", 18, 3, Cells::Whole, put_timer),
    column("KEEPALIVE", 20, 13, Cells::Whole, put_keepalive),
    column("IDLE", 7, 11, Cells::Whole, |line, row| put_some(line, row.ages.idle_ms.map(Ms))),
    column("HEARD", 7, 4, Cells::Whole, put_heard),
    column("DEAD-IN", 7, 12, Cells::Whole, put_dead_in),
];

const NETNS: RowColumn = column("NETNS", 12, 6, NAMES, put_netns);

#[rustfmt::skip] // One line per column.
const MORE: [RowColumn; 7] = [
    column("RUNS-IN", 12, 0, NAMES, put_workload),
    column("LASTRCV", 7, 0, Cells::Whole, |line, row| put_some(line, row.ages.lastrcv_ms.map(Ms))),
    column("LASTACK", 7, 0, Cells::Whole, |line, row| put_some(line, row.ages.lastack_ms.map(Ms))),
    column("LASTSND", 7, 0, Cells::Whole, |line, row| put_some(line, row.ages.lastsnd_ms.map(Ms))),
    column("STALLED", 7, 0, Cells::Whole, put_stalled),
    column("UID", 5, 0, Cells::Whole, |line, row| put_some(line, row.identity.uid)),
    column("CGROUP", 0, 0, NAMES, put_cgroup),
];

impl Columns {
    pub(super) fn of(plan: &SocketsPlan) -> Self {
        let several = plan.selection.all_netns || !plan.selection.kernel.netns.is_empty();
        Self::new(several, plan.wide)
    }

    pub(super) fn new(several_netns: bool, wide: bool) -> Self {
        let mut columns: Vec<_> = STANDARD.into();
        if several_netns || wide {
            columns.push(NETNS);
        }
        if wide {
            columns.extend(MORE);
        }
        Self(columns)
    }

    /// Fits the columns into a screen, by the cells of these rows. Returns those that are
    /// hidden.
    pub(super) fn fit(&mut self, rows: &[Row], heading: bool, screen: Screen) -> Hidden {
        let mut cell = String::new();
        for it in &mut self.0 {
            let name = it.column.heading;
            it.column = Column::of_worth(name, it.worth, it.cells);
            if heading {
                it.column.fit(name);
            }
            for row in rows {
                cell.clear();
                (it.put)(&mut cell, row);
                it.column.fit(&cell);
            }
        }
        columns::fit(self.0.iter_mut().map(|it| &mut it.column), screen)
    }

    /// Appends the heading, as a line.
    pub(super) fn put_heading(&mut self, text: &mut String) {
        for it in &mut self.0 {
            it.column.put_heading(text);
        }
        end_line(text);
    }

    /// Appends a row, as a line.
    pub(super) fn put(&mut self, text: &mut String, row: &Row) {
        for it in &mut self.0 {
            it.column.put(text, |line| (it.put)(line, row));
        }
        end_line(text);
    }
}

/// Appends a value, or [`NOTHING`].
fn put_some(line: &mut String, value: Option<impl Put>) {
    match value {
        Some(value) => value.put(line),
        None => line.push_str(NOTHING),
    }
}

/// Appends a name as one word, or the number if there is no name.
fn put_name(line: &mut String, name: Option<&Escaped>, number: Option<u64>) {
    match name {
        Some(name) => line.push_str(&word(name.as_str())),
        None => put_some(line, number),
    }
}

/// Appends the pid of the process that owns the socket, as far as it is known.
fn put_owner(line: &mut String, row: &Row, pid: Option<u32>) {
    if row.is_ownerless() {
        line.push_str(UNSEEN);
    } else {
        put_some(line, pid);
    }
}

fn put_comm(line: &mut String, row: &Row) {
    match &row.process.comm {
        Some(comm) => line.push_str(&word(comm.as_str())),
        None => put_owner(line, row, None),
    }
}

/// Appends the time since any segment of the peer was received, as far as it is known.
fn put_heard(line: &mut String, row: &Row) {
    match (row.ages.heard_ms, row.ages.idle_ms) {
        (None, Some(_)) => line.push_str(UNSEEN),
        (heard_ms, _) => put_some(line, heard_ms.map(Ms)),
    }
}

/// Appends for how long nothing was acknowledged, as far as it is known.
fn put_stalled(line: &mut String, row: &Row) {
    let is_again = row.retransmits > Some(0) && row.unacked > Some(0) || row.timer == Timer::Probe;
    if row.source == RowSource::SockDiag && is_again {
        line.push_str(UNSEEN);
    } else {
        put_some(line, row.transfer.stalled_ms.map(Ms));
    }
}

fn put_dead_in(line: &mut String, row: &Row) {
    if row.source == RowSource::SockDiag && row.settings.keepalive != Some(false) && is_open(row) {
        line.push_str(UNSEEN);
    } else {
        put_some(line, row.dead_in_ms.map(Ms));
    }
}

fn put_netns(line: &mut String, row: &Row) {
    put_name(
        line,
        row.netns_name.as_ref(),
        Some(row.endpoints.netns.into()),
    );
}

fn put_workload(line: &mut String, row: &Row) {
    match row.process.workload().name() {
        Some(name) => line.push_str(&word(&name)),
        None => line.push_str(NOTHING),
    }
}

fn put_cgroup(line: &mut String, row: &Row) {
    put_name(line, row.cgroup_path.as_ref(), row.identity.cgroup);
}

/// Whether the socket has a connection that keepalive can watch.
fn is_open(row: &Row) -> bool {
    !matches!(
        row.state,
        State::Listen | State::Close | State::TimeWait | State::SynSent
    )
}

/// Appends the timer and the time it has left, as `netstat -o` does; then retransmits and
/// probes.
fn put_timer(line: &mut String, row: &Row) {
    line.push_str(row.timer.name());
    if row.timer == Timer::Off {
        return;
    }
    if let Some(left) = row.timer_ms {
        line.push(' ');
        Ms(left).put(line);
        line.push(' ');
        row.retransmits.unwrap_or(0).put(line);
        line.push('/');
        row.probes_out.unwrap_or(0).put(line);
    }
}

/// Appends what SO_KEEPALIVE is, and the settings.
fn put_keepalive(line: &mut String, row: &Row) {
    let (set, by_sock_diag) = (&row.settings, row.source == RowSource::SockDiag);
    match set.keepalive {
        Some(true) if by_sock_diag => {
            line.push_str("on ");
            line.push_str(UNSEEN);
        }
        None if by_sock_diag && row.identity.uid.is_some() => line.push_str(UNSEEN),
        None => line.push_str(NOTHING),
        Some(true) => put_settings(line, set),
        Some(false) => {
            line.push_str("off");
            if set.unused_options().is_some() {
                line.push(' ');
                put_settings(line, set);
            } else {
                put_user_timeout(line, set);
            }
        }
    }
}

/// Appends time, interval and count. A star marks a setting of the socket itself.
fn put_settings(line: &mut String, set: &Settings) {
    let star = |line: &mut String, from| {
        if from == Some(Origin::Socket) {
            line.push('*');
        }
    };
    Ms(set.keepalive_time_ms.unwrap_or(0)).put(line);
    star(line, set.keepalive_time_from);
    line.push('/');
    Ms(set.keepalive_intvl_ms.unwrap_or(0)).put(line);
    star(line, set.keepalive_intvl_from);
    line.push('/');
    set.keepalive_probes.unwrap_or(0).put(line);
    star(line, set.keepalive_probes_from);
    put_user_timeout(line, set);
}

/// Appends TCP_USER_TIMEOUT, which also ends a connection whose keepalive is off.
fn put_user_timeout(line: &mut String, set: &Settings) {
    if let Some(timeout) = set.user_timeout_ms {
        line.push_str(" ut ");
        Ms(timeout.into()).put(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::sample::{golden, golden_rows, with};
    use crate::text::cut::Ellipsis;

    /// The heading and rows on a screen of this width, and the columns that are hidden.
    fn shown(rows: &[Row], width: usize) -> (String, Vec<&'static str>) {
        let mut columns = Columns::new(false, false);
        let ellipsis = Ellipsis::Unicode;
        let hidden = columns.fit(rows, true, Screen { width, ellipsis });
        let mut text = String::new();
        columns.put_heading(&mut text);
        for row in rows {
            columns.put(&mut text, row);
        }
        (text, hidden.facts)
    }

    #[test]
    fn each_screen_shows_what_is_worth_most() -> Result<(), String> {
        let rows = golden_rows()?;
        let mut wrong = Vec::new();
        for width in 20..=300 {
            let (text, hidden) = shown(&rows, width);
            for line in text.lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
            for heading in ["KEEPALIVE", "DEAD-IN", "IDLE"] {
                assert!(width < 36 || !hidden.contains(&heading), "{width}");
            }
            if [40, 80, 120].contains(&width) {
                let text = format!("{text}hidden: {}\n", hidden.join(", "));
                wrong.extend(golden::check(&format!("sockets-{width}.txt"), &text).err());
            }
        }
        assert_eq!(shown(&rows, 300).1, [""; 0]);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    proptest! {
        #[test]
        fn no_name_makes_a_line_too_wide(comm in proptest::collection::vec(any::<u8>(), 0..16), width in 20..120_usize) {
            let row = with(Row::default(), |it| {
                it.process.pid = Some(42);
                it.process.comm = Some(Escaped::from_bytes(&comm));
            });
            let (text, _) = shown(&[row], width);
            prop_assert_eq!(text.lines().count(), 2);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{}: {}", width, line);
                prop_assert!(!line.contains(|c: char| c.is_control()), "{:?}", line);
            }
        }
    }

    #[test]
    fn off_does_not_hide_what_is_set() {
        let own = Some(Origin::Socket);
        let sysctl = Some(Origin::Sysctl);
        let row = |on, [time, intvl, count]: [_; 3], user_timeout_ms| {
            with(Row::default(), |it| {
                it.settings = Settings {
                    keepalive: Some(on),
                    keepalive_time_ms: Some(60_000),
                    keepalive_time_from: time,
                    keepalive_intvl_ms: Some(10_000),
                    keepalive_intvl_from: intvl,
                    keepalive_probes: Some(3),
                    keepalive_probes_from: count,
                    user_timeout_ms,
                    user_timeout_from: own.filter(|_| user_timeout_ms.is_some()),
                };
            })
        };
        let none = [sysctl; 3];
        for (on, from, user_timeout_ms, cell, unused) in [
            (true, [own; 3], Some(30_000), "60s*/10s*/3* ut 30s", None),
            (false, none, None, "off", None),
            (false, none, Some(30_000), "off ut 30s", None),
            (
                false,
                [own, sysctl, sysctl],
                None,
                "off 60s*/10s/3",
                Some("TCP_KEEPIDLE=60"),
            ),
            (
                false,
                [sysctl, own, own],
                Some(500),
                "off 60s/10s*/3* ut 500ms",
                Some("TCP_KEEPINTVL=10 TCP_KEEPCNT=3"),
            ),
        ] {
            let row = row(on, from, user_timeout_ms);
            let mut text = String::new();
            put_keepalive(&mut text, &row);
            assert_eq!(text, cell);
            assert_eq!(row.settings.unused_options().as_deref(), unused);
        }
    }
}
