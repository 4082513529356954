//! Layout of the records that the programs send to user space: integers of fixed size,
//! without padding.
//!
//! No value depends on how a reader represents it: there is no bool, no enum and no
//! pointer. A kind that the reader does not know is an error in the reader, never
//! undefined behaviour.

/// Version of this layout. The kept object and the binary that embeds it always agree;
/// each event carries the version so that a mix-up is an error and not noise.
pub const VERSION: u16 = 1;

/// Kinds of events. Each has a bit in `Config::event_mask`, and a counter of the events
/// that did not fit.
pub mod kind {
    /// A keepalive probe was sent, or was dropped below TCP, which the kernel counts as
    /// sent: `tcp_write_wakeup() <= 0` in `tcp_keepalive_timer`.
    pub const PROBE: u16 = 0;
    /// A probe met local congestion: `tcp_write_wakeup() > 0`. The kernel tries again in
    /// HZ/2.
    pub const PROBE_CONGESTED: u16 = 1;
    /// Traffic was seen since the timer was armed, so there was nothing to do yet.
    pub const EARLY: u16 = 2;
    /// Data is queued or unacknowledged, so retransmission is in charge.
    pub const DATA_PENDING: u16 = 3;
    /// User context owned the socket. The kernel tries again in HZ/20.
    pub const BUSY: u16 = 4;
    /// Keepalive gave up on the peer and closed the connection.
    pub const TIMEOUT: u16 = 5;
    /// The FIN_WAIT2 timer of an orphan fired. It is not keepalive, but shares the timer.
    pub const FIN_WAIT2: u16 = 6;
    /// The timer fired and had nothing to watch: keepalive is off, or does not apply to
    /// the socket's state.
    pub const NOT_REARMED: u16 = 7;
    /// The timer fired, and its effects fit no row of the decision tree.
    pub const UNCLASSIFIED: u16 = 8;
    /// The timer fired, and another processor changed the socket before or after the timer
    /// had its lock. What the timer did is not known.
    pub const CHANGED_MEANWHILE: u16 = 9;
    /// `tcp_send_active_reset` was called for the socket. The kinds before this one are
    /// firings.
    pub const RST_SENT: u16 = 10;
    /// A socket that an earlier event reported was destroyed.
    pub const CLOSED: u16 = 11;
    /// A reset was received on the socket: `tcp_receive_reset` was traced.
    pub const RST_RECEIVED: u16 = 12;
    /// A reset answered a segment. `state` is that of the socket or minisock that the
    /// segment met, or 0 if it met none. `socket` holds only the segment's ends.
    pub const RST_PASSIVE: u16 = 13;
    /// A segment acknowledged what was sent, while a probe that an earlier event reported
    /// was out. `probes_out` is the number of probes that were out.
    pub const ANSWERED: u16 = 14;
    /// The peer's FIN came in on an idle connection.
    pub const FIN_RECEIVED: u16 = 15;
    /// This host closed an idle connection in order, or its sending half.
    pub const FIN_SENT: u16 = 16;
    /// The retransmission timer or the window probe timer gave up on the peer, and closed
    /// the connection: `tcp_write_err`, net/ipv4/tcp_timer.c.
    pub const GAVE_UP: u16 = 17;
    /// The connection went to CLOSE, and no other kind explains it.
    pub const ABORTED: u16 = 18;
    /// The same data was sent again as often as `Config::stalled_after` says, and is not
    /// acknowledged. `rto` and `backoff` are from before this retransmission.
    pub const STALLED: u16 = 19;
    /// Data that a [`STALLED`] reported was acknowledged: user space had the socket looked at
    /// again.
    pub const RESUMED: u16 = 20;
    /// Number of kinds.
    pub const COUNT: u16 = 21;

    /// The state of a socket in a [`crate::wire::Snapshot`]. It is not an event, and is
    /// never in the ring buffer.
    pub const SNAPSHOT: u16 = u16::MAX;
}

/// Whether an event of this kind is sent as a [`Detailed`].
#[must_use]
pub const fn is_detailed(kind: u16) -> bool {
    kind == kind::RST_SENT || kind >= kind::FIN_RECEIVED
}

