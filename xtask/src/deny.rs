//! Checks the dependencies against `deny.toml`: their licences, their sources, two versions
//! of one, and what is known against them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::process::{CommandExt, say};
use crate::workspace;

/// The version of cargo-deny.
const VERSION: &str = "0.20.2";

/// Runs the checks. Says which could not be run: without the tool, or without the database
/// of advisories, there is nothing to compare with.
pub fn run() -> Result<()> {
    let tool = match tool() {
        Ok(tool) => tool,
        Err(why) => {
            say(format_args!(
                "cargo-deny can't be built ({why:#}): licences, sources, duplicates and \
                 advisories are NOT checked"
            ));
            return Ok(());
        }
    };
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        command
            .current_dir(workspace::root())
            .args(["--log-level", "error", "--workspace"]);
        command.args(arguments);
        command
    };
    say("checking licences, sources and duplicates of the dependencies");
    deny(&["check", "licenses", "sources", "bans"]).check_to_stderr()?;
    let fetched = deny(&["fetch", "db"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !fetched.is_ok_and(|status| status.success()) {
        say("the database of advisories can't be reached: advisories are NOT checked");
        return Ok(());
    }
    say("checking the advisories");
    deny(&["check", "--disable-fetch", "advisories"]).check_to_stderr()
}

/// The path of cargo-deny, built if it is missing.
fn tool() -> Result<PathBuf> {
    let home = workspace::cache(&format!("cargo-deny-{VERSION}"));
    workspace::make_once(&home, |home| {
        say(format_args!(
            "building cargo-deny {VERSION}, which takes some minutes"
        ));
        let build = workspace::scratch()?;
        workspace::cargo()
            .args([
                "install",
                "cargo-deny",
                "--version",
                VERSION,
                "--locked",
                "--root",
            ])
            .arg(home)
            .env("CARGO_TARGET_DIR", build.path())
            .check_to_stderr()
    })?;
    Ok(home.join("bin/cargo-deny"))
}
