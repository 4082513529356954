//! Opens /proc, and tells whether it hides processes.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Opens /proc.
///
/// # Errors
/// When it is not mounted.
pub fn open_proc() -> Result<OwnedFd> {
    open_dir(rustix::fs::CWD, c"/proc")
}

/// Whether this /proc hides the processes of other users (`hidepid`). If not, it lists the
/// first process of its pid namespace, which lives as long as the namespace does.
#[must_use]
pub fn hides(proc: BorrowedFd<'_>) -> bool {
    let first = rustix::fs::statat(proc, c"1", AtFlags::empty());
    matches!(first, Err(Errno::NOENT))
}

/// Opens a directory for reading.
///
/// # Errors
/// When it does not exist or can't be read.
pub fn open_dir<Fd: AsFd>(at: Fd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}
