//! Runs `kaprobe sockets --json` and parses its rows.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use serde_json::Value;

use crate::child::Killed;
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

/// A running `kaprobe sockets --watch` in this network namespace.
pub struct SocketsWatch {
    child: Killed,
    rows: JoinHandle<io::Result<String>>,
}

impl SocketsWatch {
    /// Returns once kaprobe has shown a socket. At least one must exist.
    pub fn start() -> Result<Self> {
        let mut child = command::kaprobe()?
            .args(["sockets", "--json", "--watch=100ms"])
            .stdout(Stdio::piped())
            .spawn()
            .map(Killed)?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut first = String::new();
        ensure!(stdout.read_line(&mut first)? > 0, "kaprobe ended");
        Ok(Self {
            child,
            rows: thread::spawn(|| io::read_to_string(stdout)),
        })
    }

    /// Kills kaprobe. Returns all complete rows after the first.
    pub fn end(mut self) -> Result<Vec<Value>> {
        self.child.kill()?;
        self.child.wait()?;
        let rows = self
            .rows
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        let (whole, _rest) = rows.rsplit_once('\n').context("kaprobe wrote nothing")?;
        Ok(whole
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    }
}
