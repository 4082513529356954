//! Has the sockets whose data has stalled looked at again, each second, until the data is
//! acknowledged. The event of that comes by the ring buffer.
//!
//! A connection that is not watched, because there are too many, is told to have resumed by its
//! next event.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::StallLook;
use crate::model::event::{Kind, SocketEvent, SocketId};

/// The pause between two rounds of looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most looks of a round. A look takes some microseconds.
const LOOKS: usize = 256;

/// The most sockets that are watched.
const MOST: usize = 4_096;

/// The thread that watches. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct StallsWatch {
    reported: SyncSender<SocketId>,
}

impl StallsWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(super) fn start(look: StallLook) -> io::Result<Self> {
        let (reported, stalls) = sync_channel(MOST);
        let watch = thread::Builder::new().name("watch-stalls".to_owned());
        let thread = watch.spawn(move || watch_stalls(&look, &stalls));
        thread.map(|_| Self { reported })
    }

    /// Watches the socket of an event that reports a stall, if there is room.
    pub(super) fn note(&self, event: &SocketEvent) {
        let is_tracked = event.id.born_ns != 0;
        if event.kind == Kind::Stalled && is_tracked {
            // Without room, the connection's next event tells.
            let _full = self.reported.try_send(event.id);
        }
    }
}

/// Watches until the trace ends, or the kernel looks no more.
fn watch_stalls(look: &StallLook, stalls: &Receiver<SocketId>) {
    let mut watched = VecDeque::new();
    loop {
        if watched.is_empty() {
            let Ok(stalled) = stalls.recv() else { return };
            watched.push_back(stalled);
        }
        if !receive(&mut watched, stalls) {
            return;
        }
        for _ in 0..watched.len().min(LOOKS) {
            let Some(next) = watched.pop_front() else {
                break;
            };
            match look.is_waiting(next) {
                Ok(true) => watched.push_back(next),
                Ok(false) => {}
                Err(_) => return,
            }
        }
    }
}

/// Takes the stalls that are reported in an interval. Returns whether the trace goes on.
fn receive(watched: &mut VecDeque<SocketId>, stalls: &Receiver<SocketId>) -> bool {
    let end = Instant::now() + INTERVAL;
    loop {
        match stalls.recv_timeout(end.saturating_duration_since(Instant::now())) {
            // A socket that has stalled before may be watched still.
            Ok(stalled) if watched.contains(&stalled) => {}
            Ok(stalled) if watched.len() < MOST => watched.push_back(stalled),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
