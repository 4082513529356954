//! Lays out a problem for reading: who and where, what was seen, what to do.

use unicode_width::UnicodeWidthStr as _;

use crate::sink::digest::problem::Problem;
use crate::text::wrap::broken;

/// Before what was seen.
const SEEN: &str = "seen  ";
/// Before what to do.
const ADVISED: &str = "do    ";
/// Before what other hosts saw.
const HOSTS: &str = "hosts ";

/// How text is laid out on a screen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The width of the screen.
    pub(crate) columns: usize,
    /// The screen shows colors.
    pub(crate) colored: bool,
    /// The screen shows more than ASCII.
    pub(crate) unicode: bool,
}

impl Layout {
    /// A problem: who and where on the first line, after `head`; then what was seen, and what
    /// to do, each on lines of its own.
    pub(crate) fn problem(self, head: &str, problem: &Problem) -> String {
        let mut first = self.name(problem);
        if let Some(confidence) = problem.confidence {
            first.push_str(&format!(" ({confidence})"));
        }
        if !problem.who.is_empty() {
            first.push_str("  ");
            first.push_str(&problem.who);
        }
        let indent = " ".repeat(head.width());
        let ends = self.ends(problem);
        let whole = broken(head, &format!("{first}  {ends}"), self.columns);
        let mut text = if ends.is_empty() {
            broken(head, &first, self.columns)
        } else if whole.contains('\n') {
            let first = broken(head, &first, self.columns);
            format!("{first}\n{}", broken(&indent, &ends, self.columns))
        } else {
            whole
        };
        for (label, part) in [
            (SEEN, &problem.seen),
            (ADVISED, &problem.advised),
            (HOSTS, &problem.story),
        ] {
            if !part.is_empty() {
                text.push('\n');
                text.push_str(&broken(&format!("{indent}{label}"), part, self.columns));
            }
        }
        text.push('\n');
        text
    }

    /// A problem that was told before, and how often it has been seen.
    pub(crate) fn count(self, head: &str, problem: &Problem, count: u64, last: &str) -> String {
        let times = if self.unicode { '×' } else { 'x' };
        let mut line = format!("{} {times}{count}", self.name(problem));
        for place in [&problem.program, &self.service(problem)] {
            if !place.is_empty() {
                line.push_str("  ");
                line.push_str(place);
            }
        }
        line.push_str(&format!("  last {last}"));
        broken(head, &line, self.columns) + "\n"
    }

    fn name(self, problem: &Problem) -> String {
        let name = problem.name;
        if self.colored {
            let style = problem.gravity.style();
            format!("{style}{name}{style:#}")
        } else {
            name.to_owned()
        }
    }

    fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    fn ends(self, problem: &Problem) -> String {
        let Some((local, remote)) = &problem.ends else {
            return String::new();
        };
        format!("{local} {} {remote}", self.arrow())
    }

    fn service(self, problem: &Problem) -> String {
        let service = problem.service;
        service.map_or(String::new(), |it| format!("{} {it}", self.arrow()))
    }
}
