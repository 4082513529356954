//! Finds connections that were dead before the trace, in the snapshot at its start. The
//! snapshot runs while events arrive: a row or an event may name a socket first.

use std::num::NonZeroUsize;

use crate::keepalive::connection::Connection;
use crate::keepalive::zombie::{PathTimeout, zombie_before};
use crate::lru::LruMap;
use crate::model::event::{Kind, SocketEvent};
use crate::model::fate::Why;
use crate::model::flow::FlowKey;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;
use crate::model::time::ms_to_ns;

/// Finds the zombies of a snapshot and records each only once.
#[derive(Debug)]
pub(super) struct ZombieFinder {
    /// When the trace began, CLOCK_MONOTONIC ns.
    began_ns: u64,
    /// Upper bound of every idle timeout, ms.
    longest_ms: u64,
    /// The sockets of the events so far, by inode number; `None` once the snapshot has
    /// ended.
    seen: Option<LruMap<u64, SeenSocket>>,
    /// The zombies that no event has named yet.
    zombies: LruMap<FlowKey, Zombie>,
}

/// A socket that events have named.
#[derive(Debug)]
struct SeenSocket {
    number: u64,
    /// The time of the last event that shows traffic, CLOCK_MONOTONIC ns.
    active_ns: u64,
    /// A row has shown that the socket is a zombie.
    is_zombie: bool,
}

#[derive(Debug)]
struct Zombie {
    number: u64,
    inode: Option<u64>,
    at_ns: u64,
}

impl Zombie {
    /// Whether an event with the same endpoints is of the same socket: the inodes are
    /// equal, or one is missing and the socket last heard its peer before the snapshot.
    fn is_same_socket(&self, event: &SocketEvent) -> bool {
        match (self.inode, event.identity.inode) {
            (Some(zombie), Some(inode)) => zombie == inode,
            _ => event.at.mono_ns.saturating_sub(ms_to_ns(event.lastrcv_ms)) < self.at_ns,
        }
    }
}

/// A zombie that a row of the snapshot shows for the first time.
pub(super) struct NewZombie {
    pub(super) why: Why,
    /// The socket's number, if an event has named it.
    pub(super) number: Option<u64>,
}

impl ZombieFinder {
    /// The state of a trace without a snapshot.
    pub(super) fn none() -> Self {
        Self {
            began_ns: 0,
            longest_ms: u64::MAX,
            seen: None,
            zombies: LruMap::with_capacity(NonZeroUsize::MIN),
        }
    }

    /// The state of a trace whose snapshot follows.
    pub(super) fn begun(max_sockets: NonZeroUsize, began_ns: u64, longest_ms: u64) -> Self {
        Self {
            began_ns,
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
        zombie.is_same_socket(event).then_some(zombie.number)
    }

    /// Notes that an event has named the socket with this number.
    pub(super) fn note(&mut self, event: &SocketEvent, number: u64) {
        let (Some(seen_sockets), Some(inode)) = (&mut self.seen, event.identity.inode) else {
            return;
        };
        let seen = seen_sockets.get_or_insert_with(inode, || SeenSocket {
            number,
            active_ns: 0,
            is_zombie: false,
        });
        seen.number = number;
        if !is_silence(event) {
            seen.active_ns = seen.active_ns.max(event.at.mono_ns);
        }
    }

    /// Returns the zombie that a row shows, unless it is recorded already or an event
    /// newer than the row shows traffic.
    ///
    /// A snapshot may come late, so a connection has to be one already when the trace began.
    /// One whose peer was heard since was alive then, or was not there yet: the end of the
    /// handshake counts as hearing the peer (`tcp_finish_connect`, net/ipv4/tcp_input.c). One
    /// whose probes were not unanswered then may have lost its peer since.
    pub(super) fn check(&mut self, row: &Row) -> Option<NewZombie> {
        let connection = Connection::from_row(row)?;
        let heard_ns = row.mono_ns.saturating_sub(ms_to_ns(connection.quiet_ms()));
        if heard_ns >= self.began_ns {
            return None;
        }
        let late_ms = row
            .mono_ns
            .saturating_sub(self.began_ns)
            .div_ceil(ms_to_ns(1));
        let path = PathTimeout::NoneLongerThan(self.longest_ms);
        let why = zombie_before(&connection, path, late_ms)?;
        let seen = row.identity.inode.zip(self.seen.as_mut());
        if let Some(seen) = seen.and_then(|(inode, it)| it.get_mut(&inode)) {
            // The iterator may show a socket twice if its table changes meanwhile.
            if seen.active_ns >= row.mono_ns || seen.is_zombie {
                return None;
            }
            seen.is_zombie = true;
            return Some(NewZombie {
                why,
                number: Some(seen.number),
            });
        }
        let is_same = |it: &Zombie| it.inode == row.identity.inode;
        let is_recorded = self
            .zombies
            .peek(&FlowKey::from(&row.endpoints))
            .is_some_and(is_same);
        (!is_recorded).then_some(NewZombie { why, number: None })
    }

    /// Remembers a zombie under its number. Returns whether another was evicted for it.
    pub(super) fn remember(&mut self, row: &Row, number: u64) -> bool {
        let zombie = Zombie {
            number,
            inode: row.identity.inode,
            at_ns: row.mono_ns,
        };
        let key = FlowKey::from(&row.endpoints);
        let (_, before) = self.zombies.push(key.clone(), zombie);
        before.is_some_and(|(old, _)| old != key)
    }
}

/// Whether an event shows no traffic: only another unanswered probe.
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
