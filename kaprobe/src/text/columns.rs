//! Pads cells of a table to the width of their column, and fits a table into a terminal.

use std::borrow::Cow;
use std::cmp::Reverse;

use unicode_width::UnicodeWidthStr as _;

use crate::text::cut::{self, Ellipsis};

/// Padding is appended in pieces of this length: enough for most columns.
const SPACES: &str = "                                                                ";

/// A terminal that lines have to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Its width, columns.
    pub width: usize,
    /// The mark that it shows for what was cut out.
    pub ellipsis: Ellipsis,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading of the column.
    pub heading: &'static str,
    width: usize,
    /// The column grows with its cells up to this width.
    most: usize,
    right: bool,
    worth: u8,
    finding: Finding,
    cells: Cells,
    /// A wider cell is cut.
    limit: usize,
    ellipsis: Ellipsis,
    hidden: bool,
}

/// Whether the cells of a column are counts of something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// They are something else.
    No,
    /// They are, and each so far is 0 or empty.
    Nothing,
    /// They are, and one is not 0.
    Found,
}

/// The headings of the columns that a screen has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Columns of facts.
    pub facts: Vec<&'static str>,
    /// Columns of findings, of which there are some.
    pub findings: Vec<&'static str>,
    /// Columns of findings, of which there is none.
    pub nothing: Vec<&'static str>,
}

impl Hidden {
    /// Says what is hidden, if anything is, and how to see it: `-w shows every column`.
    #[must_use]
    pub fn note(&self, remedy: &str) -> Option<String> {
        let mut parts = Vec::new();
        for (columns, what) in [(&self.findings, ", which is not 0"), (&self.facts, "")] {
            if !columns.is_empty() {
                parts.push(format!("no room for {}{what}", columns.join(", ")));
            }
        }
        if !self.nothing.is_empty() {
            parts.push(format!("0 in each row: {}", self.nothing.join(", ")));
        }
        (!parts.is_empty()).then(|| format!("{}: {remedy}", parts.join("; ")))
    }
}

/// What the cells of a column are: how short they may become, and what is left of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// Values, which say nothing when they are cut.
    Whole,
    /// Names, which are cut at their end, to no less than this width.
    Names(usize),
    /// Addresses with ports. The middle of an IPv6 address is cut, to no less than the width
    /// of the longest IPv4 one; the port stays.
    Endpoints,
}

impl Cells {
    /// The least width of a column whose widest cell has this width.
    fn least(self, widest: usize) -> usize {
        match self {
            Self::Whole => widest,
            Self::Names(least) => least.min(widest),
            Self::Endpoints => cut::ENDPOINT_WIDTH.min(widest),
        }
    }

    fn cut(self, cell: &str, width: usize, ellipsis: Ellipsis) -> Cow<'_, str> {
        match self {
            Self::Whole | Self::Names(_) => cut::end(cell, width, ellipsis),
            Self::Endpoints => cut::endpoint(cell, width, ellipsis),
        }
    }
}

impl Column {
    /// A column of this width. A wider cell moves only the rest of its own line.
    pub const fn new(heading: &'static str, width: usize) -> Self {
        Self {
            heading,
            width,
            most: 0,
            right: false,
            worth: 0,
            finding: Finding::No,
            cells: Cells::Whole,
            limit: usize::MAX,
            ellipsis: Ellipsis::Ascii,
            hidden: false,
        }
    }

    /// A column as wide as its widest cell. Where [`fit`] finds its table too wide, columns of
    /// less worth are hidden first, and cut first.
    pub const fn of_worth(heading: &'static str, worth: u8, cells: Cells) -> Self {
        Self {
            worth,
            cells,
            ..Self::new(heading, 0).growing(usize::MAX)
        }
    }

    /// A column of counts of something that is wrong. If each is 0, it is hidden before any
    /// other.
    pub const fn of_finding(heading: &'static str, worth: u8) -> Self {
        Self {
            finding: Finding::Nothing,
            ..Self::of_worth(heading, worth, Cells::Whole)
        }
    }

