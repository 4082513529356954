//! What a source yields: the kernel's facts, decoded and checked, with no meaning
//! added yet.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::row::Row;
use crate::text::escape::Escaped;

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

/// Which hook an event came from, in the names that the banner and `doctor` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `tcp_keepalive_timer`, entry and exit.
    KeepaliveTimer,
    /// `tcp_send_active_reset`.
    SendActiveReset,
    /// `tcp_destroy_sock`.
    DestroySock,
    /// `tcp_v4_send_reset` and `tcp_v6_send_reset`: both, or neither.
    SendReset,
    /// `tcp_receive_reset`.
    ReceiveReset,
    /// `tcp_probe`, the tracepoint that every segment of a connection passes.
    Probe,
}

impl Hook {
    /// All of them, the one without which there is nothing to trace first.
    pub const ALL: [Self; 6] = [
        Self::KeepaliveTimer,
        Self::SendActiveReset,
        Self::SendReset,
        Self::ReceiveReset,
        Self::Probe,
        Self::DestroySock,
    ];

    /// The kernel function that it follows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepaliveTimer => "tcp_keepalive_timer",
            Self::SendActiveReset => "tcp_send_active_reset",
            Self::DestroySock => "tcp_destroy_sock",
            Self::SendReset => "tcp_v4_send_reset",
            Self::ReceiveReset => "tcp_receive_reset",
            Self::Probe => "tcp_probe",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LostWhy {
    /// The ring buffer was full.
    RingBuffer,
    /// The table of running firings was full.
    FiringTable,
    /// The kernel skipped the program: a probe missed, or one end of a firing.
    Missed,
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

/// One moment on the two clocks that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// CLOCK_MONOTONIC, ns: what the kernel stamps, the same for all of a host.
    pub mono_ns: u64,
    /// CLOCK_REALTIME, ns since the epoch: what a person reads.
    pub wall_ns: i64,
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

/// Why keepalive gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The probe count was reached.
    ProbeCount,
    /// TCP_USER_TIMEOUT passed.
    UserTimeout,
}

/// What became of an orphan in FIN_WAIT2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FinWait2 {
    /// It went on as a TIME_WAIT minisock.
    TimeWait,
    /// It was reset.
    Reset,
}

/// A reset that this host sent in answer to a segment. A segment that is itself a
/// reset is never answered (RFC 9293, 3.5.2), and makes no such event.
#[derive(Clone, Debug, PartialEq)]
pub struct PassiveReset {
    /// When.
    pub at: Instant,
    /// Where the segment was bound for: this host's side.
    pub laddr: IpAddr,
    /// Its port.
    pub lport: u16,
    /// Where the segment came from.
    pub raddr: IpAddr,
    /// Its port.
    pub rport: u16,
    /// Network namespace that the segment was received in, inode number.
    pub netns: u32,
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

/// What a segment met that was answered with a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Met {
    /// No socket at all.
    Nothing,
    /// The minisock that a closed connection leaves behind.
    TimeWait,
    /// The minisock of a handshake that is under way.
    Request,
    /// A socket.
    Socket,
}

/// Identity of a socket: an address in the kernel, and since when it is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// The socket's address.
    pub sk: u64,
    /// When it was first spoken of, CLOCK_MONOTONIC ns; 0 where not tracked.
    pub born_ns: u64,
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its pid, as kaprobe's own pid namespace numbers it.
    pub pid: u32,
    /// Its command: the kernel's 15 bytes, any bytes but NUL, escaped.
    pub comm: Escaped,
}

/// A setting and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// The value in force, in the unit of the field that holds it.
    pub value: u64,
    /// Who set it.
    pub from: Origin,
}

/// Who set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A socket option, on this socket or the listener it was accepted from.
    Socket,
    /// The sysctl of the socket's network namespace.
    Sysctl,
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
    /// Local address. An IPv4-mapped one stays as it is: the socket is AF_INET6.
    pub laddr: IpAddr,
    /// Local port.
    pub lport: u16,
    /// Remote address.
    pub raddr: IpAddr,
    /// Remote port.
    pub rport: u16,
    /// Network namespace, inode number.
    pub netns: u32,
    /// Inode number in sockfs; `None` for an orphan.
    pub inode: Option<u64>,
    /// Socket cookie, where the kernel has made one.
    pub cookie: Option<u64>,
    /// uid of the owner.
    pub uid: u32,
    /// cgroup v2 id, where known.
    pub cgroup: Option<u64>,
    /// TCP state before and after, kernel numbers (`include/net/tcp_states.h`).
    pub state: u8,
    /// See `state`.
    pub state_after: u8,
    /// SO_KEEPALIVE is on.
    pub keepalive: bool,
    /// Orphan: no process holds it.
    pub orphan: bool,
    /// Effective idle time before the first probe, ms.
    pub keepalive_time: Setting,
    /// Effective interval between probes, ms.
    pub keepalive_intvl: Setting,
    /// Effective probe count.
    pub keepalive_probes: Setting,
    /// TCP_USER_TIMEOUT, ms; `None` when not set. Only a socket can set it.
    pub user_timeout_ms: Option<u32>,
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
    /// Since anything came from the peer, ms: what the kernel weighs against the
    /// keepalive time (`keepalive_time_elapsed`, include/net/tcp.h).
    #[must_use]
    pub fn idle_ms(&self) -> u64 {
        self.lastrcv_ms.min(self.lastack_ms)
    }
}
