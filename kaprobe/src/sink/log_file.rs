//! Opens the file of a log. No other code opens one for writing.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::model::header::{self, HeaderLine};
use crate::output_file::{self, PRIVATE};
use crate::sink::options::{Existing, Format};

/// The longest first line that is looked at. kaprobe's own are a hundred times shorter.
const FIRST_LINE: u64 = 1 << 20;

/// Opens the file of a log for writing at its end, and makes it, for its owner only, if
/// there is none. `heading` is the first line of a log in a format other than JSON.
///
/// # Errors
/// When it can't be opened, or exists and may not be written to.
pub(super) fn open(
    path: &Path,
    existing: Existing,
    format: Format,
    heading: &[u8],
) -> io::Result<File> {
    // A FIFO that nobody reads is an error, instead of a wait.
    let flags = OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |more| output_file::open(path, flags | more, PRIVATE);
    if existing == Existing::Overwrite {
        let file = open(OFlags::WRONLY | OFlags::CREATE).map_err(no_reader)?;
        return overwrite(file);
    }
    match open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Append => {}
        made => return made.and_then(lock),
    }
    let mut file = open(OFlags::RDWR).and_then(lock)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(
            "it is not a regular file; --force writes to it",
        ));
    }
    continue_log(&mut file, format, heading)?;
    Ok(file)
}

/// Empties a file, now that it is known to be ours. Makes writes to a FIFO or a device wait, as they usually do.
fn overwrite(file: File) -> io::Result<File> {
    let kind = file.metadata()?;
    if kind.is_file() {
        let file = lock(file)?;
        file.set_len(0)?;
        return Ok(file);
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Locks the file, so that no other kaprobe writes to it.
fn lock(file: File) -> io::Result<File> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another kaprobe writes it")),
        // Some file systems have no locks.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
    }
}

/// Checks that an existing file is a log of this format. Its last line is ended if it
/// breaks off.
fn continue_log(file: &mut File, format: Format, heading: &[u8]) -> io::Result<()> {
    let mut first = Vec::new();
    let beginning = BufReader::new(file.try_clone()?);
    beginning.take(FIRST_LINE).read_until(b'\n', &mut first)?;
    if first.is_empty() {
        return Ok(());
    }
    let is_log = match format {
        Format::Json => is_header(&first),
        Format::Text | Format::Csv => !heading.is_empty() && heading == first,
    };
    if !is_log {
        return Err(io::Error::other(
            "it exists and is not a log of this format; --force overwrites it",
        ));
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Whether a line is the header of a log with this major version. kaprobe may have been
/// killed while it wrote it: then the line, which is the only one, breaks off.
fn is_header(line: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: String,
    }
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    match serde_json::from_slice::<HeaderLine<Versioned>>(line) {
        Ok(it) => major(&it.header.version) == major(header::VERSION),
        Err(why) => {
            let start = header::VERSION.split_inclusive('.').next();
            let start = format!(r#"{{"header":{{"version":"{}"#, start.unwrap_or_default());
            why.is_eof() && !line.ends_with(b"\n") && line.starts_with(start.as_bytes())
        }
    }
}

/// Explains the error of a FIFO that nobody reads (fifo(7)).
fn no_reader(why: io::Error) -> io::Error {
    if why.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
        return io::Error::other("nobody reads it");
    }
    why
}

/// Whether writes of up to `PIPE_BUF` bytes go in whole or not at all (pipe(7)).
pub(super) fn is_pipe(kind: &Metadata) -> bool {
    kind.file_type().is_fifo()
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
