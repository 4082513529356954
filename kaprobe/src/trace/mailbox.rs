//! Messages from the other threads of a trace to the thread that shows its events.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};

use crate::host::timeouts::NetnsNames;
use crate::model::event::Event;
use crate::model::host_timeout::NetnsTimeouts;

/// Most messages that wait.
const MOST: usize = 4;

/// A message to the thread that shows events.
pub(super) enum TraceMessage {
    /// Rows of the snapshot.
    Rows(Vec<Event>),
    /// The idle timeouts of the host have changed.
    Timeouts(Vec<NetnsTimeouts>),
    /// The network namespaces of the host have other names.
    Names(NetnsNames),
    /// The snapshot is complete, or has failed.
    SnapshotEnd(Result<()>),
}

/// The messages that wait. Readable, as a file is, while there may be some.
pub(super) struct Mailbox {
    messages: Receiver<TraceMessage>,
    bell: Arc<OwnedFd>,
}

/// Sends messages. Waits while too many wait.
#[derive(Clone)]
pub(super) struct MailboxSender {
    messages: SyncSender<TraceMessage>,
    bell: Arc<OwnedFd>,
}

impl Mailbox {
    /// Makes one.
    ///
    /// # Errors
    /// If the kernel can't make an eventfd.
    pub(super) fn new() -> Result<(MailboxSender, Self)> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Arc::new(eventfd(0, flags).context("cannot make an eventfd")?);
        let (to, messages) = sync_channel(MOST);
        let sender = MailboxSender {
            messages: to,
            bell: Arc::clone(&bell),
        };
        Ok((sender, Self { messages, bell }))
    }

    /// The next message, if there is one.
    pub(super) fn next(&self) -> Option<TraceMessage> {
        self.messages.try_recv().ok().or_else(|| {
            // A sender rings after it has sent: a message that is sent from here on rings again.
            let _rung = rustix::io::read(&*self.bell, &mut [0; 8]);
            self.messages.try_recv().ok()
        })
    }

    /// The messages that wait, at most as many as can.
    pub(super) fn rest(&self) -> impl Iterator<Item = TraceMessage> {
        (0..MOST).map_while(|_| self.next())
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl MailboxSender {
    /// Sends a message. Returns whether the trace goes on.
    pub(super) fn send(&self, message: TraceMessage) -> bool {
        let is_sent = self.messages.send(message).is_ok();
        // Fails only after about 2^64 writes that nobody reads.
        let _rung = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        is_sent
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    fn is_readable(mailbox: &Mailbox) -> Result<bool> {
        let mut fd = [PollFd::new(mailbox, PollFlags::IN)];
        Ok(poll(&mut fd, Some(&Timespec::default()))? > 0)
    }

    #[test]
    fn it_is_readable_until_all_messages_are_taken() -> Result<()> {
        let (sender, mailbox) = Mailbox::new()?;
        assert!(!is_readable(&mailbox)?);
        for _ in 0..2 {
            assert!(sender.send(TraceMessage::Rows(Vec::new())));
        }
        for _ in 0..2 {
            assert!(is_readable(&mailbox)?);
            assert!(mailbox.next().is_some());
        }
        assert!(mailbox.next().is_none());
        assert!(!is_readable(&mailbox)?);
        assert!(sender.send(TraceMessage::SnapshotEnd(Ok(()))));
        assert!(is_readable(&mailbox)?);
        assert_eq!(mailbox.rest().count(), 1);
        drop(mailbox);
        assert!(!sender.send(TraceMessage::Rows(Vec::new())));
        Ok(())
    }
}
