//! `kaprobe replay`: shows logs as a trace would show them.
//!
//! Streams the logs: memory does not grow with their size. Does not trust them: their
//! text is checked and escaped like text from the kernel.

mod chain;
mod decompress;
mod foreign;
pub mod input;
mod input_file;
mod line;
mod log;
mod merge;
mod merged_logs;
pub mod plan;
mod read_ahead;
mod segments;
mod sender_first;
mod story;
mod stream;
pub(crate) mod summary;

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Result;

pub use crate::replay::chain::LogIndex;
pub use crate::replay::line::Item;
pub use crate::replay::log::{Log, LogCounts, LogError, MAX_LINE_LEN, Remark, RemarkKind};
pub use crate::replay::merge::{Merge, MergedLog, SourceIndex};
pub(crate) use crate::replay::merged_logs::{MergedLogs, Remarks, fail_if_incomplete};
pub(crate) use crate::replay::stream::RecordSink;

use crate::messages;
use crate::replay::input_file::FileId;
use crate::replay::plan::ReplayPlan;
use crate::replay::summary::{ReplaySummary, SummaryFormat};
use crate::sink::options::{Existing, Format, Outputs, ScreenFormat};
use crate::sink::{self, SinkError};

/// Runs `kaprobe replay`.
///
/// # Errors
/// If a log can't be read, a line is not a record, or an output can't be written.
pub fn run(plan: &ReplayPlan) -> Result<()> {
    let file = plan.outputs.file.as_ref();
    let written = file.and_then(|it| overwritten(&it.path, it.existing));
    let mut logs = MergedLogs::open(&plan.selection, written)?;
    let (shown, flushed) = if plan.summary {
        let mut summary = ReplaySummary::new(plan.selection.max_sockets);
        let shown = logs.read(&mut summary);
        // If the rest of a log can't be read, this summarizes the part before.
        (shown, print(&summary, &plan.outputs))
    } else {
        // Opened last: an earlier failure leaves no file behind.
        let mut sinks = sink::open(&plan.outputs)?;
        let shown = logs.read(&mut sinks);
        // If one sink has failed, another may still buffer records.
        (shown, sinks.end())
    };
    if !plan.quiet {
        messages::summary(&logs.outcome());
    }
    logs.end(shown, flushed)
}

/// Writes a summary to standard output.
fn print(summary: &ReplaySummary, outputs: &Outputs) -> Result<(), SinkError> {
    let format = match outputs.screen {
        ScreenFormat::Every(Format::Json) => SummaryFormat::Json,
        _ => SummaryFormat::Text {
            heading: outputs.text.heading,
            bars: sink::bars(),
        },
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    summary::write(&mut out, summary, format).map_err(SinkError::stdout)
}

/// What `kaprobe replay --summary --json` prints of these logs.
#[cfg(test)]
pub(crate) fn summary_of(logs: &[std::path::PathBuf]) -> Result<String> {
    use crate::cli::{self, Action, Command};

    let mut arguments = vec!["kaprobe".into(), "replay".into(), "--summary".into()];
    arguments.extend(logs.iter().map(|it| it.clone().into_os_string()));
    let Action::Run(Command::Replay(arguments)) = cli::parse(arguments)? else {
        anyhow::bail!("another command");
    };
    let mut logs = MergedLogs::open(&ReplayPlan::new(*arguments)?.selection, None)?;
    let mut summary = ReplaySummary::default();
    let read = logs.read(&mut summary);
    logs.end(read, Ok(()))?;
    let mut out = Vec::new();
    summary::write(&mut out, &summary, SummaryFormat::Json)?;
    Ok(String::from_utf8(out)?)
}

/// The file that an output will overwrite.
pub(crate) fn overwritten(path: &Path, existing: Existing) -> Option<FileId> {
    if existing != Existing::Overwrite {
        return None;
    }
    Some(FileId::of(&fs::metadata(path).ok()?))
}
