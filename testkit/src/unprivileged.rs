//! kaprobe with less than root's privileges.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Result;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_thread_groups};
use tempfile::TempDir;

use crate::command;

/// A user and a group that own nothing.
pub const NOBODY: u32 = 65534;

/// A kaprobe that anybody can reach, wherever the checkout is.
#[derive(Debug)]
pub struct Reachable(TempDir);

impl Reachable {
    /// Makes a copy.
    pub fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let everybody = Permissions::from_mode(0o755);
        let copy = dir.path().join("kaprobe");
        fs::copy(command::binary()?, &copy)?;
        fs::set_permissions(copy, everybody.clone())?;
        fs::set_permissions(dir.path(), everybody)?;
        Ok(Self(dir))
    }

    /// It, run by nobody.
    pub fn by_nobody(&self) -> Command {
        let mut command = Command::new(self.0.path().join("kaprobe"));
        command.gid(NOBODY).uid(NOBODY);
        command
    }
}

/// kaprobe run by root, in no group that /proc favours and without CAP_SYS_PTRACE.
pub fn without_ptrace() -> Result<Command> {
    let mut command = command::kaprobe()?;
    command.gid(NOBODY);
    let renounce = || {
        set_thread_groups(&[])?;
        // What root has after exec is what this set allows.
        Ok(remove_capability_from_bounding_set(
            CapabilitySet::SYS_PTRACE,
        )?)
    };
    // SAFETY: two system calls.
    unsafe { command.pre_exec(renounce) };
    Ok(command)
}
