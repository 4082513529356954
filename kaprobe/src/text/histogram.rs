//! Durations counted by size, and drawn for a terminal.
//!
//! Pure: the caller chooses what bars are drawn with.

use std::fmt::Write as _;

use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};
use unicode_width::UnicodeWidthStr as _;

use crate::text::cut::Ellipsis;
use crate::text::units::Ms;

/// The lower ends of the classes, ms: none, then six to the decade from 10 ms, the
/// coarsest tick, to 10^9 ms, 11 days. The common idle timeouts (60, 75, 240, 350, 600,
/// 900, 1200, 3600 s) are each in a class of their own.
const STARTS: [u64; 50] = {
    const STEPS: [u64; 6] = [10, 15, 20, 30, 50, 70];
    let mut starts = [0; 50];
    let (mut index, mut decade) = (1, 1);
    while index < starts.len() {
        starts[index] = STEPS[(index - 1) % 6] * decade;
        if index % 6 == 0 {
            decade *= 10;
        }
        index += 1;
    }
    starts
};

/// How many empty classes in a row are drawn. More are left out together.
const EMPTY_ROWS: usize = 2;

/// How many durations each class has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; STARTS.len()],
}

/// The durations from one to below another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// The shortest, ms.
    pub from_ms: u64,
    /// All are shorter than this, ms; the last class has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<u64>,
    /// How many it has.
    pub count: u64,
}

/// What bars are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// Blocks, to an eighth of a column.
    Unicode,
    /// Number signs.
    Ascii,
}

impl Bars {
    /// The mark of what was cut out, where bars are drawn with these.
    #[must_use]
    pub const fn ellipsis(self) -> Ellipsis {
        match self {
            Self::Unicode => Ellipsis::Unicode,
            Self::Ascii => Ellipsis::Ascii,
        }
    }

    /// A bar of this length, in eighths of a column.
    fn bar(self, eighths: usize) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        match self {
            Self::Unicode => "█".repeat(eighths / 8) + PARTS[eighths % 8],
            Self::Ascii => "#".repeat(eighths.div_ceil(8)),
        }
    }

    const fn left_out(self) -> &'static str {
        match self {
            Self::Unicode => "…",
            Self::Ascii => "...",
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; STARTS.len()],
        }
    }
}

impl Histogram {
    /// Counts a duration, ms.
    pub fn add(&mut self, ms: u64) {
        let class = STARTS.partition_point(|&start| start <= ms) - 1;
        self.counts[class] = self.counts[class].saturating_add(1);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, it| sum.saturating_add(*it))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    /// The classes from the first to the last that is not empty, those between included.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        let is_used = |count: &u64| *count > 0;
        let first = self.counts.iter().position(is_used).unwrap_or_default();
        let end = self.counts.iter().rposition(is_used).map_or(0, |it| it + 1);
        (first..end).map(|index| Class {
            from_ms: STARTS[index],
            to_ms: STARTS.get(index + 1).copied(),
            count: self.counts[index],
        })
    }

    /// A line for each class, at most `width` columns wide: the longest bar takes the room
    /// that there is. Without counts there are no lines. Where `width` is too small for the
    /// numbers, lines are as long as the numbers need.
    #[must_use]
    pub fn lines(&self, width: usize, bars: Bars) -> Vec<String> {
        let classes: Vec<_> = self.classes().collect();
        let names: Vec<_> = classes.iter().map(Class::name).collect();
        let most = classes.iter().map(|it| it.count).max().unwrap_or_default();
        let name_width = names.iter().map(|it| it.width()).max().unwrap_or_default();
        let count_width = most.to_string().len();
        let room = width.saturating_sub(name_width + count_width + 4);
        let mut lines = Vec::new();
        let rows = classes.chunk_by(|a, b| a.count == 0 && b.count == 0);
        let mut names = names.into_iter();
        for row in rows {
            let row_names = names.by_ref().take(row.len()).collect::<Vec<_>>();
            if row.len() > EMPTY_ROWS {
                lines.push(bars.left_out().to_owned());
                continue;
            }
            for (class, name) in row.iter().zip(row_names) {
                let bar = bars.bar(eighths(class.count, most, room));
                let mut line = String::new();
                // Writing to a String cannot fail.
                let _ = write!(
                    line,
                    "{name:name_width$}  {:count_width$}  {bar}",
                    class.count
                );
                line.truncate(line.trim_end().len());
                lines.push(line);
            }
        }
        lines
    }
}

/// How long the bar of a count is, eighths of a column. A count above zero is visible.
fn eighths(count: u64, most: u64, room: usize) -> usize {
    let all = u128::from(count) * room as u128 * 8;
    let part = all.checked_div(most.into()).unwrap_or_default();
    let least = usize::from(count > 0 && room > 0);
    usize::try_from(part).unwrap_or_default().max(least)
}

