//! Runs the kaprobe under test until it exits.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The binary under test: `KAPROBE_BIN`, or else the one that cargo built for the tests.
pub fn binary() -> Result<PathBuf> {
    let names = ["KAPROBE_BIN", "CARGO_BIN_EXE_kaprobe"];
    let path = names.into_iter().find_map(env::var_os);
    let path = path.with_context(|| format!("none of {names:?} is set"))?;
    Ok(PathBuf::from(path))
}

/// Copies the binary under test to a file.
///
/// Another process does: a program can't be executed while a process has it open for writing,
/// and a child that another thread starts just then has what this process has open.
pub fn copy_binary(to: &Path) -> Result<()> {
    let mut copy = Command::new("sh");
    // The shell of a guest has cp; the guest has no program of that name.
    copy.args(["-c", r#"cp "$1" "$2""#, "sh"]);
    copy.arg(binary()?).arg(to);
    let status = copy.status().context("cannot run sh")?;
    ensure!(
        status.success(),
        "{status}: cannot copy kaprobe to {}",
        to.display()
    );
    Ok(())
}

/// A command for the kaprobe under test, without arguments.
pub fn kaprobe() -> Result<Command> {
    Ok(Command::new(binary()?))
}

/// Runs kaprobe until it exits.
pub fn run(arguments: &[&str]) -> Result<Output> {
    kaprobe()?
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("kaprobe {arguments:?}"))
}

/// Runs a command until it exits. Returns its exit code, stdout and stderr.
pub fn run_as(mut command: Command, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = command.args(arguments).output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(!stderr.contains("panicked"), "{stderr}");
    Ok((
        output.status.code(),
        String::from_utf8(output.stdout)?,
        stderr,
    ))
}
