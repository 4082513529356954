//! A small Debian whose first process is systemd.
//!
//! Its packages are unpacked, not installed: no script of theirs has run, and dpkg knows of none. It
//! has no udev and no D-Bus; `systemctl` as root needs neither.

use anyhow::Result;

use crate::apt;
use crate::arch::Arch;
use crate::vm::disk::Disk;
use crate::vm::initramfs::Initramfs;

/// The name of its tree, and of its disk.
const NAME: &str = "systemd-system";

/// Its packages, beside what they depend on.
const PACKAGES: [&str; 9] = [
    "systemd",
    "base-files",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    // The scripts of packages tell systemd by it what changes. It is in Perl.
    "init-system-helpers",
    "libc-bin",
    "perl-base",
];

/// The kernel module that lets it write to its root.
pub const MODULES: [&str; 1] = ["overlay"];

/// The disk of its root.
pub fn disk(arch: Arch) -> Result<Disk> {
    Disk::of(arch, NAME, &apt::tree_of(arch, NAME, &PACKAGES)?)
}

/// Adds what scripts of the packages would make, and the unit that runs the guest's command.
pub fn add_files(initramfs: &mut Initramfs) -> Result<()> {
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("var/lib/dpkg/status", ""),
        // An empty one makes systemd ask questions.
        ("etc/machine-id", "6b6170726f62652d6775657374000001\n"),
        (
            "etc/systemd/system/guest.service",
            include_str!("guest.service"),
        ),
    ] {
        initramfs.text(path, 0o644, text)?;
    }
    initramfs.symlink("var/run".as_ref(), "/run")?;
    let wanted = "etc/systemd/system/multi-user.target.wants/guest.service";
    initramfs.symlink(wanted.as_ref(), "../guest.service")
}
