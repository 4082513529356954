//! The logs that `kaprobe replay` reads: files or standard input.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::replay::decompress::LogReader;
use crate::text::escape::Escaped;
use crate::{exit, stderr};

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

    /// Opens the log. Waits for its first bytes.
    ///
    /// # Errors
    /// If it can't be opened or read.
    fn open(&self) -> Result<(FileId, LogReader)> {
        let file = match self {
            Self::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => File::open(path),
        };
        let read = |file: File| {
            let id = FileId::of(&file.metadata()?);
            Ok((id, LogReader::new(file)?))
        };
        file.and_then(read)
            .with_context(|| format!("cannot read {}", self.name()))
    }
}

/// A file, by the numbers of its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// The file that this metadata is of.
    #[must_use]
    pub fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

/// An open log.
pub struct OpenLog {
    /// Its name in messages.
    pub name: String,
    /// Which file it is.
    pub id: FileId,
    /// Its text.
    pub reader: LogReader,
}

/// Opens logs. A file that is given twice, under whatever name, is read once, and a message
/// says so: its records would count twice.
///
/// # Errors
/// If one can't be opened or read.
pub fn open(logs: &[Input]) -> Result<Vec<OpenLog>> {
    let mut open: Vec<OpenLog> = Vec::with_capacity(logs.len());
    for log in logs {
        let (name, (id, reader)) = (log.name(), log.open()?);
        match open.iter().find(|it| it.id == id) {
            Some(same) => stderr::line(format_args!(
                "{name}: the same file as {}: read once",
                same.name
            )),
            None => open.push(OpenLog { name, id, reader }),
        }
    }
    Ok(open)
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
