//! Read-only disks for guests: what is too big for their memory.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::arch::Arch;
use crate::process::{CommandExt, say};
use crate::{apt, workspace};

/// The kernel modules that read a disk. `erofs` needs libcrc32c, which asks for crc32c by name.
pub const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "erofs"];

/// A disk with a file system that a folder was copied to.
pub struct Disk {
    /// Its serial number in the guest. QEMU takes 20 bytes of it.
    pub name: &'static str,
    /// The file that holds its blocks.
    pub image: PathBuf,
}

impl Disk {
    /// The disk of a folder, made once. All its files belong to root.
    pub fn of(arch: Arch, name: &'static str, folder: &Path) -> Result<Self> {
        let home = arch.cache("disks").join(name);
        workspace::make_once(&home, |into| {
            say(format_args!("making a disk of {name}"));
            let tools = apt::tree("erofs-utils")?;
            apt::loader(&tools)
                .arg(tools.join("usr/bin/mkfs.erofs"))
                .args(["--quiet", "--all-root"])
                .args([&into.join("image"), folder])
                .check_to_stderr()
        })?;
        Ok(Self {
            name,
            image: home.join("image"),
        })
    }
}
