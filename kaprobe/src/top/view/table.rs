//! Tables that fit any width: `text::columns` chooses the columns, as in `kaprobe sockets`.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::text::columns::{Cells, Column, Hidden, Screen, Table};
use crate::top::view::look::{Look, Tone};

/// A column of a table of rows of type `R`, and the function that makes its cell.
pub(super) struct TableColumn<R>(pub(super) Column, pub(super) fn(&Look, &R) -> Cell);

/// A column of values that is as wide as most of them.
pub(super) const fn value(heading: &'static str, worth: u8, width: usize) -> Column {
    Column::of_worth(heading, worth, Cells::Whole).at_least(width)
}

/// The same, aligned to the right.
pub(super) const fn count(heading: &'static str, worth: u8, width: usize) -> Column {
    value(heading, worth, width).right()
}

/// The text of a cell, and how good or bad it is.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl AsRef<str> for Cell {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    /// A number; nothing if it is 0.
    pub(super) fn count(number: u64, tone: Tone) -> Self {
        match number {
            0 => Self::plain(""),
            number => Self::new(number.to_string(), tone),
        }
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Draws rows; `selected` is the place of one of them. Returns the columns that there is no
/// room for.
pub(super) fn draw<R>(
    frame: &mut Frame<'_>,
    area: Rect,
    look: &Look,
    columns: &[TableColumn<R>],
    rows: &[R],
    selected: Option<usize>,
) -> Hidden {
    let cells_of = |row| columns.iter().map(|it| (it.1)(look, row)).collect();
    let rows: Vec<Vec<Cell>> = rows.iter().map(cells_of).collect();
    let screen = Screen {
        width: area.width.into(),
        ellipsis: look.bars.ellipsis(),
    };
    let mut table = Table::new(
        columns.iter().map(|it| it.0).collect(),
        true,
        rows.iter().map(Vec::as_slice),
        Some(screen),
    );
    let mut lines = area.rows();
    let headings = columns.iter().map(|it| (it.0.heading, Style::new()));
    if let Some(area) = lines.next() {
        let heading = line(&mut table, headings).style(Modifier::BOLD);
        frame.render_widget(heading, area);
    }
    for (place, (cells, area)) in rows.iter().zip(lines).enumerate() {
        let cells = cells.iter().map(|it| (it.as_ref(), look.style(it.tone)));
        let mut line = line(&mut table, cells);
        if selected == Some(place) {
            line = line.style(Modifier::REVERSED);
        }
        frame.render_widget(line, area);
    }
    table.hidden
}

/// The cells of a row, each as wide as its column.
fn line<'a>(table: &mut Table, cells: impl Iterator<Item = (&'a str, Style)>) -> Line<'static> {
    let spans = table.columns().zip(cells).map(|(column, (cell, style))| {
        let mut text = String::new();
        column.put(&mut text, |text| text.push_str(cell));
        Span::styled(text, style)
    });
    Line::from_iter(spans)
}
