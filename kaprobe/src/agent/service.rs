//! Messages to systemd. Without it, they go nowhere.
//!
//! A thread of its own sends them: the socket of a systemd that is stuck takes no more, and the
//! one that sends waits then.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;

/// Most messages that wait. What does not fit is dropped.
const QUEUE: usize = 16;

/// Where messages to systemd go.
#[derive(Clone)]
pub(super) struct Service(SyncSender<Message>);

/// A message to systemd.
enum Message {
    Ready,
    Status(String),
    /// With the time in us, CLOCK_MONOTONIC.
    Reloading(NotifyState<'static>),
    Stopping,
    Alive,
}

impl Service {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(super) fn start() -> Result<Self> {
        let (to, messages) = sync_channel::<Message>(QUEUE);
        thread::Builder::new()
            .name("systemd".to_owned())
            .spawn(move || messages.into_iter().for_each(|it| it.send()))
            .context("cannot start the thread that tells systemd")?;
        Ok(Self(to))
    }

    /// Reports that the agent runs, and with which settings it was asked to.
    pub(super) fn ready(&self) {
        self.pass_on(Message::Ready);
    }

    /// Reports in a line what the agent does.
    pub(super) fn status(&self, line: String) {
        self.pass_on(Message::Status(line));
    }

    /// Reports that the settings are read again. [`Service::ready`] follows.
    pub(super) fn reloading(&self) {
        // systemd drops the message without the time.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.pass_on(Message::Reloading(now));
        }
    }

    /// Reports that the agent is ending.
    pub(super) fn stopping(&self) {
        self.pass_on(Message::Stopping);
    }

    /// Reports that the agent is alive.
    pub(super) fn alive(&self) {
        self.pass_on(Message::Alive);
    }

    fn pass_on(&self, message: Message) {
        // Nothing is to be done about it, and the agent goes on.
        let _full = self.0.try_send(message);
    }
}

impl Message {
    fn send(self) {
        let states = match &self {
            Self::Ready => vec![NotifyState::Ready],
            Self::Status(line) => vec![NotifyState::Status(line)],
            Self::Reloading(now) => vec![NotifyState::Reloading, now.clone()],
            Self::Stopping => vec![NotifyState::Stopping],
            Self::Alive => vec![NotifyState::Watchdog],
        };
        // As above.
        let _unheard = sd_notify::notify(&states);
    }
}

/// How soon systemd restarts an agent that does not report that it is alive.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
