//! A bounded table of series: those that have most to count, and one that all others share.
//!
//! An event is counted once, when it happens: in a series of its own, or in the one that is
//! shared. What was counted never moves from one to the other, so no count ever decreases or
//! jumps. A series that has had little to count for a while makes room for one that has more:
//! it is shown no longer, and if it comes back, it begins at zero, which a reader of counters
//! takes for a restart.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::lru::LruMap;
use crate::metrics::counts::SeriesCounts;
use crate::metrics::key::SeriesKey;
use crate::model::record::Record;

/// Most series without room whose weight is known.
const MAX_CANDIDATES: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// How many times as much a series must weigh to take the room of another. Two that weigh much
/// the same do not take turns.
const FACTOR: u64 = 2;

/// The series, and those that wait for room.
#[derive(Debug)]
pub(super) struct SeriesTable {
    most: usize,
    slots: HashMap<Arc<SeriesKey>, Slot>,
    other: Arc<SeriesCounts>,
    /// What those weigh that have no room.
    candidates: LruMap<Arc<SeriesKey>, u64>,
    /// How many made room.
    dropped: u64,
}

/// A series with room of its own.
#[derive(Debug, Default)]
struct Slot {
    /// Shared with the last snapshot, and cloned for the first event after it.
    counts: Arc<SeriesCounts>,
    /// What its events weigh. The past weighs less with each round.
    weight: u64,
}

impl SeriesTable {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            slots: HashMap::new(),
            other: Arc::default(),
            candidates: LruMap::with_capacity(MAX_CANDIDATES),
            dropped: 0,
        }
    }

    /// A key that all connections of a series share, so that it is compared by its address.
    pub(super) fn shared(&self, key: SeriesKey) -> Arc<SeriesKey> {
        let known = self.slots.get_key_value(&key);
        known.map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known))
    }

    /// Counts a record of a series.
    pub(super) fn count(&mut self, key: &Arc<SeriesKey>, record: &Record) {
        let has_room = self.slots.len() < self.most;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.count(record);
        } else if has_room {
            self.slots.entry(Arc::clone(key)).or_default().count(record);
        } else {
            let weight = Arc::make_mut(&mut self.other).count(record);
            let known = self.candidates.get_or_insert_with(Arc::clone(key), || 0);
            *known = known.saturating_add(weight);
        }
    }

    /// Counts a record that belongs to no series.
    pub(super) fn count_other(&mut self, record: &Record) {
        Arc::make_mut(&mut self.other).count(record);
    }

    /// Gives the room of the series that weigh least to those that weigh more, and ends the
    /// round. Call it at regular times.
    pub(super) fn end_round(&mut self) {
        let mut heavy: Vec<_> = self.candidates.iter().collect();
        heavy.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        heavy.truncate(self.slots.len());
        let heavy: Vec<_> = heavy
            .into_iter()
            .map(|(key, weight)| (Arc::clone(key), *weight))
            .collect();
        let mut light: Vec<_> = self.slots.iter().collect();
        light.sort_by(|a, b| (a.1.weight, &a.0).cmp(&(b.1.weight, &b.0)));
        let light: Vec<_> = light
            .into_iter()
            .map(|(key, slot)| (Arc::clone(key), slot.weight))
            .collect();
        for ((old, old_weight), (new, weight)) in light.into_iter().zip(heavy) {
            if weight <= old_weight.saturating_mul(FACTOR) {
                break;
            }
            self.slots.remove(&old);
            self.candidates.remove(&new);
            let counts = Arc::default();
            self.slots.insert(new, Slot { counts, weight });
            self.dropped += 1;
        }
        self.forget();
    }

    /// Halves all weights, and forgets who weighs nothing.
    fn forget(&mut self) {
        for slot in self.slots.values_mut() {
            slot.weight /= 2;
        }
        let mut weightless = Vec::new();
        for (key, weight) in self.candidates.iter_mut() {
            *weight /= 2;
            if *weight == 0 {
                weightless.push(Arc::clone(key));
            }
        }
        for key in weightless {
            self.candidates.remove(&key);
        }
    }

    /// Allows so many series. If there are more, those that weigh least are dropped.
    pub(super) fn allow(&mut self, most: usize) {
        self.most = most;
        let mut all: Vec<_> = self.slots.iter().collect();
        all.sort_by(|a, b| (b.1.weight, &a.0).cmp(&(a.1.weight, &b.0)));
        let surplus = all.into_iter().skip(most);
        let surplus: Vec<_> = surplus.map(|(key, _)| Arc::clone(key)).collect();
        for key in surplus {
            self.slots.remove(&key);
            self.dropped += 1;
        }
    }

    /// All series.
    pub(super) fn all(&self) -> Vec<(Arc<SeriesKey>, Arc<SeriesCounts>)> {
        let each = self.slots.iter();
        each.map(|(key, slot)| (Arc::clone(key), Arc::clone(&slot.counts)))
            .collect()
    }

    /// The keys of all series.
    pub(super) fn keys(&self) -> impl Iterator<Item = &SeriesKey> {
        self.slots.keys().map(|key| &**key)
    }

    /// What the others share.
    pub(super) fn other(&self) -> Arc<SeriesCounts> {
        Arc::clone(&self.other)
    }

    /// How many series made room.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Slot {
    fn count(&mut self, record: &Record) {
        let weight = Arc::make_mut(&mut self.counts).count(record);
        self.weight = self.weight.saturating_add(weight);
    }
}
