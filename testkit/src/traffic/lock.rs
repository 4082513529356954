//! Keeps a socket's lock taken, by a page fault served late.
//!
//! `tcp_sendmsg` copies from user memory while it owns the socket
//! (`tcp_sendmsg_locked`, net/ipv4/tcp.c). A send from a page that is missing stops
//! there until userfaultfd lets the fault go on, and a keepalive timer that fires
//! meanwhile finds the socket owned.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, munmap, userfaultfd};
use rustix::param::page_size;
use socket2::Socket;

/// How long a send may take to reach its page fault before something is wrong.
const FAULT_DEADLINE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// A socket whose lock is taken until this is released or dropped. Whatever else
/// wants the lock waits, TCP_INFO and close included.
#[derive(Debug)]
pub struct LockHeld {
    // Dropped first: closing it lets the fault go on, and so the sender end.
    uffd: Option<OwnedFd>,
    sender: Option<JoinHandle<io::Result<()>>>,
}

impl LockHeld {
    /// Sends a page of zeros from memory that is not there yet; returns once the
    /// send stands still with the lock taken.
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

    /// Lets the send go on, and waits for its end.
    pub fn release(mut self) -> io::Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> io::Result<()> {
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
        // The lock is free either way; whether the send succeeded is of no interest.
        let _ = self.let_go();
    }
}

/// One anonymous page that nothing has touched.
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

/// Opens a userfaultfd that stops whoever touches the page. Faults from kernel mode
/// need CAP_SYS_PTRACE, or `vm.unprivileged_userfaultfd` = 1.
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
