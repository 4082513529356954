//! Stops a trace on a signal, at a deadline, or when standard output is closed.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{io, process, ptr, thread};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;

use crate::stop::Stop;

/// The exit status that a shell reports for a process killed by SIGINT.
const INTERRUPTED: i32 = 128 + 2;

/// What stops a trace.
#[derive(Default)]
pub struct StopWhen {
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Called on SIGHUP, which then stops the trace only if the terminal is gone. `None`:
    /// SIGHUP stops the trace, and so does a reader that closes standard output.
    pub hangup: Option<Box<dyn Fn() + Send>>,
    /// Called on a second signal, before it ends the process.
    pub cut_off: Option<Box<dyn FnOnce() + Send>>,
    /// Called on SIGTSTP, before the process stops as it would without this.
    pub suspend: Option<Box<dyn Fn() + Send>>,
}

/// Requests `stop` on SIGINT, SIGTERM or SIGHUP, and on what else is `watched`. A second
/// signal ends the process at once; the kernel then detaches the programs and frees the
/// maps. A SIGHUP that was ignored at the start stays ignored, as nohup(1) wants it.
///
/// # Errors
/// If signals can't be watched.
pub fn watch(stop: Stop, watched: StopWhen) -> Result<()> {
    check_descriptors().context("cannot watch for signals")?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that waits for signals")?;
    let entered = runtime.enter();
    let signals = Signals::new(watched.hangup, watched.suspend);
    let mut signals = signals.context("cannot watch for signals")?;
    let stdout = match signals.hangup_action {
        None => Stdout::new(),
        Some(_) => Stdout(None),
    };
    drop(entered);
    thread::Builder::new()
        .name("shutdown".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = signals.next() => {}
                    () = deadline(watched.duration) => {}
                    () = stdout.closed() => {}
                }
                // A write to an eventfd fails only after about 2^64 writes.
                let _cannot_fail = stop.stop();
                signals.next().await;
                if let Some(cut_off) = watched.cut_off {
                    cut_off();
                }
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
    /// `None` if it is ignored, or if nothing is to be done before.
    suspend: Option<Signal>,
    suspend_action: Option<Box<dyn Fn() + Send>>,
    /// `None` if it is ignored.
    hangup: Option<Signal>,
    hangup_action: Option<Box<dyn Fn() + Send>>,
    terminal: Terminal,
}

impl Signals {
    fn new(
        hangup_action: Option<Box<dyn Fn() + Send>>,
        suspend_action: Option<Box<dyn Fn() + Send>>,
    ) -> io::Result<Self> {
        let hangup = (!is_ignored(libc::SIGHUP)).then(|| signal(SignalKind::hangup()));
        let suspends = suspend_action.is_some() && !is_ignored(libc::SIGTSTP);
        let suspend = suspends.then(|| signal(SignalKind::from_raw(libc::SIGTSTP)));
        Ok(Self {
            suspend: suspend.transpose()?,
            suspend_action,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.transpose()?,
            hangup_action,
            terminal: Terminal::new(),
        })
    }

    /// Returns when a signal arrives that stops the trace.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                () = received(&mut self.suspend) => {
                    if let Some(action) = &self.suspend_action {
                        action();
                    }
                    stop_until_continued();
                    continue;
                }
                () = received(&mut self.hangup) => {}
            }
            match &self.hangup_action {
                Some(action) if !self.terminal.is_gone() => action(),
                _ => return,
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether a signal is ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeros are a valid `sigaction`, which the call overwrites; it changes nothing.
    let handler = unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut current);
        current.sa_sigaction
    };
    handler == libc::SIG_IGN
}

/// Stops this process as SIGTSTP does by default: not if there is no shell that could continue
/// it (`is_current_pgrp_orphaned`, kernel/signal.c).
fn stop_until_continued() {
    // SAFETY: zeros are a valid `sigaction`, that of SIG_DFL; the calls read one and write the
    // other. The signal is sent to this thread, and so it has stopped the process before the
    // action is changed back.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut ours) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, &raw const ours, ptr::null_mut());
        }
    }
}

/// The controlling terminal, if there is one.
struct Terminal(Option<File>);

impl Terminal {
    fn new() -> Self {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        Self(options.open("/dev/tty").ok())
    }

    /// Whether it was hung up: its window or its connection is closed.
    fn is_gone(&self) -> bool {
        let Some(terminal) = &self.0 else {
            return false;
        };
        let mut fd = [PollFd::new(terminal, PollFlags::empty())];
        // A failure tells nothing.
        let polled = poll(&mut fd, Some(&Timespec::default()));
        polled.is_ok() && fd[0].revents().contains(PollFlags::HUP)
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
