//! Opens the file of a log. No other code opens one for writing.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use crate::sink::options::LogFile;

/// Creates the log with the permissions that the umask leaves: it holds no more than
/// /proc and `ss` show to everyone. Without `overwrite` it opens nothing that exists, a
/// link included.
pub(super) fn create(log: &LogFile) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if log.overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(&log.path)
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
