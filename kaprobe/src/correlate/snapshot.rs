//! What the snapshot that a trace starts from tells: the connections that were dead
//! already. It is taken while events come, and either may be first to speak of a socket.

use std::num::NonZeroUsize;

use crate::correlate::ns;
use crate::keepalive::connection::Connection;
use crate::keepalive::zombie::{PathTimeout, zombie};
use crate::lru::LruMap;
use crate::model::event::{Kind, SocketEvent};
use crate::model::fate::Why;
use crate::model::flow::FlowKey;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;

/// Zombies, and what is needed to speak of each only once.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// No idle timeout is longer, ms.
    longest_ms: u64,
    /// The sockets that events have spoken of since the trace began, by inode number;
    /// `None` once no more of the snapshot follows.
    spoken_of: Option<LruMap<u64, Spoken>>,
    /// The zombies that no event has spoken of yet.
    zombies: LruMap<FlowKey, Zombie>,
}

/// A socket that events have spoken of.
#[derive(Debug)]
struct Spoken {
    number: u64,
    /// When the last of them happened that is no more silence, CLOCK_MONOTONIC ns.
    stirred_ns: u64,
    /// A row has told that it is a zombie.
    is_zombie: bool,
}

#[derive(Debug)]
struct Zombie {
    number: u64,
    inode: Option<u64>,
    at_ns: u64,
}

impl Zombie {
    /// Whether an event between the same ends is of the same socket: of the same file, or
    /// where one of them has none, heard for the last time before the snapshot.
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
    /// None follows.
    pub(super) fn none() -> Self {
        Self {
            longest_ms: u64::MAX,
            spoken_of: None,
            zombies: LruMap::with_capacity(NonZeroUsize::MIN),
        }
    }

    /// One follows.
    pub(super) fn begun(max_sockets: NonZeroUsize, longest_ms: u64) -> Self {
        Self {
            longest_ms,
            spoken_of: Some(LruMap::with_capacity(max_sockets)),
            zombies: LruMap::with_capacity(max_sockets),
        }
    }

    /// No more rows follow.
    pub(super) fn end(&mut self) {
        self.spoken_of = None;
    }

    /// The number of the zombie that an event is the first to speak of.
    pub(super) fn claim(&mut self, event: &SocketEvent) -> Option<u64> {
        if self.zombies.is_empty() {
            return None;
        }
        let zombie = self.zombies.remove(&FlowKey::from(&event.endpoints))?;
        zombie.is_of(event).then_some(zombie.number)
    }

    /// An event has spoken of the socket of that number.
    pub(super) fn note(&mut self, event: &SocketEvent, number: u64) {
        let (Some(spoken_of), Some(inode)) = (&mut self.spoken_of, event.identity.inode) else {
            return;
        };
        let spoken = spoken_of.get_or_insert_with(inode, || Spoken {
            number,
            stirred_ns: 0,
            is_zombie: false,
        });
        spoken.number = number;
        if !is_silence(event) {
            spoken.stirred_ns = spoken.stirred_ns.max(event.at.mono_ns);
        }
    }

    /// Whether a row tells of a zombie that nothing was said of yet. What an event has
    /// told since is newer than the row.
    pub(super) fn look(&mut self, row: &Row) -> Option<Found> {
        let connection = Connection::from_row(row)?;
        let why = zombie(&connection, PathTimeout::NoneLongerThan(self.longest_ms))?;
        let spoken_of = row.identity.inode.zip(self.spoken_of.as_mut());
        if let Some(spoken) = spoken_of.and_then(|(inode, it)| it.get_mut(&inode)) {
            // The iterator may show a socket again when its table changes meanwhile.
            if spoken.stirred_ns >= row.mono_ns || spoken.is_zombie {
                return None;
            }
            spoken.is_zombie = true;
            return Some(Found {
                why,
                number: Some(spoken.number),
            });
        }
        let is_same = |it: &Zombie| it.inode == row.identity.inode;
        let is_told = self
            .zombies
            .peek(&FlowKey::from(&row.endpoints))
            .is_some_and(is_same);
        (!is_told).then_some(Found { why, number: None })
    }

    /// Remembers a zombie under the number that it was given; whether another was
    /// forgotten for want of room.
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

/// Whether an event leaves a silent connection as silent as it was: another probe.
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
