//! Puts the sender's record of a reset or FIN before the record of its arrival, though the
//! clocks of hosts differ.
//!
//! Logs are merged by their wall clocks. Where one would arrive before another host sent it,
//! the items of the sender's log up to that record go ahead. The order within each log
//! stays.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::flow::Flow;
use crate::model::record::EventName;
use crate::replay::line::Item;

/// How much later, by its own clock, a host may have sent a reset than another received it,
/// ns. Clocks that are kept by NTP differ by milliseconds. Ports are seldom used again so
/// soon.
const MAX_LATE_NS: i64 = 1_000_000_000;

/// How much earlier it may have sent it, ns: clocks that differ, and the time on the way.
const MAX_EARLY_NS: i64 = 5_000_000_000;

/// Most items that are read ahead.
const MAX_AHEAD: usize = 16_384;

/// Most sent resets and FINs that are remembered until they arrive.
const MAX_SENT: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");

/// Merged items that are read ahead, each with the index of its log.
#[derive(Debug)]
pub(super) struct SenderFirst<E> {
    ahead: VecDeque<(usize, Item)>,
    /// How many of them are in their final order.
    settled: usize,
    /// What ended the reading.
    ended: Option<Option<E>>,
    /// When each was last sent, ns, wall clock.
    sent: LruMap<Sent, i64>,
}

impl<E> SenderFirst<E> {
    pub(super) fn new() -> Self {
        Self {
            ahead: VecDeque::new(),
            settled: 0,
            ended: None,
            sent: LruMap::with_capacity(MAX_SENT),
        }
    }

    /// True if an item is read already.
    pub(super) fn has_next(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The next item. `read` gives the items in the order of their times.
    ///
    /// # Errors
    /// The error of `read`, after all items that came before it.
    pub(super) fn next(
        &mut self,
        read: &mut dyn FnMut() -> Result<Option<(usize, Item)>, E>,
    ) -> Result<Option<(usize, Item)>, E> {
        if self.settled == 0 && self.fill(1, read) {
            self.settle(read);
        }
        let Some((from, item)) = self.ahead.pop_front() else {
            return match self.ended.take() {
                Some(Some(why)) => Err(why),
                _ => Ok(None),
            };
        };
        self.settled = self.settled.saturating_sub(1);
        if let Some((time, sent)) = sent(&item) {
            self.sent.push(sent, time);
        }
        Ok(Some((from, item)))
    }

    /// Decides what comes next: the first item, or items of the log that sent what it
    /// reports.
    fn settle(&mut self, read: &mut dyn FnMut() -> Result<Option<(usize, Item)>, E>) {
        self.settled = 1;
        let Some((from, item)) = self.ahead.front() else {
            return;
        };
        let (from, arrival) = (*from, arrival(item));
        let Some((arrived, sent)) = arrival else {
            return;
        };
        let is_its_own = |time: i64| arrived.saturating_sub(time) <= MAX_EARLY_NS;
        if self.sent.remove(&sent).is_some_and(is_its_own) {
            return;
        }
        if let Some(at) = self.sender(from, arrived, &sent, read) {
            self.move_ahead(at);
        }
    }

    /// Where among the items ahead another log has the sender.
    fn sender(
        &mut self,
        from: usize,
        arrived: i64,
        what: &Sent,
        read: &mut dyn FnMut() -> Result<Option<(usize, Item)>, E>,
    ) -> Option<usize> {
        let mut at = 1;
        while at < MAX_AHEAD && self.fill(at + 1, read) {
            let (log, item) = self.ahead.get(at)?;
            if let Item::Record(record) = item
                && record.time.0 > arrived.saturating_add(MAX_LATE_NS)
            {
                return None;
            }
            let is_sender = sent(item).is_some_and(|(_, it)| it == *what);
            if is_sender && *log != from {
                // Another trace has other connections.
                let begins = |(of, it): &(usize, Item)| {
                    of == log && matches!(it, Item::Header(_) | Item::Trailer(_))
                };
                return (!self.ahead.range(..at).any(begins)).then_some(at);
            }
            at += 1;
        }
        None
    }

    /// Moves the items of the log that has the item `at`, up to that item, to the front. The
    /// first item follows them.
    fn move_ahead(&mut self, at: usize) {
        let sender = self.ahead.get(at).map(|(log, _)| *log);
        let tail = self.ahead.split_off(at + 1);
        let (first, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.ahead)
            .into_iter()
            .partition(|(log, _)| Some(*log) == sender);
        self.settled = first.len();
        self.ahead = first;
        self.ahead.extend(rest);
        self.ahead.extend(tail);
    }

    /// Reads ahead until there are `count` items. False if there are fewer.
    fn fill(
        &mut self,
        count: usize,
        read: &mut dyn FnMut() -> Result<Option<(usize, Item)>, E>,
    ) -> bool {
        while self.ahead.len() < count && self.ended.is_none() {
            match read() {
                Ok(Some(next)) => self.ahead.push_back(next),
                Ok(None) => self.ended = Some(None),
                Err(why) => self.ended = Some(Some(why)),
            }
        }
        self.ahead.len() >= count
    }
}

/// The event that reports a reset or FIN where it is sent, and the flow from the sender.
type Sent = (EventName, Flow);

/// When an item reports that a reset or FIN is sent, and which.
fn sent(item: &Item) -> Option<(i64, Sent)> {
    match item {
        Item::Record(record) => match record.event {
            EventName::RstSent | EventName::FinSent => {
                Some((record.time.0, (record.event, record.endpoints?.flow())))
            }
            _ => None,
        },
        _ => None,
    }
}

/// When an item reports that a reset or FIN arrived, and which.
fn arrival(item: &Item) -> Option<(i64, Sent)> {
    let Item::Record(record) = item else {
        return None;
    };
    let sent = match record.event {
        EventName::RstReceived => EventName::RstSent,
        EventName::FinReceived => EventName::FinSent,
        _ => return None,
    };
    Some((record.time.0, (sent, record.endpoints?.flow().reversed())))
}
