//! The thread that has the connections counted again and again, by another process, and that
//! reads the settings again on SIGHUP.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::agent::config::{self, JoinedSettings};
use crate::agent::service::Service;
use crate::agent::shared::Shared;
use crate::census::reader::SnapshotReader;
use crate::census::sums::{Census, CensusRequest, Sums};
use crate::cli::args::AgentArgs;
use crate::metrics::gauges::{ConnectionGauges, ConnectionSums};
use crate::metrics::key::SeriesKey;
use crate::model::fate::Fate;
use crate::model::named::Named as _;
use crate::stderr;

/// How many times as long as a count takes the thread waits after it, at least.
const REST: u32 = 20;

/// The longest time in which the thread does not come by, unless it is stuck.
const TURN: Duration = Duration::from_secs(1);

/// The pause before the next try if the connections can't be read.
const RETRY: Duration = Duration::from_secs(10);

/// A message to the thread.
pub(super) enum Wake {
    /// A process has answered: the one with this number.
    Answer(u64, Result<Box<Census>>),
    /// Read the settings again.
    Reload,
}

/// Starts the thread. Returns where it takes messages.
///
/// # Errors
/// If there can be no further thread.
pub(super) fn start(
    given: AgentArgs,
    settings: JoinedSettings,
    is_snapshot_shown: bool,
    shared: Arc<Shared>,
    service: Service,
) -> Result<Sender<Wake>> {
    let (to, messages) = channel();
    shared.set_pause(settings.settings.interval);
    let mut counter = ConnectionCounter {
        given,
        joined: settings,
        shared,
        service,
        to: to.clone(),
        reader: None,
        number: 0,
        gone: Vec::new(),
        state: State::Due(Instant::now()),
        // The snapshot of the trace has said the same.
        notes: (!is_snapshot_shown).then(Vec::new),
    };
    thread::Builder::new()
        .name("connections".to_owned())
        .spawn(move || counter.run(&messages))
        .context("cannot start the thread that counts connections")?;
    Ok(to)
}

struct ConnectionCounter {
    given: AgentArgs,
    joined: JoinedSettings,
    shared: Arc<Shared>,
    service: Service,
    to: Sender<Wake>,
    reader: Option<SnapshotReader>,
    /// The number of that process.
    number: u64,
    /// Processes that were killed and may not have ended yet.
    gone: Vec<u32>,
    state: State,
    /// What the last snapshot could not show; `None` if that is not known.
    notes: Option<Vec<String>>,
}

/// Whether a count is under way.
enum State {
    Asked(Instant),
    Due(Instant),
}

impl ConnectionCounter {
    fn run(&mut self, messages: &Receiver<Wake>) {
        loop {
            self.shared.turn_connections();
            self.ask_if_due();
            let wait = match self.state {
                State::Asked(_) => TURN,
                State::Due(at) => at.saturating_duration_since(Instant::now()).min(TURN),
            };
            match messages.recv_timeout(wait) {
                Ok(Wake::Answer(number, answer)) if number == self.number => {
                    self.answered(answer);
                }
                // Of a process that was ended by other settings.
                Ok(Wake::Answer(..)) => {}
                Ok(Wake::Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ask_if_due(&mut self) {
        let State::Due(at) = self.state else { return };
        let now = Instant::now();
        if at > now {
            return;
        }
        self.reap();
        match self.reader() {
            Ok(reader) => {
                reader.request(CensusRequest::Sums);
                self.state = State::Asked(now);
            }
            Err(why) => self.failed(&why),
        }
    }

    /// The process that reads the connections. Starts it if there is none.
    fn reader(&mut self) -> Result<&SnapshotReader> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                self.number += 1;
                let (to, number) = (self.to.clone(), self.number);
                let answer = move |census| to.send(Wake::Answer(number, census)).is_ok();
                SnapshotReader::start(&self.joined.settings.census, answer)?
            }
        };
        self.shared.set_reader(reader.pid());
        Ok(self.reader.insert(reader))
    }

    fn answered(&mut self, answer: Result<Box<Census>>) {
        let State::Asked(asked) = self.state else {
            return;
        };
        match answer {
            Ok(census) => {
                let pause = asked.elapsed().saturating_mul(REST);
                let pause = pause.max(self.joined.settings.interval);
                self.shared.set_pause(pause);
                self.state = State::Due(Instant::now() + pause);
                self.note(&census);
                let (mut gauges, listeners) = (gauges(&census), census.listening);
                gauges.keep(self.joined.settings.series.get());
                let listeners = listeners.into_iter().collect();
                self.shared.set_connections(gauges, listeners);
            }
            Err(why) => self.failed(&why),
        }
    }

    /// Reports what a snapshot could not show, once until it is something else.
    fn note(&mut self, census: &Census) {
        let known = self.notes.replace(census.notes.clone());
        if known.is_some_and(|known| known != census.notes) {
            stderr::lines(census.notes.clone());
        }
    }

    fn failed(&mut self, why: &anyhow::Error) {
        stderr::line(format_args!("cannot count the connections: {why:#}"));
        self.shared.snapshot_failed();
        self.end_reader();
        self.state = State::Due(Instant::now() + RETRY);
    }

    fn end_reader(&mut self) {
        self.shared.set_reader(0);
        self.gone.extend(self.reader.take().map(|it| it.pid()));
        self.reap();
    }

    /// Waits for processes that have ended. One that waits for a socket's lock may not end
    /// soon (`trace/snapshot.rs`).
    fn reap(&mut self) {
        self.gone.retain(|&pid| {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)))
        });
    }

    /// Reads the settings again. Those of a file that makes no sense change nothing.
    fn reload(&mut self) {
        self.service.reloading();
        match config::read(&self.given) {
            Ok(_) if self.given.config.is_none() => stderr::line(format_args!(
                "SIGHUP changes nothing: there is no --config to read again"
            )),
            Ok(joined) => self.apply(joined),
            Err(why) => {
                stderr::line(format_args!("{why:#}: the settings stay as they are"));
                self.shared.set_reloaded(false);
            }
        }
        self.service.ready();
    }

    fn apply(&mut self, joined: JoinedSettings) {
        self.shared.set_reloaded(true);
        let is_same = self.joined.settings.census == joined.settings.census;
        self.shared
            .set_counting(joined.settings.series, joined.filter.clone());
        self.shared.set_pause(joined.settings.interval);
        self.joined = joined;
        if !is_same {
            self.end_reader();
        }
        self.state = match self.state {
            State::Asked(asked) if is_same => State::Asked(asked),
            _ => State::Due(Instant::now()),
        };
    }
}

/// The connections of a snapshot.
fn gauges(census: &Census) -> ConnectionGauges {
    ConnectionGauges {
        time: census.time,
        groups: census
            .groups
            .iter()
            .map(|group| (SeriesKey::from(&group.id), sums(&group.sums)))
            .collect(),
        other: sums(&census.other),
        is_judged: census.is_judged,
    }
}

fn sums(sums: &Sums) -> ConnectionSums {
    let known = sums.keepalive_on + sums.keepalive_off;
    let mut fates = [0; Fate::ALL.len()];
    for (count, fate) in fates.iter_mut().zip(Fate::ALL) {
        *count = sums.of(*fate);
    }
    ConnectionSums {
        keepalive_on: sums.keepalive_on,
        keepalive_off: sums.keepalive_off,
        keepalive_unknown: sums.connections.saturating_sub(known),
        unanswered: sums.unanswered,
        fates,
    }
}
