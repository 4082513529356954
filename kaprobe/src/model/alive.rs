//! The sum of the probes of a connection that the peer answered.

use crate::model::field::{Field, Value, group};

group! {
    /// A sum of probes that the peer answered, each before another was sent. They have no
    /// records of their own. The next record of the connection is judged as if they had.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Alive {
        /// Number of probes that were sent and answered.
        probes_answered: u64,
        /// Time from which the probes are counted, CLOCK_MONOTONIC, ns.
        since_ns: u64,
        /// Time of the last of these answers, CLOCK_MONOTONIC, ns.
        answered_ns: u64,
        /// The least `answered_after_ms` of these probes.
        answered_min_ms: Option<u64>,
        /// The greatest `answered_after_ms` of these probes.
        answered_max_ms: Option<u64>,
        /// The least `rtt_us` of these probes.
        rtt_min_us: Option<u64>,
        /// The greatest `rtt_us` of these probes.
        rtt_max_us: Option<u64>,
        /// The idle times that the connection survived, ms: of those that are alike, the
        /// longest. Ascending.
        survived_ages_ms: AgeList,
        /// The times without data after which the peer answered a probe, ms: of those that
        /// are alike, the longest. Ascending.
        held_ages_ms: AgeList,
        /// An idle time that the connection has not survived yet, as far as these probes
        /// show, ms. The next event may show it.
        quiet_ms: Option<u32>,
        /// When `quiet_ms` was measured, CLOCK_MONOTONIC, ns.
        quiet_ns: Option<u64>,
    }
}

/// A list of ages, ms. An empty one is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct AgeList(pub Vec<u64>);

impl Field for AgeList {
    const OPTIONAL: bool = true;

    fn value(&self) -> Value<'_> {
        match self.0.as_slice() {
            [] => Value::Absent,
            ages => Value::Numbers(ages),
        }
    }
}
