//! A stop request that any thread can make and wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;

/// A handle to request a stop, or to wait for the request. Clones share the request.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Makes a handle without a request.
    ///
    /// # Errors
    /// If the kernel can't make an eventfd.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        Ok(Self(Arc::new(fd)))
    }

    /// Requests the stop. Events seen so far are still delivered.
    ///
    /// # Errors
    /// If a write to the eventfd fails, which should not happen.
    pub fn stop(&self) -> io::Result<()> {
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Waits for the duration `pause` or for a stop request. Returns `true` on a request.
    /// A signal may end the wait early.
    ///
    /// # Errors
    /// If the eventfd can't be polled.
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
