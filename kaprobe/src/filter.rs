//! Keeps the records that were asked for, numbers them, and counts what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use crate::escape::Escaped;
use crate::event::Hook;
use crate::record::{EventName, Record};

/// Which records to keep: those that pass every filter that is set. An empty set of
/// pids or commands is not set; `lost` passes them all, and `events` too: a gap is
/// never hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Events to keep.
    pub events: BTreeSet<EventName>,
    /// Processes to keep.
    pub pids: BTreeSet<u32>,
    /// Commands to keep, 15 bytes at most, escaped.
    pub comms: BTreeSet<Escaped>,
    /// How many records to keep before the end.
    pub count: Option<NonZeroU64>,
}

impl RecordFilter {
    fn keeps(&self, record: &Record) -> bool {
        record.event == EventName::Lost
            || self.events.contains(&record.event)
                && passes(&self.pids, record.pid.as_ref())
                && passes(&self.comms, record.comm.as_ref())
    }
}

fn passes<T: Ord>(wanted: &BTreeSet<T>, value: Option<&T>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
}

/// Applies a [`RecordFilter`] to a stream of records.
#[derive(Debug)]
pub struct Filter {
    keep: RecordFilter,
    counts: Counts,
}

/// What a [`Filter`] let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records, all told.
    pub records: u64,
    /// Records by event.
    pub events: BTreeMap<EventName, u64>,
    /// Events lost, by hook.
    pub lost: BTreeMap<Hook, u64>,
}

impl Filter {
    /// A filter at the start of its stream.
    #[must_use]
    pub fn new(keep: RecordFilter) -> Self {
        Self {
            keep,
            counts: Counts::default(),
        }
    }

    /// The record with its number, if it is to be shown.
    pub fn pass(&mut self, mut record: Record) -> Option<Record> {
        if self.is_done() || !self.keep.keeps(&record) {
            return None;
        }
        self.counts.records += 1;
        record.seq = self.counts.records;
        *self.counts.events.entry(record.event).or_default() += 1;
        if let (Some(hook), Some(lost)) = (record.hook, record.lost) {
            let sum = self.counts.lost.entry(hook).or_default();
            *sum = sum.saturating_add(lost);
        }
        Some(record)
    }

    /// Whether as many records as were asked for have passed; no more will.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.keep
            .count
            .is_some_and(|count| self.counts.records >= count.get())
    }

    /// What has passed.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::WallTime;

    fn record(event: EventName, pid: Option<u32>, comm: Option<&str>) -> Record {
        let mut record = Record::new(WallTime(0), 0, 0, event);
        record.pid = pid;
        record.comm = comm.map(Escaped::from);
        record
    }

    #[test]
    fn filters_of_one_kind_add_up_and_of_different_kinds_combine() {
        use EventName::{Lost, Probe, Timeout};
        let keep = RecordFilter {
            events: [Probe].into(),
            pids: [7, 8].into(),
            comms: [Escaped::from("nginx")].into(),
            count: None,
        };
        for (record, kept) in [
            (record(Probe, Some(7), Some("nginx")), true),
            (record(Probe, Some(8), Some("nginx")), true),
            (record(Probe, Some(9), Some("nginx")), false),
            (record(Probe, Some(7), Some("nginx2")), false),
            (record(Timeout, Some(7), Some("nginx")), false),
            (record(Probe, None, None), false),
            (record(Lost, None, None), true),
        ] {
            assert_eq!(
                Filter::new(keep.clone()).pass(record.clone()).is_some(),
                kept,
                "{record:?}"
            );
        }
    }

    #[test]
    fn what_passes_is_numbered_counted_and_limited() {
        let keep = RecordFilter {
            events: [EventName::Probe].into(),
            count: NonZeroU64::new(3),
            ..RecordFilter::default()
        };
        let mut filter = Filter::new(keep);
        let mut lost = record(EventName::Lost, None, None);
        (lost.hook, lost.lost) = (Some(Hook::KeepaliveTimer), Some(5));
        let probe = || record(EventName::Probe, Some(1), None);
        let early = record(EventName::Early, Some(1), None);
        let stream = [probe(), early, lost, probe(), probe()];
        let numbers: Vec<_> = stream
            .into_iter()
            .map(|it| filter.pass(it).map(|it| it.seq))
            .collect();
        assert_eq!(numbers, [Some(1), None, Some(2), Some(3), None]);
        assert!(filter.is_done());
        let events = [(EventName::Probe, 2), (EventName::Lost, 1)].into();
        let lost = [(Hook::KeepaliveTimer, 5)].into();
        assert_eq!(
            *filter.counts(),
            Counts {
                records: 3,
                events,
                lost
            }
        );
    }
}
