//! Builds kaprobe and runs it as root: `cargo xtask run`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::process::line;
use crate::{programs, workspace};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments for kaprobe
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds kaprobe and execs it, so that it gets the signals and sets the exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    let kaprobe =
        programs::kaprobe(workspace::cargo().args(["build", "--package", "kaprobe", "--release"]))?;
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&kaprobe)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(&kaprobe);
        sudo
    };
    let error = command.args(&args.arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", line(&command)))
}
