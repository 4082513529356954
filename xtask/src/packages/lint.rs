//! What the tools of distributions say of the packages.

use anyhow::Result;

use crate::dist::trial::Trial;
use crate::process::CommandExt as _;
use crate::{chroot, debian, workspace};

/// What rpmlint may say, each with the reason.
const RPMLINT: &str = include_str!("rpmlint.toml");

/// Runs lintian and rpmlint. Fails if they find a fault.
pub fn check(trial: &Trial) -> Result<()> {
    // They write to the folder that they run in.
    let scratch = workspace::scratch()?;
    let root = scratch.path().join("root");
    debian::copy(&debian::tools()?, &root)?;
    for package in [&trial.deb.new, &trial.rpm.new] {
        workspace::write(&root.join("tmp").join(&package.path), &package.bytes)?;
    }
    let deb = format!("/tmp/{}", trial.deb.new.path);
    let mut lintian = vec!["lintian", "--allow-root", "--tag-display-limit", "0"];
    lintian.extend(["--fail-on", "error,warning", "--display-info", &deb]);
    chroot::command(&root, &lintian)?.check_to_stderr()?;

    workspace::write(&root.join("tmp/rpmlint.toml"), RPMLINT)?;
    let rpm = format!("/tmp/{}", trial.rpm.new.path);
    let rpmlint = ["rpmlint", "--strict", "--config", "/tmp/rpmlint.toml", &rpm];
    chroot::command(&root, &rpmlint)?.check_to_stderr()
}
