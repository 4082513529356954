//! Reads all descriptors that refer to a socket: from `/proc/*/fd`, or by a BPF iterator
//! at a ninth of the cost.
//!
//! One walk through the host's /proc sees all network, mount and pid namespaces below it.
//! Inode numbers of sockets are the same in all of them, because there is only one sockfs
//! (`sock_mnt`, net/socket.c).

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;

use kaprobe_ebpf::wire::Descriptor;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use crate::host::privilege::Privileges;
use crate::host::proc::{open_dir, open_proc};
use crate::kernel::DescriptorIterator;
use crate::text::escape::Escaped;

/// A descriptor that refers to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFd {
    /// Pid of the process in the pid namespace of this /proc.
    pub pid: u32,
    /// Number of the descriptor in that process.
    pub fd: u32,
    /// Inode number of the socket, from a 32-bit counter (`sock_alloc`, net/socket.c).
    pub inode: u32,
}

/// Reads the descriptors of all processes.
#[derive(Debug)]
pub struct Descriptors {
    proc: OwnedFd,
    /// The faster source, if it shows the same as /proc.
    iterator: Option<DescriptorIterator>,
}

impl Descriptors {
    /// Opens /proc. Uses the iterator if it shows the same as /proc.
    ///
    /// # Errors
    /// If /proc can't be opened.
    pub fn open(iterator: Option<DescriptorIterator>) -> io::Result<Self> {
        let proc = open_proc()?;
        let iterator = iterator.filter(|_| matches_proc(proc.as_fd()).is_ok());
        Ok(Self { proc, iterator })
    }

    /// The open directory /proc.
    #[must_use]
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Calls `visit` for every socket descriptor of every process, in ascending order of
    /// pid, then of descriptor.
    ///
    /// Returns the number of processes whose descriptors can't be read because kaprobe
    /// lacks CAP_SYS_PTRACE. Processes hidden by `hidepid` are not counted.
    ///
    /// Does not visit threads: they share the descriptors of their process. Misses a
    /// thread that was cloned without CLONE_FILES or outlives its main thread.
    ///
    /// # Errors
    /// If a directory can't be read although it exists and access is allowed, for example
    /// because kaprobe itself is out of descriptors.
    pub fn walk(&self, mut visit: impl FnMut(SocketFd)) -> Result<usize> {
        let Some(iterator) = &self.iterator else {
            return walk(self.proc(), visit);
        };
        let walked = iterator.each(&mut |Descriptor { inode, pid, fd }| {
            if let Ok(inode) = u32::try_from(inode) {
                visit(SocketFd { pid, fd, inode });
            }
        });
        walked.map(|()| 0).map_err(|why| {
            let io = why.downcast_ref::<io::Error>();
            io.and_then(Errno::from_io_error).unwrap_or(Errno::IO)
        })
    }
}

/// Checks that the iterator shows the same as this /proc: /proc hides nothing from
/// kaprobe and shows kaprobe's own pid namespace.
///
/// # Errors
/// The reason why the iterator differs.
pub fn matches_proc(proc: BorrowedFd<'_>) -> std::result::Result<(), &'static str> {
    if !Privileges::read().is_ok_and(Privileges::may_ptrace) {
        return Err("it shows what /proc hides from a process without CAP_SYS_PTRACE");
    }
    is_of_own_namespace(proc)
}

/// Checks that this /proc shows kaprobe's own pid namespace.
///
/// # Errors
/// That it does not.
pub fn is_of_own_namespace(proc: BorrowedFd<'_>) -> std::result::Result<(), &'static str> {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    let shown = rustix::fs::readlinkat(proc, c"self", Vec::new());
    match shown.is_ok_and(|shown| shown.to_bytes() == own.as_bytes()) {
        true => Ok(()),
        false => Err("/proc shows another pid namespace than its own"),
    }
}

/// Walks through /proc, which lists processes and descriptors in ascending order
/// (`proc_pid_readdir`, fs/proc/base.c, and `proc_readfd_common`, fs/proc/fd.c).
///
/// The crate `procfs` takes twice the time: it allocates a path and a string for each
/// descriptor.
fn walk(proc: BorrowedFd<'_>, mut visit: impl FnMut(SocketFd)) -> Result<usize> {
    let mut unreadable = 0;
    for_each_number(&open_dir(proc, c".")?, |pid, _| {
        match walk_process(proc, pid, &mut visit) {
            Err(Errno::ACCESS | Errno::PERM) => unreadable += 1,
            // The process has ended.
            Err(Errno::NOENT | Errno::SRCH) => {}
            other => other?,
        }
        Ok(())
    })?;
    Ok(unreadable)
}

fn walk_process(proc: BorrowedFd<'_>, pid: u32, visit: &mut impl FnMut(SocketFd)) -> Result<()> {
    let fds = open_dir(proc, format!("{pid}/fd"))?;
    for_each_number(&fds, |fd, name| {
        match socket_inode(fds.as_fd(), name) {
            Ok(Some(inode)) => visit(SocketFd { pid, fd, inode }),
            // Not a socket, or already closed.
            Ok(None) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })
}

/// Whether a process still has this descriptor of this socket. On an error, `false`: a
/// process that has ended has no descriptors.
#[must_use]
pub fn is_open(proc: BorrowedFd<'_>, socket: SocketFd) -> bool {
    let link = format!("{}/fd/{}", socket.pid, socket.fd);
    socket_inode(proc, link) == Ok(Some(socket.inode))
}

/// Reads the command name of a process: at most 15 bytes, any but NUL.
///
/// # Errors
/// If the process has ended or is hidden.
pub fn comm(proc: BorrowedFd<'_>, pid: u32) -> Result<Escaped> {
    let file = rustix::fs::openat(proc, format!("{pid}/comm"), OFlags::RDONLY, Mode::empty())?;
    let mut bytes = Vec::with_capacity(64);
    rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))?;
    // The file ends with a newline; any other newline is part of the name (`comm_show`,
    // fs/proc/base.c, escapes nothing).
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Escaped::from_bytes(&bytes))
}

/// Calls `each` for every entry of a directory whose name is a number.
fn for_each_number(dir: &OwnedFd, mut each: impl FnMut(u32, &CStr) -> Result<()>) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if let Some(number) = number(entry.file_name().to_bytes()) {
            each(number, entry.file_name())?;
        }
    }
    Ok(())
}

/// The inode number in a link to `socket:[12345]` (`sockfs_dname`, net/socket.c). `None`
/// for any other link.
fn socket_inode(at: BorrowedFd<'_>, link: impl rustix::path::Arg) -> Result<Option<u32>> {
    let mut buffer = [MaybeUninit::uninit(); 40];
    let (target, _) = rustix::fs::readlinkat_raw(at, link, &mut buffer)?;
    let inode = target
        .strip_prefix(b"socket:[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    Ok(inode.and_then(number))
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
