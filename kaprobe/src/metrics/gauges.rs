//! What a snapshot of the sockets shows, for gauges.

use std::cmp::Reverse;

use crate::metrics::key::SeriesKey;
use crate::model::fate::Fate;
use crate::model::named::Named as _;
use crate::model::time::WallTime;

/// The connections that exist, by program and remote end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionGauges {
    /// When they were read.
    pub time: WallTime,
    /// The groups.
    pub groups: Vec<(SeriesKey, ConnectionSums)>,
    /// What all others share.
    pub other: ConnectionSums,
    /// An idle timeout is known, by which fates are judged.
    pub is_judged: bool,
}

/// Numbers of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionSums {
    /// With SO_KEEPALIVE on.
    pub keepalive_on: u64,
    /// With SO_KEEPALIVE off.
    pub keepalive_off: u64,
    /// Whose SO_KEEPALIVE can't be seen.
    pub keepalive_unknown: u64,
    /// With unanswered keepalive probes.
    pub unanswered: u64,
    /// By fate, in the order of the fates. Only of those that are judged.
    pub fates: [u64; Fate::ALL.len()],
}

impl ConnectionGauges {
    /// Keeps so many groups, the worst and then the largest. The others become one.
    pub fn keep(&mut self, most: usize) {
        self.join();
        let worth = |sums: &ConnectionSums| Reverse((sums.in_trouble(), sums.connections()));
        self.groups
            .sort_by(|a, b| (worth(&a.1), &a.0).cmp(&(worth(&b.1), &b.0)));
        for (_, sums) in self.groups.drain(most.min(self.groups.len())..) {
            self.other.add(&sums);
        }
    }

    /// Joins groups that differ by what is no label.
    fn join(&mut self) {
        self.groups.sort_by(|a, b| a.0.cmp(&b.0));
        self.groups.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1.add(&next.1);
            }
            is_same
        });
    }
}

impl ConnectionSums {
    fn connections(&self) -> u64 {
        self.keepalive_on + self.keepalive_off + self.keepalive_unknown
    }

    /// Dead, dying, or not protected.
    fn in_trouble(&self) -> u64 {
        let bad = [Fate::Dying, Fate::Zombie, Fate::Unprotected, Fate::AtRisk];
        bad.iter().map(|fate| self.fates[*fate as usize]).sum()
    }

    fn add(&mut self, other: &Self) {
        self.keepalive_on += other.keepalive_on;
        self.keepalive_off += other.keepalive_off;
        self.keepalive_unknown += other.keepalive_unknown;
        self.unanswered += other.unanswered;
        for (sum, count) in self.fates.iter_mut().zip(other.fates) {
            *sum += count;
        }
    }
}
