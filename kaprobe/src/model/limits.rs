//! How much a trace keeps of the sockets that it has seen.

use std::num::NonZeroUsize;

/// Most sockets that a trace remembers, if nothing else is said: on a host with little memory,
/// and in a log without a number of its own.
pub const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("it is not zero");

/// The highest value of `--max-sockets`.
pub const MOST_SOCKETS: u32 = 1 << 20;

/// The size of the ring buffer on a host with little memory, bytes.
const LEAST_BUFFER: u64 = 4 << 20;
/// The size of the ring buffer on a host with much memory, bytes. It has room for 77,000 events.
const MOST_BUFFER: u64 = 16 << 20;

/// What kaprobe and the kernel keep for a socket, bytes: an upper bound. A recorder takes most of
/// it, for a socket with a probe that is not answered. The test `churn` holds user space to it.
pub const SOCKET_BYTES: u64 = 1_792;

/// How much a trace keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most sockets that are remembered.
    pub sockets: u32,
    /// Size of the ring buffer, bytes: a power of two.
    pub buffer_bytes: u32,
}

impl Default for Limits {
    /// The limits of what reports no event: the smallest table, and a buffer of one page, of
    /// the largest size that Linux has.
    fn default() -> Self {
        Self {
            sockets: 1,
            buffer_bytes: 1 << 16,
        }
    }
}

impl Limits {
    /// The limits where kaprobe may use this much memory, bytes.
    ///
    /// If all sockets are seen, they take a 64th of it, and the ring buffer takes a 512th.
    /// Both are rounded down to a power of two.
    #[must_use]
    pub fn of(memory_bytes: u64) -> Self {
        let least = MAX_SOCKETS.get() as u64;
        let sockets = power_of_two(memory_bytes / 64 / SOCKET_BYTES);
        let buffer = power_of_two(memory_bytes / 512);
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            sockets: short(sockets.clamp(least, MOST_SOCKETS.into())),
            buffer_bytes: short(buffer.clamp(LEAST_BUFFER, MOST_BUFFER)),
        }
    }
}

/// The largest power of two that is not larger; 0 for 0.
const fn power_of_two(number: u64) -> u64 {
    match number.checked_ilog2() {
        Some(log) => 1 << log,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_memory() {
        const GIB: u64 = 1 << 30;
        const MIB: u32 = 1 << 20;
        for (memory, sockets, buffer_bytes) in [
            (0, 65_536, 4 * MIB),
            (GIB, 65_536, 4 * MIB),
            (4 * GIB, 65_536, 8 * MIB),
            (8 * GIB, 65_536, 16 * MIB),
            (16 * GIB, 131_072, 16 * MIB),
            (32 * GIB, 262_144, 16 * MIB),
            (64 * GIB, 524_288, 16 * MIB),
            (128 * GIB, 1_048_576, 16 * MIB),
            (u64::MAX, 1_048_576, 16 * MIB),
        ] {
            let limits = Limits {
                sockets,
                buffer_bytes,
            };
            assert_eq!(Limits::of(memory), limits, "{memory}");
        }
    }
}
