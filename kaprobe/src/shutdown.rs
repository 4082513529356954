//! Stops a trace on a signal, at a deadline, or when standard output is closed.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;
use std::{io, process, thread};

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;

use crate::stop::Stop;

/// The exit status of a process that SIGINT has ended, as a shell reports it.
const INTERRUPTED: i32 = 128 + 2;

/// Calls `stop` on the first of these: SIGINT, SIGTERM or SIGHUP; the end of `duration`;
/// the reader of standard output closes it. A second signal ends the process at once, and
/// the kernel detaches the programs and frees the maps.
///
/// # Errors
/// When signals can't be watched.
pub fn watch(stop: Stop, duration: Option<Duration>) -> Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that waits for signals")?;
    let entered = runtime.enter();
    let mut signals = Signals::new().context("cannot watch for signals")?;
    let stdout = Stdout::new();
    drop(entered);
    thread::Builder::new()
        .name("shutdown".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = signals.next() => {}
                    () = deadline(duration) => {}
                    () = stdout.closed() => {}
                }
                // An eventfd takes a write until it has had 2^64 of them.
                let _cannot_fail = stop.stop();
                signals.next().await;
                process::exit(INTERRUPTED);
            });
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// The signals that stop a trace.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when one of them arrives.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Standard output, where it can be watched: a pipe or a socket.
struct Stdout(Option<AsyncFd<OwnedFd>>);

impl Stdout {
    fn new() -> Self {
        // A file can't be watched. It has no reader that closes it.
        let watched = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .ok()
            .and_then(|fd| {
                // SAFETY: the descriptor is owned, so it stays the same while it is watched.
                unsafe { AsyncFd::register_with_interest(fd, Interest::ERROR) }.ok()
            });
        Self(watched)
    }

    /// Returns when its reader has closed it.
    async fn closed(&self) {
        let Some(fd) = &self.0 else {
            return std::future::pending().await;
        };
        if fd.ready(Interest::ERROR).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Returns at the end of `duration`, or never.
async fn deadline(duration: Option<Duration>) {
    match duration {
        Some(duration) => time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
