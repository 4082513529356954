//! What a source yields: the kernel's facts, decoded and checked, with no meaning
//! added yet.

use std::sync::Arc;

use crate::model::owner::Owner;
use crate::model::row::Row;
use crate::model::socket::{Ages, Endpoints, Identity, Settings};
use crate::model::time::Instant;
use crate::model::values::{Cause, FinWait2, Hook, LostWhy, Met};

/// One thing that a source saw.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are of the largest, and lie side by side in a batch"
)]
pub enum Event {
    /// A socket did something.
    Socket(SocketEvent),
    /// A reset was sent in answer to a segment.
    PassiveReset(Box<PassiveReset>),
    /// Events that the kernel could not deliver since the last such notice.
    Lost(Lost),
    /// A socket as it was shortly after the trace began: one of a snapshot.
    Snapshot(Box<Row>),
    /// The snapshot has ended: no more sockets of it follow.
    SnapshotEnd,
}

/// Events that were not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When the loss was noticed; it happened since the previous notice.
    pub at: Instant,
    /// The hook whose events are missing.
    pub hook: Hook,
    /// What kind they were, where the kernel could still tell. Passive resets count
    /// as [`Kind::RstSent`] of [`Hook::SendReset`].
    pub kind: Option<Kind>,
    /// Why.
    pub why: LostWhy,
    /// How many.
    pub count: u64,
}

/// What happened; the names are those of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A keepalive probe was sent.
    Probe,
    /// A probe met local congestion.
    ProbeCongested,
    /// The timer fired early: traffic was seen since it was armed.
    Early,
    /// The timer fired while data was outstanding.
    DataPending,
    /// The timer fired while user context owned the socket.
    Busy,
    /// Keepalive gave up.
    Timeout(Cause),
    /// The FIN_WAIT2 timer of an orphan. `None`: not known which way it went.
    FinWait2(Option<FinWait2>),
    /// The timer fired and had nothing to watch.
    NotRearmed,
    /// The timer fired and what it did fits no known outcome.
    Unclassified,
    /// An active reset was sent.
    RstSent,
    /// A reset was received. The ages are those before it, probes and data those out
    /// then: the kernel has not acted on it yet.
    RstReceived,
    /// A probe was answered: seen as the answer came in. Probes and ages are those
    /// before it.
    Answered,
    /// A socket seen before was destroyed.
    Closed,
}

/// A reset that this host sent in answer to a segment. A segment that is itself a
/// reset is never answered (RFC 9293, 3.5.2), and makes no such event.
#[derive(Clone, Debug, PartialEq)]
pub struct PassiveReset {
    /// When.
    pub at: Instant,
    /// Where the segment was bound for, which is this host's side, and where it came
    /// from; the network namespace that it was received in.
    pub endpoints: Endpoints,
    /// The segment's flags: the 14th byte of its TCP header, FIN in the lowest bit.
    pub flags: u8,
    /// Bytes of data in the segment.
    pub len: u32,
    /// TTL or hop limit that was left in it.
    pub ttl: u8,
    /// The kernel's name of the reset's reason, as in its BTF.
    pub reason: Option<String>,
    /// What the segment met.
    pub met: Met,
    /// The TCP state of what it met, the kernel's number; 0 of nothing.
    pub state: u8,
}

/// Identity of a socket: an address in the kernel, and since when it is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// The socket's address.
    pub sk: u64,
    /// When it was first spoken of, CLOCK_MONOTONIC ns; 0 where not tracked.
    pub born_ns: u64,
}

/// A socket, and what happened to it. Ages and delays are in ms, made from jiffies:
/// their grain is 1000 / HZ ms.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketEvent {
    /// When; for a firing, when it began.
    pub at: Instant,
    /// What.
    pub kind: Kind,
    /// The socket.
    pub id: SocketId,
    /// Who holds it, where known; never the interrupted task. Shared by all events and
    /// sockets of the process.
    pub owner: Option<Arc<Owner>>,
    /// Who it is between.
    pub endpoints: Endpoints,
    /// Which socket it is.
    pub identity: Identity,
    /// TCP state before and after, kernel numbers (`include/net/tcp_states.h`).
    pub state: u8,
    /// See `state`.
    pub state_after: u8,
    /// Its keepalive settings.
    pub settings: Settings,
    /// Unanswered probes before.
    pub probes_out: u8,
    /// Unanswered probes after.
    pub probes_out_after: u8,
    /// Since data last came (ss: lastrcv), ms.
    pub lastrcv_ms: u64,
    /// Since an acknowledgement last came (ss: lastack), ms.
    pub lastack_ms: u64,
    /// Since data was last sent (ss: lastsnd), ms.
    pub lastsnd_ms: u64,
    /// Until the timer fires again, ms; `None` when it is not armed, or not a firing.
    pub next_ms: Option<u64>,
    /// How long after its due time the timer fired, ms; `None` when not a firing.
    pub late_ms: Option<u64>,
    /// Segments sent and not acknowledged (ss: unacked).
    pub unacked: u32,
    /// How often in a row the oldest of them was sent again.
    pub retransmits: u8,
    /// Data waited in the write queue.
    pub write_queue: bool,
    /// `sk_err` after, a positive errno; `None` when 0.
    pub err: Option<u32>,
    /// The kernel's name of the reset's reason, as in its BTF.
    pub reason: Option<String>,
    /// A reset sent during a firing: `at.mono_ns` of that firing. On a firing: its
    /// own, when it sent a reset.
    pub firing_ns: Option<u64>,
    /// The event mask did not ask for this event; it came because it shows an
    /// earlier probe answered.
    pub news: bool,
}

impl SocketEvent {
    /// How long ago anything passed.
    #[must_use]
    pub fn ages(&self) -> Ages {
        Ages::new(self.lastrcv_ms, self.lastack_ms, self.lastsnd_ms)
    }
}
