//! Writes times as people want them.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::time::Instant;
use crate::sink::options::TimeFormat;
use crate::text::digits::{self, Rfc3339, Seconds};
use crate::text::units::seconds_of;

/// Writes the time at the start of a line.
pub(super) struct Clock {
    format: TimeFormat,
    of_day: Seconds<Box<dyn Fn(Timestamp) -> String + Send>>,
    rfc3339: Rfc3339,
    /// The time of the first line, by the clock of [`Clock::since`].
    first_ns: Arc<OnceLock<i128>>,
    zone: TimeZone,
}

impl Clock {
    pub(super) fn new(format: TimeFormat, zone: TimeZone) -> Self {
        let of = zone.clone();
        let of_day = move |second: Timestamp| {
            let time = second.to_zoned(of.clone()).time();
            format!(
                "{:02}:{:02}:{:02}",
                time.hour(),
                time.minute(),
                time.second()
            )
        };
        Self {
            format,
            of_day: Seconds::new(Box::new(of_day)),
            rfc3339: Rfc3339::default(),
            first_ns: Arc::default(),
            zone,
        }
    }

    /// A clock that counts from the same first line.
    pub(super) fn twin(&self) -> Self {
        Self {
            first_ns: Arc::clone(&self.first_ns),
            ..Self::new(self.format, self.zone.clone())
        }
    }

    /// Appends a time. `hosts`: the lines are of several hosts.
    pub(super) fn put(&mut self, line: &mut String, at: Instant, hosts: bool) {
        let now_ns = Self::since(at, hosts);
        let first_ns = *self.first_ns.get_or_init(|| now_ns);
        match self.format {
            TimeFormat::Clock => {
                let (second, ns) = self.of_day.of(at.wall_ns);
                line.push_str(second);
                line.push('.');
                digits::digits(line, ns / 1_000_000, 3);
            }
            TimeFormat::Rfc3339 => self.rfc3339.put(line, at.wall_ns),
            TimeFormat::Unix => line.push_str(&seconds_of(at.wall_ns.into(), 9)),
            TimeFormat::Mono => line.push_str(&seconds_of(at.mono_ns.into(), 9)),
            TimeFormat::Relative => line.push_str(&seconds_of(now_ns - first_ns, 6)),
        }
    }

    /// Appends a time; of the time of day, no more than the second.
    pub(super) fn put_brief(&mut self, line: &mut String, at: Instant, hosts: bool) {
        match self.format {
            TimeFormat::Clock => line.push_str(self.of_day.of(at.wall_ns).0),
            _ => self.put(line, at, hosts),
        }
    }

    /// The time that lines are compared by: hosts share no clock but the wall clock.
    fn since(at: Instant, hosts: bool) -> i128 {
        if hosts {
            at.wall_ns.into()
        } else {
            at.mono_ns.into()
        }
    }
}
