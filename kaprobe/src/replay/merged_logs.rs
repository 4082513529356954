//! Opens logs and passes their records on as one stream: what every command that reads logs
//! has in common.

use anyhow::Result;

use crate::exit;
use crate::messages::Outcome;
use crate::replay::decompress::LogReader;
use crate::replay::input::{self, FileId, now};
use crate::replay::merge::Merge;
use crate::replay::plan::LogSelection;
use crate::replay::stream::{RecordSink, ReplayEnd, ReplayStream};
use crate::sink::SinkError;
use crate::stderr;

/// Open logs, merged by time.
pub(crate) struct MergedLogs {
    names: Vec<String>,
    merge: Merge<LogReader>,
    stream: ReplayStream,
}

impl MergedLogs {
    /// Opens the logs. Fails if one of them is the file that will be overwritten.
    ///
    /// # Errors
    /// If a log can't be opened, or is not a log.
    pub(crate) fn open(selection: &LogSelection, overwritten: Option<FileId>) -> Result<Self> {
        let window = selection.times.resolve(now());
        let logs = input::open(&selection.logs, &window)?;
        if let Some(same) = logs.iter().find(|log| Some(log.id) == overwritten) {
            let same = format!("--output {}: is also a log to read", same.name);
            return Err(exit::Error::usage(same).into());
        }
        let names: Vec<_> = logs.iter().map(|log| log.name.clone()).collect();
        let logs = logs.into_iter().map(|log| log.read().1);
        let mut merge = Merge::new(logs.collect()).within(window);
        let merged = merge.start(&names, &mut |from, remark| {
            stderr::line(format_args!("{}:{remark}", names[from]));
        });
        let merged = merged.map_err(|(from, why)| why.of(&names[from]))?;
        Ok(Self {
            stream: ReplayStream::new(selection, merged),
            names,
            merge,
        })
    }

    /// Passes all records, or those that the selection keeps, to a sink.
    pub(crate) fn read(&mut self, sink: &mut impl RecordSink) -> Result<(), ReplayEnd> {
        let Self {
            names,
            merge,
            stream,
        } = self;
        stream.run(merge, sink, &mut |from, remark| {
            stderr::line(format_args!("{}:{remark}", names[from]));
        })
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
        let files = self.merge.files().iter();
        let complete = fail_if_skipped(files.map(|log| log.counts().broken).sum());
        let written = match (written, read) {
            (_, Err(ReplayEnd::Log(from, why))) => return Err(why.of(&self.names[from]).into()),
            (Err(why), _) | (Ok(()), Err(ReplayEnd::Sink(why))) => Err(why),
            (Ok(()), Ok(())) => Ok(()),
        };
        let code = complete
            .as_ref()
            .map_or_else(exit::Error::code, |()| exit::Code::Ok);
        written.map_err(|why| exit::unread(why.into(), code))?;
        Ok(complete?)
    }
}

/// Fails if this number of lines of the logs is not 0.
///
/// # Errors
/// [`exit::Code::Failure`], with that number.
pub(crate) fn fail_if_skipped(lines: u64) -> Result<(), exit::Error> {
    match lines {
        0 => Ok(()),
        1 => Err(exit::Error::failure("1 line skipped: not a record")),
        _ => Err(exit::Error::failure(format!(
            "{lines} lines skipped: not records"
        ))),
    }
}
