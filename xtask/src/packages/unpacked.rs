//! Whether the program of a package runs where there is nothing else.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::chroot;
use crate::dist::trial::Trial;
use crate::process::CommandExt as _;
use crate::workspace;

/// Unpacks the package for Debian, and runs its program in a root that has nothing but it, and
/// places for /proc and /sys.
pub fn check(trial: &Trial) -> Result<()> {
    let scratch = workspace::scratch()?;
    let (package, tree) = (scratch.path().join("deb"), scratch.path().join("tree"));
    workspace::write(&package, &trial.deb.new.bytes)?;
    Command::new("dpkg-deb")
        .arg("--extract")
        .args([&package, &tree])
        .check_to_stderr()?;
    let root = scratch.path().join("root");
    workspace::rename(&tree.join("usr/bin/kaprobe"), &root.join("kaprobe"))?;

    // Places for the kernel's file systems, which every host has.
    for folder in ["proc", "sys"] {
        fs::create_dir(root.join(folder)).context("cannot create a folder")?;
    }

    let version = chroot::command(&root, &["/kaprobe", "--version"])?.read()?;
    // What follows the commit says whether files differ from it.
    let start = format!("kaprobe {} ({}", trial.version, &trial.commit[..12]);
    ensure!(version.starts_with(&start), "{version}is not {start}");
    let sockets = chroot::command(&root, &["/kaprobe", "sockets", "--json"])?.read();
    ensure!(
        sockets.is_ok(),
        "kaprobe sockets does not run in an empty root"
    );
    Ok(())
}
