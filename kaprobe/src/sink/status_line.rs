//! The last line of a terminal, below a blank one: it is drawn again in place, and erased before
//! other lines are written. It needs no more than sequences of ECMA-48 that go up a line and
//! erase, so it works on any terminal, and over ssh.

use std::sync::Arc;

use crate::sink::terminal;
use crate::stderr;
use crate::text::cut::head;

/// Separates the parts of a status line.
pub(super) const BETWEEN: &str = " | ";

/// Separates the halves of a part: the second can be left out.
const WITHIN: &str = ": ";

/// The first parts of a status line, as many as fit.
fn fitting(text: &str, columns: usize) -> &str {
    let mut fitting = head(text, columns);
    if fitting.len() < text.len()
        && let Some(end) = last_whole(text, fitting.len())
    {
        fitting = &text[..end];
    }
    fitting
}

/// Where the last part, or the first half of one, ends that is within the first bytes.
fn last_whole(text: &str, bytes: usize) -> Option<usize> {
    let ends = |between| text.match_indices(between).map(|(end, _)| end);
    let ends = ends(BETWEEN).chain(ends(WITHIN));
    ends.filter(|&end| end <= bytes).max()
}

/// The status line of a terminal.
#[derive(Debug, Default)]
pub(super) struct StatusLine {
    text: Option<Arc<str>>,
    /// The width of the terminal when the line was drawn.
    columns: usize,
}

impl StatusLine {
    /// The bytes that write these lines above the status line, and draw it anew.
    pub(super) fn below(&mut self, lines: &[u8], next: Option<&Arc<str>>) -> Vec<u8> {
        if let Some(next) = next {
            self.text = Some(Arc::clone(next));
        }
        let Some(text) = &self.text else {
            return lines.to_vec();
        };
        self.columns = terminal::columns();
        // A terminal may go to the next line after its last column.
        let text = fitting(text, self.columns.saturating_sub(1));
        let erased = if stderr::is_status_line_drawn() {
            stderr::ERASE
        } else {
            "\r"
        };
        stderr::status_line_is_drawn(true);
        [erased.as_bytes(), lines, b"\n", text.as_bytes()].concat()
    }

    /// Whether it has to be drawn again: a message was written in its place, or the terminal
    /// has another width.
    pub(super) fn is_stale(&self) -> bool {
        let is_gone = !stderr::is_status_line_drawn();
        self.text.is_some() && (is_gone || terminal::columns() != self.columns)
    }

    /// The bytes that erase it.
    pub(super) fn erased(&mut self) -> &'static [u8] {
        let is_drawn = self.text.take().is_some() && stderr::is_status_line_drawn();
        stderr::status_line_is_drawn(false);
        if is_drawn {
            stderr::ERASE.as_bytes()
        } else {
            b""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_shown() {
        for (text, columns, shown) in [
            ("one | two", 9, "one | two"),
            ("one | two", 8, "one"),
            ("one | two", 3, "one"),
            ("one | two: three | four", 12, "one | two"),
            ("one | two | three", 9, "one | two"),
            ("one | two", 2, "on"),
            ("one", 0, ""),
            ("\u{4e2d} | \u{4e2d}", 6, "\u{4e2d}"),
        ] {
            assert_eq!(fitting(text, columns), shown, "{text} in {columns}");
        }
    }
}
