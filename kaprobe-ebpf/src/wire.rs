//! The events as they cross from the kernel: fixed-size integers, no padding.
//!
//! Nothing here has a meaning that depends on the reader: no bool, no enum, no
//! pointer. A kind that the reader does not know is an error there, never
//! undefined behaviour.

/// The version of this layout. The kept object and the binary it is embedded in
/// always agree; a version is carried so that a mix-up is an error and not noise.
pub const VERSION: u16 = 1;

/// What happened. One bit each in [`crate::config::Config::event_mask`], and one
/// counter each of records that did not fit.
pub mod kind {
    /// A keepalive probe was sent, or dropped below TCP, which the kernel counts
    /// as sent: `tcp_write_wakeup() <= 0` in `tcp_keepalive_timer`.
    pub const PROBE: u16 = 0;
    /// A probe met local congestion: `tcp_write_wakeup() > 0`; retried in HZ/2.
    pub const PROBE_CONGESTED: u16 = 1;
    /// Traffic was seen since the timer was armed: nothing to do yet.
    pub const EARLY: u16 = 2;
    /// Data is queued or unacknowledged: retransmission is in charge.
    pub const DATA_PENDING: u16 = 3;
    /// The socket was owned by user context; retried in HZ/20.
    pub const BUSY: u16 = 4;
    /// Keepalive gave up on the peer and closed the connection.
    pub const TIMEOUT: u16 = 5;
    /// Not keepalive: the FIN_WAIT2 timer of an orphan, which shares the timer.
    pub const FIN_WAIT2: u16 = 6;
    /// Fired, and had nothing to watch: keepalive is off, or the state has none.
    pub const NOT_REARMED: u16 = 7;
    /// Fired, and what it did fits no row of the decision tree.
    pub const UNCLASSIFIED: u16 = 8;
    /// `tcp_send_active_reset` was called for this socket.
    pub const RST_SENT: u16 = 9;
    /// A socket that an earlier event spoke of was destroyed.
    pub const CLOSED: u16 = 10;
    /// `tcp_receive_reset` was traced: a reset was received on this socket.
    pub const RST_RECEIVED: u16 = 11;
    /// A reset answered a segment. `state` is that of the socket or minisock that the
    /// segment met, 0 of none; `socket` tells the segment's ends and no more.
    pub const RST_PASSIVE: u16 = 12;
    /// A segment came in that acknowledges what was sent, while a probe that an earlier
    /// event spoke of was out. `probes_out` is how many were.
    pub const ANSWERED: u16 = 13;
    /// How many kinds there are.
    pub const COUNT: u16 = 14;

    /// No event, and never in the ring buffer: a socket as it is, in a
    /// [`crate::wire::Snapshot`].
    pub const SNAPSHOT: u16 = u16::MAX;
}

/// Why a [`kind::TIMEOUT`] gave up.
pub mod cause {
    /// Not a timeout.
    pub const NONE: u8 = 0;
    /// As many probes as the count allows went unanswered.
    pub const PROBE_COUNT: u8 = 1;
    /// TCP_USER_TIMEOUT passed with a probe out.
    pub const USER_TIMEOUT: u8 = 2;
}

/// Bits of [`Event::flags`].
pub mod flag {
    /// `SOCK_DEAD`: an orphan, no process holds it.
    pub const DEAD: u16 = 1 << 0;
    /// `SOCK_KEEPOPEN`: SO_KEEPALIVE is on.
    pub const KEEPOPEN: u16 = 1 << 1;
    /// The write queue was not empty at entry.
    pub const WRITE_QUEUE: u16 = 1 << 2;
    /// The socket was owned by user context at entry.
    pub const OWNED: u16 = 1 << 3;
    /// The timer was pending again at exit.
    pub const PENDING_AFTER: u16 = 1 << 4;
    /// An active reset was sent during this firing; on a reset: during a firing.
    pub const RESET_IN_TIMER: u16 = 1 << 5;
    /// `reason` holds the kernel's own reason for the reset.
    pub const HAS_REASON: u16 = 1 << 6;
    /// The event mask does not ask for this kind: it came because it is the first
    /// firing that shows an earlier probe answered.
    pub const NEWS: u16 = 1 << 7;
    /// The table of known sockets was full: `born_ns` is 0 and no `closed` follows.
    pub const UNTRACKED: u16 = 1 << 8;
    /// The reset hook is attached: `RESET_IN_TIMER` unset means no reset was sent.
    pub const RESETS_SEEN: u16 = 1 << 9;
}

