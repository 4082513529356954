//! Opens the file of a log. No other code opens one for writing.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::OFlags;

use crate::output_file::{self, PRIVATE};
use crate::sink::options::LogFile;

/// Creates the log, for its owner only. Without `overwrite` it opens nothing that exists, a
/// link included.
pub(super) fn create(log: &LogFile) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE;
    if !log.overwrite {
        return output_file::open(&log.path, flags | OFlags::EXCL, PRIVATE);
    }
    let file = output_file::open(&log.path, flags, PRIVATE)?;
    // Not before it is known to be ours.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

pub(super) fn why(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory if path.is_dir() => {
            "it is a directory".to_owned()
        }
        io::ErrorKind::AlreadyExists => "it exists; --force overwrites it".to_owned(),
        _ => error.to_string(),
    }
}
