//! CLOCK_MONOTONIC, the clock of kaprobe's timestamps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The current time in ns, comparable to `mono_ns` of a record.
pub fn monotonic_ns() -> u64 {
    monotonic().as_nanos() as u64
}

/// The current time of CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    // The clock is never negative: it starts at 0.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
