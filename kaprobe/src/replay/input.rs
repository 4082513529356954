//! The logs that `kaprobe replay` reads: files, folders of a recorder, or standard input.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::model::time::{TimeWindow, WallTime};
use crate::replay::decompress::LogReader;
use crate::replay::log::Log;
use crate::replay::segments;
use crate::text::escape::Escaped;
use crate::{exit, stderr};

/// A log to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file, or a folder of a recorder.
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
    fn open(&self, reader: fn(File) -> io::Result<LogReader>) -> Result<(FileId, LogReader)> {
        let file = match self {
            Self::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => File::open(path),
        };
        let read = |file: File| {
            let id = FileId::of(&file.metadata()?);
            Ok((id, reader(file)?))
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
    /// A segment of a recorder.
    pub is_segment: bool,
}

impl OpenLog {
    /// Begins to read it. Also returns its name in messages.
    #[must_use]
    pub fn read(self) -> (String, Log<LogReader>) {
        let log = if self.is_segment {
            Log::segment(self.reader)
        } else {
            Log::new(self.reader)
        };
        (self.name, log)
    }
}

/// Opens logs. A folder of a recorder stands for its segments. A file that is given twice,
/// under whatever name, is read once, and a message says so: its records would count twice.
/// Segments without records of this window may be left out.
///
/// # Errors
/// If one can't be opened or read.
pub fn open(logs: &[Input], window: &TimeWindow) -> Result<Vec<OpenLog>> {
    let mut open: Vec<OpenLog> = Vec::with_capacity(logs.len());
    for log in logs {
        match log {
            Input::File(path) if path.is_dir() => {
                for segment in segments::find(path, window)? {
                    // The recorder removes the oldest.
                    if let Some(log) = removed_is_none(open_one(&Input::File(segment)))? {
                        add(&mut open, log);
                    }
                }
            }
            log => add(&mut open, open_one(log)?),
        }
    }
    Ok(open)
}

fn open_one(log: &Input) -> Result<OpenLog> {
    let is_segment = match log {
        Input::File(path) => segments::name_of(path).is_some(),
        Input::Stdin => false,
    };
    let reader = if is_segment {
        LogReader::segment
    } else {
        LogReader::new
    };
    let (id, reader) = log.open(reader)?;
    Ok(OpenLog {
        name: log.name(),
        id,
        reader,
        is_segment,
    })
}

/// `None` for a file that is not there any more.
fn removed_is_none<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(why) if why.downcast_ref().is_some_and(is_not_found) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_not_found(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::NotFound
}

/// Adds a log, unless it is there.
fn add(open: &mut Vec<OpenLog>, log: OpenLog) {
    match open.iter().find(|it| it.id == log.id) {
        Some(same) => stderr::line(format_args!(
            "{}: the same file as {}: read once",
            log.name, same.name
        )),
        None => open.push(log),
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
/// The time of the wall clock.
pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(since.map_or(0, |it| it.as_nanos().try_into().unwrap_or(i64::MAX)))
}