/// Reasons why a [`kind::TIMEOUT`] or a [`kind::GAVE_UP`] gave up.
pub mod cause {
    /// The event is not a timeout.
    pub const NONE: u8 = 0;
    /// The maximum number of probes went unanswered.
    pub const PROBE_COUNT: u8 = 1;
    /// TCP_USER_TIMEOUT passed while a probe or data was out.
    pub const USER_TIMEOUT: u8 = 2;
    /// Data was retransmitted, and never acknowledged.
    pub const RETRANSMISSION: u8 = 3;
    /// The peer did not open its window.
    pub const ZERO_WINDOW: u8 = 4;
}

/// What a look at a socket shows whose data had stalled.
pub mod look {
    /// The data is not acknowledged, or there was no room to report that it is.
    pub const WAITING: u32 = 0;
    /// The data was acknowledged, and a [`crate::wire::kind::RESUMED`] was sent.
    pub const RESUMED: u32 = 1;
    /// The socket was destroyed.
    pub const GONE: u32 = 2;
}

/// Bits of [`Event::flags`].
pub mod flag {
    /// `SOCK_DEAD`: the socket is an orphan, which no process holds.
    pub const DEAD: u16 = 1 << 0;
    /// `SOCK_KEEPOPEN`: SO_KEEPALIVE is on.
    pub const KEEPOPEN: u16 = 1 << 1;
    /// The write queue was not empty at entry.
    pub const WRITE_QUEUE: u16 = 1 << 2;
    /// User context owned the socket at entry.
    pub const OWNED: u16 = 1 << 3;
    /// The timer was pending again at exit.
    pub const PENDING_AFTER: u16 = 1 << 4;
    /// On a firing: an active reset was sent during it. On a reset: it was sent during a
    /// firing.
    pub const RESET_IN_TIMER: u16 = 1 << 5;
    /// `reason` holds the kernel's own reason for the reset.
    pub const HAS_REASON: u16 = 1 << 6;
    /// The event mask does not ask for this kind. The event was sent because it is the
    /// first firing that shows that an earlier probe was answered.
    pub const NEWS: u16 = 1 << 7;
    /// The table of known sockets was full: `born_ns` is 0, and no `closed` event follows.
    pub const UNTRACKED: u16 = 1 << 8;
    /// The reset hook is attached: without `RESET_IN_TIMER`, no reset was sent.
    pub const RESETS_SEEN: u16 = 1 << 9;
    /// `is_mptcp`: the socket is a subflow of an MPTCP connection.
    pub const MPTCP: u16 = 1 << 10;
    /// `last_oow_ack_time` was read: the kernel has it.
    pub const OOW_SEEN: u16 = 1 << 11;
    /// On a received reset: the peer had sent data, `tp->bytes_received` is not 0.
    pub const DATA_RECEIVED: u16 = 1 << 12;
}

/// Bits of [`Event::segment_path`].
pub mod path {
    /// The loopback device delivered the segment.
    pub const LOOPBACK: u8 = 1 << 0;
    /// Another device carries the connection: the peer's handshake came in by another one,
    /// or the route to the peer leads to another one.
    pub const ELSEWHERE: u8 = 1 << 1;
    /// conntrack has an entry for the segment.
    pub const TRACKED: u8 = 1 << 2;
    /// conntrack has no entry for the segment, and nobody exempted it (`notrack`).
    pub const UNTRACKED: u8 = 1 << 3;
}

/// Identity of a socket: the values that the filters compare, and its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Address of the socket in the kernel. It identifies the socket only together with
    /// [`Event::born_ns`].
    pub sk: u64,
    /// Local address, network order. An IPv4 address fills the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address, network order. An IPv4 address fills the first four bytes.
    pub raddr: [u8; 16],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// Address family: AF_INET (2) or AF_INET6 (10).
    pub family: u16,
    /// Always zero.
    pub reserved: [u16; 3],
}

