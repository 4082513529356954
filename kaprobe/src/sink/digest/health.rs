//! The state of the connections that are watched, as far as the snapshot and the records show
//! it: how many there are, which have keepalive off, and when the next timer fires.

use crate::lru::LruMap;
use crate::model::flow::FlowKey;
use crate::model::header::Header;
use crate::model::limits::MAX_SOCKETS;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;
use crate::model::socket::Process;
use crate::model::time::{Instant, ms_to_ns};
use crate::model::values::State;
use crate::sink::status_line::BETWEEN;
use crate::text::cell::NOTHING;
use crate::text::escape::Escaped;
use crate::text::units::{Rough, plural};

/// How late a timer, and the event of it, may be. If nothing has come by then, the timer found
/// traffic, and was set again: for when, is not known.
const LATE_NS: u64 = 5_000_000_000;

/// The state of the connections that are watched.
#[derive(Debug)]
pub(super) struct Health {
    connections: LruMap<FlowKey, Watched>,
    /// Some connections were forgotten for lack of room.
    is_partial: bool,
    probes: u64,
    answered: u64,
    lost: Option<u64>,
    /// Connections with a probe that is not answered.
    unanswered: LruMap<(Option<Escaped>, u64), ()>,
}

/// A connection.
#[derive(Debug)]
struct Watched {
    /// SO_KEEPALIVE, if it is known.
    keepalive: Option<bool>,
    /// When its keepalive timer fires, CLOCK_MONOTONIC ns.
    due_ns: Option<u64>,
    pid: Option<u32>,
    comm: Option<Escaped>,
}

