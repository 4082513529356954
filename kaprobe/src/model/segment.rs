//! The names of the segments in which a recorder keeps a log.

use std::fmt::{self, Display};

use crate::model::time::WallTime;

const START: &str = "kaprobe-";
const END: &str = ".jsonl.zst";
/// Digits of the number. Names of as many digits sort by number.
const DIGITS: usize = 8;
/// The time when a segment began, to the second: `20240506T070809Z`.
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// The name of a segment: `kaprobe-00000012-20240506T070809Z.jsonl.zst`. The number orders
/// segments, whatever the clock did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Its number in the folder, from 1. A restart goes on counting.
    pub number: u64,
    /// When it began, by the wall clock, to the second.
    pub began: WallTime,
}

impl SegmentName {
    /// The segment of this file name. `None` if it is not the name of one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (number, began) = name
            .strip_prefix(START)?
            .strip_suffix(END)?
            .split_once('-')?;
        let is_number = number.len() >= DIGITS && number.bytes().all(|it| it.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number)?;
        let began = jiff::civil::DateTime::strptime(TIME, began).ok()?;
        let began = began.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        let began = WallTime(began.as_nanosecond().try_into().ok()?);
        Some(Self { number, began })
    }
}

impl Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let began = self.began.timestamp().strftime(TIME);
        write!(f, "{START}{:0DIGITS$}-{began}{END}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sort_by_number() {
        let name = |number, s: i64| {
            let began = WallTime(s * 1_000_000_000);
            SegmentName { number, began }
        };
        let shown = name(12, 1_714_979_289).to_string();
        assert_eq!(shown, "kaprobe-00000012-20240506T070809Z.jsonl.zst");
        for it in [name(1, 0), name(99_999_999, -5), name(123_456_789_012, 7)] {
            assert_eq!(SegmentName::parse(&it.to_string()), Some(it));
        }
        assert!(name(9, 50).to_string() < name(10, 40).to_string());
        for other in [
            "lock",
            "kaprobe-12-20240506T070809Z.jsonl.zst",
            "kaprobe-+0000012-20240506T070809Z.jsonl.zst",
            "kaprobe-00000012-20241306T070809Z.jsonl.zst",
            "kaprobe-00000012-20240506T070809Z.jsonl.zst.gz",
            "kaprobe-99999999999999999999-20240506T070809Z.jsonl.zst",
            "",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
