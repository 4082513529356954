//! Spans of time, as people read them.

use std::fmt::{self, Display, Write as _};

use crate::text::digits;

/// A value that is appended to a line without what `Display` spends on the way.
pub trait Put {
    /// Appends the value.
    fn put(&self, line: &mut String);
}

impl Put for &str {
    #[inline]
    fn put(&self, line: &mut String) {
        line.push_str(self);
    }
}

impl Put for u8 {
    #[inline]
    fn put(&self, line: &mut String) {
        digits::number(line, *self);
    }
}

impl Put for u32 {
    #[inline]
    fn put(&self, line: &mut String) {
        digits::number(line, *self);
    }
}

impl Put for u64 {
    #[inline]
    fn put(&self, line: &mut String) {
        digits::number(line, *self);
    }
}

/// A value that is appended by its `Display`: one that few lines have.
pub struct Shown<T>(pub T);

impl<T: Display> Put for Shown<T> {
    #[inline]
    fn put(&self, line: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(line, "{}", self.0);
    }
}

/// A span of ms: `40ms`, `3s`, `5.1s`, `7200s`. Whole seconds from 100 s on.
pub struct Ms(pub u64);

impl Put for Ms {
    #[inline]
    fn put(&self, line: &mut String) {
        let Self(ms) = *self;
        if ms < 1_000 {
            digits::number(line, ms);
            return line.push_str("ms");
        }
        digits::number(line, ms / 1_000);
        if ms < 100_000 && ms % 1_000 != 0 {
            line.push('.');
            digits::number(line, ms % 1_000 / 100);
        }
        line.push('s');
    }
}

impl Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.put(&mut text);
        f.write_str(&text)
    }
}

/// A shortest and a longest time, ms: `4.0s`, `4.0s..100s`.
#[must_use]
pub fn span((least, most): (u64, u64)) -> String {
    let (least, most) = (Ms(least).to_string(), Ms(most).to_string());
    if least == most {
        least
    } else {
        format!("{least}..{most}")
    }
}

/// A span of ms to the nearest tenth of a second: `0.5s`, `12.0s`; below 100 ms, `40ms`.
pub struct Tenths(pub u64);

impl Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ms) = *self;
        if ms < 100 {
            return Ms(ms).fmt(f);
        }
        write!(f, "{}s", seconds_of((i128::from(ms) + 50) * 1_000_000, 1))
    }
}

/// A span of ms in its two largest units: `7 s`, `12 min`, `1 h 43 min`, `2 d 3 h`. What is
/// less is cut off.
pub struct Rough(pub u64);

impl Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0 / 60_000;
        let (hours, days) = (minutes / 60, minutes / 1_440);
        match minutes {
            0..2 => write!(f, "{} s", self.0 / 1_000),
            2..60 => write!(f, "{minutes} min"),
            60..1_440 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

/// A span of us: `431us`, `1.5ms`, `3s`.
pub struct Us(pub u64);

impl Put for Us {
    #[inline]
    fn put(&self, line: &mut String) {
        let Self(us) = *self;
        match us {
            0..1_000 => {
                digits::number(line, us);
                line.push_str("us");
            }
            1_000..1_000_000 => {
                digits::number(line, us / 1_000);
                line.push('.');
                digits::number(line, us % 1_000 / 100);
                line.push_str("ms");
            }
            _ => Ms(us / 1_000).put(line),
        }
    }
}

/// Nanoseconds as seconds, with `digits` digits of the fraction; the rest is cut off.
pub fn seconds_of(ns: i128, digits: usize) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let (seconds, rest) = (
        ns.unsigned_abs() / 1_000_000_000,
        ns.unsigned_abs() % 1_000_000_000,
    );
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}", &fraction[..digits.min(9)])
}

/// A number and what it counts: `1 byte`, `2 bytes`.
#[must_use]
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (ms, short, tenths) in [
            (0, "0ms", "0ms"),
            (99, "99ms", "99ms"),
            (950, "950ms", "1.0s"),
            (1_000, "1s", "1.0s"),
            (3_004, "3.0s", "3.0s"),
            (5_190, "5.1s", "5.2s"),
            (99_999, "99.9s", "100.0s"),
            (100_500, "100s", "100.5s"),
            (350_000, "350s", "350.0s"),
        ] {
            assert_eq!(Ms(ms).to_string(), short);
            assert_eq!(Tenths(ms).to_string(), tenths);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (6_180, "1 h 43 min"),
            (86_400, "1 d 0 h"),
            (190_000, "2 d 4 h"),
        ] {
            assert_eq!(Rough(seconds * 1_000 + 999).to_string(), text);
        }
        for (us, text) in [(999, "999us"), (1_500, "1.5ms"), (3_000_000, "3s")] {
            let mut line = String::new();
            Us(us).put(&mut line);
            assert_eq!(line, text);
        }
        for (ns, digits, text) in [
            (12_960_000_000, 1, "12.9"),
            (-1_500_000_000, 6, "-1.500000"),
            (7, 9, "0.000000007"),
        ] {
            assert_eq!(seconds_of(ns, digits), text);
        }
    }
}
