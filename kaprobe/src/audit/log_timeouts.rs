//! Learns idle timeouts from logs.

use anyhow::Result;

use crate::correlate::MAX_SOCKETS;
use crate::model::header::Header;
use crate::model::host_timeout::HostTimeouts;
use crate::replay::input::{self, Input, OpenLog};
use crate::replay::{Item, Log};
use crate::timeout::estimate::TimeoutEstimator;
use crate::verdict::judge::Judge;
use crate::verdict::sent_resets::AllSentResets;
use crate::{exit, stderr};

/// Most traces of all logs that are learned from. One takes about a megabyte at most.
const MAX_TRACES: usize = 256;

/// What logs show.
#[derive(Default)]
pub struct LogTimeouts {
    /// The idle timeouts of each trace.
    pub learned: Vec<TimeoutEstimator>,
    /// The number of lines that were skipped: neither a header nor a record.
    pub skipped: u64,
}

/// Learns the idle timeouts of each trace in these logs. A line that is not a record is
/// reported on stderr and skipped.
///
/// # Errors
/// If a log can't be read, is empty or is not a log: an audit without what it shows could
/// call a connection safe that is not.
pub fn read(logs: &[Input]) -> Result<LogTimeouts> {
    let mut all = LogTimeouts::default();
    for log in input::open(logs)? {
        all.read(log)?;
    }
    Ok(all)
}

impl LogTimeouts {
    fn read(&mut self, OpenLog { name, reader, .. }: OpenLog) -> Result<(), exit::Error> {
        let mut log = Log::new(reader);
        let mut judge = None;
        let mut last: Option<Box<Header>> = None;
        let mut resets = AllSentResets::default();
        let mut report = |remark| stderr::line(format_args!("{name}:{remark}"));
        while let Some(item) = log.next(&mut report).map_err(|why| why.of(&name))? {
            match item {
                Item::Record(record) => {
                    let judge = judge.get_or_insert_with(new_judge);
                    drop(judge.push(
                        &record,
                        &mut resets.of_trace((0, self.learned.len() as u64)),
                    ));
                }
                Item::Header(header) => {
                    // A new trace has other sockets and another clock.
                    if !last.is_some_and(|last| header.continues(&last)) {
                        self.end_trace(&name, judge.take())?;
                    }
                    last = Some(header);
                }
                Item::Timeouts(_) | Item::Trailer(_) => {}
            }
        }
        if !log.is_log() {
            return Err(exit::Error::failure(format!(
                "{name}: not a log of kaprobe: empty"
            )));
        }
        self.skipped += log.counts().broken;
        self.end_trace(&name, Some(judge.unwrap_or_else(new_judge)))
    }

    /// Keeps what the judge of a trace has learned.
    fn end_trace(&mut self, name: &str, judge: Option<Judge>) -> Result<(), exit::Error> {
        if judge.is_some() && self.learned.len() == MAX_TRACES {
            return Err(exit::Error::failure(format!(
                "{name}: more than {MAX_TRACES} traces in the logs: give fewer"
            )));
        }
        self.learned.extend(judge.map(Judge::into_estimator));
        Ok(())
    }
}

/// A judge that only learns.
fn new_judge() -> Judge {
    Judge::new(MAX_SOCKETS, &HostTimeouts::default())
}
