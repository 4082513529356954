//! Processes that hold sockets.

use serde::{Deserialize, Serialize};

use crate::text::escape::Escaped;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its pid, as kaprobe's own pid namespace numbers it.
    pub pid: u32,
    /// Its command: the kernel's 15 bytes, any bytes but NUL, escaped.
    pub comm: Escaped,
}

/// A descriptor that a process holds a socket by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerFd {
    /// The process, as kaprobe's own pid namespace numbers it.
    pub pid: u32,
    /// Its command.
    pub comm: Escaped,
    /// The descriptor.
    pub fd: u32,
}

/// Every descriptor that refers to a socket, by process and then by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OwnerFds(pub Vec<OwnerFd>);
