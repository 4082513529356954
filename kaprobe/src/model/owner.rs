//! Processes that hold sockets.

use serde::{Deserialize, Serialize};

use crate::text::escape::Escaped;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The process ID in kaprobe's own pid namespace.
    pub pid: u32,
    /// The command name: up to 15 bytes from the kernel, any but NUL, escaped.
    pub comm: Escaped,
    /// What it runs, if it is a runtime.
    pub cmdline: Option<Escaped>,
    /// Its systemd unit or container.
    pub unit: Option<Escaped>,
}

/// A file descriptor of a process that refers to a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerFd {
    /// The process ID in kaprobe's own pid namespace.
    pub pid: u32,
    /// The command name.
    pub comm: Escaped,
    /// The file descriptor.
    pub fd: u32,
}

/// All file descriptors that refer to a socket, sorted by process, then by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OwnerFds(pub Vec<OwnerFd>);
