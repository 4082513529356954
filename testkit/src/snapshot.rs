//! What `kaprobe sockets --json` shows.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command;

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
    let schema = serde_json::from_str(SCHEMA)?;
    let validator =
        jsonschema::draft202012::new(&schema).map_err(|why| anyhow::anyhow!("{why}"))?;
    let row = |line| {
        let row: Value = serde_json::from_str(line)?;
        let wrong: Vec<_> = validator
            .iter_errors(&row)
            .map(|it| it.to_string())
            .collect();
        ensure!(wrong.is_empty(), "{wrong:?} in {line}");
        Ok(row)
    };
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
