//! Reads logs for what they show of idle timeouts.

use std::mem;

use anyhow::{Context as _, Result};

use crate::correlate::MAX_SOCKETS;
use crate::replay::input::Input;
use crate::replay::{Item, Log};
use crate::stderr;
use crate::timeout::estimate::TimeoutEstimator;
use crate::verdict::judge::Judge;

/// Reads what each trace in these logs shows. A line that is not a record is reported on
/// standard error, and skipped.
///
/// # Errors
/// When a log can't be read.
pub fn read(logs: &[Input]) -> Result<Vec<TimeoutEstimator>> {
    let mut learned = Vec::new();
    for log in logs {
        let name = log.name();
        let mut log = Log::new(log.open()?);
        let mut judge = Judge::new(MAX_SOCKETS, &[]);
        let mut tell = |remark| stderr::line(format_args!("{name}:{remark}"));
        loop {
            let next = log.next(&mut tell);
            match next.with_context(|| format!("cannot read {name}"))? {
                Some(Item::Record(record)) => drop(judge.push(&record)),
                // Another trace: its sockets and its clock are others.
                Some(Item::Header(_)) => {
                    let new = Judge::new(MAX_SOCKETS, &[]);
                    learned.push(mem::replace(&mut judge, new).into_estimator());
                }
                None => break,
            }
        }
        learned.push(judge.into_estimator());
    }
    Ok(learned)
}
