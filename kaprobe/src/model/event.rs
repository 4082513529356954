//! Events: facts from the kernel, decoded and checked, not yet interpreted.

use std::sync::Arc;

use crate::model::owner::{Owner, OwnerLease};
use crate::model::row::Row;
use crate::model::socket::{Actor, Ages, Endpoints, Identity, Settings, Transfer};
use crate::model::time::Instant;
use crate::model::values::{Cause, FinWait2, Hook, LostWhy, Met, TcpFlags};

/// An event that a source reports.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all events are of the largest variant, and a batch is one array"
)]
pub enum Event {
    /// Something happened to a socket.
    Socket(SocketEvent),
    /// A reset was sent in answer to a segment.
    PassiveReset(Box<PassiveReset>),
    /// The kernel could not deliver some events.
    Lost(Lost),
    /// A socket of the snapshot taken when the trace began.
    Snapshot(Box<Row>),
    /// The end of the snapshot: no more of its sockets follow.
    SnapshotEnd,
}

/// A count of events that were not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The time when the loss was noticed. It happened after the previous notice.
    pub at: Instant,
    /// The hook whose events were lost.
    pub hook: Hook,
    /// The kind of the lost events, if the kernel knew it. Passive resets count as
    /// [`Kind::RstSent`] of [`Hook::SendReset`].
    pub kind: Option<Kind>,
    /// Why the events were lost.
    pub why: LostWhy,
    /// How many events were lost; 0 if nobody knows ([`LostWhy::SwitchedOff`]).
    pub count: u64,
}

/// The kind of an event. Records use the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A keepalive probe was sent.
    Probe,
    /// A probe failed because of local congestion.
    ProbeCongested,
    /// The timer fired, but traffic was seen after it was armed.
    Early,
    /// The timer fired while data was outstanding.
    DataPending,
    /// The timer fired while a process owned the socket lock.
    Busy,
    /// The kernel gave up on the peer: keepalive, or the retransmission timer.
    Timeout(Cause),
    /// The FIN_WAIT2 timer of an orphan fired. `None`: the outcome is unknown.
    FinWait2(Option<FinWait2>),
    /// The timer fired, but keepalive is off or does not apply in this state.
    NotRearmed,
    /// The timer fired, and the outcome matches no known one.
    Unclassified,
    /// The timer fired, and another processor changed the socket meanwhile: what the timer
    /// did is not known.
    ChangedMeanwhile,
    /// An active reset was sent.
    RstSent,
    /// A reset was received. Ages, probes and data are from before it: the kernel has
    /// not processed it yet.
    RstReceived,
    /// The answer to a probe was received. Probes and ages are from before it.
    Answered,
    /// A FIN was received on an established connection. The ages are from before it.
    FinReceived,
    /// A process closed or shut down its end of a connection.
    FinSent,
    /// The same data was sent again several times, and not acknowledged.
    Stalled,
    /// Data that had stalled was acknowledged, as a look at the socket shows. The values are
    /// those of the look.
    Resumed,
    /// A connection went to CLOSE, and no other event explains it.
    Aborted,
    /// A socket that had an event before was destroyed.
    Closed,
}

/// A reset that this host sent in answer to a segment. A reset is never answered
/// (RFC 9293, 3.5.2), so the segment is not a reset.
#[derive(Clone, Debug, PartialEq)]
pub struct PassiveReset {
    /// When the reset was sent.
    pub at: Instant,
    /// The segment's destination (local) and source (remote), and the network namespace
    /// that received it.
    pub endpoints: Endpoints,
    /// The segment's flags: the 14th byte of its TCP header, FIN in the lowest bit.
    pub flags: u8,
    /// Length of the segment's data in bytes.
    pub len: u32,
    /// TTL or hop limit of the segment as received.
    pub ttl: u8,
    /// The kernel's name for the reset reason, from its BTF.
    pub reason: Option<String>,
    /// What the segment matched on this host.
    pub met: Met,
    /// TCP state of the matched socket, the kernel's number; 0 if there is none.
    pub state: u8,
    /// Whether conntrack has an entry for the segment, if that is known.
    pub tracked: Option<bool>,
    /// Inode of the listener that the segment matched.
    pub inode: Option<u64>,
    /// The process that holds that listener, if known.
    pub owner: Owner,
    /// How long that process has run, s.
    pub process_age_s: Option<u32>,
}

