//! Finds the systemd unit, the container and the pod of a process, by name.

pub mod cgroup_path;
mod found_names;
mod kubelet;
pub mod names;
mod node;
mod runtimes;
