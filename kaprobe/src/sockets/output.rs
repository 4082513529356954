//! Writes sockets as text, JSON lines or CSV.

use std::io::{self, BufWriter, Write};

use terminal_size::{Height, Width, terminal_size};
use unicode_width::UnicodeWidthChar as _;

use crate::model::named::Named as _;
use crate::model::row::{self, Row, RowSource, Timer};
use crate::model::values::{Origin, State};
use crate::sink::options::Format;
use crate::sink::{CsvLines, JsonLines};
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::Notes;
use crate::text::cell::{NOTHING, UNSEEN, put_endpoint, word};
use crate::text::columns::{Column, end_line};
use crate::text::escape::{self, Escaped};
use crate::text::units::{Ms, Put};

/// Writes rows in one of the formats.
pub(super) enum RowWriter<W: Write> {
    Text(BufWriter<W>, Columns),
    Json(JsonLines<BufWriter<W>>),
    Csv(CsvLines<BufWriter<W>>),
}

impl<W: Write> RowWriter<W> {
    pub(super) fn new(out: W, format: Format, columns: Columns) -> Self {
        let out = BufWriter::new(out);
        match format {
            Format::Text => Self::Text(out, columns),
            Format::Json => Self::Json(JsonLines::versioned(out, row::VERSION)),
            Format::Csv => Self::Csv(CsvLines::new(out, true)),
        }
    }

    pub(super) fn head(&mut self) -> io::Result<()> {
        match self {
            Self::Text(out, columns) => {
                let mut line = String::new();
                columns.put_heading(&mut line);
                out.write_all(line.as_bytes())
            }
            Self::Json(_) => Ok(()),
            Self::Csv(lines) => lines.put_heading::<Row>(),
        }
    }

    pub(super) fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        match self {
            Self::Text(out, columns) => {
                let mut line = String::new();
                for row in rows {
                    line.clear();
                    columns.put(&mut line, row);
                    out.write_all(line.as_bytes())?;
                }
                out.flush()
            }
            Self::Json(lines) => {
                rows.iter().try_for_each(|row| lines.put(row))?;
                lines.flush()
            }
            Self::Csv(lines) => {
                rows.iter().try_for_each(|row| lines.put(row))?;
                lines.flush()
            }
        }
    }
}

/// The next screen of a terminal; it overwrites the previous one. Changes no terminal
/// mode, so nothing must be restored when kaprobe ends.
pub(super) struct Frame {
    text: Vec<u8>,
    columns: Columns,
    heading: bool,
    width: usize,
    height: usize,
}

/// Moves the cursor to the upper left corner.
const CURSOR_HOME: &[u8] = b"\x1b[H";
/// Clears the rest of the line, and moves the cursor to the next.
const NEXT_LINE: &[u8] = b"\x1b[K\r\n";
/// Clears the rest of the screen.
const CLEAR_REST: &[u8] = b"\x1b[J";

impl Frame {
    /// Makes a frame of the terminal's size.
    pub(super) fn new(plan: &SocketsPlan) -> Self {
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        let size = (width.into(), height.into());
        Self::sized(Columns::of(plan), plan.heading, size)
    }

    fn sized(columns: Columns, heading: bool, (width, height): (usize, usize)) -> Self {
        Self {
            text: CURSOR_HOME.to_vec(),
            columns,
            heading,
            width,
            height,
        }
    }

    /// Number of sockets that fit beside the heading, the last line and the cursor line.
    pub(super) fn room(&self) -> usize {
        self.height.saturating_sub(3).max(1)
    }

