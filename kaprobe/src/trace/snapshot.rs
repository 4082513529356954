//! The snapshot that a trace starts from: `kaprobe sockets`, run in a separate process.
//!
//! The iterator waits for the lock of each socket in turn (`bpf_iter_tcp_seq_show`,
//! net/ipv4/tcp_ipv4.c), in a sleep that no signal ends (`__lock_sock`,
//! net/core/sock.c). A process with a thread in that sleep can't end, and its programs
//! stay attached until it does. So the process of the trace has no such thread.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail, ensure};

use crate::model::event::Event;
use crate::model::row::Row;
use crate::stderr;
use crate::trace::arrival::Arrival;

/// This program, even where its file has been replaced.
const SELF: &str = "/proc/self/exe";
/// The most rows that are sent together: a row takes some 700 bytes.
const BATCH: usize = 64;

/// A process that takes a snapshot. It is killed when this is dropped before the end.
pub(super) struct SnapshotProcess {
    child: Child,
    /// Writes its notes to standard error.
    notes: Option<JoinHandle<io::Result<()>>>,
}

impl SnapshotProcess {
    /// Starts `kaprobe` with these arguments; its rows arrive as events.
    ///
    /// # Errors
    /// When it can't be started.
    pub(super) fn start(
        arguments: &[OsString],
        quiet: bool,
        queue: SyncSender<Arrival>,
    ) -> Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("kaprobe")
            .args(arguments)
            .stdin(Stdio::null())
            // It inherits no stream: while it waits for a lock it would keep it open, and
            // the reader of the stream would wait too.
            .stdout(Stdio::piped())
            .stderr(if quiet { Stdio::null() } else { Stdio::piped() })
            .spawn()
            .context("cannot start a process for it")?;
        let rows = child.stdout.take().context("its output is closed")?;
        let mut snapshot = Self { child, notes: None };
        if let Some(notes) = snapshot.child.stderr.take() {
            snapshot.notes = thread::Builder::new()
                .name("notes".to_owned())
                .spawn(|| stderr::pass_on(notes))
                .map(Some)
                .context("cannot start the thread that reads its notes")?;
        }
        thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let read = read(rows, &queue);
                // The trace may have ended.
                let _ended = queue.send(Arrival::SnapshotEnd(read));
            })
            .context("cannot start the thread that reads it")?;
        Ok(snapshot)
    }

    /// Waits for its end, once its output has been read.
    ///
    /// # Errors
    /// When it failed.
    pub(super) fn end(mut self) -> Result<()> {
        // It closes its output by ending.
        let status = self.child.wait().context("cannot wait for it")?;
        if let Some(notes) = self.notes.take() {
            // Notes that can't be read are not a reason to fail.
            let _lost = notes.join();
        }
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for SnapshotProcess {
    fn drop(&mut self) {
        // It has ended, or may never end: see the module.
        let _gone = self.child.kill();
        let _status = self.child.try_wait();
    }
}

/// Sends the rows to the thread that writes, until the last, or until that has stopped.
fn read(rows: ChildStdout, queue: &SyncSender<Arrival>) -> Result<()> {
    let mut rows = BufReader::new(rows);
    let mut line = String::new();
    let mut batch = Vec::new();
    loop {
        line.clear();
        let is_end = rows.read_line(&mut line).context("cannot read it")? == 0;
        if !is_end {
            let row: Row = serde_json::from_str(&line).context("it says what is no socket")?;
            batch.push(Event::Snapshot(Box::new(row)));
        }
        if batch.len() >= BATCH || is_end {
            let batch = std::mem::take(&mut batch);
            if queue.send(Arrival::Events(batch)).is_err() {
                bail!("the trace has ended");
            }
        }
        if is_end {
            return Ok(());
        }
    }
}
