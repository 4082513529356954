//! Waits for a reason to end a trace: a signal, the clock, or nobody left to read.

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

/// What a shell reports of a process that SIGINT ended.
const INTERRUPTED: i32 = 128 + 2;

/// Calls `stop` at the first of: SIGINT, SIGTERM, SIGHUP, the end of `duration`,
/// standard output closed by its reader. A second signal ends the process at once:
/// the kernel then detaches the programs and frees the maps.
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
    let reader = Reader::new();
    drop(entered);
    thread::Builder::new()
        .name("ending".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = signals.any() => {}
                    () = elapsed(duration) => {}
                    () = reader.gone() => {}
                }
                // An eventfd takes a write until it has had 2^64 of them.
                let _cannot_fail = stop.stop();
                signals.any().await;
                process::exit(INTERRUPTED);
            });
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

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

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Whoever reads standard output, where that is a pipe or a socket.
struct Reader(Option<AsyncFd<OwnedFd>>);

impl Reader {
    fn new() -> Self {
        // A file can't be watched, and nobody who reads one goes away.
        let watched = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .ok()
            .and_then(|fd| {
                // SAFETY: the descriptor is owned, and so the same as long as it is watched.
                unsafe { AsyncFd::register_with_interest(fd, Interest::ERROR) }.ok()
            });
        Self(watched)
    }

    /// Returns once nobody reads any more.
    async fn gone(&self) {
        let Some(fd) = &self.0 else {
            return std::future::pending().await;
        };
        if fd.ready(Interest::ERROR).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn elapsed(duration: Option<Duration>) {
    match duration {
        Some(duration) => time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
