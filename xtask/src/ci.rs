//! Everything that must pass before a change is merged: `cargo xtask ci`.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{CommandExt, say};
use crate::{deny, ebpf, test, workspace};

/// Checks the format, lints both targets, checks the dependencies, then does what `cargo
/// xtask test` does.
pub fn run(args: &test::Args) -> Result<ExitCode> {
    say("checking the format");
    workspace::cargo()
        .args(["fmt", "--all", "--check"])
        .check_to_stderr()?;
    say("linting user space");
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    workspace::cargo().args(clippy).check_to_stderr()?;
    say("linting the BPF programs");
    ebpf::lint()?;
    deny::run()?;
    test::run(args)
}