    /// Draws these rows, the first of `count` sockets.
    pub(super) fn draw(&mut self, rows: &[Row], count: usize, notes: &Notes) -> io::Result<()> {
        let mut lines = String::new();
        if self.heading {
            self.columns.put_heading(&mut lines);
        }
        for row in rows {
            self.columns.put(&mut lines, row);
        }
        lines.lines().try_for_each(|line| self.line(line))?;
        let notes = match notes.messages.len() {
            0 => String::new(),
            _ => format!("; {}", escape::message(&notes.messages.join("; "))),
        };
        self.line(&format!("{} of {count} sockets{notes}", rows.len()))?;
        self.text.write_all(CLEAR_REST)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Appends a line, cut to the width: a longer line would overwrite the next.
    fn line(&mut self, line: &str) -> io::Result<()> {
        let mut room = self.width;
        let fits = line.chars().take_while(|char| {
            let width = char.width().unwrap_or(0);
            let fits = width <= room;
            room = room.saturating_sub(width);
            fits
        });
        let line: String = fits.collect();
        self.text.write_all(line.as_bytes())?;
        self.text.write_all(NEXT_LINE)
    }
}

/// The columns of the text format.
pub(super) struct Columns(Vec<RowColumn>);

/// A column and the function that appends its cell.
#[derive(Clone, Copy)]
struct RowColumn {
    column: Column,
    put: fn(&mut String, &Row),
}

const fn column(heading: &'static str, width: usize, put: fn(&mut String, &Row)) -> RowColumn {
    RowColumn {
        column: Column::new(heading, width),
        put,
    }
}

const STANDARD: [RowColumn; 12] = [
    column("STATE", 11, |line, row| line.push_str(row.state.name())),
    column("RECVQ", 5, |line, row| row.recvq.put(line)),
    column("SENDQ", 5, |line, row| row.sendq.put(line)),
    column("PID", 7, |line, row| put_owner(line, row, row.process.pid)),
    column("COMM", 12, put_comm),
    column("LADDR:LPORT", 21, |line, row| {
        put_endpoint(line, row.endpoints.local())
    }),
    column("RADDR:RPORT", 21, |line, row| {
        put_endpoint(line, row.endpoints.remote())
    }),
    column("TIMER", 18, put_timer),
    column("KEEPALIVE", 20, put_keepalive),
    column("IDLE", 7, |line, row| {
        put_some(line, row.ages.idle_ms.map(Ms))
    }),
    column("HEARD", 7, put_heard),
    column("DEAD-IN", 7, put_dead_in),
];

const NETNS: RowColumn = column("NETNS", 12, put_netns);

const MORE: [RowColumn; 6] = [
    column("LASTRCV", 7, |line, row| {
        put_some(line, row.ages.lastrcv_ms.map(Ms))
    }),
    column("LASTACK", 7, |line, row| {
        put_some(line, row.ages.lastack_ms.map(Ms))
    }),
    column("LASTSND", 7, |line, row| {
        put_some(line, row.ages.lastsnd_ms.map(Ms))
    }),
    column("STALLED", 7, put_stalled),
    column("UID", 5, |line, row| put_some(line, row.identity.uid)),
    column("CGROUP", 0, put_cgroup),
];

impl Columns {
    pub(super) fn of(plan: &SocketsPlan) -> Self {
        let several = plan.selection.all_netns || !plan.selection.kernel.netns.is_empty();
        let mut columns: Vec<_> = STANDARD.into();
        if several || plan.wide {
            columns.push(NETNS);
        }
        if plan.wide {
            columns.extend(MORE);
        }
        Self(columns)
    }

    /// Appends the heading, as a line.
    fn put_heading(&mut self, text: &mut String) {
        for it in &mut self.0 {
            it.column.put_heading(text);
        }
        end_line(text);
    }

