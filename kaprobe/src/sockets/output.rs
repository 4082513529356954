//! Writes sockets as text, JSON lines or CSV.

use std::io::{self, BufWriter, Write};

use crate::model::row::{self, Row};
use crate::sink::options::Format;
use crate::sink::{self, CsvLines, JsonLines};
use crate::sockets::columns::Columns;
use crate::sockets::plan::SocketsPlan;
use crate::text::columns::{Hidden, Screen};

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
                hidden: Hidden::default(),
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

    /// Ends the output. Returns the columns that the screen has no room for.
    pub(super) fn end(self) -> io::Result<Hidden> {
        let Self::Text(mut text) = self else {
            return Ok(Hidden::default());
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
    hidden: Hidden,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::golden;

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
            let hidden = hidden.map_err(|why| why.to_string())?;
            assert_eq!(hidden, Hidden::default());
            golden::check(name, &String::from_utf8_lossy(&text))?;
        }
        Ok(())
    }
}
