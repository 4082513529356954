//! Points in time in the reader's time zone.

use jiff::tz::{Offset, TimeZone};

use crate::model::time::WallTime;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// The time zone of a report.
#[derive(Clone, Debug)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) const fn new(zone: TimeZone) -> Self {
        Self(zone)
    }

    fn civil(&self, at_ns: i64) -> jiff::civil::DateTime {
        let at = WallTime(at_ns).timestamp();
        self.0.to_offset(at).to_datetime(at)
    }

    /// The date: `2026-11-30`.
    pub(super) fn date(&self, at_ns: i64) -> String {
        self.civil(at_ns).date().to_string()
    }

    /// The time of day to the second, or to the ms if `is_fine`.
    pub(super) fn clock(&self, at_ns: i64, is_fine: bool) -> String {
        let time = self.civil(at_ns).time();
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let clock = format!("{hour:02}:{minute:02}:{second:02}");
        if is_fine {
            format!("{clock}.{:03}", time.subsec_nanosecond() / 1_000_000)
        } else {
            clock
        }
    }

    /// Date and time of day, to the second.
    pub(super) fn full(&self, at_ns: i64) -> String {
        format!("{} {}", self.date(at_ns), self.clock(at_ns, false))
    }

    /// The offset from UTC at that time: `UTC+02:00`.
    pub(super) fn offset(&self, at_ns: i64) -> String {
        let offset = self.0.to_offset(WallTime(at_ns).timestamp());
        if offset == Offset::UTC {
            return "UTC".to_owned();
        }
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let minutes = minutes.unsigned_abs();
        format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    /// The offsets from UTC in a span: two, if the clocks were changed meanwhile.
    pub(super) fn offsets(&self, from_ns: i64, to_ns: i64) -> String {
        let (first, last) = (self.offset(from_ns), self.offset(to_ns));
        if first == last {
            first
        } else {
            format!("{first}, later {last}")
        }
    }

    /// The seconds of local time since some local midnight, at that time. Ticks of an axis
    /// are at round local times.
    pub(super) fn local_s(&self, at_ns: i64) -> i64 {
        let offset = self.0.to_offset(WallTime(at_ns).timestamp());
        at_ns.div_euclid(1_000_000_000) + i64::from(offset.seconds())
    }

    /// Whether two times are of different days.
    pub(super) fn crosses_midnight(&self, from_ns: i64, to_ns: i64) -> bool {
        self.local_s(from_ns).div_euclid(DAY_S) != self.local_s(to_ns).div_euclid(DAY_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_their_offset_is_named() {
        const AT: i64 = 1_714_979_289_012_345_678;
        let fixed = |seconds: i32| Offset::from_seconds(seconds).map(TimeZone::fixed);
        for (zone, full, offset) in [
            (TimeZone::UTC, "2024-05-06 07:08:09", "UTC"),
            (
                fixed(7_200).unwrap_or(TimeZone::UTC),
                "2024-05-06 09:08:09",
                "UTC+02:00",
            ),
            (
                fixed(-12_600).unwrap_or(TimeZone::UTC),
                "2024-05-06 03:38:09",
                "UTC-03:30",
            ),
        ] {
            let zone = Zone::new(zone);
            assert_eq!(
                (zone.full(AT).as_str(), zone.offset(AT).as_str()),
                (full, offset)
            );
        }
        assert_eq!(Zone::new(TimeZone::UTC).clock(AT, true), "07:08:09.012");
        // The clocks are changed meanwhile.
        let Ok(rule) = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3") else {
            unreachable!("it is a rule");
        };
        let winter = 1_704_067_200_000_000_000;
        assert_eq!(
            Zone::new(rule).offsets(winter, AT),
            "UTC+01:00, later UTC+02:00"
        );
    }
}