impl Class {
    /// As mathematics, bcc and bpftrace write it: `[300s, 500s)`.
    fn name(&self) -> String {
        let from = Ms(self.from_ms);
        match self.to_ms {
            Some(to) => format!("[{from}, {})", Ms(to)),
            None => format!("[{from}, ...)"),
        }
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut classes = to.serialize_seq(None)?;
        for class in self.classes().filter(|it| it.count > 0) {
            classes.serialize_element(&class)?;
        }
        classes.end()
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;
    use crate::timeout::middlebox::{Role, middleboxes};

    fn histogram(ages: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for &(ms, times) in ages {
            (0..times).for_each(|_| histogram.add(ms));
        }
        histogram
    }

    /// Ages at death around three timeouts.
    fn deaths() -> Histogram {
        histogram(&[
            (40, 1),
            (61_000, 3),
            (240_500, 2),
            (351_000, 40),
            (352_000, 24),
            (910_000, 9),
        ])
    }

    #[test]
    fn it_is_drawn_with_blocks() {
        assert_snapshot!(deaths().lines(60, Bars::Unicode).join("\n"), @"
        [30ms, 50ms)     1  ▋
        …
        [50s, 70s)       3  █▉
        …
        [200s, 300s)     2  █▎
        [300s, 500s)    64  ████████████████████████████████████████
        [500s, 700s)     0
        [700s, 1000s)    9  █████▋
        ");
    }

    #[test]
    fn or_with_number_signs() {
        assert_snapshot!(deaths().lines(40, Bars::Ascii).join("\n"), @"
        [30ms, 50ms)     1  #
        ...
        [50s, 70s)       3  #
        ...
        [200s, 300s)     2  #
        [300s, 500s)    64  ####################
        [500s, 700s)     0
        [700s, 1000s)    9  ###
        ");
    }

    #[test]
    fn what_was_counted_once_has_the_longest_bar() {
        let ages = [
            (0, "[0ms, 10ms)  1  ##"),
            (u64::MAX, "[1000000s, ...)  1  ##"),
        ];
        for (ms, line) in ages {
            let width = line.len();
            assert_eq!(histogram(&[(ms, 1)]).lines(width, Bars::Ascii), [line]);
        }
        assert!(Histogram::default().lines(80, Bars::Ascii).is_empty());
    }

    #[test]
    fn json_has_the_classes_that_are_not_empty() -> serde_json::Result<()> {
        let json = serde_json::to_string(&histogram(&[(350_000, 2), (u64::MAX, 1)]))?;
        assert_eq!(
            json,
            r#"[{"from_ms":300000,"to_ms":500000,"count":2},{"from_ms":1000000000,"count":1}]"#
        );
        Ok(())
    }

    #[test]
    fn the_timeouts_of_the_table_are_told_apart() {
        assert!(STARTS.is_sorted_by(|a, b| a < b), "{STARTS:?}");
        // Programs have too many, and too short ones.
        let table = middleboxes();
        let boxes = table.iter().filter(|it| it.role != Role::Program);
        let mut seconds: Vec<_> = boxes.map(|it| it.default_s).collect();
        seconds.sort_unstable();
        seconds.dedup();
        let ages: Vec<_> = seconds.iter().map(|&it| (it * 1_000 + 500, 1)).collect();
        assert!(histogram(&ages).classes().all(|it| it.count <= 1));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_too_wide(
            ages in prop::collection::vec((any::<u64>(), 0..64_u32), 0..60),
            width in 0..120_usize,
        ) {
            let mut histogram = Histogram::default();
            for (ms, shift) in &ages {
                histogram.add(ms >> shift);
            }
            prop_assert_eq!(histogram.count(), ages.len() as u64);
            prop_assert_eq!(histogram.is_empty(), ages.is_empty());
            for (ms, shift) in &ages {
                let ms = ms >> shift;
                let holds = |it: Class| it.from_ms <= ms && it.to_ms.is_none_or(|to| ms < to);
                prop_assert!(histogram.classes().any(|it| holds(it) && it.count > 0));
            }
            for bars in [Bars::Unicode, Bars::Ascii] {
                for line in histogram.lines(width, bars) {
                    prop_assert!(line.width() <= width.max(32), "{}", line);
                    prop_assert!(bars == Bars::Unicode || line.is_ascii(), "{}", line);
                    prop_assert!(!line.ends_with(' '));
                }
            }
            let mut twice = histogram.clone();
            twice.merge(&histogram);
            prop_assert_eq!(twice.count(), 2 * histogram.count());
        }
    }
}
