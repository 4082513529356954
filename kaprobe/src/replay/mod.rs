//! `kaprobe replay`: shows logs as a trace would show them.
//!
//! A log is shown while it is read and is not kept: memory does not grow with it. A log
//! is not trusted: its text is checked and escaped like the kernel's.

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
pub use crate::replay::log::{LONGEST, Log, LogCounts, LogError, Remark, What};
pub use crate::replay::merge::{From, Merge};
use crate::replay::stream::{ReplayEnd, Stream};
use crate::replay::summary::{Look, ReplaySummary};

use crate::exit;
use crate::replay::input::Input;
use crate::replay::plan::ReplayPlan;
use crate::report;
use crate::sink::options::{Format, Outputs};
use crate::sink::{self, SinkError};
use crate::stderr;

/// Runs `kaprobe replay`.
///
/// # Errors
/// When a log can't be read or has lines that are not records, or an output can't be
/// written.
pub fn run(plan: &ReplayPlan) -> Result<()> {
    let names: Vec<_> = plan.logs.iter().map(Input::name).collect();
    let mut tell = |from: From, remark| stderr::line(format_args!("{}:{remark}", names[from]));
    let failed = |(from, why)| failure(&names, from, &why);
    let files = open(plan, &names)?;
    let mut merge = Merge::new(files.into_iter().map(Log::new).collect());
    let headers = merge.start(&mut tell).map_err(failed)?;
    let mut stream = Stream::new(plan, &names, headers);
    let (shown, flushed) = if plan.summary {
        let mut summary = ReplaySummary::default();
        let shown = stream.run(&mut merge, &mut summary, &mut tell);
        // When a log can't be read to its end, this is the summary up to there.
        (shown, print(&summary, &plan.outputs))
    } else {
        // Opened last: what fails before leaves no file behind.
        let mut sinks = sink::open(&plan.outputs)?;
        let shown = stream.run(&mut merge, &mut sinks, &mut tell);
        // Where one sink has failed, records may still wait in another.
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

/// Shows a summary on standard output.
fn print(summary: &ReplaySummary, outputs: &Outputs) -> Result<(), SinkError> {
    let look = match outputs.screen {
        Format::Json => Look::Json,
        Format::Text | Format::Csv => Look::Text {
            heading: outputs.text.heading,
            bars: sink::bars(),
        },
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    summary::write(&mut out, summary, look).map_err(SinkError::stdout)
}

/// Opens the logs. None of them may be the file that is to be written.
fn open(plan: &ReplayPlan, names: &[String]) -> Result<Vec<File>> {
    let written = written(&plan.outputs);
    let mut files = Vec::with_capacity(names.len());
    for (log, name) in plan.logs.iter().zip(names) {
        let file = log.open()?;
        let id = file.metadata().ok().map(|it| (it.dev(), it.ino()));
        if id.is_some() && id == written {
            let same = format!("--output {name}: it is a log that is to be read");
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

fn failure(names: &[String], from: From, why: &LogError) -> exit::Error {
    let name = &names[from];
    exit::Error::failure(match why {
        LogError::Io(why) => format!("cannot read {name}: {why}"),
        LogError::Version { .. } => format!("{name}:{why}"),
    })
}

/// Fails where lines were skipped, since what is shown does not say so.
fn complete<R: io::Read>(merge: &Merge<R>) -> Result<(), exit::Error> {
    let broken: u64 = merge.logs().iter().map(|log| log.counts().broken).sum();
    match broken {
        0 => Ok(()),
        1 => Err(exit::Error::failure("1 line skipped: it is no record")),
        _ => Err(exit::Error::failure(format!(
            "{broken} lines skipped: they are no records"
        ))),
    }
}
