//! Enters mount namespaces, and mounts in them.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves this thread into a new mount namespace. Threads and processes started later are
/// in it too. Nothing else sees its mounts.
pub fn enter_new() -> Result<()> {
    // SAFETY: no file descriptor is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare mounts")?;
    let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", alone).context("make the mounts private")
}

/// Mounts an empty directory over a directory.
pub fn cover(directory: &Path) -> Result<()> {
    mount("none", directory, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("cover {}", directory.display()))
}
