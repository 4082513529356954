//! Joins the two ends of a connection: a received reset with the record of the end that
//! sent it, on this host or in the log of another.

use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::flow::Flow;
use crate::model::record::Record;
use crate::verdict::finding::{Finding, OtherEnd};

/// The maximum number of resets kept. A reset arrives soon after it was sent.
const MAX_RESETS: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");

/// The longest time from a reset to its arrival, ns. Long enough for a busy host or for
/// clocks that differ, and too short for the ports to be used again.
const MAX_TRANSIT_NS: u64 = 5_000_000_000;

/// The resets that the ends of connections sent, in all sources of records.
#[derive(Debug)]
pub struct AllSentResets(LruMap<Flow, SentReset>);

/// A trace: the number of its source, and its number in that source.
type TraceId = (usize, u64);

#[derive(Debug)]
struct SentReset {
    trace: TraceId,
    mono_ns: u64,
    wall_ns: i64,
    by: OtherEnd,
}

impl Default for AllSentResets {
    fn default() -> Self {
        Self(LruMap::with_capacity(MAX_RESETS))
    }
}

impl AllSentResets {
    /// The resets as a trace sees them.
    pub const fn of_trace(&mut self, trace: TraceId) -> SentResets<'_> {
        SentResets { all: self, trace }
    }
}

/// The resets that the ends of connections sent, as one trace sees them.
#[derive(Debug)]
pub struct SentResets<'a> {
    all: &'a mut AllSentResets,
    trace: TraceId,
}

impl SentResets<'_> {
    /// Keeps the reset of a record, for the verdict on the other end.
    pub(super) fn note(&mut self, record: &Record, finding: &Finding) {
        let (Some(endpoints), Some(by)) = (record.endpoints, OtherEnd::of(record, finding)) else {
            return;
        };
        let reset = SentReset {
            trace: self.trace,
            mono_ns: record.mono_ns,
            wall_ns: record.time.0,
            by,
        };
        let flow = Flow::canonical(endpoints.local(), endpoints.remote());
        self.all.0.push(flow, reset);
    }

    /// Takes the reset whose arrival this record reports.
    pub(super) fn take(&mut self, record: &Record) -> Option<OtherEnd> {
        let endpoints = record.endpoints?;
        let flow = Flow::canonical(endpoints.remote(), endpoints.local());
        let reset = self.all.0.remove(&flow)?;
        let is_same_trace = reset.trace == self.trace;
        // An earlier trace of the same source has another clock and other sockets.
        if !is_same_trace && reset.trace.0 == self.trace.0 {
            return None;
        }
        let transit_ns = if is_same_trace {
            record.mono_ns.saturating_sub(reset.mono_ns)
        } else {
            record.time.0.abs_diff(reset.wall_ns)
        };
        (transit_ns <= MAX_TRANSIT_NS).then_some(reset.by)
    }
}
