//! Enters mount namespaces, mounts in them, and runs programs in other root directories.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::process::{chdir, chroot};
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

/// Shows this host's directories of these names in another root directory, with what is mounted
/// in them.
pub fn show_in(root: &Path, directories: &[&str]) -> Result<()> {
    for directory in directories {
        let to = root.join(directory);
        fs::create_dir_all(&to)?;
        mount_bind_recursive(Path::new("/").join(directory), &to)
            .with_context(|| format!("show /{directory} in {}", root.display()))?;
    }
    Ok(())
}

/// Lets a command run in another root directory.
pub fn use_root(command: &mut Command, root: &Path) {
    let root = PathBuf::from(root);
    let enter = move || {
        chroot(&root)?;
        Ok(chdir("/")?)
    };
    // SAFETY: two system calls on a path that was made before the fork.
    unsafe { command.pre_exec(enter) };
}
