//! What the host's files and netlink say: processes, namespaces, routes, cgroups,
//! settings, privileges.
//!
//! No module here uses BPF, and none runs in the thread that reads the ring buffer: a slow
//! /proc may delay a record, but never costs an event.

pub mod cgroup;
pub mod hidden;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod privilege;
pub mod proc;
pub mod processes;
mod rtnetlink;
pub mod timeouts;
mod topology;
pub mod uts;
