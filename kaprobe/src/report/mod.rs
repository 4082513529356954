//! `kaprobe report`: writes what logs show as one HTML file.
//!
//! It reads the logs as `replay` does: the same merged stream, filters and verdicts.
//! [`collect`] takes it in without keeping records, [`page`] lays out what it found, and a
//! template draws that. Only this file does I/O.

mod ages;
mod axis;
mod chart;
mod collect;
mod conversation;
mod conversations;
mod facts;
mod mark;
mod page;
pub mod plan;
mod programs;
mod rank;
mod recording;
mod remedies;
mod timeline;
mod words;
mod zone;

use std::io::{self, IsTerminal as _, Write};

use anyhow::{Context as _, Result};
use askama::Template as _;
use jiff::tz::TimeZone;

use crate::exit;
use crate::replay::{MergedLogs, overwritten};
use crate::report::collect::Collection;
use crate::report::page::{Context, Page};
use crate::report::plan::ReportPlan;
use crate::report::zone::Zone;
use crate::sink::options::{Existing, Format};
use crate::sink::{self, SinkError};

/// Runs `kaprobe report`.
///
/// # Errors
/// If a log can't be read, a line is not a record, or the report can't be written.
pub fn run(plan: &ReportPlan) -> Result<()> {
    if plan.output.is_none() && io::stdout().is_terminal() {
        let why = "a report is HTML, not for a terminal: name a file with --output";
        return Err(exit::Error::usage(why).into());
    }
    let existing = if plan.overwrite {
        Existing::Overwrite
    } else {
        Existing::Refuse
    };
    let output = plan.output.as_deref();
    let same = output.and_then(|path| overwritten(path, existing));
    let mut logs = MergedLogs::open(&plan.selection, same)?;
    let mut all = Collection::default();
    let read = logs.read(&mut all);
    // If the rest of a log can't be read, this reports the part before.
    let unread = logs.failure(&read).map(|it| it.to_string());
    let given = plan.selection.given.iter();
    let context = Context {
        zone: Zone::new(TimeZone::system()),
        timeouts: &plan.timeouts,
        remarks: logs.remarks(),
        unread,
        filters: given
            .map(|(name, values)| format!("--{name} {}", values.join(",")))
            .collect(),
    };
    let page = Page::new(all, &context).render();
    let page = page.context("cannot make the report")?;
    let written = match output {
        None => write(&page, io::stdout().lock()).map_err(SinkError::stdout),
        Some(path) => {
            // Opened last: an earlier failure leaves no file behind.
            let (name, file) = sink::open_file(path, existing, Format::Text)?;
            write(&page, file).map_err(|why| SinkError::new(&name, why))
        }
    };
    logs.end(read, written)
}

fn write(page: &str, mut to: impl Write) -> io::Result<()> {
    // The template leaves out the end of its last line.
    to.write_all(page.as_bytes())?;
    to.write_all(b"\n")?;
    to.flush()
}
