//! Shared code of kaprobe's tests and benches: starts kaprobe, plays traffic, and
//! compares kaprobe's output with the kernel's.
//!
//! Only `tests/` and `benches/` depend on this crate. Kaprobe's unit tests cannot,
//! because the crate depends on kaprobe. They include [`golden`] and [`schema`] as source
//! files, which do not use kaprobe.

pub mod agent;
pub mod bpf;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod command;
pub mod container;
pub mod cpu;
pub mod database;
pub mod doctor;
pub mod egress;
pub mod fixtures;
pub mod fleet;
pub mod golden;
pub mod harness;
pub mod helm;
pub mod holder;
pub mod http;
pub mod ipvs;
pub mod log;
pub mod mounts;
pub mod netns;
pub mod package;
pub mod page;
pub mod postgres;
pub mod proc_net;
pub mod process;
pub mod process_one;
pub mod python;
pub mod router;
pub mod schema;
pub mod snapshot;
pub mod streams;
pub mod systemd;
pub mod terminal;
pub mod timers;
pub mod tmux;
pub mod tracer;
pub mod traces;
pub mod traffic;
pub mod unprivileged;
pub mod wait;
