//! Runs kaprobe with fewer privileges than root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Result;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_thread_groups};
use tempfile::TempDir;

use crate::command;

/// The user id and group id of nobody.
pub const NOBODY: u32 = 65534;

/// A copy of kaprobe that every user can execute, even if the checkout is private.
#[derive(Debug)]
pub struct PublicCopy(TempDir);

impl PublicCopy {
    /// Makes the copy.
    pub fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let everybody = Permissions::from_mode(0o755);
        let copy = dir.path().join("kaprobe");
        fs::copy(command::binary()?, &copy)?;
        fs::set_permissions(copy, everybody.clone())?;
        fs::set_permissions(dir.path(), everybody)?;
        Ok(Self(dir))
    }

    /// A command that runs the copy as nobody.
    pub fn as_nobody(&self) -> Command {
        let mut command = Command::new(self.0.path().join("kaprobe"));
        command.gid(NOBODY).uid(NOBODY);
        command
    }
}

/// kaprobe as root, but without CAP_SYS_PTRACE and without groups that /proc exempts from
/// hidepid.
pub fn without_ptrace() -> Result<Command> {
    let mut command = command::kaprobe()?;
    command.gid(NOBODY);
    let drop_privileges = || {
        set_thread_groups(&[])?;
        // The bounding set limits root's capabilities after exec.
        Ok(remove_capability_from_bounding_set(
            CapabilitySet::SYS_PTRACE,
        )?)
    };
    // SAFETY: two system calls.
    unsafe { command.pre_exec(drop_privileges) };
    Ok(command)
}
