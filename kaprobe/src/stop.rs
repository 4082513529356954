//! A request to stop, which any thread can make and wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;

/// Ends whatever waits for it, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// One that nobody has asked for yet.
    ///
    /// # Errors
    /// When the kernel has no eventfd to give.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        Ok(Self(Arc::new(fd)))
    }

    /// Asks for the end: what was seen so far still comes.
    ///
    /// # Errors
    /// When the kernel refuses a write to an eventfd, which it has no reason to.
    pub fn stop(&self) -> io::Result<()> {
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Waits for so long, or until the end is asked for: then `true`. A signal may cut
    /// the wait short.
    ///
    /// # Errors
    /// When an eventfd can't be polled.
    pub fn wait(&self, pause: Duration) -> Result<bool> {
        let mut fd = [PollFd::new(&*self.0, PollFlags::IN)];
        let pause = Timespec::try_from(pause).context("too long a pause")?;
        match poll(&mut fd, Some(&pause)) {
            Err(rustix::io::Errno::INTR) => Ok(false),
            ready => Ok(ready.context("cannot poll an eventfd")? > 0),
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
