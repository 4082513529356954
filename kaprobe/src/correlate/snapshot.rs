//! Finds the connections that were dead before the trace, in the snapshot it starts from.
//! The snapshot is taken while events come: either may be the first to name a socket.

use std::num::NonZeroUsize;

use crate::correlate::time::ns;
use crate::keepalive::connection::Connection;
use crate::keepalive::zombie::{PathTimeout, zombie};
use crate::lru::LruMap;
use crate::model::event::{Kind, SocketEvent};
use crate::model::fate::Why;
use crate::model::flow::FlowKey;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;

/// The zombies of a snapshot, and what is needed to record each only once.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The longest idle timeout, ms.
    longest_ms: u64,
    /// The sockets of the events so far, by inode number; `None` once the snapshot has
    /// ended.
    seen: Option<LruMap<u64, Seen>>,
    /// The zombies that no event has named yet.
    zombies: LruMap<FlowKey, Zombie>,
}

/// A socket that events have named.
#[derive(Debug)]
struct Seen {
    number: u64,
    /// The time of the last event that shows more than silence, CLOCK_MONOTONIC ns.
    stirred_ns: u64,
    /// A row has shown that it is a zombie.
    is_zombie: bool,
}

#[derive(Debug)]
struct Zombie {
    number: u64,
    inode: Option<u64>,
    at_ns: u64,
}

impl Zombie {
    /// Whether an event between the same endpoints is of the same socket: it has the same
    /// file; or one of them has no file, and it last heard the peer before the snapshot.
    fn is_of(&self, event: &SocketEvent) -> bool {
        match (self.inode, event.identity.inode) {
            (Some(its), Some(inode)) => its == inode,
            _ => event.at.mono_ns.saturating_sub(ns(event.lastrcv_ms)) < self.at_ns,
        }
    }
}

/// What a row of the snapshot adds.
pub(super) struct Found {
    pub(super) why: Why,
    /// The number that events have given the socket.
    pub(super) number: Option<u64>,
}

impl Snapshot {
    /// The state of a trace without a snapshot.
    pub(super) fn none() -> Self {
        Self {
            longest_ms: u64::MAX,
            seen: None,
            zombies: LruMap::with_capacity(NonZeroUsize::MIN),
        }
    }

    /// The state of a trace whose snapshot follows.
    pub(super) fn begun(max_sockets: NonZeroUsize, longest_ms: u64) -> Self {
        Self {
            longest_ms,
            seen: Some(LruMap::with_capacity(max_sockets)),
            zombies: LruMap::with_capacity(max_sockets),
        }
    }

    /// Ends the snapshot: no more rows follow.
    pub(super) fn end(&mut self) {
        self.seen = None;
    }

    /// Removes the zombie that this event is the first to name, and returns its number.
    pub(super) fn claim(&mut self, event: &SocketEvent) -> Option<u64> {
        if self.zombies.is_empty() {
            return None;
        }
        let zombie = self.zombies.remove(&FlowKey::from(&event.endpoints))?;
        zombie.is_of(event).then_some(zombie.number)
    }

    /// Notes that an event has named the socket of that number.
    pub(super) fn note(&mut self, event: &SocketEvent, number: u64) {
        let (Some(seen_sockets), Some(inode)) = (&mut self.seen, event.identity.inode) else {
            return;
        };
        let seen = seen_sockets.get_or_insert_with(inode, || Seen {
            number,
            stirred_ns: 0,
            is_zombie: false,
        });
        seen.number = number;
        if !is_silence(event) {
            seen.stirred_ns = seen.stirred_ns.max(event.at.mono_ns);
        }
    }

    /// Returns what a row adds where it shows a zombie that is not recorded yet. An event
    /// that came after the row is newer than it.
    pub(super) fn look(&mut self, row: &Row) -> Option<Found> {
        let connection = Connection::from_row(row)?;
        let why = zombie(&connection, PathTimeout::NoneLongerThan(self.longest_ms))?;
        let seen = row.identity.inode.zip(self.seen.as_mut());
        if let Some(seen) = seen.and_then(|(inode, it)| it.get_mut(&inode)) {
            // The iterator may show a socket again when its table changes meanwhile.
            if seen.stirred_ns >= row.mono_ns || seen.is_zombie {
                return None;
            }
            seen.is_zombie = true;
            return Some(Found {
                why,
                number: Some(seen.number),
            });
        }
        let is_same = |it: &Zombie| it.inode == row.identity.inode;
        let is_recorded = self
            .zombies
            .peek(&FlowKey::from(&row.endpoints))
            .is_some_and(is_same);
        (!is_recorded).then_some(Found { why, number: None })
    }

    /// Remembers a zombie under its number. Returns whether another was evicted for it.
    pub(super) fn remember(&mut self, row: &Row, number: u64) -> bool {
        let zombie = Zombie {
            number,
            inode: row.identity.inode,
            at_ns: row.mono_ns,
        };
        let ends = FlowKey::from(&row.endpoints);
        let (_, before) = self.zombies.push(ends.clone(), zombie);
        before.is_some_and(|(old, _)| old != ends)
    }
}

/// Whether an event shows no traffic: it is another unanswered probe.
fn is_silence(event: &SocketEvent) -> bool {
    let is_firing = matches!(event.kind, Kind::Probe | Kind::ProbeCongested | Kind::Busy);
    is_firing && event.probes_out_after > 0
}

/// The record of a zombie.
pub(super) fn record(row: &Row, number: u64, why: Why) -> Record {
    Record {
        time: row.time,
        mono_ns: row.mono_ns,
        event: EventName::Zombie,
        sock: Some(number),
        process: row.process.clone(),
        endpoints: Some(row.endpoints),
        identity: row.identity,
        state: Some(row.state),
        settings: row.settings,
        probes_out: row.probes_out,
        ages: row.ages,
        next_ms: row.keepalive_next_ms,
        unacked: row.unacked,
        why: Some(why),
        dead_in_ms: row.dead_in_ms,
        dead_by: row.dead_by,
        ..Record::default()
    }
}
