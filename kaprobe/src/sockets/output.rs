//! Writes sockets as text, JSON lines or CSV.

use std::io::{self, BufWriter, Write};

use terminal_size::{Height, Width, terminal_size};
use unicode_width::UnicodeWidthChar as _;

use crate::model::row::{self, Row};
use crate::sink::options::Format;
use crate::sink::{self, CsvLines, JsonLines};
use crate::sockets::columns::Columns;
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::Notes;
use crate::text::columns::Screen;
use crate::text::escape;

/// Writes rows in one of the formats.
pub(super) enum RowWriter<W: Write> {
    Text(TextRows<W>),
    Json(JsonLines<BufWriter<W>>),
    Csv(CsvLines<BufWriter<W>>),
}

/// How rows are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowStyle {
    pub format: Format,
    /// Write a header line in text and CSV.
    pub heading: bool,
    /// The screen that text has to fit; `None` to write all columns.
    pub screen: Option<Screen>,
}

impl RowStyle {
    pub(super) fn of(plan: &SocketsPlan, heading: bool) -> Self {
        Self {
            format: plan.format,
            heading,
            screen: sink::screen().filter(|_| !plan.wide),
        }
    }
}

impl<W: Write> RowWriter<W> {
    pub(super) fn new(out: W, style: RowStyle, columns: Columns) -> Self {
        let out = BufWriter::new(out);
        match style.format {
            Format::Text => Self::Text(TextRows {
                out,
                columns,
                heading: style.heading,
                screen: style.screen,
                hidden: Vec::new(),
                has_begun: false,
            }),
            Format::Json => Self::Json(JsonLines::versioned(out, row::VERSION)),
            Format::Csv => Self::Csv(CsvLines::new(out, style.heading)),
        }
    }

    /// Writes what comes before the rows, as far as it does not depend on them.
    pub(super) fn head(&mut self) -> io::Result<()> {
        match self {
            Self::Text(_) | Self::Json(_) => Ok(()),
            Self::Csv(lines) => lines.put_heading::<Row>(),
        }
    }

    pub(super) fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        match self {
            Self::Text(text) if rows.is_empty() => text.out.flush(),
            Self::Text(text) => text.rows(rows),
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

    /// Ends the output. Returns the headings of the columns that the screen has no room for.
    pub(super) fn end(self) -> io::Result<Vec<&'static str>> {
        let Self::Text(mut text) = self else {
            return Ok(Vec::new());
        };
        if !text.has_begun {
            text.rows(&[])?;
        }
        Ok(text.hidden)
    }
}

/// Writes rows as text. The first rows decide what columns a screen has room for.
pub(super) struct TextRows<W: Write> {
    out: BufWriter<W>,
    columns: Columns,
    heading: bool,
    screen: Option<Screen>,
    hidden: Vec<&'static str>,
    has_begun: bool,
}

impl<W: Write> TextRows<W> {
    fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        let mut line = String::new();
        if !self.has_begun {
            self.has_begun = true;
            if let Some(screen) = self.screen {
                self.hidden = self.columns.fit(rows, self.heading, screen);
            }
            if self.heading {
                self.columns.put_heading(&mut line);
            }
            self.out.write_all(line.as_bytes())?;
        }
        for row in rows {
            line.clear();
            self.columns.put(&mut line, row);
            self.out.write_all(line.as_bytes())?;
        }
        self.out.flush()
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use insta::assert_snapshot;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::model::socket::Endpoints;
    use crate::sample::{golden, with};
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

    #[test]
    fn output_matches_the_golden_files() -> Result<(), String> {
        let rows = crate::sample::golden_rows()?;
        for (name, format, wide) in [
            ("sockets.txt", Format::Text, false),
            ("sockets-wide.txt", Format::Text, true),
            ("sockets.json", Format::Json, false),
            ("sockets.csv", Format::Csv, false),
        ] {
            let style = RowStyle {
                format,
                heading: true,
                screen: None,
            };
            let mut text = Vec::new();
            let mut output = RowWriter::new(&mut text, style, Columns::new(false, wide));
            let done = output.head().and_then(|()| output.rows(&rows));
            let hidden = done.and_then(|()| output.end());
            assert!(matches!(hidden.as_deref(), Ok([])), "{hidden:?}");
            golden::check(name, &String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }

    /// The drawn text, with visible escapes.
    fn drawn(size: (usize, usize), rows: &[Row], count: usize, notes: &[&str]) -> String {
        let mut frame = Frame::sized(Columns::new(false, false), true, size);
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
            let frame = Frame::sized(Columns::new(false, false), true, (80, height));
            assert_eq!(frame.room(), room);
        }
    }
}
