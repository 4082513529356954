//! A terminal in tmux, of Debian's package: types keys, and reads what is on the screen.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::package;
use crate::wait::wait_until;

/// What the shell in the terminal asks for commands with.
pub const PROMPT: &str = "ready>";

/// A terminal with a shell in it. Killed when dropped.
#[derive(Debug)]
pub struct Tmux {
    /// Holds the socket of the server.
    dir: TempDir,
}

impl Tmux {
    /// Opens a terminal of this size. Skips the test if there is no tmux.
    pub fn open(width: u16, height: u16) -> Result<Self> {
        let tmux = Self {
            dir: tempfile::tempdir()?,
        };
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        let shell = format!("env PS1='{PROMPT} ' TERM=screen sh");
        tmux.run(&[&["new-session", "-d"], &size[..], &[&shell]].concat())?;
        tmux.wait_for("the shell is ready", |screen| screen.contains(PROMPT))?;
        Ok(tmux)
    }

    /// Presses keys, by tmux's names: `Enter`, `C-z`, `q`.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat())?;
        Ok(())
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) -> Result<()> {
        self.run(&["send-keys", "-l", line])?;
        self.press(&["Enter"])
    }

    /// Gives the terminal another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-x", &width, "-y", &height])?;
        Ok(())
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// What is on the screen, with the escapes of its colors.
    pub fn colored_screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as it should be. Returns it.
    pub fn wait_for(&self, what: &str, mut is: impl FnMut(&str) -> bool) -> Result<String> {
        let mut screen = String::new();
        let waited = wait_until(what, || {
            screen = self.screen()?;
            Ok(is(&screen))
        });
        waited.with_context(|| format!("the screen is:\n{screen}"))?;
        Ok(screen)
    }

    /// Closes the terminal: what runs there has none any more.
    pub fn close(&self) -> Result<()> {
        self.run(&["kill-server"]).map(drop)
    }

    /// Runs a command of tmux. Returns what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command()?.args(arguments).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn command(&self) -> Result<Command> {
        let mut command = package::beside_host("tmux", "usr/bin/tmux")?;
        command
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(self.dir.path().join("socket"));
        // The shell, and what runs there, gets none of the tests' own.
        for name in ["NO_COLOR", "TMUX", "LANG", "LC_ALL"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C.UTF-8").env("SHELL", "/bin/sh");
        Ok(command)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It may be closed already.
        let _closed = self.close();
    }
}
