//! Points in time, on the monotonic clock and the wall clock.

use std::fmt;
use std::fmt::Display;
use std::time::Duration;

use serde::de;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// The longest kernel tick (HZ = 100), ms. The error of an age is smaller than this.
pub const TICK_MS: u64 = 10;

/// Converts ms to ns.
#[must_use]
pub const fn ms_to_ns(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// CLOCK_MONOTONIC, ns: the kernel's timestamp, the same for the whole host.
    pub mono_ns: u64,
    /// CLOCK_REALTIME, ns since the epoch: the time shown to users.
    pub wall_ns: i64,
}

/// A wall clock time: ns since 1970, UTC. Written as RFC 3339 in UTC, with nine digits
/// after the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub i64);

/// A point in time that a user names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeBound {
    /// So long before now.
    Ago(Duration),
    /// By the wall clock.
    At(WallTime),
}

/// The times of the records to read, as a user names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeBounds {
    /// The first time.
    pub since: Option<TimeBound>,
    /// The last time.
    pub until: Option<TimeBound>,
}

impl TimeBounds {
    /// The times, if it is `now`. `None` if the first is later than the last: no time is
    /// between them.
    #[must_use]
    pub fn resolve(self, now: WallTime) -> Option<TimeWindow> {
        let window = TimeWindow {
            since: self.since.map(|it| it.resolve(now)),
            until: self.until.map(|it| it.resolve(now)),
        };
        let is_empty = window.since.zip(window.until).is_some_and(|(a, b)| a > b);
        (!is_empty).then_some(window)
    }
}

/// The times of the records to read: from the first to the second, where they are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWindow {
    /// The first time.
    pub since: Option<WallTime>,
    /// The last time.
    pub until: Option<WallTime>,
}

impl TimeBound {
    /// The time, if it is `now`.
    #[must_use]
    pub fn resolve(self, now: WallTime) -> WallTime {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => {
                let ns = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
                WallTime(now.0.saturating_sub(ns))
            }
        }
    }
}

impl TimeWindow {
    /// Whether a time is in it.
    #[must_use]
    pub fn contains(&self, time: WallTime) -> bool {
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time <= until)
    }
}

impl WallTime {
    /// The time for people, in UTC, without the part of a second.
    #[must_use]
    pub fn to_the_second(self) -> impl Display {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ")
    }

    /// Converts to a calendar timestamp.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        // The type holds every i64 of nanoseconds: the years 1677 to 2262.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
    }
}

/// As the end of a sentence on what is in it.
impl Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.since, self.until) {
            (Some(since), Some(until)) => {
                write!(
                    f,
                    "between {} and {}",
                    since.to_the_second(),
                    until.to_the_second()
                )
            }
            (Some(since), None) => write!(f, "since {}", since.to_the_second()),
            (None, Some(until)) => write!(f, "until {}", until.to_the_second()),
            (None, None) => f.write_str("at any time"),
        }
    }
}

impl Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.timestamp())
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = WallTime;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WallTime, E> {
                let time: jiff::Timestamp = text.parse().map_err(E::custom)?;
                i64::try_from(time.as_nanosecond())
                    .map(WallTime)
                    .map_err(E::custom)
            }
        }

        from.deserialize_str(Text)
    }
}
