//! Stops a trace on a signal, at a deadline, or when standard output is closed.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{io, process, thread};

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;

use crate::stop::Stop;

/// The exit status that a shell reports for a process killed by SIGINT.
const INTERRUPTED: i32 = 128 + 2;

/// Requests `stop` on SIGINT, SIGTERM or SIGHUP, after `duration`, or when the reader of
/// standard output closes it. A second signal ends the process at once; the kernel then
/// detaches the programs and frees the maps.
///
/// # Errors
/// If signals can't be watched.
pub fn watch(stop: Stop, duration: Option<Duration>) -> Result<()> {
    check_descriptors().context("cannot watch for signals")?;
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
                // A write to an eventfd fails only after about 2^64 writes.
                let _cannot_fail = stop.stop();
                signals.next().await;
                process::exit(INTERRUPTED);
            });
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// Checks that a few descriptors are available: tokio panics if it can't make its pair of
/// sockets for signals (`OsExtraData::default`, tokio/src/signal/unix.rs), and opens three
/// more before that.
fn check_descriptors() -> io::Result<()> {
    let pairs: io::Result<Vec<_>> = (0..3).map(|_| UnixStream::pair()).collect();
    pairs.map(drop)
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

    /// Returns when a signal arrives.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Standard output, if it can be watched: a pipe or a socket.
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

    /// Returns when the reader has closed standard output.
    async fn closed(&self) {
        let Some(fd) = &self.0 else {
            return std::future::pending().await;
        };
        if fd.ready(Interest::ERROR).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Returns after `duration`. Without a duration it never returns.
async fn deadline(duration: Option<Duration>) {
    match duration {
        Some(duration) => time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
