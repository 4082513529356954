//! What the tests share.

pub mod bpf;
pub mod cgroup;
pub mod cpu;
pub mod doctor;
pub mod egress;
pub mod harness;
pub mod holder;
pub mod ipvs;
pub mod kaprobe;
pub mod log;
pub mod mounts;
pub mod netns;
pub mod package;
pub mod process;
pub mod snapshot;
pub mod stage;
pub mod timers;
pub mod unprivileged;

/// Whether this process may do as it likes.
pub fn is_root() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