/// What is known of the segment that an event reports, and of the peer's segments before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrivedSegment {
    /// Flags of the segment.
    pub flags: Option<TcpFlags>,
    /// TTL or hop limit of the segment as received.
    pub ttl: Option<u8>,
    /// The segment came from this host itself, although the peer is another one. `None` if
    /// that is not known, or if both ends are on this host.
    pub from_this_host: Option<bool>,
    /// TTL or hop limit with which the peer completed the handshake, if this host accepted
    /// the connection.
    pub peer_ttl: Option<u8>,
    /// The peer had sent data on the connection before.
    pub data_received: Option<bool>,
}

/// The identity of a socket: its address, and a time, because addresses are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// Address of the socket in the kernel.
    pub sk: u64,
    /// Time of the socket's first event, CLOCK_MONOTONIC ns; 0 if it is not tracked.
    pub born_ns: u64,
}

/// An event of a socket. Ages and delays are in ms, converted from jiffies: their
/// resolution is 1000 / HZ ms.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketEvent {
    /// Time of the event; for a timer firing, its start.
    pub at: Instant,
    /// What happened.
    pub kind: Kind,
    /// Identity of the socket.
    pub id: SocketId,
    /// The process that holds the socket, or that held it last, if known; never the interrupted
    /// task. All events and sockets of the process share this value.
    pub owner: Owner,
    /// How long that owner may be used for later events.
    pub lease: OwnerLease,
    /// Local and remote address and port.
    pub endpoints: Endpoints,
    /// Inode, cookie, uid and cgroup.
    pub identity: Identity,
    /// TCP state before the event, kernel number (`include/net/tcp_states.h`).
    pub state: u8,
    /// TCP state after the event.
    pub state_after: u8,
    /// Keepalive settings of the socket.
    pub settings: Settings,
    /// Unanswered probes before the event.
    pub probes_out: u8,
    /// Unanswered probes after the event.
    pub probes_out_after: u8,
    /// Time since data was last received (ss: lastrcv), ms.
    pub lastrcv_ms: u64,
    /// Time since an acknowledgement was last received (ss: lastack), ms.
    pub lastack_ms: u64,
    /// Time since data was last sent (ss: lastsnd), ms.
    pub lastsnd_ms: u64,
    /// Time since any segment of the peer was received, ms, if it is known.
    pub heard_ms: Option<u64>,
    /// Time until the timer fires again, ms. `None` if it is not armed, or if this event
    /// is not a firing.
    pub next_ms: Option<u64>,
    /// How late the timer fired, ms. `None` if this event is not a firing.
    pub late_ms: Option<u64>,
    /// Segments sent and not acknowledged (ss: unacked).
    pub unacked: u32,
    /// Consecutive retransmissions of the oldest unacknowledged segment.
    pub retransmits: u8,
    /// The write queue was not empty.
    pub write_queue: bool,
    /// `sk_err` after the event, a positive errno; `None` if 0.
    pub err: Option<u32>,
    /// The kernel's name for the reset reason, from its BTF.
    pub reason: Option<String>,
    /// For a reset sent during a firing: `at.mono_ns` of the firing. For a firing that
    /// sent a reset: its own `at.mono_ns`.
    pub firing_ns: Option<u64>,
    /// What is known of the segment that the event reports.
    pub arrival: ArrivedSegment,
    /// The event mask excludes this event, but the kernel sent it because it shows that
    /// an earlier probe was answered.
    pub news: bool,
    /// The process that closed or reset the connection, if the event is of its doing.
    pub actor: Option<Arc<Actor>>,
    /// Facts about data that is not acknowledged.
    pub transfer: Option<Box<Transfer>>,
    /// Time until the kernel gives up if the data is not acknowledged, ms.
    pub dead_in_ms: Option<u64>,
    /// The rule by which the kernel gives up then.
    pub dead_by: Option<Cause>,
    /// The socket is a subflow of an MPTCP connection. `None` if it is not known.
    pub mptcp: Option<bool>,
}

impl SocketEvent {
    /// Ages of the last traffic.
    #[must_use]
    pub fn ages(&self) -> Ages {
        Ages {
            heard_ms: self.heard_ms,
            ..Ages::new(self.lastrcv_ms, self.lastack_ms, self.lastsnd_ms)
        }
    }
}