    /// Makes the column no narrower than this, so that it stays as it is while its cells change.
    pub const fn at_least(self, width: usize) -> Self {
        Self { width, ..self }
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

    /// Notes what a cell tells, and grows for it.
    fn see(&mut self, cell: &str) {
        if self.finding == Finding::Nothing && !matches!(cell, "" | "0") {
            self.finding = Finding::Found;
        }
        self.fit(cell);
    }

    /// What the column is worth, by the cells that it has seen.
    const fn worth(&self) -> u8 {
        match self.finding {
            Finding::Nothing => 0,
            Finding::No | Finding::Found => self.worth,
        }
    }

    /// Appends the cell that `write` writes, then padding and the space between columns.
    /// Appends nothing if the column is hidden.
    #[inline]
    pub fn put(&mut self, line: &mut String, write: impl FnOnce(&mut String)) {
        if self.hidden {
            return;
        }
        let start = line.len();
        write(line);
        let mut width = self.fit(&line[start..]);
        if width > self.limit {
            let cell = line.split_off(start);
            line.push_str(&self.cells.cut(&cell, self.limit, self.ellipsis));
            width = line[start..].width();
        }
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

/// Fits columns that have seen their cells into a screen. Returns those that are hidden.
///
/// A column is shown if its least width fits beside those that are worth more. What room is
/// left then goes to names, then to addresses, which tell enough without their middle.
pub fn fit<'a>(columns: impl IntoIterator<Item = &'a mut Column>, screen: Screen) -> Hidden {
    let mut columns: Vec<_> = columns.into_iter().collect();
    let mut order: Vec<_> = (0..columns.len()).collect();
    order.sort_by_key(|&at| Reverse(columns[at].worth()));
    let (mut room, mut space) = (screen.width, 0);
    for &at in &order {
        let column = &mut *columns[at];
        let least = column.cells.least(column.width);
        // The first one is cut rather than hidden: a line has at least one.
        column.hidden = space > 0 && least + space > room;
        column.ellipsis = screen.ellipsis;
        column.most = 0;
        if !column.hidden {
            column.limit = least.min(room);
            room -= column.limit + space;
            space = 1;
        }
    }
    order.sort_by_key(|&at| columns[at].cells == Cells::Endpoints);
    for &at in &order {
        let column = &mut *columns[at];
        if !column.hidden {
            let more = column.width.saturating_sub(column.limit).min(room);
            column.limit += more;
            column.width = column.limit;
            room -= more;
        }
    }
    let mut hidden = Hidden::default();
    for column in columns.iter().filter(|it| it.hidden) {
        match column.finding {
            Finding::No => hidden.facts.push(column.heading),
            Finding::Nothing => hidden.nothing.push(column.heading),
            Finding::Found => hidden.findings.push(column.heading),
        }
    }
    hidden
}

/// A table whose cells are all known before the first is written.
pub struct Table {
    columns: Vec<Column>,
    /// The columns that the screen has no room for.
    pub hidden: Hidden,
}

impl Table {
    /// Fits columns to their headings, if those are written, and to the cells of these rows;
    /// and then into a screen, if there is one.
    pub fn new<'a, S: AsRef<str> + 'a>(
        mut columns: Vec<Column>,
        heading: bool,
        rows: impl IntoIterator<Item = &'a [S]>,
        screen: Option<Screen>,
    ) -> Self {
        for column in columns.iter_mut().filter(|_| heading) {
            column.fit(column.heading);
        }
        for cells in rows {
            for (column, cell) in columns.iter_mut().zip(cells) {
                column.see(cell.as_ref());
            }
        }
        let hidden = screen.map_or(Hidden::default(), |it| fit(&mut columns, it));
        Self { columns, hidden }
    }

    /// The columns, to write rows cell by cell.
    pub fn columns(&mut self) -> impl Iterator<Item = &mut Column> {
        self.columns.iter_mut()
    }

    /// Appends the heading, as a line.
    pub fn put_heading(&mut self, text: &mut String) {
        for column in &mut self.columns {
            column.put_heading(text);
        }
        end_line(text);
    }

    /// Appends a row, as a line.
    pub fn put(&mut self, text: &mut String, cells: &[String]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.put(text, |text| text.push_str(cell));
        }
        end_line(text);
    }
}

/// Ends a line of cells, without padding at its end.
pub fn end_line(line: &mut String) {
    line.truncate(line.trim_end_matches(' ').len());
    line.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;

    use super::*;

    fn screen(width: usize) -> Screen {
        Screen {
            width,
            ellipsis: Ellipsis::Unicode,
        }
    }

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

    /// A column that has seen a cell of this width.
    fn of(heading: &'static str, worth: u8, cells: Cells, widest: usize) -> Column {
        let mut column = Column::of_worth(heading, worth, cells);
        column.fit(&"x".repeat(widest));
        column
    }

    /// The widths of the columns in lines of this width; `None` for a hidden one.
    fn fitted(columns: &[Column], width: usize) -> Vec<Option<usize>> {
        let mut columns = columns.to_vec();
        let hidden = fit(&mut columns, screen(width));
        let widths = columns.iter();
        let widths: Vec<_> = widths.map(|it| (!it.hidden).then_some(it.width)).collect();
        let left_out = columns.iter().filter(|it| it.hidden);
        let left_out: Vec<_> = left_out.map(|it| it.heading).collect();
        assert_eq!(hidden.facts, left_out);
        widths
    }

    #[test]
    fn columns_of_less_worth_are_cut_and_hidden_first() {
        let columns = [
            of("LEAST", 1, Cells::Whole, 5),
            of("NAME", 2, Cells::Names(6), 10),
            of("MOST", 3, Cells::Whole, 10),
        ];
        for (width, widths) in [
            (99, [Some(5), Some(10), Some(10)]),
            (27, [Some(5), Some(10), Some(10)]),
            (26, [Some(5), Some(9), Some(10)]),
            (23, [Some(5), Some(6), Some(10)]),
            (22, [None, Some(10), Some(10)]),
            (17, [None, Some(6), Some(10)]),
            (16, [Some(5), None, Some(10)]),
            (15, [None, None, Some(10)]),
            (10, [None, None, Some(10)]),
            (9, [None, None, Some(9)]),
            (0, [None, None, Some(0)]),
        ] {
            assert_eq!(fitted(&columns, width), widths, "{width}");
        }
    }

    #[test]
    fn a_finding_is_hidden_after_facts_and_nothing_found_before_them() {
        let table = |cell: &str, width| {
            let columns = vec![
                Column::of_finding("DEAD", 2),
                Column::of_worth("FACT", 1, Cells::Whole),
            ];
            let cells = [cell.to_owned(), "1".to_owned()];
            let table = Table::new(columns, true, [&cells[..]], Some(screen(width)));
            table.hidden
        };
        for (cell, width, note) in [
            ("0", 9, None),
            ("1", 9, None),
            ("0", 8, Some("0 in each row: DEAD: widen it")),
            ("", 8, Some("0 in each row: DEAD: widen it")),
            ("1", 8, Some("no room for FACT: widen it")),
        ] {
            let hidden = table(cell, width);
            assert_eq!(hidden.note("widen it").as_deref(), note, "{cell} {width}");
        }
        let hidden = Hidden {
            facts: vec!["A", "B"],
            findings: vec!["C"],
            nothing: vec!["D"],
        };
        let note = "no room for C, which is not 0; no room for A, B; 0 in each row: D: -w";
        assert_eq!(hidden.note("-w").as_deref(), Some(note));
    }

    #[test]
    fn a_cell_that_comes_later_is_cut() {
        let mut column = of("COMM", 1, Cells::Names(6), 6);
        assert_eq!(fit([&mut column], screen(80)), Hidden::default());
        assert_eq!(put(&mut column, "postgres"), "postg\u{2026} ");
        column.hidden = true;
        assert_eq!(put(&mut column, "postgres"), "");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_asked(
            cells in collection::vec(("\\PC{0,30}", 0..4_u8, 0..3_u8), 1..9),
            width in 0..200_usize,
        ) {
            let mut columns: Vec<_> = cells.iter().map(|(cell, worth, kind)| {
                let cells = [Cells::Whole, Cells::Names(8), Cells::Endpoints][usize::from(*kind)];
                let mut column = Column::of_worth("HEADING", *worth, cells);
                column.fit(cell);
                column
            }).collect();
            let hidden = fit(&mut columns, screen(width));
            prop_assert!(hidden.facts.len() < columns.len());
            let mut line = String::new();
            for (column, (cell, ..)) in columns.iter_mut().zip(&cells) {
                column.put(&mut line, |line| line.push_str(cell));
            }
            end_line(&mut line);
            prop_assert!(line.trim_end_matches('\n').width() <= width, "{line}");
        }
    }
}
