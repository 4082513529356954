//! Every socket that a process holds, as `/proc/*/fd` has them: read from there, or by a
//! BPF iterator, for a ninth of the price.
//!
//! One pass over the host's /proc sees all network, mount and pid namespaces below
//! it, and inode numbers of sockets are the same in all of them: there is a single
//! sockfs (`sock_mnt`, net/socket.c).

use crate::host::proc::open_dir;
use crate::host::proc::open_proc;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;

use kaprobe_ebpf::wire::Descriptor;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use crate::host::privilege::Privileges;
use crate::kernel::DescriptorIterator;
use crate::text::escape::Escaped;

/// A descriptor that refers to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFd {
    /// The process, as the pid namespace of this /proc numbers it.
    pub pid: u32,
    /// The descriptor in that process.
    pub fd: u32,
    /// The socket's inode number in sockfs, which takes it from a 32-bit counter
    /// (`sock_alloc`, net/socket.c).
    pub inode: u32,
}

/// Where descriptors of processes are looked up.
#[derive(Debug)]
pub struct Descriptors {
    proc: OwnedFd,
    /// Tells what /proc would.
    iterator: Option<DescriptorIterator>,
}

impl Descriptors {
    /// Opens /proc, and makes use of the iterator where that tells the same.
    ///
    /// # Errors
    /// Where there is no /proc.
    pub fn open(iterator: Option<DescriptorIterator>) -> Result<Self> {
        let proc = open_proc()?;
        let iterator = iterator.filter(|_| tells_the_same(proc.as_fd()).is_ok());
        Ok(Self { proc, iterator })
    }

    /// /proc.
    #[must_use]
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Calls `visit` for every socket of every process, in ascending order of pid and
    /// then of descriptor.
    ///
    /// Returns how many processes did not let their descriptors be read, for want of
    /// CAP_SYS_PTRACE. Those that `hidepid` hides cannot even be counted.
    ///
    /// Threads are not visited one by one: they share the descriptors of their process.
    /// One that was cloned without CLONE_FILES, or outlives its main thread, is missed.
    ///
    /// # Errors
    /// When a directory can't be read though it is there and allowed, as when kaprobe
    /// itself is out of descriptors.
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

/// Whether the iterator tells what this /proc does: it hides nothing, and numbers
/// processes by kaprobe's own pid namespace.
///
/// # Errors
/// With why not.
pub fn tells_the_same(proc: BorrowedFd<'_>) -> std::result::Result<(), &'static str> {
    if !Privileges::read().is_ok_and(Privileges::may_ptrace) {
        return Err("it shows what /proc hides from those without CAP_SYS_PTRACE");
    }
    if !is_of_own_namespace(proc) {
        return Err("/proc shows another pid namespace than its own");
    }
    Ok(())
}

/// Whether this /proc shows the pid namespace that kaprobe is in.
fn is_of_own_namespace(proc: BorrowedFd<'_>) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    let shown = rustix::fs::readlinkat(proc, c"self", Vec::new());
    shown.is_ok_and(|shown| shown.to_bytes() == own.as_bytes())
}

/// Walks through /proc, which lists processes and descriptors in ascending order
/// (`proc_pid_readdir`, fs/proc/base.c, and `proc_readfd_common`, fs/proc/fd.c).
///
/// The `procfs` crate would do this too; it allocates a path and a string for each
/// descriptor, which costs twice the time.
fn walk(proc: BorrowedFd<'_>, mut visit: impl FnMut(SocketFd)) -> Result<usize> {
    let mut unreadable = 0;
    for_each_number(&open_dir(proc, c".")?, |pid, _| {
        match walk_process(proc, pid, &mut visit) {
            Err(Errno::ACCESS | Errno::PERM) => unreadable += 1,
            // It ended meanwhile.
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
            // Not a socket, or closed meanwhile.
            Ok(None) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })
}

/// Whether that process still holds that socket under that descriptor. An error is
/// a no: a process that has gone holds nothing.
#[must_use]
pub fn still_held(proc: BorrowedFd<'_>, held: SocketFd) -> bool {
    let link = format!("{}/fd/{}", held.pid, held.fd);
    socket_inode(proc, link) == Ok(Some(held.inode))
}

/// The command of a process: 15 bytes at most, any but NUL.
///
/// # Errors
/// When the process has ended, or is hidden.
pub fn comm(proc: BorrowedFd<'_>, pid: u32) -> Result<Escaped> {
    let file = rustix::fs::openat(proc, format!("{pid}/comm"), OFlags::RDONLY, Mode::empty())?;
    let mut bytes = Vec::with_capacity(64);
    rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))?;
    // Exactly one line end is the file's; any other is the name's own
    // (`comm_show`, fs/proc/base.c: nothing is escaped).
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

/// The inode number behind a link that reads `socket:[12345]` (`sockfs_dname`,
/// net/socket.c); `None` for any other.
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
