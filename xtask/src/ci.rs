//! Everything that has to pass before a change lands.

use std::process::ExitCode;

use anyhow::Result;

use crate::process::{CommandExt, say};
use crate::{ebpf, test, workspace};

/// Format, lints for both targets, then all that `cargo xtask test` does.
pub fn run(args: &test::Args) -> Result<ExitCode> {
    say("checking the format");
    workspace::cargo()
        .args(["fmt", "--all", "--check"])
        .check_aside()?;
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
    workspace::cargo().args(clippy).check_aside()?;
    say("linting the BPF programs");
    ebpf::lint()?;
    test::run(args)
}
