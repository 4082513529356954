//! Tables that fit any width: columns of less worth are left out first.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};

use crate::top::view::look::{Look, Tone};

/// A column of a table of rows of type `R`.
pub(super) struct TableColumn<R> {
    heading: &'static str,
    /// The width, or the least width of a column that takes the room that is left.
    width: u16,
    grows: bool,
    right: bool,
    cell: fn(&Look, &R) -> Cell,
}

/// The text of a cell, and how good or bad it is.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
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

/// A column of a fixed width.
pub(super) const fn fixed<R>(
    heading: &'static str,
    width: u16,
    cell: fn(&Look, &R) -> Cell,
) -> TableColumn<R> {
    TableColumn {
        heading,
        width,
        grows: false,
        right: false,
        cell,
    }
}

impl<R> TableColumn<R> {
    /// Aligns the cells to the right.
    pub(super) const fn right(self) -> Self {
        Self {
            right: true,
            ..self
        }
    }

    /// Lets the column take the room that is left.
    pub(super) const fn growing(self) -> Self {
        Self {
            grows: true,
            ..self
        }
    }

    fn line(&self, text: String) -> Line<'static> {
        let alignment = if self.right {
            Alignment::Right
        } else {
            Alignment::Left
        };
        Line::from(text).alignment(alignment)
    }
}

/// Which of the columns fit a width. `worth` has the places of all, the most important first.
/// At least that one is taken.
fn fitting<R>(columns: &[TableColumn<R>], worth: &[usize], width: u16) -> Vec<bool> {
    let mut room = width;
    let mut fits = vec![false; columns.len()];
    for (rank, &place) in worth.iter().enumerate() {
        let space = u16::from(rank > 0);
        let needs = columns[place].width.saturating_add(space);
        if rank > 0 && needs > room {
            break;
        }
        room = room.saturating_sub(needs);
        fits[place] = true;
    }
    fits
}

/// Draws rows; `selected` is the place of one of them.
pub(super) fn draw<R>(
    frame: &mut Frame<'_>,
    area: Rect,
    look: &Look,
    (columns, worth): (&[TableColumn<R>], &[usize]),
    rows: &[R],
    selected: Option<usize>,
) {
    let fits = fitting(columns, worth, area.width);
    let shown: Vec<_> = columns.iter().zip(fits).filter(|it| it.1).collect();
    let widths = shown.iter().map(|(column, _)| {
        if column.grows {
            Constraint::Min(column.width)
        } else {
            Constraint::Length(column.width)
        }
    });
    let heading = shown
        .iter()
        .map(|(column, _)| column.line(column.heading.to_owned()));
    let heading = Row::new(heading).style(Modifier::BOLD);
    let rows = rows.iter().enumerate().map(|(place, row)| {
        let cells = shown.iter().map(|(column, _)| {
            let cell = (column.cell)(look, row);
            column.line(cell.text).style(look.style(cell.tone))
        });
        let row = Row::new(cells);
        if selected == Some(place) {
            row.style(Modifier::REVERSED)
        } else {
            row
        }
    });
    let rows: Vec<_> = rows.collect();
    let table = Table::new(rows, widths).header(heading).column_spacing(1);
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_less_worth_are_left_out_first() {
        let cell = |_: &Look, (): &()| Cell::plain("");
        let columns = [
            fixed("A", 10, cell),
            fixed("B", 5, cell),
            fixed("C", 3, cell),
        ];
        let worth = [1, 0, 2];
        for (width, expected) in [
            (0, "B"),
            (5, "B"),
            (15, "B"),
            (16, "AB"),
            (19, "AB"),
            (20, "ABC"),
        ] {
            let fits = fitting(&columns, &worth, width);
            let shown = columns.iter().zip(fits).filter(|it| it.1);
            let shown: String = shown.map(|(column, _)| column.heading).collect();
            assert_eq!(shown, expected, "{width}");
        }
    }
}
