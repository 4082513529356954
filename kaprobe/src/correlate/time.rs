//! Conversion between units of time.

/// Converts ms to ns.
pub(super) fn ns(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
