//! Learns idle timeouts from logs.

use std::mem;

use anyhow::{Context as _, Result};

use crate::correlate::MAX_SOCKETS;
use crate::model::host_timeout::HostTimeouts;
use crate::replay::input::Input;
use crate::replay::{Item, Log};
use crate::stderr;
use crate::timeout::estimate::TimeoutEstimator;
use crate::verdict::judge::Judge;
use crate::verdict::sent_resets::AllSentResets;

/// Learns the idle timeouts of each trace in these logs. A line that is not a record is
/// reported on stderr and skipped.
///
/// # Errors
/// If a log can't be read.
pub fn read(logs: &[Input]) -> Result<Vec<TimeoutEstimator>> {
    let mut learned = Vec::new();
    for log in logs {
        let name = log.name();
        let mut log = Log::new(log.open()?);
        let mut judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
        let mut resets = AllSentResets::default();
        let mut report = |remark| stderr::line(format_args!("{name}:{remark}"));
        loop {
            let next = log.next(&mut report);
            match next.with_context(|| format!("cannot read {name}"))? {
                Some(Item::Record(record)) => {
                    drop(judge.push(&record, &mut resets.of_trace((0, 0))))
                }
                // A new trace has other sockets and another clock.
                Some(Item::Header(_)) => {
                    let new = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
                    learned.push(mem::replace(&mut judge, new).into_estimator());
                }
                Some(Item::Timeouts(_)) => {}
                None => break,
            }
        }
        learned.push(judge.into_estimator());
    }
    Ok(learned)
}
