//! Opens logs and passes their records on as one stream: what every command that reads logs
//! has in common.

use anyhow::Result;

use crate::exit;
use crate::messages::Outcome;
use crate::replay::chain::LogIndex;
use crate::replay::input;
use crate::replay::input_file::FileId;
use crate::replay::log::{LogCounts, Remark};
use crate::replay::merge::Merge;
use crate::replay::plan::LogSelection;
use crate::replay::stream::{RecordSink, ReplayEnd, ReplayStream};
use crate::sink::SinkError;
use crate::stderr;

/// Most characters of a remark that is kept: it may quote the log.
const MAX_REMARK: usize = 500;

/// Most remarks that are kept. The others are counted.
const MAX_REMARKS: usize = 50;

/// Open logs, merged by time.
pub(crate) struct MergedLogs {
    names: Vec<String>,
    merge: Merge,
    stream: ReplayStream,
    remarks: Remarks,
}

/// What readers of the logs should know of their lines.
#[derive(Default)]
pub(crate) struct Remarks {
    /// The first ones, each with the name of its log and the number of its line.
    pub(crate) kept: Vec<String>,
    /// The number of the others.
    pub(crate) more: u64,
}

impl Remarks {
    /// Writes a remark to standard error, and keeps it.
    fn add(&mut self, names: &[String], from: LogIndex, remark: &Remark) {
        let line = format!("{}:{remark}", names[from]);
        if self.kept.len() < MAX_REMARKS {
            self.kept.push(line.chars().take(MAX_REMARK).collect());
        } else {
            self.more += 1;
        }
        stderr::line(line);
    }
}

impl MergedLogs {
    /// Opens the logs. Fails if one of them is the file that will be overwritten.
    ///
    /// # Errors
    /// If a log can't be opened, or is not a log.
    pub(crate) fn open(selection: &LogSelection, overwritten: Option<FileId>) -> Result<Self> {
        let window = input::window(selection.times)?;
        let logs = input::open(&selection.logs, &window)?;
        if let Some(same) = logs.iter().find(|log| Some(log.id) == overwritten) {
            let same = format!("--output {}: is also a log to read", same.name);
            return Err(exit::Error::usage(same).into());
        }
        let names: Vec<_> = logs.iter().map(|log| log.name.clone()).collect();
        let mut merge = Merge::new(logs).within(window);
        let mut remarks = Remarks::default();
        let merged = merge.start(&mut |from, remark| {
            remarks.add(&names, from, &remark);
        });
        let merged = merged.map_err(|(from, why)| why.of(&names[from]))?;
        Ok(Self {
            stream: ReplayStream::new(selection, merged),
            names,
            merge,
            remarks,
        })
    }

    /// Passes all records, or those that the selection keeps, to a sink.
    pub(crate) fn read(&mut self, sink: &mut impl RecordSink) -> Result<(), ReplayEnd> {
        let Self {
            names,
            merge,
            stream,
            remarks,
        } = self;
        stream.run(merge, sink, &mut |from, remark| {
            remarks.add(names, from, &remark);
        })
    }

    /// The remarks so far.
    pub(crate) fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// The reason why the rest of a log was not read.
    pub(crate) fn failure(&self, read: &Result<(), ReplayEnd>) -> Option<exit::Error> {
        match read {
            Err(ReplayEnd::Log(from, why)) => Some(why.of(&self.names[*from])),
            Ok(()) | Err(ReplayEnd::Sink(_)) => None,
        }
    }

    /// Counts of the records passed on, and of their sockets.
    pub(crate) fn outcome(&self) -> Outcome {
        self.stream.outcome()
    }

    /// The outcome of a command that has read the logs, and has written its output.
    ///
    /// # Errors
    /// If a log can't be read, the output can't be written, or lines of the logs were
    /// skipped, which the output does not show.
    pub(crate) fn end(
        &self,
        read: Result<(), ReplayEnd>,
        written: Result<(), SinkError>,
    ) -> Result<()> {
        self.merge.outside().into_iter().for_each(stderr::line);
        let complete = fail_if_incomplete(self.merge.counts());
        if let Some(why) = self.failure(&read) {
            return Err(why.into());
        }
        let written = match (written, read) {
            (Err(why), _) | (Ok(()), Err(ReplayEnd::Sink(why))) => Err(why),
            (Ok(()), _) => Ok(()),
        };
        let code = complete
            .as_ref()
            .map_or_else(exit::Error::code, |()| exit::Code::Ok);
        written.map_err(|why| exit::unread(why.into(), code))?;
        Ok(complete?)
    }
}

/// Fails if the logs are damaged, or lines of them were skipped.
///
/// # Errors
/// [`exit::Code::Failure`], with the numbers.
pub(crate) fn fail_if_incomplete(counts: LogCounts) -> Result<(), exit::Error> {
    let LogCounts {
        broken, damaged, ..
    } = counts;
    let mut why = Vec::new();
    match broken {
        0 => {}
        1 => why.push("1 line skipped: not a record".to_owned()),
        _ => why.push(format!("{broken} lines skipped: not records")),
    }
    match damaged {
        0 => {}
        1 => why.push("a log is damaged: records may be missing".to_owned()),
        _ => why.push(format!(
            "logs are damaged at {damaged} places: records may be missing"
        )),
    }
    if why.is_empty() {
        return Ok(());
    }
    Err(exit::Error::failure(why.join("; ")))
}
