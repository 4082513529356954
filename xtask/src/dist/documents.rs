//! The man pages and the completions, which kaprobe writes itself.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::dist::program::Program;
use crate::process::CommandExt as _;
use crate::{rustc, workspace};

/// A shell whose completions kaprobe writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// What kaprobe writes about itself. It is the same on every architecture.
#[derive(Clone)]
pub struct Documents {
    /// The name of each man page, such as `kaprobe-trace.1`, and its text.
    pub pages: Vec<(String, Vec<u8>)>,
    /// The script for each shell.
    pub completions: Vec<(Shell, Vec<u8>)>,
}

impl Shell {
    const ALL: [Self; 3] = [Self::Bash, Self::Fish, Self::Zsh];

    /// Its name for kaprobe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Fish => "fish",
            Self::Zsh => "zsh",
        }
    }

    /// The name of a file in which it looks for the completions of kaprobe.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Bash => "kaprobe",
            Self::Fish => "kaprobe.fish",
            Self::Zsh => "_kaprobe",
        }
    }
}

impl Documents {
    /// Runs a kaprobe that was built for this host.
    pub fn of(program: &Program) -> Result<Self> {
        let scratch = workspace::scratch()?;
        let kaprobe = scratch.path().join("kaprobe");
        workspace::write(&kaprobe, &program.bytes)?;
        rustc::make_executable(&kaprobe)?;

        let folder = scratch.path().join("man1");
        Command::new(&kaprobe).arg("man").arg(&folder).check()?;
        let mut pages = Vec::new();
        for entry in fs::read_dir(&folder).context("kaprobe wrote no man pages")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            pages.push((name, fs::read(entry.path())?));
        }
        pages.sort();

        let completions = Shell::ALL.map(|shell| {
            let mut kaprobe = Command::new(&kaprobe);
            let script = kaprobe.args(["completions", shell.name()]).read()?;
            Ok((shell, script.into_bytes()))
        });
        Ok(Self {
            pages,
            completions: completions.into_iter().collect::<Result<_>>()?,
        })
    }
}
