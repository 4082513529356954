//! Runs `kaprobe sockets` in a separate process: the snapshot at the start of a trace.
//!
//! The iterator locks each socket in turn (`bpf_iter_tcp_seq_show`, net/ipv4/tcp_ipv4.c).
//! While it waits for a lock it sleeps, and no signal interrupts it (`__lock_sock`,
//! net/core/sock.c). A process with a thread in that sleep can't end, and its programs
//! stay attached until it does. So the iterator runs outside the process of the trace.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail, ensure};

use crate::model::event::Event;
use crate::model::row::Row;
use crate::stderr;
use crate::trace::mailbox::{MailboxSender, TraceMessage};

/// The running program, even if its file has been replaced.
const SELF: &str = "/proc/self/exe";
/// Most rows that are sent together. A row takes about 700 bytes.
const BATCH: usize = 64;

/// A process that takes a snapshot. Dropping this kills the process.
pub(super) struct SnapshotProcess {
    child: Child,
    /// The thread that copies the notes of the process to standard error.
    notes: Option<JoinHandle<io::Result<()>>>,
}

impl SnapshotProcess {
    /// Starts `kaprobe` with these arguments. Its rows arrive as events.
    ///
    /// # Errors
    /// If a process or thread can't be started.
    pub(super) fn start(arguments: &[OsString], quiet: bool, to: MailboxSender) -> Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("kaprobe")
            .args(arguments)
            .stdin(Stdio::null())
            // The process inherits no stream. While it waits for a lock it would keep the
            // stream open, and the reader of the stream would wait too.
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
                let read = read(rows, &to);
                // The trace may have ended.
                let _ended = to.send(TraceMessage::SnapshotEnd(read));
            })
            .context("cannot start the thread that reads it")?;
        Ok(snapshot)
    }

    /// Waits until the process ends. Call it after all rows were read.
    ///
    /// # Errors
    /// If the process failed.
    pub(super) fn end(mut self) -> Result<()> {
        // The process closes its output only when it ends.
        let status = self.child.wait().context("cannot wait for it")?;
        if let Some(notes) = self.notes.take() {
            // A failure to read notes is ignored.
            let _lost = notes.join();
        }
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for SnapshotProcess {
    fn drop(&mut self) {
        // The process has ended or may never end (see the module docs): don't wait.
        let _gone = self.child.kill();
        let _status = self.child.try_wait();
    }
}

/// Sends the rows to the thread that shows them, until the last row or the end of the trace.
fn read(rows: ChildStdout, to: &MailboxSender) -> Result<()> {
    let mut rows = BufReader::new(rows);
    let mut line = String::new();
    let mut batch = Vec::new();
    loop {
        line.clear();
        let is_end = rows.read_line(&mut line).context("cannot read it")? == 0;
        if !is_end {
            let row: Row = serde_json::from_str(&line).context("cannot parse its output")?;
            batch.push(Event::Snapshot(Box::new(row)));
        }
        if batch.len() >= BATCH || is_end {
            let batch = std::mem::take(&mut batch);
            if !to.send(TraceMessage::Rows(batch)) {
                bail!("the trace has ended");
            }
        }
        if is_end {
            return Ok(());
        }
    }
}
