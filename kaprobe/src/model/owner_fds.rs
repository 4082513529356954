//! The descriptors by which processes hold a socket.

use serde::{Deserialize, Serialize};

use crate::text::escape::Escaped;

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
