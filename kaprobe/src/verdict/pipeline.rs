//! The pipeline between the correlator, or logs, and the sinks: filters, numbers, judges.
//!
//! Verdicts are made from the numbered records, so that a log gives the same again when
//! it is read. A record that only its event's name kept out is judged too, and has no
//! number to be named by; records of other sockets are not.

use crate::filter::{Counts, Filter};
use crate::model::record::{EventName, Record};
use crate::model::values::Evidence;
use crate::verdict::judge::{EVIDENCE, Judge};

/// Takes records to one filter, and each to the judge of its source.
#[derive(Debug)]
pub struct Pipeline {
    filter: Filter,
    sources: Vec<Source>,
}

/// A stream of records of one host.
#[derive(Debug, Default)]
struct Source {
    /// Makes verdicts; `None` takes those of the stream.
    judge: Option<Judge>,
    /// Records have other numbers here than in their stream.
    renumbered: bool,
}

impl Pipeline {
    /// A pipeline of one source.
    #[must_use]
    pub fn new(filter: Filter, judge: Judge) -> Self {
        let mut pipeline = Self::of(filter, 1);
        pipeline.set_judge(0, Some(judge));
        pipeline
    }

    /// A pipeline of several sources, none with a judge yet.
    #[must_use]
    pub fn of(filter: Filter, sources: usize) -> Self {
        Self {
            filter,
            sources: (0..sources).map(|_| Source::default()).collect(),
        }
    }

    /// Sets what judges a source from here on: `None` takes the verdicts of its records.
    pub fn set_judge(&mut self, source: usize, judge: Option<Judge>) {
        self.sources[source].judge = judge;
    }

    /// The judge of a source.
    #[must_use]
    pub fn judge(&self, source: usize) -> Option<&Judge> {
        self.sources[source].judge.as_ref()
    }

    /// Whether as many records as were asked for have passed; no more will.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.filter.is_done()
    }

    /// What has passed.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.filter.counts()
    }

    /// Takes the next record of a source; shows it where it is asked for, and then what
    /// follows from it. A judged source's own verdicts are left out: they are made anew,
    /// as their evidence has other numbers here.
    pub fn push(&mut self, source: usize, record: &mut Record, mut show: impl FnMut(&mut Record)) {
        let Self { filter, sources } = self;
        let source = &mut sources[source];
        let Some(judge) = &mut source.judge else {
            if source.pass(filter, record) {
                show(record);
            }
            return;
        };
        if record.event == EventName::Verdict || filter.is_done() {
            return;
        }
        let verdict = if filter.asks_for(record.event) {
            if !filter.pass(record) {
                return;
            }
            let verdict = judge.push(record);
            show(record);
            verdict
        } else if EVIDENCE.contains(&record.event) && filter.concerns(record) {
            judge.push(record)
        } else {
            None
        };
        if let Some(mut verdict) = verdict
            && filter.pass(&mut verdict)
        {
            show(&mut verdict);
        }
    }
}

impl Source {
    /// Whether a record is shown as its stream has it; then it has its number.
    fn pass(&mut self, filter: &mut Filter, record: &mut Record) -> bool {
        let number = record.seq;
        if !filter.pass(record) {
            return false;
        }
        self.renumbered |= record.seq != number;
        if self.renumbered && record.evidence.is_some() {
            // The numbers of other records now.
            record.evidence = Some(Evidence(Vec::new()));
        }
        true
    }
}
