//! The clock that kaprobe's events are stamped by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now, as the `mono_ns` of a record says it.
pub fn monotonic_ns() -> u64 {
    monotonic().as_nanos() as u64
}

/// The time since the start of CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    // It starts at 0, and counts up.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
