//! Times and sizes, as people read them.

use std::fmt::Write as _;
use std::fmt::{self, Display};

use crate::text::digits;

/// What can be appended to a line, without what `Display` spends on the way.
pub trait Put {
    /// Appends it.
    fn put(&self, line: &mut String);
}

impl Put for &str {
    fn put(&self, line: &mut String) {
        line.push_str(self);
    }
}

impl Put for u32 {
    fn put(&self, line: &mut String) {
        digits::number(line, *self);
    }
}

impl Put for u64 {
    fn put(&self, line: &mut String) {
        digits::number(line, *self);
    }
}

/// What is told too seldom for that.
pub struct Shown<T>(pub T);

impl<T: Display> Put for Shown<T> {
    fn put(&self, line: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(line, "{}", self.0);
    }
}

/// A time span for people: `40ms`, `3s`, `5.1s`, `7200s`. Whole seconds from 100 s on.
pub struct Ms(pub u64);

impl Put for Ms {
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

/// A duration of microseconds, for people.
pub struct Us(pub u64);

impl Put for Us {
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

/// Nanoseconds as seconds, with so many digits after the point.
pub fn seconds_of(ns: i128, digits: usize) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let (seconds, rest) = (
        ns.unsigned_abs() / 1_000_000_000,
        ns.unsigned_abs() % 1_000_000_000,
    );
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}", &fraction[..digits.min(9)])
}
