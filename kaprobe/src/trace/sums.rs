//! Sums the probes that peers answer, between the pipeline and a recorder.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::condense::Condenser;
use crate::model::record::Record;
use crate::model::time::Instant;
use crate::sink::{LiveSinks, SinkError};

/// Sums the probes that peers answer, and ends the sums in time.
pub(super) struct AliveSums {
    condenser: Condenser,
    interval_ns: u64,
    /// When all sums end, CLOCK_MONOTONIC ns.
    end_ns: u64,
}

impl AliveSums {
    /// Sums over this time, from `began_ns` on, CLOCK_MONOTONIC, for at most `max_sockets`
    /// connections at once.
    pub(super) fn new(interval: Duration, began_ns: u64, max_sockets: NonZeroUsize) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            condenser: Condenser::new(max_sockets),
            interval_ns,
            end_ns: began_ns.saturating_add(interval_ns),
        }
    }

    /// Passes a record on, unless it is summed.
    pub(super) fn record(
        &mut self,
        record: &mut Record,
        sinks: &mut LiveSinks,
    ) -> Result<(), SinkError> {
        put(sinks, |emit| self.condenser.push(record, emit))
    }

    /// Ends the sums if their time is over, and in a segment that ends. Call it between events
    /// and, without any, each second.
    pub(super) fn look(&mut self, now: Instant, sinks: &mut LiveSinks) -> Result<(), SinkError> {
        let is_over = now.mono_ns >= self.end_ns;
        let is_full = sinks.is_segment_full();
        if is_over || is_full {
            put(sinks, |emit| self.condenser.end_sums(now, emit))?;
        }
        if is_over {
            self.end_ns = now.mono_ns.saturating_add(self.interval_ns);
        }
        if is_full {
            sinks.end_segment();
        }
        Ok(())
    }

    /// Ends the sums at the end of the trace.
    pub(super) fn finish(&mut self, now: Instant, sinks: &mut LiveSinks) -> Result<(), SinkError> {
        put(sinks, |emit| self.condenser.finish(now, emit))
    }
}

/// Passes what is emitted to the sinks. Returns the first error.
fn put(
    sinks: &mut LiveSinks,
    emit: impl FnOnce(&mut dyn FnMut(&mut Record)),
) -> Result<(), SinkError> {
    let mut outcome = Ok(());
    emit(&mut |record| {
        if outcome.is_ok() {
            outcome = sinks.record(record);
            sinks.flush_if_full();
        }
    });
    outcome
}
