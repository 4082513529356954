//! Mount namespaces.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves this thread, and what it starts from now on, into a mount namespace of its
/// own, where what it mounts is seen by nobody else.
pub fn enter_new() -> Result<()> {
    // SAFETY: no file descriptor is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare mounts")?;
    let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", alone).context("make the mounts private")
}

/// Covers a directory with an empty one.
pub fn cover(directory: &Path) -> Result<()> {
    mount("none", directory, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("cover {}", directory.display()))
}
