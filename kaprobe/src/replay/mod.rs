//! `kaprobe replay`: shows logs as a trace would show them.
//!
//! Streams the logs: memory does not grow with their size. Does not trust them: their
//! text is checked and escaped like text from the kernel.

pub mod input;
mod line;
mod log;
mod merge;
pub mod plan;
mod story;
mod stream;
mod summary;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Result;

pub use crate::replay::line::Item;
pub use crate::replay::log::{Log, LogCounts, LogError, MAX_LINE_LEN, Remark, RemarkKind};
pub use crate::replay::merge::{LogIndex, Merge};
use crate::replay::stream::{ReplayEnd, ReplayStream};
use crate::replay::summary::{ReplaySummary, SummaryFormat};

use crate::replay::input::Input;
use crate::replay::plan::ReplayPlan;
use crate::sink::options::{Format, Outputs};
use crate::sink::{self, SinkError};
use crate::{exit, report, stderr};

/// Runs `kaprobe replay`.
///
/// # Errors
/// If a log can't be read, a line is not a record, or an output can't be written.
pub fn run(plan: &ReplayPlan) -> Result<()> {
    let names: Vec<_> = plan.logs.iter().map(Input::name).collect();
    let mut on_remark =
        |from: LogIndex, remark| stderr::line(format_args!("{}:{remark}", names[from]));
    let failed = |(from, why)| failure(&names, from, &why);
    let files = open(plan, &names)?;
    let mut merge = Merge::new(files.into_iter().map(Log::new).collect());
    let headers = merge.start(&mut on_remark).map_err(failed)?;
    let mut stream = ReplayStream::new(plan, &names, headers);
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
        report::summary(&stream.outcome());
    }
    let complete = complete(&merge);
    let written = match (flushed, shown) {
        (_, Err(ReplayEnd::Log(from, why))) => return Err(failure(&names, from, &why).into()),
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
fn open(plan: &ReplayPlan, names: &[String]) -> Result<Vec<File>> {
    let written = written(&plan.outputs);
    let mut files = Vec::with_capacity(names.len());
    for (log, name) in plan.logs.iter().zip(names) {
        let file = log.open()?;
        let id = file.metadata().ok().map(|it| (it.dev(), it.ino()));
        if id.is_some() && id == written {
            let same = format!("--output {name}: is also a log to read");
            return Err(exit::Error::usage(same).into());
        }
        files.push(file);
    }
    Ok(files)
}

/// The device and inode number of the file that will be overwritten.
fn written(outputs: &Outputs) -> Option<(u64, u64)> {
    let log = outputs.file.as_ref().filter(|log| log.overwrite)?;
    let file = fs::metadata(&log.path).ok()?;
    Some((file.dev(), file.ino()))
}

fn failure(names: &[String], from: LogIndex, why: &LogError) -> exit::Error {
    let name = &names[from];
    exit::Error::failure(match why {
        LogError::Io(why) => format!("cannot read {name}: {why}"),
        LogError::Version { .. } => format!("{name}:{why}"),
    })
}

/// Fails if lines were skipped: the output does not show it.
fn complete<R: io::Read>(merge: &Merge<R>) -> Result<(), exit::Error> {
    let broken: u64 = merge.logs().iter().map(|log| log.counts().broken).sum();
    match broken {
        0 => Ok(()),
        1 => Err(exit::Error::failure("1 line skipped: not a record")),
        _ => Err(exit::Error::failure(format!(
            "{broken} lines skipped: not records"
        ))),
    }
}
