//! What kaprobe's tests and benches share: they start kaprobe, play traffic for it, and
//! hold what it says to what the kernel says.
//!
//! For `tests/` and `benches/` alone. Unit tests of kaprobe can't use it, as it uses
//! kaprobe's library; [`golden`] and [`schema`] use nothing of it, and are included there.

pub mod bpf;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod command;
pub mod cpu;
pub mod doctor;
pub mod egress;
pub mod fixtures;
pub mod golden;
pub mod harness;
pub mod holder;
pub mod ipvs;
pub mod log;
pub mod mounts;
pub mod netns;
pub mod package;
pub mod process;
pub mod schema;
pub mod snapshot;
pub mod streams;
pub mod timers;
pub mod tracer;
pub mod traffic;
pub mod unprivileged;
pub mod wait;
