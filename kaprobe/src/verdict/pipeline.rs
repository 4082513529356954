//! Filters, numbers and judges records on their way from the correlator or logs to sinks.
//!
//! Verdicts are made from numbered records, so a replayed log gives the same verdicts. A
//! record that is left out only because of its event name is judged too, but has no
//! number. A record of another socket is not judged.

use crate::filter::{Filter, FilterCounts};
use crate::model::host_timeout::NetnsTimeouts;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;
use crate::model::values::Evidence;
use crate::verdict::judge::{Judge, is_judged};
use crate::verdict::sent_resets::AllSentResets;

/// Passes records through one filter, and through the judge of their source.
#[derive(Debug)]
pub struct Pipeline {
    filter: Filter,
    sources: Vec<RecordStream>,
    resets: AllSentResets,
}

/// A stream of records from one host.
#[derive(Debug, Default)]
struct RecordStream {
    /// The judge that makes verdicts. With `None`, the verdicts of the stream are kept.
    judge: Option<Judge>,
    /// The number of the current trace of the source.
    trace: u64,
    /// True once a record has another number in the output than in its stream.
    renumbered: bool,
}

impl Pipeline {
    /// A pipeline with one source.
    #[must_use]
    pub fn new(filter: Filter, judge: Judge) -> Self {
        let mut pipeline = Self::of(filter, 1);
        pipeline.set_judge(0, Some(judge));
        pipeline
    }

    /// A pipeline with several sources, all without a judge.
    #[must_use]
    pub fn of(filter: Filter, sources: usize) -> Self {
        Self {
            filter,
            sources: (0..sources).map(|_| RecordStream::default()).collect(),
            resets: AllSentResets::new(sources),
        }
    }

    /// Begins a trace of a source, with a judge of its own. With `None`, its own verdicts are
    /// kept.
    pub fn set_judge(&mut self, source: usize, judge: Option<Judge>) {
        self.sources[source].judge = judge;
        self.sources[source].trace += 1;
    }

    /// Applies a change of the idle timeouts that the host of a source applies.
    pub fn apply(&mut self, source: usize, change: &[NetnsTimeouts]) {
        if let Some(judge) = &mut self.sources[source].judge {
            judge.apply(change);
        }
    }

    /// Notes that an unknown number of records of a source is missing before the next one.
    pub fn lose(&mut self, source: usize) {
        if let Some(judge) = &mut self.sources[source].judge {
            judge.lose();
        }
    }

    /// The judge of a source.
    #[must_use]
    pub fn judge(&self, source: usize) -> Option<&Judge> {
        self.sources[source].judge.as_ref()
    }

    /// True once the requested number of records has passed; no more will pass.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.filter.is_done()
    }

    /// Whether records of a socket pass every filter except the event filter.
    #[must_use]
    pub fn passes_socket(&self, row: &Row) -> bool {
        self.filter.passes_other_filters(&Record {
            process: row.process.clone(),
            endpoints: Some(row.endpoints),
            netns_name: row.netns_name.clone(),
            ..Record::default()
        })
    }

    /// How many probes have no answer, or none yet. `None` if the filter leaves out probes or
    /// answers.
    #[must_use]
    pub fn unanswered(&self) -> Option<u64> {
        let [sent, answered] = [EventName::Probe, EventName::Answered]
            .map(|event| self.filter.passes_event(event).then(|| self.count(event)));
        sent?.checked_sub(answered?)
    }

    /// The number of records of an event that passed.
    #[must_use]
    pub fn count(&self, event: EventName) -> u64 {
        self.filter.count(event)
    }

    /// The counts of the records that passed.
    #[must_use]
    pub fn counts(&self) -> FilterCounts {
        self.filter.counts()
    }

    /// Takes the next record of a source. Shows the record if the filter passes it, then
    /// the verdict that follows from it. If the source has a judge, its own verdicts are
    /// dropped and made again, because their evidence has other numbers here.
    pub fn push(&mut self, source: usize, record: &mut Record, mut show: impl FnMut(&mut Record)) {
        let Self {
            filter,
            sources,
            resets,
        } = self;
        let number = source;
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
        let mut resets = resets.of_trace((number, source.trace));
        let verdict = if filter.passes_event(record.event) {
            if !filter.pass(record) {
                return;
            }
            let verdict = judge.push(record, &mut resets);
            show(record);
            verdict
        } else if is_judged(record.event) && filter.passes_other_filters(record) {
            judge.push(record, &mut resets)
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

impl RecordStream {
    /// Filters and numbers a record of a stream without a judge. True if it is shown.
    fn pass(&mut self, filter: &mut Filter, record: &mut Record) -> bool {
        let number = record.seq;
        if !filter.pass(record) {
            return false;
        }
        self.renumbered |= record.seq != number;
        if self.renumbered && record.evidence.is_some() {
            // These numbers now belong to other records.
            record.evidence = Some(Evidence(Vec::new()));
        }
        true
    }
}
