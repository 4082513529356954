//! Reads the TCP connections of a network namespace from /proc.

use std::fs;

use anyhow::Result;

/// A connection in /proc/net/tcp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The local port.
    pub local: u16,
    /// The remote port.
    pub remote: u16,
    /// It is in the state ESTABLISHED.
    pub is_established: bool,
    /// What was sent is not acknowledged.
    pub in_flight: bool,
}

/// The connections of this thread's network namespace, over IPv4.
pub fn rows() -> Result<Vec<Row>> {
    let sockets = fs::read_to_string("/proc/thread-self/net/tcp")?;
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || u16::from_str_radix(fields.next()?.split_once(':')?.1, 16).ok();
        let (local, remote) = (port()?, port()?);
        let state = fields.next()?;
        let (to_send, _) = fields.next()?.split_once(':')?;
        Some(Row {
            local,
            remote,
            is_established: state == "01",
            in_flight: to_send != "00000000",
        })
    };
    Ok(sockets.lines().skip(1).filter_map(row).collect())
}