    /// Appends a row, as a line.
    fn put(&mut self, text: &mut String, row: &Row) {
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

/// Appends the effective settings. A star marks a setting of the socket itself.
fn put_keepalive(line: &mut String, row: &Row) {
    let set = &row.settings;
    match set.keepalive {
        Some(true) if row.source == RowSource::SockDiag => {
            line.push_str("on ");
            line.push_str(UNSEEN);
        }
        None if row.source == RowSource::SockDiag && row.identity.uid.is_some() => {
            line.push_str(UNSEEN);
        }
        None => line.push_str(NOTHING),
        Some(false) => line.push_str("off"),
        Some(true) => {
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
            if let Some(timeout) = set.user_timeout_ms {
                line.push_str(" ut ");
                Ms(timeout.into()).put(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use insta::assert_snapshot;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::model::socket::Endpoints;
    use crate::sample::{golden, with};

    fn row(comm: &str) -> Row {
        let here = IpAddr::from([127, 0, 0, 1]);
        let row = Row {
            endpoints: Endpoints::new((here, 1), (here, 2), 1),
            ..Row::default()
        };
        with(row, |it| {
            it.process.pid = Some(42);
            it.process.comm = Some(Escaped::from(comm));
            it.settings.keepalive = Some(false);
        })
    }

    #[test]
    fn output_matches_the_golden_files() -> Result<(), String> {
        let rows = crate::sample::golden_rows()?;
        for (name, format, wide) in [
            ("sockets.txt", Format::Text, false),
            ("sockets-wide.txt", Format::Text, true),
            ("sockets.json", Format::Json, false),
            ("sockets.csv", Format::Csv, false),
        ] {
            let mut columns: Vec<_> = STANDARD.into();
            if wide {
                columns.push(NETNS);
                columns.extend(MORE);
            }
            let mut text = Vec::new();
            let mut output = RowWriter::new(&mut text, format, Columns(columns));
            let done = output.head().and_then(|()| output.rows(&rows));
            assert!(done.is_ok(), "{done:?}");
            drop(output);
            golden::check(name, &String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }

    /// The drawn text, with visible escapes.
    fn drawn(size: (usize, usize), rows: &[Row], count: usize, notes: &[&str]) -> String {
        let mut frame = Frame::sized(Columns(STANDARD.into()), true, size);
        let notes = Notes {
            messages: notes.iter().map(|&note| note.to_owned()).collect(),
            incomplete: false,
        };
        let done = frame.draw(rows, count, &notes);
        assert!(done.is_ok(), "{done:?}");
        let text = String::from_utf8_lossy(frame.text());
        text.replace('\x1b', "^[").replace("\r\n", "\n")
    }

    #[test]
    fn a_frame_overwrites_the_previous_one() {
        assert_snapshot!(drawn((36, 24), &[row("postgres")], 1, &[]), @r"
        ^[[HSTATE       RECVQ SENDQ PID     COMM^[[K
        ESTABLISHED 0     0     42      post^[[K
        1 of 1 sockets^[[K
        ^[[J
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let rows = [row("\u{4e2d}\u{6587}"), row("a\u{1b}[2J")];
        for width in 1..160 {
            let text = drawn((width, 24), &rows, 70, &["a note \u{1b}[2J with an escape"]);
            for line in text.lines() {
                let line = line.trim_start_matches("^[[H").trim_end_matches("^[[K");
                let line = line.trim_end_matches("^[[J");
                assert!(line.width() <= width, "{width}: {line}");
                assert!(!line.contains("^["), "{width}: {line}");
            }
        }
        assert_snapshot!(drawn((53, 24), &rows, 70, &["a note"]), @r"
        ^[[HSTATE       RECVQ SENDQ PID     COMM         LADDR:LP^[[K
        ESTABLISHED 0     0     42      中文         127.0.0.^[[K
        ESTABLISHED 0     0     42      a\u{1b}[2J   127.0.0.^[[K
        2 of 70 sockets; a note^[[K
        ^[[J
        ");
    }

    #[test]
    fn a_frame_leaves_room_for_the_heading_and_the_last_lines() {
        for (height, room) in [(24, 21), (4, 1), (3, 1), (0, 1)] {
            let frame = Frame::sized(Columns(STANDARD.into()), true, (80, height));
            assert_eq!(frame.room(), room);
        }
    }
}
