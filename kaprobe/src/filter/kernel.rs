//! What the BPF programs filter.

use std::path::PathBuf;

use crate::filter::SocketFilter;

/// What the BPF programs keep: a socket that passes every filter that is set. What is
/// empty or `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// One bit for each [`kind`] to send up.
    pub event_mask: u32,
    /// Ports, networks and address family.
    pub sockets: SocketFilter,
    /// Network namespaces to keep, as they were named; at most [`MAX_NETNS`].
    pub netns: Vec<String>,
    /// cgroups to keep, as they were named; at most [`MAX_CGROUPS`].
    pub cgroups: Vec<PathBuf>,
}
