//! The filters that run in the BPF programs.

use std::path::PathBuf;

use crate::filter::SocketFilter;

/// Most networks that the BPF programs compare with.
pub const MAX_NETWORKS: usize = 256;

/// Filters of the BPF programs. A socket must pass every filter. An empty or `None`
/// filter passes all sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// One bit for each `kind` to send to user space.
    pub event_mask: u32,
    /// Ports, at most [`MAX_NETWORKS`] networks, and address family.
    pub sockets: SocketFilter,
    /// Network namespaces to keep, as on the command line; at most `MAX_NETNS`.
    pub netns: Vec<String>,
    /// cgroups to keep, as on the command line; at most `MAX_CGROUPS`.
    pub cgroups: Vec<PathBuf>,
}
