//! Rows as text, JSON lines and CSV, under the same names.

use crate::model::field::Fields as _;
use crate::text::cell::NOTHING;
use crate::text::cell::UNSEEN;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

use terminal_size::{Height, Width, terminal_size};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::model::named::Named as _;
use crate::model::row::{Row, Source, Timer};
use crate::model::values::State;
use crate::sink::field_text;
use crate::sink::options::Format;
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::Notes;
use crate::text::cell::{endpoint, word};
use crate::text::units::Ms;

/// Somewhere to write to, in one of the formats.
pub(super) struct Output<W: Write> {
    out: BufWriter<W>,
    format: Format,
    columns: Columns,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W, format: Format, columns: Columns) -> Self {
        Self {
            out: BufWriter::new(out),
            format,
            columns,
        }
    }

    pub(super) fn head(&mut self) -> io::Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::Csv => writeln!(self.out, "{}", Row::NAMES.join(",")),
            Format::Text => writeln!(self.out, "{}", self.columns.heading()),
        }
    }

    pub(super) fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        rows.iter().try_for_each(|row| self.row(row))?;
        self.out.flush()
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.out, "{}", self.columns.line(row)),
            Format::Json => {
                serde_json::to_writer(&mut self.out, row)?;
                self.out.write_all(b"\n")
            }
            Format::Csv => {
                let mut fields = Vec::with_capacity(Row::NAMES.len());
                row.visit(|_, value| {
                    let mut text = String::new();
                    field_text(&mut text, value);
                    fields.push(text);
                });
                let mut line = csv::Writer::from_writer(&mut self.out);
                line.write_record(&fields).map_err(io::Error::from)?;
                line.flush()
            }
        }
    }
}

/// What a terminal is to show, in place of what it shows. Nothing has to be undone
/// afterwards, whatever way kaprobe ends.
pub(super) struct Picture {
    text: Vec<u8>,
    columns: Columns,
    heading: bool,
    width: usize,
    height: usize,
}

/// To the upper left corner.
const HOME: &[u8] = b"\x1b[H";
/// Clears what is left of the line, and goes to the next.
const NEXT: &[u8] = b"\x1b[K\r\n";
/// Clears what is left of the screen.
const END: &[u8] = b"\x1b[J";

impl Picture {
    /// One of the terminal's size.
    pub(super) fn new(plan: &SocketsPlan) -> Self {
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        let size = (width.into(), height.into());
        Self::sized(Columns::of(plan), plan.heading, size)
    }

    fn sized(columns: Columns, heading: bool, (width, height): (usize, usize)) -> Self {
        Self {
            text: HOME.to_vec(),
            columns,
            heading,
            width,
            height,
        }
    }

    /// How many sockets there is room for, beside the heading, a line on the rest and
    /// the one that the cursor is left in.
    pub(super) fn room(&self) -> usize {
        self.height.saturating_sub(3).max(1)
    }

    /// Draws these sockets of so many.
    pub(super) fn draw(&mut self, rows: &[Row], count: usize, notes: &Notes) -> io::Result<()> {
        if self.heading {
            let heading = self.columns.heading();
            self.line(&heading)?;
        }
        for row in rows {
            let line = self.columns.line(row);
            self.line(&line)?;
        }
        let notes = match notes.told.len() {
            0 => String::new(),
            _ => format!("; {}", crate::text::escape::message(&notes.told.join("; "))),
        };
        self.line(&format!("{} of {count} sockets{notes}", rows.len()))?;
        self.text.write_all(END)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// As much of a line as fits: a longer one would take another's place.
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
        self.text.write_all(NEXT)
    }
}

/// The columns of text: what heads each, how wide it is at least, what it shows.
pub(super) struct Columns(Vec<Column>);

struct Column {
    heading: &'static str,
    width: usize,
    cell: fn(&Row) -> Cow<'_, str>,
}

const STANDARD: [Column; 11] = [
    Column {
        heading: "STATE",
        width: 11,
        cell: |row| row.state.name().into(),
    },
    Column {
        heading: "RECVQ",
        width: 5,
        cell: |row| row.recvq.to_string().into(),
    },
    Column {
        heading: "SENDQ",
        width: 5,
        cell: |row| row.sendq.to_string().into(),
    },
    Column {
        heading: "PID",
        width: 7,
        cell: |row| held(row, row.process.pid),
    },
    Column {
        heading: "COMM",
        width: 12,
        cell: |row| comm(row),
    },
    Column {
        heading: "LADDR:LPORT",
        width: 21,
        cell: |row| endpoint(row.endpoints.local()).into(),
    },
    Column {
        heading: "RADDR:RPORT",
        width: 21,
        cell: |row| endpoint(row.endpoints.remote()).into(),
    },
    Column {
        heading: "TIMER",
        width: 18,
        cell: |row| timer(row).into(),
    },
    Column {
        heading: "KEEPALIVE",
        width: 20,
        cell: |row| keepalive(row).into(),
    },
    Column {
        heading: "IDLE",
        width: 7,
        cell: |row| ms(row.ages.idle_ms),
    },
    Column {
        heading: "DEAD-IN",
        width: 7,
        cell: |row| dead(row),
    },
];

const NETNS: Column = Column {
    heading: "NETNS",
    width: 12,
    cell: netns,
};

