//! Runs child processes and reports how they failed.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Prints a progress message to stderr.
pub fn say(message: impl std::fmt::Display) {
    // A closed stderr must not stop the work.
    let _ = writeln!(io::stderr(), "xtask: {message}");
}

/// Runs a command to its end.
pub trait CommandExt {
    /// Runs the command on our standard streams; fails if it fails.
    fn check(&mut self) -> Result<()>;

    /// Runs the command with its stdout on our stderr, so that our stdout holds only
    /// what the user asked for.
    fn check_to_stderr(&mut self) -> Result<()>;

    /// Runs the command and returns its stdout.
    fn read(&mut self) -> Result<String>;
}

impl CommandExt for Command {
    fn check(&mut self) -> Result<()> {
        let status = self
            .status()
            .with_context(|| format!("cannot run {}", line(self)))?;
        if !status.success() {
            bail!("{status} from {}", line(self));
        }
        Ok(())
    }

    fn check_to_stderr(&mut self) -> Result<()> {
        self.stdout(io::stderr()).check()
    }

    fn read(&mut self) -> Result<String> {
        let Output { status, stdout, .. } = self
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", line(self)))?;
        if !status.success() {
            bail!("{status} from {}", line(self));
        }
        String::from_utf8(stdout).with_context(|| format!("no text from {}", line(self)))
    }
}

/// The program and its arguments, as typed in a shell but unquoted.
pub fn line(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
