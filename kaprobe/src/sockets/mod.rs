//! `kaprobe sockets`: shows every TCP socket as it is now.

mod columns;
pub mod group;
mod group_output;
mod output;
mod pace;
pub mod plan;
pub mod snapshot;
mod sock_diag;

use std::io;

use anyhow::{Context as _, Result};

use crate::cli::args::Sort;
use crate::model::row::Row;
use crate::sink::SinkError;
use crate::sockets::columns::Columns;
use crate::sockets::group::SocketGroups;
use crate::sockets::output::{RowStyle, RowWriter};
use crate::sockets::pace::Pauses;
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::{Notes, Snapshots};
use crate::text::columns::Hidden;
use crate::timeout::middlebox::MiddleboxTable;
use crate::{host, stderr};

/// How many rows are written between two pauses, if there are pauses.
const AT_ONCE: usize = 32;

/// Runs `kaprobe sockets`.
///
/// # Errors
/// If the sockets can't be read or written.
pub fn run(plan: &SocketsPlan) -> Result<()> {
    host::processes::check(&plan.selection.processes.pids)?;
    let mut snapshots = match plan.selection.is_paced {
        true => pace::in_idle_time(|| Snapshots::open(&plan.selection))??,
        false => Snapshots::open(&plan.selection)?,
    };
    let notes = if plan.group {
        group(plan, &mut snapshots)?
    } else {
        append(plan, &mut snapshots)?
    };
    notes.print();
    Ok(())
}

/// Writes one line for the sockets of each program and service.
fn group(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>) -> Result<Notes> {
    let host = host::timeouts::read().context("cannot read the idle timeouts of this host")?;
    let longest_ms = MiddleboxTable::new(&host.timeouts).longest_ms();
    let mut groups = SocketGroups::new(longest_ms);
    let notes = snapshots.take(&mut |rows| {
        rows.iter().for_each(|row| groups.add(row));
        Ok(())
    })?;
    let mut sorted = groups.sorted(plan.sort);
    let count = sorted.len();
    sorted.truncate(plan.max_rows.unwrap_or(usize::MAX));
    let style = RowStyle::of(plan, plan.heading);
    let hidden = group_output::write(io::stdout(), &sorted, style).map_err(SinkError::stdout)?;
    note_left_out(&hidden, (sorted.len(), count), "groups");
    Ok(notes)
}

/// Writes the sockets as they are read, or sorted after all are read.
fn append(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>) -> Result<Notes> {
    let style = RowStyle::of(plan, plan.heading);
    let mut output = RowWriter::new(io::stdout(), style, Columns::of(plan));
    output.head().map_err(SinkError::stdout)?;
    let most = plan.max_rows.unwrap_or(usize::MAX);
    let (mut kept, mut count, mut written) = (Vec::new(), 0, 0);
    let mut pauses = Pauses::default();
    let notes = snapshots.take(&mut |mut rows| {
        count += rows.len();
        if let Some(sort) = plan.sort {
            kept.extend(rows);
            sort_rows(&mut kept, sort);
            kept.truncate(most);
            return Ok(());
        }
        rows.truncate(most - written);
        written += rows.len();
        for rows in rows.chunks(AT_ONCE) {
            output.rows(rows).map_err(SinkError::stdout)?;
            if plan.selection.is_paced {
                pauses.pause();
            }
        }
        Ok(())
    })?;
    output.rows(&kept).map_err(SinkError::stdout)?;
    let hidden = output.end().map_err(SinkError::stdout)?;
    note_left_out(&hidden, (written + kept.len(), count), "sockets");
    Ok(notes)
}

/// Says what is not shown: columns that the screen has no room for, and rows.
pub fn note_left_out(hidden: &Hidden, (shown, count): (usize, usize), rows: &str) {
    if let Some(note) = hidden.note("-w shows every column") {
        stderr::line(note);
    }
    if shown < count {
        stderr::line(format_args!("shown: {shown} of {count} {rows}"));
    }
}

/// Sorts rows by a column. Rows without a value come last.
fn sort_rows(rows: &mut [Row], by: Sort) {
    let last = |value: Option<u64>| value.unwrap_or(u64::MAX);
    rows.sort_by_key(|row| match by {
        Sort::Pid => last(row.process.pid.map(u64::from)),
        Sort::Lport => row.endpoints.lport.into(),
        Sort::Rport => row.endpoints.rport.into(),
        // Longest first.
        Sort::Idle => row
            .ages
            .idle_ms
            .map_or(u64::MAX, |idle| u64::MAX - 1 - idle),
        Sort::Timer => last(row.timer_ms),
        Sort::Dead => last(row.dead_in_ms),
    });
}