const MORE: [Column; 5] = [
    Column {
        heading: "LASTRCV",
        width: 7,
        cell: |row| ms(row.ages.lastrcv_ms),
    },
    Column {
        heading: "LASTACK",
        width: 7,
        cell: |row| ms(row.ages.lastack_ms),
    },
    Column {
        heading: "LASTSND",
        width: 7,
        cell: |row| ms(row.ages.lastsnd_ms),
    },
    Column {
        heading: "UID",
        width: 5,
        cell: |row| number(row.identity.uid.map(u64::from)),
    },
    Column {
        heading: "CGROUP",
        width: 0,
        cell: cgroup,
    },
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

    fn heading(&self) -> String {
        self.join(|column| column.heading.into())
    }

    fn line(&self, row: &Row) -> String {
        self.join(|column| (column.cell)(row))
    }

    fn join<'a>(&self, cell: impl Fn(&Column) -> Cow<'a, str>) -> String {
        let mut line = String::with_capacity(160);
        for column in &self.0 {
            let cell = cell(column);
            let padding = column.width.saturating_sub(cell.width()) + 1;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn ms(ms: Option<u64>) -> Cow<'static, str> {
    ms.map_or(NOTHING.into(), |ms| Ms(ms).to_string().into())
}

fn number(number: Option<u64>) -> Cow<'static, str> {
    number.map_or(NOTHING.into(), |it| it.to_string().into())
}

/// What is known of whoever holds the socket.
fn held(row: &Row, pid: Option<u32>) -> Cow<'static, str> {
    if row.is_ownerless() {
        return UNSEEN.into();
    }
    number(pid.map(u64::from))
}

fn comm(row: &Row) -> Cow<'_, str> {
    match &row.process.comm {
        Some(comm) => word(comm.as_str()),
        None => held(row, None),
    }
}

fn dead(row: &Row) -> Cow<'static, str> {
    if row.source == Source::SockDiag && row.settings.keepalive != Some(false) && is_open(row) {
        return UNSEEN.into();
    }
    ms(row.dead_in_ms)
}

fn netns(row: &Row) -> Cow<'_, str> {
    match &row.netns_name {
        Some(name) => word(name.as_str()),
        None => row.endpoints.netns.to_string().into(),
    }
}

fn cgroup(row: &Row) -> Cow<'_, str> {
    match &row.cgroup_path {
        Some(path) => word(path.as_str()),
        None => number(row.identity.cgroup),
    }
}

/// Whether keepalive has something to watch.
fn is_open(row: &Row) -> bool {
    !matches!(
        row.state,
        State::Listen | State::Close | State::TimeWait | State::SynSent
    )
}

/// As `netstat -o`: the timer, and how long it has; then retransmits and probes.
fn timer(row: &Row) -> String {
    match (row.timer, row.timer_ms) {
        (Timer::Off, _) | (_, None) => row.timer.name().to_owned(),
        (timer, Some(left)) => format!(
            "{} {} {}/{}",
            timer.name(),
            Ms(left),
            row.retransmits.unwrap_or(0),
            row.probes_out.unwrap_or(0)
        ),
    }
}

/// The settings in force; those that the socket has set itself carry a star.
fn keepalive(row: &Row) -> String {
    use crate::model::values::Origin;
    let star = |from: Option<Origin>| {
        if from == Some(Origin::Socket) {
            "*"
        } else {
            ""
        }
    };
    match row.settings.keepalive {
        Some(true) if row.source == Source::SockDiag => format!("on {UNSEEN}"),
        None if row.source == Source::SockDiag && row.identity.uid.is_some() => UNSEEN.to_owned(),
        None => NOTHING.to_owned(),
        Some(false) => "off".to_owned(),
        Some(true) => {
            let mut text = format!(
                "{}{}/{}{}/{}{}",
                Ms(row.settings.keepalive_time_ms.unwrap_or(0)),
                star(row.settings.keepalive_time_from),
                Ms(row.settings.keepalive_intvl_ms.unwrap_or(0)),
                star(row.settings.keepalive_intvl_from),
                row.settings.keepalive_probes.unwrap_or(0),
                star(row.settings.keepalive_probes_from),
            );
            if let Some(timeout) = row.settings.user_timeout_ms {
                // Writing to a String cannot fail.
                let _ = write!(text, " ut {}", Ms(timeout.into()));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sample::with;
    use std::net::IpAddr;

    use insta::assert_snapshot;

    use super::*;
    use crate::model::socket::Endpoints;
    use crate::sample::golden;
    use crate::text::escape::Escaped;

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

    /// Of a fixed set of sockets, byte for byte.
    #[test]
    fn output_is_what_it_was() -> Result<(), String> {
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
            let mut output = Output::new(&mut text, format, Columns(columns));
            let done = output.head().and_then(|()| output.rows(&rows));
            assert!(done.is_ok(), "{done:?}");
            drop(output);
            golden::check(name, &String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }

    /// What is drawn, with its escapes to be seen.
    fn drawn(size: (usize, usize), rows: &[Row], count: usize, notes: &[&str]) -> String {
        let mut picture = Picture::sized(Columns(STANDARD.into()), true, size);
        let notes = Notes {
            told: notes.iter().map(|&note| note.to_owned()).collect(),
            incomplete: false,
        };
        let done = picture.draw(rows, count, &notes);
        assert!(done.is_ok(), "{done:?}");
        let text = String::from_utf8_lossy(picture.text());
        text.replace('\x1b', "^[").replace("\r\n", "\n")
    }

    #[test]
    fn a_picture_takes_the_place_of_the_last() {
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
    fn there_is_room_for_a_heading_and_what_comes_after() {
        for (height, room) in [(24, 21), (4, 1), (3, 1), (0, 1)] {
            let picture = Picture::sized(Columns(STANDARD.into()), true, (80, height));
            assert_eq!(picture.room(), room);
        }
    }
}
