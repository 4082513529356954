//! Child processes: what ran, and how it failed.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Tells the person who waits what happens now.
pub fn say(message: impl std::fmt::Display) {
    // A closed stderr is no reason to stop the work.
    let _ = writeln!(io::stderr(), "xtask: {message}");
}

/// Ways to run a command to its end.
pub trait CommandExt {
    /// Runs it on our standard streams; a failure is an error.
    fn check(&mut self) -> Result<()>;

    /// Runs it with its standard output on our standard error, so that ours
    /// stays free for what the user asked for.
    fn check_aside(&mut self) -> Result<()>;

    /// Runs it and returns what it printed.
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

    fn check_aside(&mut self) -> Result<()> {
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

/// A command as a person would type it.
pub fn line(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
