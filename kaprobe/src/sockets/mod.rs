//! `kaprobe sockets`: every TCP socket as it is now, older ones than kaprobe included.

mod output;
pub mod plan;
pub mod snapshot;
mod sock_diag;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;

use crate::cli::args::Sort;
use crate::model::row::Row;
use crate::shutdown;
use crate::sink::SinkError;
use crate::sink::options::Format;
use crate::sockets::output::{Columns, Picture, RowWriter};
use crate::sockets::plan::SocketsPlan;
use crate::sockets::snapshot::{Notes, Snapshots};
use crate::stop::Stop;

/// Runs `kaprobe sockets`.
///
/// # Errors
/// When the sockets can't be read, or not written.
pub fn run(plan: &SocketsPlan) -> Result<()> {
    let mut snapshots = Snapshots::open(&plan.selection)?;
    match plan.watch {
        None => append(plan, &mut snapshots, plan.heading).map(|notes| notes.tell()),
        Some(pause) => watch(plan, &mut snapshots, pause),
    }
}

/// Shows the sockets again and again until told to end: a picture in place of the last on
/// a terminal, else one after the other. Notes are told when they change.
fn watch(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>, pause: Duration) -> Result<()> {
    let stop = Stop::new()?;
    shutdown::watch(stop.clone(), None)?;
    let redraws = plan.format == Format::Text && io::stdout().is_terminal();
    let mut last = None;
    loop {
        let notes = if redraws {
            redraw(plan, snapshots)?
        } else {
            let heading = plan.heading && (last.is_none() || plan.format == Format::Text);
            let notes = append(plan, snapshots, heading)?;
            if last.as_ref() != Some(&notes) {
                notes.tell();
            }
            notes
        };
        last = Some(notes);
        if stop.wait(pause)? {
            return Ok(());
        }
    }
}

/// Writes the sockets as they are read, or once all are sorted.
fn append(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>, heading: bool) -> Result<Notes> {
    let mut output = RowWriter::new(io::stdout(), plan.format, Columns::of(plan));
    if heading {
        output.head().map_err(SinkError::stdout)?;
    }
    let mut held = Vec::new();
    let notes = snapshots.take(&mut |rows| {
        if plan.sort.is_some() {
            held.extend(rows);
            return Ok(());
        }
        Ok(output.rows(&rows).map_err(SinkError::stdout)?)
    })?;
    if let Some(sort) = plan.sort {
        order(&mut held, sort);
        output.rows(&held).map_err(SinkError::stdout)?;
    }
    Ok(notes)
}

/// Draws as many sockets as the terminal has room for.
fn redraw(plan: &SocketsPlan, snapshots: &mut Snapshots<'_>) -> Result<Notes> {
    let mut picture = Picture::new(plan);
    let room = picture.room();
    let (mut held, mut count) = (Vec::new(), 0);
    let notes = snapshots.take(&mut |rows| {
        count += rows.len();
        held.extend(rows);
        if let Some(sort) = plan.sort {
            order(&mut held, sort);
        }
        held.truncate(room);
        Ok(())
    })?;
    picture.draw(&held, count, &notes)?;
    let mut out = io::stdout().lock();
    out.write_all(picture.text())
        .and_then(|()| out.flush())
        .map_err(SinkError::stdout)?;
    Ok(notes)
}

/// Sorts by a column; what has no value there comes last.
fn order(rows: &mut [Row], by: Sort) {
    let last = |value: Option<u64>| value.unwrap_or(u64::MAX);
    rows.sort_by_key(|row| match by {
        Sort::Pid => last(row.process.pid.map(u64::from)),
        Sort::Lport => row.endpoints.lport.into(),
        Sort::Rport => row.endpoints.rport.into(),
        // The longest first.
        Sort::Idle => row
            .ages
            .idle_ms
            .map_or(u64::MAX, |idle| u64::MAX - 1 - idle),
        Sort::Timer => last(row.timer_ms),
        Sort::Dead => last(row.dead_in_ms),
    });
}
