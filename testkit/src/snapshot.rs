//! What `kaprobe sockets --json` shows.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;

use crate::{command, schema};

const SCHEMA: &str = include_str!("../../schema/kaprobe-sockets.schema.json");

/// The rows of this thread's network namespace.
pub fn here() -> Result<Vec<Value>> {
    take(&[])
}

/// The rows that these arguments show.
pub fn take(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = command::run(&[&["sockets", "--json"], arguments].concat())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    parse(&String::from_utf8(output.stdout)?)
}

/// Rows, each held to the schema.
pub fn parse(lines: &str) -> Result<Vec<Value>> {
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    let row = |line| schema::check(&validator, line).map_err(Error::msg);
    lines.lines().map(row).collect()
}

/// Those that have an inode, by it: none twice.
pub fn by_inode(rows: Vec<Value>) -> Result<HashMap<u64, Value>> {
    let mut found = HashMap::new();
    for row in rows {
        if let Some(inode) = row["inode"].as_u64() {
            let twice = found.insert(inode, row);
            ensure!(twice.is_none(), "twice: {twice:?}");
        }
    }
    Ok(found)
}

/// The inode number of a socket that this process holds.
pub fn inode(socket: &impl AsRawFd) -> Result<u64> {
    let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
    Ok(fs::metadata(&link).context(link)?.ino())
}
