//! The two clocks: the kernel's stamps are CLOCK_MONOTONIC, people read CLOCK_REALTIME.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::model::time::Instant;

/// The current time on both clocks.
pub fn now() -> Instant {
    let mono = clock_gettime(ClockId::Monotonic);
    let mono_ns = ns(mono);
    Instant {
        mono_ns: u64::try_from(mono_ns).unwrap_or_default(),
        wall_ns: mono_ns.saturating_add(offset_ns()),
    }
}

/// CLOCK_REALTIME less CLOCK_MONOTONIC, ns. It is read again for each batch, as it changes
/// when the clock is set or the host sleeps.
pub fn offset_ns() -> i64 {
    ns(clock_gettime(ClockId::Realtime)) - ns(clock_gettime(ClockId::Monotonic))
}

const fn ns(t: Timespec) -> i64 {
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec)
}
