//! Pads cells of a table to the width of their column.

use unicode_width::UnicodeWidthStr as _;

/// Padding is appended in pieces of this length: enough for most columns.
const SPACES: &str = "                                                                ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading of the column.
    pub heading: &'static str,
    width: usize,
    /// The column grows with its cells up to this width.
    most: usize,
    right: bool,
}

impl Column {
    /// A column of this width. A wider cell moves only the rest of its own line.
    pub const fn new(heading: &'static str, width: usize) -> Self {
        Self {
            heading,
            width,
            most: 0,
            right: false,
        }
    }

    /// Lets the column grow with its cells, up to this width.
    pub const fn growing(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Aligns the cells to the right.
    pub const fn right(self) -> Self {
        Self {
            right: true,
            ..self
        }
    }

    /// The current width.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Grows for a cell. Returns the width of the cell.
    #[inline(always)]
    pub fn fit(&mut self, cell: &str) -> usize {
        let width = if cell.is_ascii() {
            cell.len()
        } else {
            cell.width()
        };
        if width <= self.most {
            self.width = self.width.max(width);
        }
        width
    }

    /// Appends the cell that `write` writes, then padding and the space between columns.
    #[inline]
    pub fn put(&mut self, line: &mut String, write: impl FnOnce(&mut String)) {
        let start = line.len();
        write(line);
        let width = self.fit(&line[start..]);
        let mut padding = self.width.saturating_sub(width);
        if self.right {
            let spaces = SPACES.get(..padding).unwrap_or(SPACES);
            line.insert_str(start, spaces);
            padding -= spaces.len();
        }
        padding += 1;
        while padding > 0 {
            let spaces = &SPACES[..padding.min(SPACES.len())];
            line.push_str(spaces);
            padding -= spaces.len();
        }
    }

    /// Appends the heading as a cell.
    pub fn put_heading(&mut self, line: &mut String) {
        let heading = self.heading;
        self.put(line, |line| line.push_str(heading));
    }
}

/// Ends a line of cells, without padding at its end.
pub fn end_line(line: &mut String) {
    line.truncate(line.trim_end_matches(' ').len());
    line.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(column: &mut Column, cell: &str) -> String {
        let mut line = String::new();
        column.put(&mut line, |line| line.push_str(cell));
        line
    }

    #[test]
    fn padding_is_as_wide_as_the_column() {
        for width in [0, 1, 47, 63, 64, 65, 200] {
            let mut left = Column::new("", width);
            assert_eq!(put(&mut left, "a"), format!("{:width$} ", "a"));
        }
        for width in [0, 1, 8, 64] {
            let mut right = Column::new("", width).right();
            assert_eq!(put(&mut right, "a"), format!("{:>width$} ", "a"));
        }
    }

    #[test]
    fn a_column_grows_up_to_its_bound() {
        let mut column = Column::new("PID", 2).growing(6);
        for (cell, line) in [
            ("1", "1  "),
            ("\u{4e2d}\u{6587}", "\u{4e2d}\u{6587} "),
            ("1", "1    "),
            ("1234567", "1234567 "),
            ("1", "1    "),
        ] {
            assert_eq!(put(&mut column, cell), line);
        }
        let mut line = String::new();
        column.put_heading(&mut line);
        end_line(&mut line);
        assert_eq!((line.as_str(), column.width()), ("PID\n", 4));
    }
}
