//! The connections that an audit observes. Pure.

use std::collections::HashMap;

use serde::Serialize;

use crate::audit::silence::ConnectionSilences;
use crate::model::flow::FlowKey;
use crate::model::row::Row;

/// Most connections that are observed. One takes about 200 bytes.
pub(super) const MAX_CONNECTIONS: usize = 1 << 17;

/// A connection may be missing from this many successive samples; after more, it has ended.
/// Before 5.15 the iterator may leave out a socket while others come and go.
const MISSING_SAMPLES: u64 = 2;

/// The silences of all connections, from samples at several times.
#[derive(Debug)]
pub(super) struct Observation {
    capacity: usize,
    /// Number of samples begun.
    samples: u64,
    connections: HashMap<FlowKey, ObservedConnection>,
    /// Number of connections that ended.
    ended: u64,
    /// Number of connections in the last sample for which there was no room.
    left_out: u64,
}

/// The counts of an observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ObservationCounts {
    /// Number of samples.
    pub samples: u64,
    /// Number of connections that ended while they were observed.
    pub ended: u64,
    /// Number of connections for which there was no room.
    pub left_out: u64,
}

#[derive(Debug)]
struct ObservedConnection {
    inode: Option<u64>,
    /// The last sample that shows it.
    sample: u64,
    silences: ConnectionSilences,
}

impl Observation {
    /// Makes an observation of at most `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            samples: 0,
            connections: HashMap::new(),
            ended: 0,
            left_out: 0,
        }
    }

    /// Begins a sample. Forgets the connections that have ended.
    pub(super) fn begin_sample(&mut self) {
        self.forget(MISSING_SAMPLES);
        self.samples += 1;
        self.left_out = 0;
    }

    /// Adds a connection to the sample.
    pub(super) fn add(&mut self, row: &Row) {
        let (key, now_ms) = (FlowKey::from(&row.endpoints), row.mono_ns / 1_000_000);
        let inode = row.identity.inode;
        let is_full = self.connections.len() >= self.capacity;
        match self.connections.get_mut(&key) {
            // A connection has no inode until it is accepted.
            Some(known) if known.inode.is_none() || known.inode == inode => {
                known.inode = inode;
                known.sample = self.samples;
                known.silences.add(now_ms, &row.ages);
            }
            None if is_full => self.left_out += 1,
            other => {
                // Another connection with the same endpoints.
                self.ended += u64::from(other.is_some());
                let first = ConnectionSilences::new(now_ms, &row.ages);
                if let Some(silences) = first {
                    self.connections.insert(
                        key,
                        ObservedConnection {
                            inode,
                            sample: self.samples,
                            silences,
                        },
                    );
                }
            }
        }
    }

    /// Ends the last sample: a connection that is not in it has ended.
    pub(super) fn end(&mut self) -> ObservationCounts {
        self.forget(0);
        ObservationCounts {
            samples: self.samples,
            ended: self.ended,
            left_out: self.left_out,
        }
    }

    /// Forgets the connections that are not in the last samples, except for so many.
    fn forget(&mut self, missing: u64) {
        let before = self.connections.len();
        let samples = self.samples;
        self.connections
            .retain(|_, it| samples.saturating_sub(it.sample) <= missing);
        self.ended += (before - self.connections.len()) as u64;
    }

    /// The silences of a connection. `None` if there was no room for it.
    pub(super) fn of(&self, row: &Row) -> Option<&ConnectionSilences> {
        let known = self.connections.get(&FlowKey::from(&row.endpoints))?;
        Some(&known.silences)
    }

    /// Number of samples begun.
    pub(super) const fn samples(&self) -> u64 {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::row::RowSource;
    use crate::model::socket::{Ages, Endpoints};
    use crate::model::values::State;
    use crate::sample::at;

    /// A connection in a sample: its local port, its inode, and the age of its traffic.
    type SampledConnection = (u16, Option<u64>, u64);

    fn row(at_ms: u64, (port, inode, age_ms): SampledConnection) -> Row {
        let [here, there] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        let ends = Endpoints::new((here, port), (there, 80), 7);
        let mut row = Row::new(at(at_ms), ends, State::Established, RowSource::IterTcp);
        row.identity.inode = inode;
        row.ages = Ages::new(age_ms, age_ms, age_ms);
        row
    }

    /// Observes these samples, taken every second.
    fn observe(
        capacity: usize,
        samples: &[&[SampledConnection]],
    ) -> (Observation, ObservationCounts) {
        let mut observation = Observation::new(capacity);
        for (second, sample) in samples.iter().enumerate() {
            observation.begin_sample();
            for it in *sample {
                observation.add(&row(second as u64 * 1_000, *it));
            }
        }
        let counts = observation.end();
        (observation, counts)
    }

    fn observed_ms(observation: &Observation, port: u16) -> Option<u64> {
        let silences = observation.of(&row(0, (port, None, 0)))?;
        silences.between_segments().observed_ms
    }

    #[test]
    fn connections_begin_and_end_while_others_are_observed() {
        let (stays, ends, begins) = (|age| (1, Some(1), age), (2, Some(2), 0), (3, Some(3), 0));
        let (observation, counts) = observe(
            9,
            &[
                &[stays(0), ends],
                &[stays(1_000), ends],
                &[stays(0), begins],
                &[stays(0), begins],
            ],
        );
        let times = [1, 2, 3].map(|port| observed_ms(&observation, port));
        assert_eq!(times, [Some(3_000), None, Some(1_000)]);
        assert_eq!((counts.samples, counts.ended), (4, 1));
    }

    #[test]
    fn a_sample_may_leave_a_connection_out() {
        let it = (1, Some(1), 500);
        let times = |samples: &[&[SampledConnection]]| observed_ms(&observe(9, samples).0, 1);
        assert_eq!(times(&[&[it], &[], &[it]]), Some(2_000));
        assert_eq!(times(&[&[it], &[], &[], &[it]]), Some(3_000));
        assert_eq!(times(&[&[it], &[], &[], &[], &[it]]), Some(0), "too long");
        assert_eq!(times(&[&[it], &[it], &[]]), None, "the last sample decides");
    }

    #[test]
    fn another_socket_with_the_same_endpoints_is_another_connection() {
        let (observation, _) = observe(9, &[&[(1, None, 0)], &[(1, Some(5), 0)]]);
        assert_eq!(observed_ms(&observation, 1), Some(1_000), "accepted");
        let (observation, counts) = observe(9, &[&[(1, Some(4), 0)], &[(1, Some(5), 0)]]);
        assert_eq!(observed_ms(&observation, 1), Some(0));
        assert_eq!(counts.ended, 1);
    }

    #[test]
    fn memory_is_bounded() {
        let all = [(1, Some(1), 0), (2, Some(2), 0), (3, Some(3), 0)];
        let (observation, counts) = observe(2, &[&all, &all]);
        assert_eq!(counts.left_out, 1);
        assert_eq!(observed_ms(&observation, 3), None);
        // The first has ended, so the last has room.
        let later = [all[1], all[2]];
        let (observation, counts) = observe(2, &[&all, &later, &later, &later, &later]);
        assert_eq!(counts.left_out, 0);
        assert!(observed_ms(&observation, 3).is_some());
    }
}
