//! Holds a socket's lock by delaying a page fault.
//!
//! `tcp_sendmsg` copies from user memory while it owns the socket (`tcp_sendmsg_locked`,
//! net/ipv4/tcp.c). A send from a missing page blocks there until userfaultfd resolves
//! the fault. A keepalive timer that fires meanwhile finds the socket owned.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::{io, ptr};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, munmap, userfaultfd};
use rustix::param::page_size;
use socket2::Socket;

/// The longest time that a send may take to reach its page fault.
const FAULT_DEADLINE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// A held socket lock. Freed by [`Self::release`] or when dropped. Every other user of
/// the lock waits, TCP_INFO and close included.
#[derive(Debug)]
pub struct LockHeld {
    // Dropped first: closing it resolves the fault, and the sender ends.
    uffd: Option<OwnedFd>,
    sender: Option<JoinHandle<io::Result<()>>>,
}

impl LockHeld {
    /// Sends a page of zeros from a missing page. Returns once the send blocks while it
    /// holds the lock.
    pub fn take(socket: &Socket) -> io::Result<Self> {
        let socket = socket.try_clone()?;
        let page = Page::missing()?;
        let uffd = watch(&page)?;
        let sender = thread::Builder::new()
            .name("lock holder".into())
            .spawn(move || page.send_on(&socket))?;
        let held = Self {
            uffd: Some(uffd),
            sender: Some(sender),
        };
        held.wait_for_fault()?;
        Ok(held)
    }

    /// Lets the send continue, and waits until it ends.
    pub fn release(mut self) -> io::Result<()> {
        self.end_send()
    }

    fn end_send(&mut self) -> io::Result<()> {
        drop(self.uffd.take());
        match self.sender.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(sent)) => sent,
            Some(Err(_)) => Err(io::Error::other("the sending thread panicked")),
        }
    }

    fn wait_for_fault(&self) -> io::Result<()> {
        let Some(uffd) = &self.uffd else {
            return Ok(());
        };
        let mut fds = [PollFd::new(uffd, PollFlags::IN)];
        match poll(&mut fds, Some(&FAULT_DEADLINE))? {
            0 => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a send from a missing page never faulted",
            )),
            _ => Ok(()),
        }
    }
}

impl Drop for LockHeld {
    fn drop(&mut self) {
        // The lock is free even if the send failed.
        let _ = self.end_send();
    }
}

/// An anonymous page that nothing has touched yet.
struct Page {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Page {}

impl Page {
    fn missing() -> io::Result<Self> {
        let (len, access) = (page_size(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE) }?;
        Ok(Self { start, len })
    }

    fn send_on(&self, socket: &Socket) -> io::Result<()> {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`; only
        // the kernel reads it.
        let sent =
            unsafe { libc::send(socket.as_raw_fd(), self.start, self.len, libc::MSG_NOSIGNAL) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `missing`, and nothing points into it.
        let _unmapped = unsafe { munmap(self.start, self.len) };
    }
}

// From include/uapi/linux/userfaultfd.h.
const UFFD_API: u64 = 0xAA;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// Opens a userfaultfd that blocks accesses to the page. Faults from kernel mode need
/// CAP_SYS_PTRACE, or `vm.unprivileged_userfaultfd` = 1.
fn watch(page: &Page) -> io::Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: it watches nothing yet.
    let uffd = unsafe { userfaultfd(flags) }?;
    let fd = uffd.as_raw_fd();
    let mut api = UffdioApi {
        api: UFFD_API,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: UFFDIO_API reads and writes one `uffdio_api`.
    if unsafe { libc::ioctl(fd, UFFDIO_API as _, &raw mut api) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut register = UffdioRegister {
        start: page.start as u64,
        len: page.len as u64,
        mode: UFFDIO_REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    // SAFETY: UFFDIO_REGISTER reads and writes one `uffdio_register`; the range is a
    // mapping of ours.
    if unsafe { libc::ioctl(fd, UFFDIO_REGISTER as _, &raw mut register) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(uffd)
}