/// One event of a socket.
///
/// Times in jiffies are the low 32 bits and wrap, as the kernel's own `tcp_jiffies32`.
/// "At entry" means before `tcp_keepalive_timer` ran, and "after" means once it returned.
/// If the event is not a firing, the entry values are those at the hook, and the `_after`
/// values repeat them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Version of the layout: [`VERSION`].
    pub version: u16,
    /// Kind of the event: one of [`kind`].
    pub kind: u16,
    /// Flags of the event: bits of [`flag`].
    pub flags: u16,
    /// Reason of a timeout: one of [`cause`].
    pub cause: u8,
    /// `skc_state` at entry.
    pub state: u8,

    /// CLOCK_MONOTONIC at entry, ns.
    pub mono_ns: u64,
    /// `mono_ns` of the firing during which a reset was sent; otherwise 0.
    pub firing_ns: u64,

    /// CLOCK_MONOTONIC when an event first reported this socket, ns. Another socket at the
    /// same address has another value. 0 with `UNTRACKED`.
    pub born_ns: u64,
    /// `skc_cookie`; 0 if the kernel has not made one.
    pub cookie: u64,
    /// Inode number of the socket in sockfs; 0 for an orphan.
    pub inode: u64,
    /// Id of the cgroup v2 that the socket belongs to; 0 if it is unknown.
    pub cgroup: u64,
    /// Identity of the socket.
    pub socket: Socket,

    /// Jiffies at entry.
    pub jiffies: u32,
    /// Jiffies after.
    pub jiffies_after: u32,
    /// Expiry of the timer at entry, jiffies.
    pub expires: u32,
    /// Next expiry of the timer, jiffies; meaningful with `PENDING_AFTER`.
    pub expires_after: u32,
    /// `icsk_ack.lrcvtime` at entry: when data was last received, jiffies.
    pub lrcvtime: u32,
    /// `tp->rcv_tstamp` at entry: when an acknowledgement was last received, jiffies.
    pub rcv_tstamp: u32,
    /// `tp->lsndtime` at entry: when data was last sent, jiffies.
    pub lsndtime: u32,

    /// `tp->keepalive_time`, jiffies; 0 means that the sysctl applies.
    pub keepalive_time: u32,
    /// `tp->keepalive_intvl`, jiffies; 0 means that the sysctl applies.
    pub keepalive_intvl: u32,
    /// `tp->keepalive_probes`; 0 means that the sysctl applies.
    pub keepalive_probes: u32,
    /// `net.ipv4.tcp_keepalive_time` of the socket's netns, jiffies.
    pub sysctl_time: u32,
    /// `net.ipv4.tcp_keepalive_intvl` of the socket's netns, jiffies.
    pub sysctl_intvl: u32,
    /// `net.ipv4.tcp_keepalive_probes` of the socket's netns.
    pub sysctl_probes: u32,
    /// `icsk_user_timeout`, ms; 0 means none.
    pub user_timeout: u32,

    /// `icsk_probes_out` at entry.
    pub probes_out: u8,
    /// `icsk_probes_out` after.
    pub probes_out_after: u8,
    /// `skc_state` after.
    pub state_after: u8,
    /// `icsk_retransmits` at entry.
    pub retransmits: u8,
    /// `tp->packets_out` at entry: number of segments sent and not acknowledged.
    pub packets_out: u32,
    /// Uid of the socket's owner in the initial user namespace.
    pub uid: u32,
    /// `sk_err` after: a positive errno.
    pub err: u32,
    /// The kernel's `enum sk_rst_reason` number; meaningful with `HAS_REASON`.
    pub reason: u32,
    /// Bytes of data in the segment that a [`kind::RST_PASSIVE`] answers.
    pub segment_len: u32,
    /// Flags of the segment that a [`kind::RST_PASSIVE`] answers or a [`kind::RST_RECEIVED`]
    /// came in: the 14th byte of its TCP header. 0 if the segment was not seen.
    pub segment_flags: u8,
    /// TTL or hop limit left in the segment that a [`kind::RST_PASSIVE`] answers, or that a
    /// [`kind::RST_RECEIVED`] or [`kind::ANSWERED`] came in. 0 if it was not seen.
    pub segment_ttl: u8,
    /// How that segment came in: bits of [`path`].
    pub segment_path: u8,
    /// TTL or hop limit left in the segment that completed the handshake, of a
    /// [`kind::RST_RECEIVED`] on a connection that this host accepted; otherwise 0.
    pub peer_ttl: u8,
    /// `tp->last_oow_ack_time` at entry: when a segment without data was last received from
    /// outside the window, jiffies; 0 if none was. A keepalive probe of the peer is one.
    /// Meaningful with `OOW_SEEN`.
    pub last_oow_ack_time: u32,
}

