//! Runs kaprobe with fewer privileges than root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use rustix::process::{Resource, Rlimit, setrlimit};
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
        command::copy_binary(&copy)?;
        fs::set_permissions(copy, everybody.clone())?;
        fs::set_permissions(dir.path(), everybody)?;
        Ok(Self(dir))
    }

    /// The path of the copy.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("kaprobe")
    }

    /// A command that runs the copy as nobody.
    pub fn as_nobody(&self) -> Command {
        self.run_as(NOBODY)
    }

    /// A command that runs the copy under this user and group id.
    pub fn run_as(&self, id: u32) -> Command {
        let mut command = Command::new(self.path());
        command.gid(id).uid(id);
        command
    }
}

/// kaprobe as root, but without CAP_SYS_PTRACE and without groups that /proc exempts from
/// hidepid.
pub fn without_ptrace() -> Result<Command> {
    let mut command = without(CapabilitySet::SYS_PTRACE)?;
    command.gid(NOBODY);
    // SAFETY: a system call.
    unsafe { command.pre_exec(|| Ok(set_thread_groups(&[])?)) };
    Ok(command)
}

/// kaprobe as root, but without a capability.
pub fn without(capability: CapabilitySet) -> Result<Command> {
    let mut command = command::kaprobe()?;
    // The bounding set limits root's capabilities after exec.
    let drop_privilege = move || Ok(remove_capability_from_bounding_set(capability)?);
    // SAFETY: a system call.
    unsafe { command.pre_exec(drop_privilege) };
    Ok(command)
}

/// Sets a limit of the process that a command starts, soft and hard.
pub fn limit(command: &mut Command, resource: Resource, limit: Rlimit) {
    let set = move || Ok(setrlimit(resource, limit)?);
    // SAFETY: a system call.
    unsafe { command.pre_exec(set) };
}
