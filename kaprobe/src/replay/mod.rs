//! `kaprobe replay`: shows logs as a trace would show them.
//!
//! Streams the logs: memory does not grow with their size. Does not trust them: their
//! text is checked and escaped like text from the kernel.

mod chain;
mod decompress;
mod foreign;
pub mod input;
mod line;
mod log;
mod merge;
pub mod plan;
mod sender_first;
mod story;
mod stream;
mod summary;

use std::fs;
use std::io;

use anyhow::Result;

pub use crate::replay::chain::LogIndex;
pub use crate::replay::line::Item;
pub use crate::replay::log::{Log, LogCounts, LogError, MAX_LINE_LEN, Remark, RemarkKind};
pub use crate::replay::merge::{Merge, MergedLog, SourceIndex};
use crate::replay::stream::{ReplayEnd, ReplayStream};
use crate::replay::summary::{ReplaySummary, SummaryFormat};

use crate::replay::input::{FileId, OpenLog};
use crate::replay::plan::ReplayPlan;
use crate::sink::options::{Existing, Format, LogFile, Outputs};
use crate::sink::{self, SinkError};
use crate::{exit, messages, stderr};

/// Runs `kaprobe replay`.
///
/// # Errors
/// If a log can't be read, a line is not a record, or an output can't be written.
pub fn run(plan: &ReplayPlan) -> Result<()> {
    let logs = open(plan)?;
    let names: Vec<_> = logs.iter().map(|log| log.name.clone()).collect();
    let mut on_remark =
        |from: LogIndex, remark| stderr::line(format_args!("{}:{remark}", names[from]));
    let failed = |(from, why): (LogIndex, LogError)| why.of(&names[from]);
    let logs = logs.into_iter().map(|log| Log::new(log.reader));
    let mut merge = Merge::new(logs.collect());
    let logs = merge.start(&names, &mut on_remark).map_err(failed)?;
    let mut stream = ReplayStream::new(plan, logs);
    let (shown, flushed) = if plan.summary {
        let mut summary = ReplaySummary::default();
        let shown = stream.run(&mut merge, &mut summary, &mut on_remark);
        // If the rest of a log can't be read, this summarizes the part before.
        (shown, print(&summary, &plan.outputs))
    } else {
        // Opened last: an earlier failure leaves no file behind.
        let mut sinks = sink::open(&plan.outputs)?;
        let shown = stream.run(&mut merge, &mut sinks, &mut on_remark);
        // If one sink has failed, another may still buffer records.
        (shown, sinks.flush())
    };
    if !plan.quiet {
        messages::summary(&stream.outcome());
    }
    let complete = complete(&merge);
    let written = match (flushed, shown) {
        (_, Err(ReplayEnd::Log(from, why))) => return Err(why.of(&names[from]).into()),
        (Err(why), _) | (Ok(()), Err(ReplayEnd::Sink(why))) => Err(why),
        (Ok(()), Ok(())) => Ok(()),
    };
    let code = complete
        .as_ref()
        .map_or_else(exit::Error::code, |()| exit::Code::Ok);
    written.map_err(|why| exit::unread(why.into(), code))?;
    Ok(complete?)
}

/// Writes a summary to standard output.
fn print(summary: &ReplaySummary, outputs: &Outputs) -> Result<(), SinkError> {
    let format = match outputs.screen {
        Format::Json => SummaryFormat::Json,
        Format::Text | Format::Csv => SummaryFormat::Text {
            heading: outputs.text.heading,
            bars: sink::bars(),
        },
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    summary::write(&mut out, summary, format).map_err(SinkError::stdout)
}

/// Opens the logs. Fails if one of them is the output file.
fn open(plan: &ReplayPlan) -> Result<Vec<OpenLog>> {
    let logs = input::open(&plan.logs)?;
    let written = written(&plan.outputs);
    if let Some(same) = logs.iter().find(|log| Some(log.id) == written) {
        let same = format!("--output {}: is also a log to read", same.name);
        return Err(exit::Error::usage(same).into());
    }
    Ok(logs)
}

/// The file that will be overwritten.
fn written(outputs: &Outputs) -> Option<FileId> {
    let overwrites = |log: &&LogFile| log.existing == Existing::Overwrite;
    let log = outputs.file.as_ref().filter(overwrites)?;
    Some(FileId::of(&fs::metadata(&log.path).ok()?))
}

/// Fails if lines were skipped: the output does not show it.
fn complete<R: io::Read>(merge: &Merge<R>) -> Result<(), exit::Error> {
    fail_if_skipped(merge.files().iter().map(|log| log.counts().broken).sum())
}

/// Fails if this number of lines of the logs is not 0.
///
/// # Errors
/// [`exit::Code::Failure`], with that number.
pub fn fail_if_skipped(lines: u64) -> Result<(), exit::Error> {
    match lines {
        0 => Ok(()),
        1 => Err(exit::Error::failure("1 line skipped: not a record")),
        _ => Err(exit::Error::failure(format!(
            "{lines} lines skipped: not records"
        ))),
    }
}