impl Watched {
    fn who(&self) -> String {
        match (&self.comm, self.pid) {
            (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
            _ => NOTHING.to_owned(),
        }
    }
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            connections: LruMap::with_capacity(MAX_SOCKETS),
            is_partial: false,
            probes: 0,
            answered: 0,
            lost: Some(0),
            unanswered: LruMap::with_capacity(MAX_SOCKETS),
        }
    }

    /// Takes the header of a trace, and remembers as many sockets as it does.
    pub(super) fn header(&mut self, header: &Header) {
        self.connections.allow(header.max_sockets());
        self.unanswered.allow(header.max_sockets());
    }

    /// Takes a socket of the snapshot.
    pub(super) fn row(&mut self, row: &Row) {
        let is_connection = !matches!(
            row.state,
            State::Listen
                | State::TimeWait
                | State::Close
                | State::NewSynRecv
                | State::BoundInactive
        );
        if !is_connection {
            return;
        }
        let key = FlowKey::from(&row.endpoints);
        // An event of it is newer.
        if self.connections.peek(&key).is_none() {
            let due_ns = row
                .keepalive_next_ms
                .map(|ms| row.mono_ns.saturating_add(ms_to_ns(ms)));
            self.watch(key, row.settings.keepalive, due_ns, &row.process);
        }
    }

    /// Takes a record.
    pub(super) fn record(&mut self, record: &Record) {
        match record.event {
            EventName::Probe => self.probes += 1,
            EventName::Answered => self.answered += 1,
            EventName::Alive => {
                let sum = record.alive.as_ref().map_or(0, |it| it.probes_answered);
                self.probes += sum;
                self.answered += sum;
            }
            EventName::Lost => {
                self.lost = self
                    .lost
                    .zip(record.lost)
                    .map(|(sum, lost)| sum.saturating_add(lost));
            }
            _ => {}
        }
        let (Some(endpoints), Some(sock)) = (&record.endpoints, record.sock) else {
            return;
        };
        self.note_answers(record, sock);
        let key = FlowKey::from(endpoints);
        match record.event {
            EventName::Closed
            | EventName::Timeout
            | EventName::Aborted
            | EventName::RstReceived => {
                self.connections.remove(&key);
            }
            // Of a time that is past.
            EventName::Answered
            | EventName::Alive
            | EventName::Resumed
            | EventName::Verdict
            | EventName::RstSent => {}
            _ => {
                let due_ns = record
                    .next_ms
                    .map(|ms| record.mono_ns.saturating_add(ms_to_ns(ms)));
                self.watch(key, record.settings.keepalive, due_ns, &record.process);
            }
        }
    }

    fn watch(
        &mut self,
        key: FlowKey,
        keepalive: Option<bool>,
        due_ns: Option<u64>,
        process: &Process,
    ) {
        let (pid, comm) = (process.pid, process.comm.clone());
        let watched = Watched {
            keepalive,
            due_ns,
            pid,
            comm,
        };
        if let Some(known) = self.connections.get_mut(&key) {
            let due_ns = watched.due_ns.or(known.due_ns);
            *known = Watched { due_ns, ..watched };
            return;
        }
        self.is_partial |= self.connections.is_full();
        self.connections.push(key, watched);
    }

    fn note_answers(&mut self, record: &Record, sock: u64) {
        let key = (record.host.clone(), sock);
        match record.event {
            EventName::Probe if record.probe.is_some_and(|it| it > 1) => {
                self.unanswered.push(key, ());
            }
            EventName::Answered
            | EventName::Alive
            | EventName::Timeout
            | EventName::Closed
            | EventName::RstReceived
            | EventName::Aborted => {
                self.unanswered.remove(&key);
            }
            _ => {}
        }
    }

    /// Whether a connection has a probe that is known not to be answered.
    pub(super) fn is_unanswered(&self, record: &Record) -> bool {
        let key = record.sock.map(|sock| (record.host.clone(), sock));
        key.is_some_and(|key| self.unanswered.peek(&key).is_some())
    }

    /// What is watched, once the snapshot is complete.
    pub(super) fn watching(&self, now: Instant, is_filtered: bool) -> String {
        let count = self.connections.len();
        if count == 0 {
            return match is_filtered {
                true => "no existing connection matches the filters: waiting for new ones".into(),
                false => "there is no connection yet: waiting for new ones".into(),
            };
        }
        let off = self.off();
        let keepalive = match off {
            0 => String::new(),
            off if off == count => "; all have keepalive off, so none is probed".to_owned(),
            1 => "; 1 has keepalive off".to_owned(),
            off => format!("; {off} have keepalive off"),
        };
        let next = match self.next(now) {
            Some((ms, _)) => format!("; the next timer fires in {}", Rough(ms)),
            None => String::new(),
        };
        let of = self.programs();
        format!("watching {}{of}{keepalive}{next}", self.count())
    }

    /// The program of all connections, or how many there are.
    fn programs(&self) -> String {
        let mut programs: Vec<_> = self.connections.iter().map(|(_, it)| it.who()).collect();
        programs.sort_unstable();
        programs.dedup();
        match programs.as_slice() {
            [one] if one == NOTHING => String::new(),
            [one] => format!(" of {one}"),
            several => format!(" of {} processes", several.len()),
        }
    }

    fn count(&self) -> String {
        let count = plural(self.connections.len() as u64, "connection", "connections");
        match self.is_partial {
            true => format!("more than {count}"),
            false => count,
        }
    }

    fn off(&self) -> usize {
        let all = self.connections.iter();
        all.filter(|(_, it)| it.keepalive == Some(false)).count()
    }

    /// How long it is until the next timer fires that is known, ms, and whose it is.
    fn next(&self, now: Instant) -> Option<(u64, String)> {
        let due = |it: &Watched| {
            it.due_ns
                .filter(|&it| it.saturating_add(LATE_NS) >= now.mono_ns)
        };
        let all = self.connections.iter();
        let dues = all.filter_map(|(_, it)| Some((due(it)?, it)));
        let (due_ns, it) = dues.min_by_key(|(due_ns, _)| *due_ns)?;
        let wait_ns = due_ns.saturating_sub(now.mono_ns);
        Some((wait_ns / 1_000_000, it.who()))
    }

    /// The status line: the parts in the order of their worth, as a terminal shows those that
    /// it has room for.
    pub(super) fn status(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        match self.lost {
            Some(0) => {}
            Some(lost) => parts.push(format!("LOST {}", plural(lost, "event", "events"))),
            None => parts.push("LOST events".to_owned()),
        }
        if !self.unanswered.is_empty() {
            parts.push(format!("{} unanswered", self.unanswered.len()));
        }
        parts.push(self.count());
        parts.push(format!(
            "{}, {} answered",
            plural(self.probes, "probe", "probes"),
            self.answered
        ));
        if let Some((ms, who)) = self.next(now) {
            parts.push(format!("next timer in {}: {who}", Rough(ms)));
        }
        let off = self.off();
        if off > 0 {
            parts.push(format!("{off} keepalive off"));
        }
        parts.join(BETWEEN)
    }
}