/// What a socket has sent, and when it sends it again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// `tp->tcp_mstamp`: the last time that TCP handled the socket, CLOCK_MONOTONIC µs.
    pub tcp_mstamp: u64,
    /// `tp->first_tx_mstamp`: when the oldest data that is in flight was first sent,
    /// CLOCK_MONOTONIC µs. Earlier if part of what was sent then is acknowledged.
    pub first_tx_mstamp: u64,
    /// `sk_err_soft`: the error that ICMP reported last, a positive errno.
    pub err_soft: u32,
    /// `tp->snd_una`.
    pub snd_una: u32,
    /// `tp->snd_nxt`.
    pub snd_nxt: u32,
    /// `tp->write_seq`.
    pub write_seq: u32,
    /// `tp->snd_wnd`: the peer's window, bytes.
    pub snd_wnd: u32,
    /// `icsk_rto`, jiffies.
    pub rto: u32,
    /// `icsk_rto_max`, jiffies; 0 if the kernel has one maximum for all sockets.
    pub rto_max: u32,
    /// `tp->retrans_stamp`: when the data was first retransmitted, in units of TCP's
    /// timestamps; 0 if it was not.
    pub retrans_stamp: u32,
    /// `icsk_probes_tstamp`: when the first window probe was due, jiffies; 0 if none was.
    /// Meaningful with `probes_timed`.
    pub probes_tstamp: u32,
    /// `net.ipv4.tcp_retries2` of the socket's netns.
    pub retries2: u32,
    /// `net.ipv4.tcp_orphan_retries` of the socket's netns.
    pub orphan_retries: u32,
    /// `icsk_backoff`.
    pub backoff: u8,
    /// 1 if the unit of TCP's timestamps is 1 µs, and not 1 ms.
    pub usec_ts: u8,
    /// 1 if the kernel has `icsk_probes_tstamp`.
    pub probes_timed: u8,
    /// Always zero.
    pub reserved: u8,
}

/// An event that says more than others: what the socket had to send, and who did it.
/// These events are rare; [`is_detailed`] tells which they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detailed {
    /// What every event reports.
    pub event: Event,
    /// What the socket has sent.
    pub sending: Sending,
    /// `tp->rack.mstamp`: when the data was sent that the peer acknowledged last,
    /// CLOCK_MONOTONIC µs; 0 if it acknowledged none.
    pub rack_mstamp: u64,
    /// Name of the process that did it, as in /proc/PID/comm.
    pub comm: [u8; 16],
    /// Number of the process that did it, in the initial pid namespace; 0 if none did.
    pub pid: u32,
    /// 1 if the process that did it was exiting.
    pub exiting: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// State of a socket. The iterator over sockets writes one for each socket.
///
/// In the snapshot of a minisock (TIME_WAIT, NEW_SYN_RECV), `event` holds only the
/// identity, the clocks and the state. Of the other members, a minisock has those that
/// say so.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What an event reports of a socket; the kind is [`kind::SNAPSHOT`]. `PENDING_AFTER`
    /// and `expires_after` are those of the keepalive timer.
    pub event: Event,
    /// What the socket has sent.
    pub sending: Sending,
    /// Expiry of the retransmission or window probe timer, jiffies; for a minisock, the
    /// expiry of its only timer.
    pub rto_expires: u32,
    /// `tp->rcv_nxt`.
    pub rcv_nxt: u32,
    /// `tp->copied_seq`.
    pub copied_seq: u32,
    /// `sk_ack_backlog`: number of connections that wait to be accepted.
    pub ack_backlog: u32,
    /// `icsk_pending`: the timer that `rto_expires` belongs to.
    pub pending: u8,
    /// `tw_substate` of a TIME_WAIT minisock: FIN_WAIT2 or TIME_WAIT.
    pub substate: u8,
    /// `num_timeout` of a NEW_SYN_RECV minisock: how often its SYN+ACK was sent again.
    pub timeouts: u8,
    /// Always zero.
    pub reserved: [u8; 5],
}

/// A descriptor that refers to a socket, as the iterator over descriptors writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Inode number of the socket in sockfs.
    pub inode: u64,
    /// Number of the process in the pid namespace of the reader.
    pub pid: u32,
    /// Number of the descriptor in the process.
    pub fd: u32,
}

/// A change of a process that holds sockets, or of who holds a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerChange {
    /// The process, by its number in the initial pid namespace; or, if a descriptor was
    /// received, the inode number of its socket in sockfs.
    pub subject: u64,
    /// What happened: one of [`change`].
    pub what: u32,
    /// Always zero.
    pub reserved: u32,
}

/// What happened to a process or a socket, in an [`OwnerChange`].
pub mod change {
    /// The process ends. It still has its descriptors.
    pub const ENDED: u32 = 0;
    /// The process executes another program.
    pub const EXECUTED: u32 = 1;
    /// The process made a child process.
    pub const FORKED: u32 = 2;
    /// The process gets another name.
    pub const RENAMED: u32 = 3;
    /// A process received a descriptor of the socket.
    pub const RECEIVED: u32 = 4;
}

