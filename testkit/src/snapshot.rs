//! Runs `kaprobe sockets --json` and parses its rows.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Error, Result, ensure};
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
