//! Whether a new checkout at another path makes the same artifacts.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::arch::Arch;
use crate::dist::folder;
use crate::process::{CommandExt as _, say};
use crate::workspace;

/// Makes the artifacts of a commit in a new checkout, and compares their sums with those in this
/// folder.
pub fn run(commit: &str, arches: &[Arch], made: &Path) -> Result<()> {
    say("making the artifacts again, in a new checkout: this builds everything");
    let scratch = workspace::scratch()?;
    let checkout = scratch.path().join("another/kaprobe");
    Command::new("git")
        .args(["clone", "--quiet", "--no-checkout"])
        .arg(workspace::root())
        .arg(&checkout)
        .check_to_stderr()?;
    Command::new("git")
        .args(["checkout", "--quiet", "--detach", commit])
        .current_dir(&checkout)
        .check_to_stderr()?;
    let mut dist = workspace::cargo();
    dist.args(["xtask", "dist"]).current_dir(&checkout);
    for arch in arches {
        dist.args(["--arch", arch.name()]);
    }
    dist.check_to_stderr()?;
    folder::compare(made, &checkout.join(folder::PATH))
}
