//! What the host's files say: processes, namespaces, cgroups, settings, privileges.
//!
//! No module here uses BPF, and none runs in the thread that reads the ring buffer: a slow
//! /proc may delay a record, but never costs an event.

pub mod cgroup;
pub mod hidden;
pub mod netns;
pub mod privilege;
pub mod proc;
pub mod timeouts;
