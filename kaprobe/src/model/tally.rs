//! Counts what a part of an output reports, to report it as lost if it was not written.

use crate::model::header::TimeoutsChange;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{Hook, LostWhy};

/// Counts of records, and of the events that `lost` records among them report. Changes of
/// the host's timeouts are kept: what follows is judged by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records by event, in the order of [`EventName::ALL`].
    events: [u64; EventName::ALL.len()],
    losses: Vec<Loss>,
    /// The number of the first record.
    first_seq: u64,
    /// The time of the last record.
    last: Option<Instant>,
    /// All changes of the host's idle timeouts, as one.
    timeouts: Option<Box<TimeoutsChange>>,
}

/// A number of lost events; `None` if it is not known, as with
/// [`LostWhy::SwitchedOff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    hook: Option<Hook>,
    kind: Option<EventName>,
    why: LostWhy,
    count: Option<u64>,
}

impl Tally {
    /// Counts a record.
    pub fn count(&mut self, record: &Record) {
        self.events[record.event as usize] += 1;
        if self.last.is_none() {
            self.first_seq = record.seq;
        }
        self.last = Some(Instant {
            mono_ns: record.mono_ns,
            wall_ns: record.time.0,
        });
        if let (EventName::Lost, Some(why)) = (record.event, record.lost_why) {
            self.lose(Loss {
                hook: record.hook,
                kind: record.lost_kind,
                why,
                count: record.lost,
            });
        }
    }

    /// Adds a change of the host's idle timeouts.
    pub fn change(&mut self, next: &TimeoutsChange) {
        let Some(change) = &mut self.timeouts else {
            self.timeouts = Some(Box::new(next.clone()));
            return;
        };
        (change.time, change.mono_ns) = (next.time, next.mono_ns);
        let changes_again = |netns| next.namespaces.iter().any(|it| it.netns == netns);
        change.namespaces.retain(|it| !changes_again(it.netns));
        change.namespaces.extend_from_slice(&next.namespaces);
    }

    /// All changes of the host's idle timeouts, as one.
    #[must_use]
    pub fn timeouts(&self) -> Option<&TimeoutsChange> {
        self.timeouts.as_deref()
    }

    /// Adds the counts of the records that follow.
    pub fn append(&mut self, next: &Self) {
        for (sum, count) in self.events.iter_mut().zip(next.events) {
            *sum += count;
        }
        next.losses.iter().for_each(|loss| self.lose(*loss));
        if self.last.is_none() {
            self.first_seq = next.first_seq;
        }
        self.last = next.last.or(self.last);
        next.timeouts.iter().for_each(|change| self.change(change));
    }

    /// Subtracts the counts of records that were counted here, and removed. Changes of
    /// timeouts stay.
    pub fn remove(&mut self, removed: &Self) {
        for (sum, count) in self.events.iter_mut().zip(removed.events) {
            *sum = sum.saturating_sub(count);
        }
        for loss in &removed.losses {
            if let Some(sum) = self.find(loss) {
                sum.count = sum.count.zip(loss.count).map(|(a, b)| a.saturating_sub(b));
            }
        }
        self.losses.retain(|loss| loss.count != Some(0));
    }

    fn lose(&mut self, loss: Loss) {
        match self.find(&loss) {
            Some(sum) => {
                sum.count = sum.count.zip(loss.count).map(|(a, b)| a.saturating_add(b));
            }
            None => self.losses.push(loss),
        }
    }

    fn find(&mut self, loss: &Loss) -> Option<&mut Loss> {
        let key = |it: &Loss| (it.hook, it.kind, it.why);
        self.losses.iter_mut().find(|it| key(it) == key(loss))
    }

