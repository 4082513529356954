//! Roots of Debian, and a root of tools that judge packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, KEYRING, Suites};
use crate::arch::Arch;
use crate::process::{CommandExt as _, say};
use crate::workspace;

/// The releases that packages are tried on: the number and the name of each.
pub const RELEASES: [(&str, &str); 3] = [("11", "bullseye"), ("12", "bookworm"), ("13", "trixie")];

/// The tools, and what they take for granted, as Debian calls it essential.
const TOOLS: [&str; 18] = [
    "lintian",
    "rpm",
    "rpmlint",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mawk",
    "perl-base",
    "sed",
    "tar",
];

/// The root of a release: what debootstrap installs at least. It is made once, and is to be
/// copied before it is changed.
pub fn root(release: &str) -> Result<PathBuf> {
    let root = workspace::cache("roots").join(release);
    workspace::make_once(&root, |into| {
        say(format_args!("installing the base of Debian's {release}"));
        let mirror = Suites::open(&[release], Arch::HOST)?.mirror()?;
        let tool = apt::lone_package(Arch::HOST, "debootstrap")?;
        // It mounts /proc in the root.
        Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
            .arg(tool.join("usr/sbin/debootstrap"))
            .args(["--variant=minbase", &format!("--keyring={KEYRING}")])
            .args([Path::new(release), into, Path::new(&mirror)])
            .env("DEBOOTSTRAP_DIR", tool.join("usr/share/debootstrap"))
            .check_to_stderr()?;
        let downloads = into.join("var/cache/apt/archives");
        fs::remove_dir_all(&downloads)
            .and_then(|()| fs::create_dir_all(downloads.join("partial")))
            .context("cannot remove what debootstrap downloaded")
    })?;
    Ok(root)
}

/// A root with the tools: unpacked packages, which nothing set up.
pub fn tools() -> Result<PathBuf> {
    let tree = apt::tree_of(Arch::HOST, "package-tools", &TOOLS)?;
    // lintian asks whose distribution this is.
    workspace::link(Path::new("debian"), &tree.join("etc/dpkg/origins/default"))?;
    Ok(tree)
}

/// A copy of a root.
pub fn copy(root: &Path, to: &Path) -> Result<()> {
    Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory"])
        .args([root, to])
        .check_to_stderr()
}
