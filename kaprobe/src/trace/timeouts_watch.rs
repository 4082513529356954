//! Watches the idle timeouts of the host and the names of its network namespaces while a
//! trace runs: they change, and conntrack may begin to track.
//!
//! A timeout that ends a connection is older than the idle time before it, so it has been
//! read by then, unless it is shorter than [`INTERVAL`].

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::timeouts::{self, HostNamespaces};
use crate::model::timeouts_change::difference;
use crate::trace::mailbox::{MailboxSender, TraceMessage};

/// The shortest time between two reads.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many times as long as a read the thread waits after it: it takes at most about one
/// part in so many of a processor.
const REST: u32 = 100;

/// The thread that watches. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct TimeoutsWatch {
    _until: mpsc::Sender<()>,
}

impl TimeoutsWatch {
    /// Starts the thread. It passes on each change from `known`.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(super) fn start(known: HostNamespaces, to: MailboxSender) -> io::Result<Self> {
        let (until, ended) = channel();
        let watch = thread::Builder::new().name("watch-timeouts".to_owned());
        let thread = watch.spawn(move || watch_timeouts(known, &to, &ended));
        thread.map(|_| Self { _until: until })
    }
}

fn watch_timeouts(mut known: HostNamespaces, to: &MailboxSender, ended: &Receiver<()>) {
    let mut rest = INTERVAL;
    while ended.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
        let began = Instant::now();
        let now = timeouts::read();
        rest = INTERVAL.max(began.elapsed().saturating_mul(REST));
        // A read that fails shows no change.
        let Ok(now) = now else { continue };
        let change = difference(&known.timeouts, &now.timeouts);
        let timeouts = (!change.is_empty()).then_some(TraceMessage::Timeouts(change));
        let names = (now.names != known.names).then(|| TraceMessage::Names(now.names.clone()));
        known = now;
        let mut changes = timeouts.into_iter().chain(names);
        if changes.any(|change| !to.send(change)) {
            return;
        }
    }
}
