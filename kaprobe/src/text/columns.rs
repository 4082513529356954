//! Cells in columns: how wide each is, on which side it stands, whether it grows.

use unicode_width::UnicodeWidthStr as _;

/// What is appended of padding at once: as much as most columns need.
const SPACES: &str = "                                                                ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What stands above it.
    pub heading: &'static str,
    width: usize,
    /// A cell that is wider than this does not make the column wider.
    most: usize,
    right: bool,
}

impl Column {
    /// A column of this width. A cell that is wider stands out of line alone.
    pub const fn new(heading: &'static str, width: usize) -> Self {
        Self {
            heading,
            width,
            most: 0,
            right: false,
        }
    }

    /// One that grows with its cells, up to this width.
    pub const fn growing(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// One whose cells stand on its right side.
    pub const fn right(self) -> Self {
        Self {
            right: true,
            ..self
        }
    }

    /// How wide it is.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Grows for a cell, and returns how wide the cell is.
    #[inline]
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

    /// Appends a cell that `write` writes, padding, and the space before the next column.
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

/// Ends a line of cells: nothing is padded at its end.
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
