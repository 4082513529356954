//! What is counted of the records of one series.

use std::collections::BTreeMap;

use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::values::{Cause, Confidence, Direction, State, VerdictName};

/// What one event of trouble weighs, beside an event of none, where series compete for room.
const TROUBLE: u64 = 64;

/// The upper ends of the classes of answer times, us. The last class has none.
pub const ANSWER_ENDS_US: [u64; 14] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// The counts of one series. None of them ever decreases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Keepalive probes that were sent.
    pub sent: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that had no answer when the next was sent, or when the kernel gave up.
    pub unanswered: u64,
    /// Connections that the kernel gave up, by cause.
    pub gave_up: [u64; 4],
    /// Resets, in the order of [`Reset`].
    pub resets: [u64; 3],
    /// Connections whose data stalled.
    pub stalls: u64,
    /// FINs after a time without data, in the order of [`Closer`].
    pub idle_closes: [u64; 2],
    /// The verdicts.
    pub verdicts: BTreeMap<(VerdictName, Confidence), u64>,
    /// How soon probes were answered.
    pub answers: AnswerTimes,
}

/// A histogram of answer times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerTimes {
    /// How many have each class.
    pub classes: [u64; ANSWER_ENDS_US.len() + 1],
    /// The sum of all, us.
    pub sum_us: u64,
    /// How many there are.
    pub count: u64,
}

/// Where a reset came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reset {
    /// The peer sent it.
    Received,
    /// This host sent it on its own initiative.
    SentActive,
    /// This host answered a segment with it.
    SentPassive,
}

impl Reset {
    /// All of them, in order, with the value of their label.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Received, "received"),
        (Self::SentActive, "sent_active"),
        (Self::SentPassive, "sent_passive"),
    ];

    /// The reset that a record reports.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        match (record.event, record.direction) {
            (EventName::RstReceived, _) => Some(Self::Received),
            (EventName::RstSent, Some(Direction::Passive)) => Some(Self::SentPassive),
            (EventName::RstSent, _) => Some(Self::SentActive),
            _ => None,
        }
    }
}

/// Which end closed a connection, as label values in the order of their counts.
pub const CLOSERS: [&str; 2] = ["peer", "local"];

impl SeriesCounts {
    /// Counts a record. Returns what it weighs.
    pub fn count(&mut self, record: &Record) -> u64 {
        let mut weight = 1;
        match record.event {
            EventName::Probe => {
                self.sent += 1;
                // An answer would have begun to count anew.
                let is_repeated = record.probe > Some(1);
                self.unanswered += u64::from(is_repeated);
                weight = if is_repeated { TROUBLE } else { 1 };
            }
            EventName::Answered => self.answer(record),
            EventName::Timeout => {
                let by_probes =
                    matches!(record.cause, Some(Cause::ProbeCount | Cause::UserTimeout));
                self.unanswered += u64::from(by_probes && record.probes_out > Some(0));
                if let Some(cause) = record.cause {
                    self.gave_up[place(Cause::ALL, cause)] += 1;
                }
                weight = TROUBLE;
            }
            EventName::Stalled => {
                self.stalls += 1;
                weight = TROUBLE;
            }
            // A FIN that answers another closes nothing that is open in both directions.
            EventName::FinReceived if is_open(record) => self.idle_closes[0] += 1,
            EventName::FinSent if is_open(record) => self.idle_closes[1] += 1,
            _ => {}
        }
        if let Some(reset) = Reset::of(record) {
            self.resets[reset as usize] += 1;
            weight = TROUBLE;
        }
        if let Some(verdict) = record.verdict {
            let confidence = record.confidence.unwrap_or_default();
            *self.verdicts.entry((verdict, confidence)).or_default() += 1;
            weight = TROUBLE;
        }
        weight
    }

    fn answer(&mut self, record: &Record) {
        self.answered += 1;
        let after_us = record.answered_after_ms.map(|ms| ms.saturating_mul(1_000));
        if let Some(us) = record.rtt_us.or(after_us) {
            self.answers.add(us);
        }
    }
}

impl AnswerTimes {
    fn add(&mut self, us: u64) {
        self.classes[ANSWER_ENDS_US.partition_point(|&end| end < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.count += 1;
    }
}

/// Whether neither end had sent a FIN before.
fn is_open(record: &Record) -> bool {
    record.state == Some(State::Established)
}

/// The place of a value among all of its kind.
fn place<T: PartialEq>(all: &[T], value: T) -> usize {
    all.iter().position(|it| *it == value).unwrap_or_default()
}