/// Which socket: what the filters ask for, and what tells it from others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its address in the kernel, an identity only together with
    /// [`Event::born_ns`].
    pub sk: u64,
    /// Local address; an IPv4 address fills the first four bytes. Network order.
    pub laddr: [u8; 16],
    /// Remote address, likewise.
    pub raddr: [u8; 16],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub lport: u16,
    /// Remote port, host order.
    pub rport: u16,
    /// AF_INET (2) or AF_INET6 (10).
    pub family: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// One event. Times in jiffies are the low 32 bits and wrap, as the kernel's own
/// `tcp_jiffies32`; "at entry" is before `tcp_keepalive_timer` ran, "after" once
/// it returned. For kinds other than a firing the entry values are those at the
/// hook and the `_after` ones repeat them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`VERSION`].
    pub version: u16,
    /// One of [`kind`].
    pub kind: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// One of [`cause`].
    pub cause: u8,
    /// `skc_state` at entry.
    pub state: u8,

    /// CLOCK_MONOTONIC at entry, ns.
    pub mono_ns: u64,
    /// For a reset inside a firing: that firing's `mono_ns`; otherwise 0.
    pub firing_ns: u64,

    /// When this socket was first spoken of, CLOCK_MONOTONIC ns. A reused address
    /// has another value. 0 where `UNTRACKED`.
    pub born_ns: u64,
    /// `skc_cookie`; 0 where the kernel has not made one.
    pub cookie: u64,
    /// Inode number in sockfs; 0 for an orphan.
    pub inode: u64,
    /// Id of the cgroup v2 that the socket belongs to; 0 where unknown.
    pub cgroup: u64,
    /// The socket.
    pub socket: Socket,

    /// Jiffies at entry.
    pub jiffies: u32,
    /// Jiffies after.
    pub jiffies_after: u32,
    /// When the timer was due, jiffies.
    pub expires: u32,
    /// When it is due next, jiffies; meaningful with `PENDING_AFTER`.
    pub expires_after: u32,
    /// `icsk_ack.lrcvtime` at entry: last data received, jiffies.
    pub lrcvtime: u32,
    /// `tp->rcv_tstamp` at entry: last acknowledgement received, jiffies.
    pub rcv_tstamp: u32,
    /// `tp->lsndtime` at entry: last data sent, jiffies.
    pub lsndtime: u32,

    /// `tp->keepalive_time`, jiffies; 0 means the sysctl's.
    pub keepalive_time: u32,
    /// `tp->keepalive_intvl`, jiffies; 0 means the sysctl's.
    pub keepalive_intvl: u32,
    /// `tp->keepalive_probes`; 0 means the sysctl's.
    pub keepalive_probes: u32,
    /// `net.ipv4.tcp_keepalive_time` of the socket's netns, jiffies.
    pub sysctl_time: u32,
    /// `net.ipv4.tcp_keepalive_intvl`, jiffies.
    pub sysctl_intvl: u32,
    /// `net.ipv4.tcp_keepalive_probes`.
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
    /// `tp->packets_out` at entry: segments sent and not acknowledged.
    pub packets_out: u32,
    /// Owner's uid in the initial user namespace.
    pub uid: u32,
    /// `sk_err` after, a positive errno.
    pub err: u32,
    /// The kernel's `enum sk_rst_reason` number; meaningful with `HAS_REASON`.
    pub reason: u32,
    /// The segment that a [`kind::RST_PASSIVE`] answers: bytes of data.
    pub segment_len: u32,
    /// Its flags: the 14th byte of its TCP header.
    pub segment_flags: u8,
    /// The TTL or hop limit left in it.
    pub segment_ttl: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// A socket as it is: what the iterator writes, once for each.