    /// Total records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.events.iter().sum()
    }

    /// Whether there was neither a record nor a change of timeouts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && self.timeouts.is_none()
    }

    /// The time of the last record.
    #[must_use]
    pub fn last_time(&self) -> Option<WallTime> {
        self.last.map(|it| WallTime(it.wall_ns))
    }

    /// The number of records of each event that has any.
    pub fn events(&self) -> impl Iterator<Item = (EventName, u64)> {
        let events = EventName::ALL.iter().copied().zip(self.events);
        events.filter(|&(_, count)| count > 0)
    }

    /// The number of lost events for each reason, where it is known.
    pub fn losses(&self) -> impl Iterator<Item = (LostWhy, u64)> {
        let losses = self.losses.iter();
        losses.filter_map(|loss| Some((loss.why, loss.count?)))
    }

    /// The `lost` records that take the place of these records: one for each event, and
    /// the losses that were reported among them. They take their numbers from the records
    /// that they replace; there are no more of them than of those.
    #[must_use]
    pub fn as_lost(&self) -> Vec<Record> {
        let Some(at) = self.last else {
            return Vec::new();
        };
        let unwritten = self.events().filter(|&(event, _)| event != EventName::Lost);
        let unwritten = unwritten.map(|(event, count)| Loss {
            hook: None,
            kind: Some(event),
            why: LostWhy::Output,
            count: Some(count),
        });
        let losses = unwritten.chain(self.losses.iter().copied());
        let numbered = (self.first_seq..).zip(losses);
        numbered
            .map(|(seq, loss)| Record {
                seq,
                hook: loss.hook,
                lost_kind: loss.kind,
                lost_why: Some(loss.why),
                lost: loss.count,
                ..Record::new(at, EventName::Lost)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host_timeout::{HostTimeout, NetnsTimeouts};

    fn record(seq: u64, event: EventName) -> Record {
        let at = Instant {
            mono_ns: seq * 10,
            wall_ns: 7,
        };
        Record {
            seq,
            ..Record::new(at, event)
        }
    }

    fn lost(seq: u64, why: LostWhy, count: u64) -> Record {
        Record {
            hook: Some(Hook::KeepaliveTimer),
            lost_kind: Some(EventName::Probe),
            lost_why: Some(why),
            lost: Some(count),
            ..record(seq, EventName::Lost)
        }
    }

    fn tally(records: &[Record]) -> Tally {
        let mut tally = Tally::default();
        records.iter().for_each(|record| tally.count(record));
        tally
    }

    /// What a `lost` record says: number, hook, kind, reason, count.
    type Told = (u64, bool, Option<EventName>, Option<LostWhy>, Option<u64>);

    fn told(tally: &Tally) -> Vec<Told> {
        let lost = tally.as_lost();
        let lost = lost.into_iter();
        lost.map(|it| {
            (
                it.seq,
                it.hook.is_some(),
                it.lost_kind,
                it.lost_why,
                it.lost,
            )
        })
        .collect()
    }

    #[test]
    fn what_is_not_written_is_told_with_the_losses_in_it() {
        use EventName::{Closed, Probe};
        use LostWhy::{Output, RingBuffer};
        assert!(Tally::default().as_lost().is_empty());
        let mut all = tally(&[
            record(5, Probe),
            lost(6, RingBuffer, 12),
            record(7, Closed),
            record(8, Probe),
        ]);
        let expected = vec![
            (5, false, Some(Probe), Some(Output), Some(2)),
            (6, false, Some(Closed), Some(Output), Some(1)),
            (7, true, Some(Probe), Some(RingBuffer), Some(12)),
        ];
        assert_eq!(told(&all), expected);
        assert_eq!(all.as_lost()[0].mono_ns, 80, "the time of the last");

        // Lost once more, the same is told: nothing twice, nothing less.
        assert_eq!(told(&tally(&all.as_lost())), expected);

        let more = tally(&[record(9, Probe), lost(10, RingBuffer, 3)]);
        let before = all.clone();
        all.append(&more);
        assert_eq!((all.records(), all.last_time()), (6, Some(WallTime(7))));
        assert_eq!(told(&all)[0].4, Some(3));
        assert_eq!(told(&all)[2].4, Some(15));
        all.remove(&more);
        assert_eq!(all.losses().collect::<Vec<_>>(), [(RingBuffer, 12)]);
        assert_eq!(all.records(), before.records());
    }

    /// A loss of an unknown number of events is told again as such.
    #[test]
    fn an_unknown_number_stays_unknown() {
        let switched = Record {
            lost: None,
            ..lost(3, LostWhy::SwitchedOff, 0)
        };
        let mut all = tally(&[switched.clone(), lost(4, LostWhy::Missed, 2)]);
        all.append(&tally(&[switched]));
        let expected = [
            (
                3,
                true,
                Some(EventName::Probe),
                Some(LostWhy::SwitchedOff),
                None,
            ),
            (
                4,
                true,
                Some(EventName::Probe),
                Some(LostWhy::Missed),
                Some(2),
            ),
        ];
        assert_eq!(told(&all), expected);
        assert_eq!(all.losses().collect::<Vec<_>>(), [(LostWhy::Missed, 2)]);
    }

    /// A namespace with one timeout.
    fn netns((netns, seconds): (u32, u64)) -> NetnsTimeouts {
        let timeout = HostTimeout {
            netns,
            seconds,
            ..HostTimeout::default()
        };
        NetnsTimeouts {
            netns,
            timeouts: vec![timeout],
            routes: None,
        }
    }

    #[test]
    fn changes_of_timeouts_become_one() {
        let change = |mono_ns, all: &[(u32, u64)]| TimeoutsChange {
            mono_ns,
            namespaces: all.iter().copied().map(netns).collect(),
            ..TimeoutsChange::default()
        };
        let mut all = Tally::default();
        assert!(all.is_empty());
        all.change(&change(1, &[(1, 10), (2, 20)]));
        assert!(!all.is_empty());
        let mut next = Tally::default();
        next.change(&change(2, &[(2, 21), (3, 30)]));
        all.append(&next);
        all.remove(&next);
        let expected = change(2, &[(1, 10), (2, 21), (3, 30)]);
        assert_eq!(all.timeouts(), Some(&expected));
        assert_eq!((all.records(), all.as_lost().len()), (0, 0));
    }
}
