//! Moments, on the two clocks that matter.

use std::fmt;
use std::fmt::Display;

use serde::de;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// The coarsest tick of a kernel, HZ = 100, ms: ages made from ticks are off by less.
pub const TICK_MS: u64 = 10;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// CLOCK_MONOTONIC, ns: what the kernel stamps, the same for all of a host.
    pub mono_ns: u64,
    /// CLOCK_REALTIME, ns since the epoch: what a person reads.
    pub wall_ns: i64,
}

/// A moment of the wall clock: ns since 1970 in UTC. Written in RFC 3339, in UTC, with
/// nine digits after the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The same moment in the type that knows calendars.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        // It holds every i64 of nanoseconds: the years 1677 to 2262.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
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
        let text = String::deserialize(from)?;
        let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        i64::try_from(time.as_nanosecond())
            .map(Self)
            .map_err(de::Error::custom)
    }
}