///
/// Of a minisock (TIME_WAIT, NEW_SYN_RECV) only the identity, the clocks and the state
/// of `event` are filled, and what says so below.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All that events tell of a socket; its kind is [`kind::SNAPSHOT`].
    /// `PENDING_AFTER` and `expires_after` are those of the keepalive timer.
    pub event: Event,
    /// When the retransmission or window probe timer is due, jiffies; the timer of a
    /// minisock.
    pub rto_expires: u32,
    /// `tp->rcv_nxt`.
    pub rcv_nxt: u32,
    /// `tp->copied_seq`.
    pub copied_seq: u32,
    /// `tp->write_seq`.
    pub write_seq: u32,
    /// `tp->snd_una`.
    pub snd_una: u32,
    /// `sk_ack_backlog`: connections that wait to be accepted.
    pub ack_backlog: u32,
    /// `icsk_pending`: which timer `rto_expires` is of.
    pub pending: u8,
    /// `tw_substate` of a TIME_WAIT minisock: FIN_WAIT2 or TIME_WAIT.
    pub substate: u8,
    /// `num_timeout` of a request: how often its SYN+ACK was sent again.
    pub timeouts: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// A descriptor that refers to a socket, as the iterator over descriptors writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The socket's inode number in sockfs.
    pub inode: u64,
    /// The process, as the pid namespace of who reads numbers it.
    pub pid: u32,
    /// The descriptor in that process.
    pub fd: u32,
}

/// Size of an [`Event`] on the wire, bytes.
pub const EVENT_SIZE: usize = size_of::<Event>();
/// Size of a [`Snapshot`], bytes.
pub const SNAPSHOT_SIZE: usize = size_of::<Snapshot>();
/// Size of a [`Descriptor`], bytes.
pub const DESCRIPTOR_SIZE: usize = size_of::<Descriptor>();

// No padding: the members' sizes add up to the whole.
const _: () = assert!(size_of::<Socket>() == 8 + 2 * 16 + 4 + 3 * 2 + 3 * 2);
const _: () =
    assert!(EVENT_SIZE == 8 + 2 * 8 + 4 * 8 + size_of::<Socket>() + 7 * 4 + 7 * 4 + 4 + 5 * 4 + 8);

const _: () = assert!(SNAPSHOT_SIZE == EVENT_SIZE + 6 * 4 + 3 + 5);
const _: () = assert!(DESCRIPTOR_SIZE == 8 + 2 * 4);

impl Descriptor {
    /// Reads a descriptor from as many bytes as it has; `None` of any other number.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DESCRIPTOR_SIZE {
            return None;
        }
        // SAFETY: as in `Event::from_bytes`.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl Snapshot {
    /// All zero: the start of one that is being filled in.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Reads a snapshot from as many bytes as it has; `None` of any other number.
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
    /// All zero: the start of one that is being filled in.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

impl Event {
    /// All zero: the start of an event that is being filled in.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Reads an event from the bytes of a ring buffer record; `None` when their
    /// number is not that of an event.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != EVENT_SIZE {
            return None;
        }
        // SAFETY: the length was checked, `read_unaligned` asks for no alignment,
        // and every bit pattern is an `Event`: integers only, without padding.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// Counters of what could not be delivered.
/// The first [`kind::COUNT`] of them count events of that kind for which the ring
/// buffer had no room.
pub mod counter {
    use crate::wire::kind;

    /// Firings not followed because the table of running firings was full.
    pub const FIRING_UNTRACKED: u32 = kind::COUNT as u32;
    /// Firings whose exit was never seen.
    pub const EXIT_MISSED: u32 = FIRING_UNTRACKED + 1;
    /// Firings whose entry was never seen. Not counted while a filter is set: the
    /// exit then cannot tell a missed entry from one filtered out.
    pub const ENTRY_MISSED: u32 = FIRING_UNTRACKED + 2;
    /// Events of sockets that the full table of known sockets had no room for.
    /// They are delivered, with [`crate::wire::flag::UNTRACKED`].
    pub const SOCKET_UNTRACKED: u32 = FIRING_UNTRACKED + 3;
    /// How many counters there are.
    pub const COUNT: u32 = FIRING_UNTRACKED + 4;
}
