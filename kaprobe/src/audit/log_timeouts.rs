//! Learns idle timeouts from logs.

use std::mem;

use anyhow::Result;

use crate::model::header::Header;
use crate::model::host_timeout::HostTimeouts;
use crate::model::limits::MAX_SOCKETS;
use crate::model::record::Record;
use crate::model::time::TimeWindow;
use crate::replay::input::{self, Input};
use crate::replay::{Item, LogCounts, LogError, LogIndex, Merge, MergedLog, SourceIndex};
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
    /// Counts of the lines of the logs.
    pub counts: LogCounts,
}

/// Learns the idle timeouts of each trace in these logs. A line that is not a record is
/// reported on stderr and skipped.
///
/// # Errors
/// If a log can't be read, is empty or is not a log: an audit without what it shows could
/// call a connection safe that is not.
pub fn read(logs: &[Input], window: &TimeWindow) -> Result<LogTimeouts> {
    let files = input::open(logs, window)?;
    let names: Vec<_> = files.iter().map(|it| it.name.clone()).collect();
    let mut merge = Merge::new(files).within(*window);
    let mut report = |file: LogIndex, remark| {
        stderr::line(format_args!("{}:{remark}", names[file]));
    };
    let failed = |(file, why): (LogIndex, LogError)| why.of(&names[file]);
    let merged = merge.start(&mut report).map_err(failed)?;
    let mut traces: Vec<_> = merged.into_iter().map(LogTrace::new).collect();
    let mut all = LogTimeouts::default();
    let mut resets = AllSentResets::new(traces.len());
    while let Some((from, item)) = merge.next(&mut report).map_err(failed)? {
        match item {
            Item::Record(record) => traces[from].record(from, &record, &mut resets),
            Item::Header(header) => all.header(&mut traces[from], header)?,
            Item::Trailer(_) => traces[from].has_trailer = true,
            Item::Timeouts(_) => {}
        }
    }
    if let Some(name) = merge.not_a_log() {
        let why = format!("{name}: not a log of kaprobe: empty");
        return Err(exit::Error::failure(why).into());
    }
    merge.outside().into_iter().for_each(stderr::line);
    all.counts = merge.counts();
    for LogTrace {
        name, judge, last, ..
    } in traces
    {
        let judge = judge.unwrap_or_else(|| new_judge(last.as_deref()));
        all.end_trace(&name, Some(judge))?;
    }
    Ok(all)
}

/// The current trace of a log.
struct LogTrace {
    /// The name of the log.
    name: String,
    /// `None` before the first record.
    judge: Option<Judge>,
    /// The number of the trace in the log.
    number: u64,
    /// Its last header.
    last: Option<Box<Header>>,
    /// A trailer came after it.
    has_trailer: bool,
}

impl LogTrace {
    fn new(MergedLog { name, mut headers }: MergedLog) -> Self {
        Self {
            name,
            judge: None,
            number: 0,
            last: headers.pop().map(Box::new),
            has_trailer: false,
        }
    }

    fn record(&mut self, from: SourceIndex, record: &Record, resets: &mut AllSentResets) {
        let header = self.last.as_deref();
        let judge = self.judge.get_or_insert_with(|| new_judge(header));
        drop(judge.push(record, &mut resets.of_trace((from, self.number))));
    }
}

impl LogTimeouts {
    /// Takes the next header of a log.
    fn header(&mut self, trace: &mut LogTrace, header: Box<Header>) -> Result<(), exit::Error> {
        let was_whole = mem::take(&mut trace.has_trailer);
        let last = trace.last.replace(header.clone());
        if let Some(last) = last.filter(|last| header.continues(last)) {
            if let Some(judge) = &mut trace.judge
                && (!was_whole || header.missing_since(&last).is_some())
            {
                judge.lose();
            }
            return Ok(());
        }
        // A new trace has other sockets and another clock.
        trace.number += 1;
        self.end_trace(&trace.name, trace.judge.take())
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

/// A judge of the trace with this header. It only learns.
fn new_judge(header: Option<&Header>) -> Judge {
    let max_sockets = header.map_or(MAX_SOCKETS, Header::max_sockets);
    Judge::new(max_sockets, &HostTimeouts::default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_files_of_a_rotated_log_are_one_trace() -> Result<()> {
        let log = include_str!("../../../tests/golden/verdicts.jsonl");
        let (header, records) = log.split_once('\n').unwrap_or_default();
        let header = header.replacen("\"started\"", "\"part\":2,\"started\"", 1);
        let middle = records.len() / 2;
        let middle = middle + records[middle..].find('\n').map_or(0, |at| at + 1);
        let cut = log.len() - records.len() + middle;
        let dir = tempfile::tempdir()?;
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).map(|()| Input::File(path))
        };
        let whole = file("whole", log)?;
        let first = file("log.1", &log[..cut])?;
        let second = file("log", &format!("{header}\n{}", &log[cut..]))?;
        // The middle of the log is between the deaths at some of these.
        let remotes = [
            [10, 0, 48, 7],
            [10, 0, 72, 7],
            [10, 0, 87, 7],
            [10, 5, 1, 2],
        ];
        let learned = |logs: &[Input]| {
            let learned = read(logs, &TimeWindow::default())?.learned;
            let bounds = |it: &TimeoutEstimator| remotes.map(|to| it.bounds((to.into(), 5672)));
            Ok::<_, anyhow::Error>(learned.iter().map(bounds).collect::<Vec<_>>())
        };
        let expected = learned(&[whole])?;
        assert_eq!(expected.len(), 1);
        for logs in [[first.clone(), second.clone()], [second, first]] {
            assert_eq!(learned(&logs)?, expected, "{logs:?}");
        }
        Ok(())
    }
}
