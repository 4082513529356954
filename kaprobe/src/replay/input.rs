//! The logs that `kaprobe replay` reads: files or standard input.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exit;
use crate::text::escape::Escaped;

/// A log to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The name of the log in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => Escaped::from_path(path).to_string(),
        }
    }

    /// Opens the log.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(&self) -> Result<File> {
        let file = match self {
            Self::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => File::open(path),
        };
        file.with_context(|| format!("cannot read {}", self.name()))
    }
}

/// The logs with these names; `-` is standard input.
///
/// # Errors
/// [`exit::Code::Usage`], if standard input is named twice.
pub fn inputs(logs: Vec<PathBuf>) -> Result<Vec<Input>, exit::Error> {
    let logs: Vec<_> = logs.into_iter().map(input).collect();
    if logs.iter().filter(|log| **log == Input::Stdin).count() > 1 {
        return Err(exit::Error::usage("standard input can be read only once"));
    }
    Ok(logs)
}

fn input(log: PathBuf) -> Input {
    if log == Path::new("-") {
        Input::Stdin
    } else {
        Input::File(log)
    }
}