/// Size of an [`Event`] on the wire, bytes.
pub const EVENT_SIZE: usize = size_of::<Event>();
/// Size of a [`Detailed`] on the wire, bytes.
pub const DETAILED_SIZE: usize = size_of::<Detailed>();
/// Size of a [`Snapshot`] on the wire, bytes.
pub const SNAPSHOT_SIZE: usize = size_of::<Snapshot>();
/// Size of a [`Descriptor`] on the wire, bytes.
pub const DESCRIPTOR_SIZE: usize = size_of::<Descriptor>();
/// Size of an [`OwnerChange`] on the wire, bytes.
pub const OWNER_CHANGE_SIZE: usize = size_of::<OwnerChange>();

// No padding: the members' sizes add up to the whole.
const _: () = assert!(size_of::<Socket>() == 8 + 2 * 16 + 4 + 3 * 2 + 3 * 2);
const _: () = assert!(
    EVENT_SIZE == 8 + 2 * 8 + 4 * 8 + size_of::<Socket>() + 7 * 4 + 7 * 4 + 4 + 5 * 4 + 4 + 4
);

const _: () = assert!(size_of::<Sending>() == 2 * 8 + 11 * 4 + 4);
const _: () = assert!(DETAILED_SIZE == EVENT_SIZE + size_of::<Sending>() + 8 + 16 + 4 + 4);
const _: () = assert!(SNAPSHOT_SIZE == EVENT_SIZE + size_of::<Sending>() + 4 * 4 + 3 + 5);
const _: () = assert!(DESCRIPTOR_SIZE == 8 + 2 * 4);
const _: () = assert!(OWNER_CHANGE_SIZE == 8 + 2 * 4);

impl Descriptor {
    /// Reads a descriptor from its bytes; `None` if their number is not
    /// [`DESCRIPTOR_SIZE`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DESCRIPTOR_SIZE {
            return None;
        }
        // SAFETY: as in `Event::from_bytes`.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl OwnerChange {
    /// Reads a change from its bytes; `None` if their number is not [`OWNER_CHANGE_SIZE`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != OWNER_CHANGE_SIZE {
            return None;
        }
        // SAFETY: as in `Event::from_bytes`.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl Detailed {
    /// All zero, for a value that is filled in later.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Reads a detailed event from its bytes; `None` if their number is not
    /// [`DETAILED_SIZE`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DETAILED_SIZE {
            return None;
        }
        // SAFETY: as in `Event::from_bytes`.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl Snapshot {
    /// All zero, for a value that is filled in later.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Reads a snapshot from its bytes; `None` if their number is not [`SNAPSHOT_SIZE`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SNAPSHOT_SIZE {
            return None;
        }
        // SAFETY: as in `Event::from_bytes`.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl Socket {
    /// All zero, for a value that is filled in later.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

impl Event {
    /// All zero, for an event that is filled in later.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Reads an event from the bytes of a ring buffer record; `None` if their number is
    /// not [`EVENT_SIZE`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != EVENT_SIZE {
            return None;
        }
        // SAFETY: the length was checked, `read_unaligned` requires no alignment, and
        // every bit pattern is an `Event`: it has only integers, without padding.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// Counters of what could not be delivered.
///
/// The first [`kind::COUNT`] of them belong to one kind each, and count the events of
/// that kind for which the ring buffer had no room.
pub mod counter {
    use crate::wire::kind;

    /// Firings that were not followed because the table of running firings was full.
    pub const FIRING_UNTRACKED: u32 = kind::COUNT as u32;
    /// Firings whose exit was never seen.
    pub const EXIT_MISSED: u32 = FIRING_UNTRACKED + 1;
    /// Firings whose entry was never seen. They are not counted while a filter is set: the
    /// exit then cannot tell a missed entry from one that was filtered out.
    pub const ENTRY_MISSED: u32 = FIRING_UNTRACKED + 2;
    /// Events of sockets for which the table of known sockets had no room. They are
    /// delivered with [`crate::wire::flag::UNTRACKED`].
    pub const SOCKET_UNTRACKED: u32 = FIRING_UNTRACKED + 3;
    /// Changes of owners for which their ring buffer had no room.
    pub const OWNER_CHANGE_LOST: u32 = FIRING_UNTRACKED + 4;
    /// Number of counters.
    pub const COUNT: u32 = FIRING_UNTRACKED + 5;
}
