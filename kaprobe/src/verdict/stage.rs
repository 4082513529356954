//! The stage between the correlator and the sinks: filters, numbers and judges.
//!
//! Verdicts are made of the numbered records, so that a log gives the same again when
//! it is read. What was only left out by its name is judged too, and has no number to
//! be named by; what is of other sockets is not.

use super::{EVIDENCE, Judge};
use crate::filter::{Counts, Filter};
use crate::record::{EventName, Record};

/// See the module.
#[derive(Debug)]
pub struct Stage {
    filter: Filter,
    judge: Judge,
}

impl Stage {
    /// A stage at the start of its stream.
    #[must_use]
    pub const fn new(filter: Filter, judge: Judge) -> Self {
        Self { filter, judge }
    }

    /// Takes a record of the correlator, or of a log; shows it where it is asked for,
    /// and what follows from it. Verdicts of a log are made anew, not taken.
    pub fn push(&mut self, record: Record, mut show: impl FnMut(Record)) {
        if record.event == EventName::Verdict || self.filter.is_done() {
            return;
        }
        let verdict = if self.filter.asks_for(record.event) {
            let Some(record) = self.filter.pass(record) else {
                return;
            };
            let verdict = self.judge.push(&record);
            show(record);
            verdict
        } else if EVIDENCE.contains(&record.event) && self.filter.concerns(&record) {
            self.judge.push(&record)
        } else {
            None
        };
        if let Some(verdict) = verdict.and_then(|verdict| self.filter.pass(verdict)) {
            show(verdict);
        }
    }

    /// Whether as many records as were asked for were shown; no more will be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.filter.is_done()
    }

    /// What was shown.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.filter.counts()
    }

    /// What was learned on the way.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        &self.judge
    }
}
