//! The two clocks: the kernel's stamps are CLOCK_MONOTONIC, people read CLOCK_REALTIME.
//!
//! In a time namespace, CLOCK_MONOTONIC differs from the host's by an offset. The stamps of
//! BPF programs are the host's (`bpf_ktime_get_ns`), so the offset is taken off.

use std::sync::OnceLock;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::model::time::Instant;

/// CLOCK_MONOTONIC of this process's time namespace less the host's, ns. It can't change once
/// a process is in the namespace (`proc_timens_set_offset`, kernel/time/namespace.c).
static NAMESPACE_OFFSET_NS: OnceLock<i64> = OnceLock::new();

/// Reads the offset of this process's time namespace. Call it before the other functions,
/// which assume none otherwise.
///
/// # Errors
/// When the offset can't be told.
pub fn read_namespace() -> Result<()> {
    let offset = namespace_offset().context("cannot tell the host's CLOCK_MONOTONIC")?;
    NAMESPACE_OFFSET_NS.get_or_init(|| offset);
    Ok(())
}

fn namespace_offset() -> Result<i64> {
    let offsets = match fs::read_to_string("/proc/self/timens_offsets") {
        // A kernel without time namespaces.
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(0),
        offsets => offsets?,
    };
    // They are those of the namespace of future children (`proc_timens_show_offsets`).
    let [own, children] =
        ["time", "time_for_children"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")));
    ensure!(
        own? == children?,
        "this process has left its time namespace: start kaprobe by another process in the new \
         one"
    );
    monotonic_offset(&offsets).context("/proc/self/timens_offsets has an unknown form")
}

/// The offset of CLOCK_MONOTONIC in this file, ns: `monotonic`, seconds, nanoseconds.
fn monotonic_offset(offsets: &str) -> Option<i64> {
    let mut lines = offsets.lines().map(str::split_ascii_whitespace);
    let mut words = lines.find_map(|mut words| (words.next()? == "monotonic").then_some(words))?;
    let [seconds, nanoseconds] = [(); 2].map(|()| words.next().and_then(|it| it.parse().ok()));
    i64::checked_mul(seconds?, 1_000_000_000)?.checked_add(nanoseconds?)
}

/// The current time on both clocks.
pub fn now() -> Instant {
    let mono_ns = monotonic_ns();
    Instant {
        mono_ns: u64::try_from(mono_ns).unwrap_or_default(),
        wall_ns: mono_ns.saturating_add(offset_ns()),
    }
}

/// CLOCK_REALTIME less CLOCK_MONOTONIC, ns. It is read again for each batch, as it changes
/// when the clock is set or the host sleeps.
pub fn offset_ns() -> i64 {
    ns(clock_gettime(ClockId::Realtime)) - monotonic_ns()
}

/// The host's CLOCK_MONOTONIC, ns.
fn monotonic_ns() -> i64 {
    let offset = NAMESPACE_OFFSET_NS.get().copied().unwrap_or_default();
    ns(clock_gettime(ClockId::Monotonic)).saturating_sub(offset)
}

const fn ns(t: Timespec) -> i64 {
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read() {
        for (text, ns) in [
            (
                "monotonic           0         0\nboottime            0         0\n",
                Some(0),
            ),
            (
                "monotonic  100000  7\nboottime  1  2\n",
                Some(100_000_000_000_007),
            ),
            (
                "monotonic  -100000  500000000\nboottime  1  2\n",
                Some(-99_999_500_000_000),
            ),
            ("boottime  1  2\nmonotonic  3  4\n", Some(3_000_000_004)),
            ("monotonic  99999999999999999  0\n", None),
            ("monotonic  1\n", None),
            ("", None),
        ] {
            assert_eq!(monotonic_offset(text), ns, "{text:?}");
        }
    }
}
