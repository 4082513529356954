//! Opens /proc, and tells whether it hides processes.

use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Opens /proc.
///
/// # Errors
/// When no proc file system is mounted there, or one of a pid namespace that this process
/// is not in: it does not show what is asked of it.
pub fn open_proc() -> io::Result<OwnedFd> {
    let proc = open_dir(rustix::fs::CWD, c"/proc")?;
    if rustix::fs::fstatfs(&proc)?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(io::Error::other("no proc file system is mounted there"));
    }
    // Leads nowhere for a process without a pid in that namespace (`proc_self_get_link`,
    // fs/proc/self.c).
    match rustix::fs::readlinkat(&proc, c"self", Vec::new()) {
        Err(Errno::NOENT) => Err(io::Error::other(
            "it shows a pid namespace that this process is not in",
        )),
        own => Ok(own.map(|_| proc)?),
    }
}

/// Whether this /proc hides the processes of other users (`hidepid`). If not, it lists the
/// first process of its pid namespace, which lives as long as the namespace does.
#[must_use]
pub fn hides(proc: BorrowedFd<'_>) -> bool {
    let first = rustix::fs::statat(proc, c"1", AtFlags::empty());
    matches!(first, Err(Errno::NOENT))
}

/// Whether this process is in the initial pid namespace.
#[must_use]
pub fn in_initial_pid_namespace() -> bool {
    /// `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
    const INITIAL: u64 = 0xEFFF_FFFC;
    rustix::fs::stat(c"/proc/self/ns/pid").is_ok_and(|it| it.st_ino == INITIAL)
}

/// Opens a directory for reading.
///
/// # Errors
/// When it does not exist or can't be read.
pub fn open_dir<Fd: AsFd>(at: Fd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}
