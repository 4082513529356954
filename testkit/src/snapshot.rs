//! Runs `kaprobe sockets --json` and parses its rows.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use kaprobe::sockets::plan::Selection;
use kaprobe::sockets::snapshot::Snapshots;
use serde_json::Value;

use crate::{command, schema};

const SCHEMA: &str = include_str!("../../schema/kaprobe-sockets.schema.json");

/// The rows for this thread's network namespace.
pub fn here() -> Result<Vec<Value>> {
    take(&[])
}

/// The rows that `kaprobe sockets` shows with these arguments.
pub fn take(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = command::run(&[&["sockets", "--json"], arguments].concat())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    parse(&String::from_utf8(output.stdout)?)
}

/// Parses rows and checks each against the schema.
pub fn parse(lines: &str) -> Result<Vec<Value>> {
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    let row = |line| schema::check(&validator, line).map_err(Error::msg);
    lines.lines().map(row).collect()
}

/// Maps inodes to rows, without rows that have no inode. An error if an inode repeats.
pub fn by_inode(rows: Vec<Value>) -> Result<HashMap<u64, Value>> {
    let mut rows_by_inode = HashMap::new();
    for row in rows {
        if let Some(inode) = row["inode"].as_u64() {
            let duplicate = rows_by_inode.insert(inode, row);
            ensure!(duplicate.is_none(), "inode seen twice: {duplicate:?}");
        }
    }
    Ok(rows_by_inode)
}

/// The inode number of a socket that this process holds.
pub fn inode(socket: &impl AsRawFd) -> Result<u64> {
    let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
    Ok(fs::metadata(&link).context(link)?.ino())
}

/// The pause between two snapshots of a [`SocketsWatch`].
const PAUSE: Duration = Duration::from_millis(100);

/// Snapshots of this network namespace, one after another. They are taken by this process: one
/// that is started for each would be too slow.
pub struct SocketsWatch {
    is_over: Arc<AtomicBool>,
    rows: JoinHandle<Result<Vec<Value>>>,
}

impl SocketsWatch {
    /// Returns once there is a snapshot.
    pub fn start() -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (taken, first) = channel();
        let rows = thread::spawn(move || watch(&over, &taken));
        // Without one, the thread says why at the end.
        let _failed = first.recv();
        Ok(Self { is_over, rows })
    }

    /// Ends after the current snapshot. Returns the rows of all.
    pub fn end(self) -> Result<Vec<Value>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.rows
            .join()
            .map_err(|_| anyhow!("the thread panicked"))?
    }
}

/// Takes snapshots until it is over. Says when the first is taken.
fn watch(is_over: &AtomicBool, taken: &Sender<()>) -> Result<Vec<Value>> {
    let selection = Selection::default();
    let mut snapshots = Snapshots::open(&selection)?;
    let mut rows = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        snapshots.take(&mut |batch| {
            for row in batch {
                rows.push(serde_json::to_value(row)?);
            }
            Ok(())
        })?;
        let _unheard = taken.send(());
        thread::sleep(PAUSE);
    }
    Ok(rows)
}
