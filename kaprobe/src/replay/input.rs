//! The logs that `kaprobe replay` reads: files, folders of a recorder, or standard input.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::model::time::{TimeBounds, TimeWindow, WallTime};
use crate::replay::decompress::LogReader;
use crate::replay::input_file::{FileId, InputFile};
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

    /// Opens the log, and waits for its first bytes. A segment of a recorder is opened later.
    ///
    /// # Errors
    /// If it can't be opened or read.
    fn open(&self) -> Result<InputFile> {
        self.open_file()
            .with_context(|| format!("cannot read {}", self.name()))
    }

    fn open_file(&self) -> io::Result<InputFile> {
        let file = match self {
            Self::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            Self::File(path) => {
                if let Some(segment) = segments::name_of(path) {
                    let file = fs::metadata(path)?;
                    let (id, size) = (FileId::of(&file), file.len());
                    let path = path.clone();
                    return Ok(InputFile::segment(self.name(), id, size, segment, path));
                }
                File::open(path)?
            }
        };
        let metadata = file.metadata()?;
        let (id, size) = (FileId::of(&metadata), metadata.len());
        Ok(InputFile::open(
            self.name(),
            id,
            size,
            LogReader::new(file)?,
        ))
    }
}

/// Opens logs. A folder of a recorder stands for its segments. A file that is given twice,
/// under whatever name, is read once, and a message says so: its records would count twice.
/// Segments without records of this window may be left out.
///
/// # Errors
/// If one can't be opened or read.
pub fn open(logs: &[Input], window: &TimeWindow) -> Result<Vec<InputFile>> {
    let mut open: Vec<InputFile> = Vec::with_capacity(logs.len());
    for log in logs {
        match log {
            Input::File(path) if path.is_dir() => {
                let found = segments::find(path, window)?;
                for segment in found.paths {
                    // The recorder removes the oldest.
                    if let Some(mut log) = removed_is_none(Input::File(segment).open())? {
                        log.folder_times = Some(found.times);
                        add(&mut open, log);
                    }
                }
            }
            log => add(&mut open, log.open()?),
        }
    }
    Ok(open)
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
fn add(open: &mut Vec<InputFile>, log: InputFile) {
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

/// The times of the records to read, by the clock of now.
///
/// # Errors
/// [`exit::Code::Usage`], if the first is later than the last.
pub fn window(times: TimeBounds) -> Result<TimeWindow, exit::Error> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = WallTime(since.map_or(0, |it| it.as_nanos().try_into().unwrap_or(i64::MAX)));
    times
        .resolve(now)
        .ok_or_else(|| exit::Error::usage("--since is later than --until"))
}
