//! `kaprobe sockets`: shows every TCP socket as it is now.

mod output;
pub mod plan;
pub mod snapshot;
mod sock_diag;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;

use crate::cli::args::Sort;
use crate::model::row::Row;
use crate::shutdown::{self, StopWhen};
use crate::sink::SinkError;
use crate::sink::options::Format;
use crate::sockets::output::{Columns, Frame, RowWriter};
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::{Notes, Snapshots};
use crate::stop::Stop;

/// Runs `kaprobe sockets`.
///
/// # Errors
/// If the sockets can't be read or written.
pub fn run(plan: &SocketsPlan) -> Result<()> {
    let mut snapshots = Snapshots::open(&plan.selection)?;
    match plan.watch {
        None => append(plan, &mut snapshots, plan.heading).map(|notes| notes.print()),
        Some(pause) => watch(plan, &mut snapshots, pause),
    }
}

/// Shows the sockets repeatedly until stopped. On a terminal each snapshot replaces the
/// last one; otherwise it is appended. Notes are printed when they change.
fn watch(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>, pause: Duration) -> Result<()> {
    let stop = Stop::new()?;
    shutdown::watch(stop.clone(), StopWhen::default())?;
    let redraws = plan.format == Format::Text && io::stdout().is_terminal();
    let mut last = None;
    loop {
        let notes = if redraws {
            redraw(plan, snapshots)?
        } else {
            let heading = plan.heading && (last.is_none() || plan.format == Format::Text);
            let notes = append(plan, snapshots, heading)?;
            if last.as_ref() != Some(&notes) {
                notes.print();
            }
            notes
        };
        last = Some(notes);
        if stop.wait(pause)? {
            return Ok(());
        }
    }
}

/// Writes the sockets as they are read, or sorted after all are read.
fn append(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>, heading: bool) -> Result<Notes> {
    let mut output = RowWriter::new(io::stdout(), plan.format, Columns::of(plan));
    if heading {
        output.head().map_err(SinkError::stdout)?;
    }
    let mut kept = Vec::new();
    let notes = snapshots.take(&mut |rows| {
        if plan.sort.is_some() {
            kept.extend(rows);
            return Ok(());
        }
        Ok(output.rows(&rows).map_err(SinkError::stdout)?)
    })?;
    if let Some(sort) = plan.sort {
        sort_rows(&mut kept, sort);
        output.rows(&kept).map_err(SinkError::stdout)?;
    }
    Ok(notes)
}

/// Draws as many sockets as fit on the terminal.
fn redraw(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>) -> Result<Notes> {
    let mut frame = Frame::new(plan);
    let room = frame.room();
    let (mut kept, mut count) = (Vec::new(), 0);
    let notes = snapshots.take(&mut |rows| {
        count += rows.len();
        kept.extend(rows);
        if let Some(sort) = plan.sort {
            sort_rows(&mut kept, sort);
        }
        kept.truncate(room);
        Ok(())
    })?;
    frame.draw(&kept, count, &notes)?;
    let mut out = io::stdout().lock();
    out.write_all(frame.text())
        .and_then(|()| out.flush())
        .map_err(SinkError::stdout)?;
    Ok(notes)
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
