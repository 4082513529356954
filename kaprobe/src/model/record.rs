//! The flat record: what every sink writes, one line each, under the same names.
//!
//! The fields are declared once, in [`Record`]; their names, their order and the
//! walk over them follow from that. Their meaning is also in
//! `schema/kaprobe-log.schema.json`, which a test holds to the same names.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::IpAddr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::model::event::{Cause, FinWait2, Hook, Kind, LostWhy, Met, Origin};
use crate::model::fate::Why;
use crate::model::named::{Word, words};
use crate::text::escape::Escaped;

/// Version of the log format. The first number changes when a reader of the old
/// format would read the new one wrong.
pub const VERSION: &str = "1.2";

/// The name of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(&'static str);

/// A [`Name`], of an identifier.
macro_rules! name {
    ($name:ident) => {
        $crate::model::record::Name::of_key(concat!(",\"", stringify!($name), "\":"))
    };
}

pub(crate) use name;

impl Name {
    /// The name in its [`Name::key`].
    pub(crate) const fn of_key(key: &'static str) -> Self {
        Self(key)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.trim_matches([',', ':', '"'])
    }

    /// As JSON has it before the value of a field that is not the first: `,"name":`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        self.0
    }
}

/// What looks at the fields of a record, one after the other.
pub trait See<'a> {
    /// Takes a field. What is `#[inline(always)]` knows of each what its name is, and of
    /// what kind its value, before it runs.
    fn see(&mut self, name: Name, value: Value<'a>);
}

impl<'a, F: FnMut(Name, Value<'a>)> See<'a> for F {
    fn see(&mut self, name: Name, value: Value<'a>) {
        self(name, value);
    }
}

/// Declares a record: `required` fields, then `optional` ones.
macro_rules! record {
    (
        $(#[$outer:meta])* $record:ident
        required { $($(#[$must_doc:meta])* $must:ident: $must_type:ty,)+ }
        optional { $($(#[$may_doc:meta])* $may:ident: $may_type:ty,)+ }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
        pub struct $record {
            $($(#[$must_doc])* pub $must: $must_type,)+
            $($(#[$may_doc])* pub $may: Option<$may_type>,)+
        }

        impl $record {
            /// The names of the fields, in their order.
            pub const NAMES: &'static [&'static str] =
                &[$(stringify!($must),)+ $(stringify!($may),)+];

            /// A record with the required fields and no other.
            #[must_use]
            pub fn new($($must: $must_type),+) -> Self {
                Self { $($must,)+ $($may: None,)+ }
            }

            /// Shows each field to `see`, in their order, absent ones too.
            pub fn visit<'a>(&'a self, see: impl FnMut($crate::model::record::Name, $crate::model::record::Value<'a>)) {
                self.visit_by(see);
            }

            /// The same, to what may be inlined.
            pub fn visit_by<'a>(&'a self, mut to: impl $crate::model::record::See<'a>) {
                $(to.see($crate::model::record::name!($must), $crate::model::record::Field::value(&self.$must));)+
                $(to.see($crate::model::record::name!($may), $crate::model::record::Field::value(&self.$may));)+
            }
        }

        impl serde::Serialize for $record {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = to.serialize_map(None)?;
                let mut result = Ok(());
                self.visit(|name, value| {
                    if result.is_ok() && !matches!(value, $crate::model::record::Value::Absent) {
                        result = map.serialize_entry(name.as_str(), &value);
                    }
                });
                result?;
                map.end()
            }
        }
    };
}

pub(crate) use record;

record! {
    /// One thing that happened. A field that does not apply, or is not known, is
    /// absent. Times in ms are made from the kernel's ticks; their grain is a tick,
    /// 1 to 10 ms.
    Record
    required {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Number of the record in this output, from 1.
        seq: u64,
        /// What.
        event: EventName,
    }
    optional {
        /// The host that it happened on, where the output is of several.
        host: Escaped,
        /// Number of the socket in this trace, from 1.
        sock: u64,
        /// A process that holds the socket.
        pid: u32,
        /// Its command.
        comm: Escaped,
        /// Address family of the socket; of one that carries IPv4 over AF_INET6, inet6.
        family: Family,
        /// Local address.
        laddr: IpAddr,
        /// Local port.
        lport: u16,
        /// Remote address.
        raddr: IpAddr,
        /// Remote port.
        rport: u16,
        /// Network namespace, inode number.
        netns: u32,
        /// Inode number in sockfs.
        inode: u64,
        /// Socket cookie, where the kernel has made one.
        cookie: u64,
        /// uid of the socket's owner, in the initial user namespace.
        uid: u32,
        /// cgroup v2 id.
        cgroup: u64,
        /// No process holds the socket any more.
        orphan: bool,
        /// TCP state when it happened.
        state: State,
        /// SO_KEEPALIVE is on.
        keepalive: bool,
        /// Idle time before the first probe, ms.
        keepalive_time_ms: u64,
        /// Who set it.
        keepalive_time_from: Origin,
        /// Time between probes, ms.
        keepalive_intvl_ms: u64,
        /// Who set it.
        keepalive_intvl_from: Origin,
        /// Unanswered probes after which the kernel gives up.
        keepalive_probes: u64,
        /// Who set it.
        keepalive_probes_from: Origin,
        /// TCP_USER_TIMEOUT, ms.
        user_timeout_ms: u32,
        /// Who set it: only the socket can.
        user_timeout_from: Origin,
        /// Which probe this is about, from 1.
        probe: u32,
        /// Unanswered probes, after.
        probes_out: u32,
        /// Since anything came from the peer, ms: what the kernel weighs against
        /// the keepalive time.
        idle_ms: u64,
        /// Since data came, ms.
        lastrcv_ms: u64,
        /// Since an acknowledgement came, ms.
        lastack_ms: u64,
        /// Since data was sent, ms.
        lastsnd_ms: u64,
        /// Until the timer fires again, ms.
        next_ms: u64,
        /// How late the timer fired, ms.
        late_ms: u64,
        /// Segments sent and not acknowledged.
        unacked: u32,
        /// Why keepalive gave up.
        cause: Cause,
        /// What became of an orphan in FIN_WAIT2.
        to: FinWait2,
        /// The socket's error.
        err: Errno,
        /// Who asked for the reset.
        direction: Direction,
        /// The kernel's reason for the reset.
        reason: Escaped,
        /// `mono_ns` of the firing that this reset, or this firing's reset, is part of.
        firing_ns: u64,
        /// From the probe to the last acknowledgement seen, ms: the answer came no
        /// later than that.
        answered_after_ms: u64,
        /// The hook whose events were lost.
        hook: Hook,
        /// What was lost, where known.
        lost_kind: EventName,
        /// Why it was lost.
        lost_why: LostWhy,
        /// How many were lost.
        lost: u64,
        /// Data waited to be sent.
        unsent: bool,
        /// How often in a row the oldest unacknowledged segment was sent again.
        retransmits: u32,
        /// Flags of the segment that a reset answers.
        flags: TcpFlags,
        /// Bytes of data in it.
        len: u32,
        /// TTL or hop limit that was left in it.
        ttl: u32,
        /// What it met.
        met: Met,
        /// What the records named in `evidence` say together.
        verdict: VerdictName,
        /// How sure that is.
        confidence: Confidence,
        /// Numbers (`seq`) of the records that it rests on.
        evidence: Evidence,
        /// Middleboxes whose idle timeout fits, and that timeout.
        middlebox: Escaped,
        /// Longest idle time, ms, that connections to there are known to have survived.
        survived_ms: u64,
        /// Shortest idle time, ms, that one is known to have died of.
        died_ms: u64,
        /// What `survived_ms` and `died_ms` were learned of.
        learned_of: LearnedOf,
        /// These two contradict each other: one was survived that is longer than one
        /// that was not.
        contradictory: bool,
        /// What to set, where and to what.
        advice: Escaped,
        /// From the firing that sent the probe to its answer, us.
        rtt_us: u64,
        /// What the verdicts of several hosts on this connection say together.
        story: Escaped,
        /// Why a connection is a zombie.
        why: Why,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: u64,
        /// By which rule.
        dead_by: Cause,
    }
}

/// Filters as they were given, by the name of their flag.
pub type Filters = BTreeMap<String, Vec<String>>;

/// The first line of a log: what the records were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: String,
    /// Name of the host.
    pub host: Escaped,
    /// Its kernel, as `uname -r`.
    pub kernel: Escaped,
    /// Version of kaprobe.
    pub kaprobe: String,
    /// When the trace began.
    pub started: WallTime,
    /// Wall clock less CLOCK_MONOTONIC when the trace began, ns.
    pub clock_offset_ns: i64,
    /// Timer ticks a second.
    pub hz: u32,
    /// The hooks, and how each was attached.
    pub hooks: BTreeMap<String, String>,
    /// The filters, as they were given, by the name of their flag.
    pub filters: Filters,
    /// The filters of each replay since, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Filters>,
    /// Idle timeouts that this host applies to connections through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeouts: Vec<HostTimeout>,
}

/// An idle timeout that the host itself applies.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostTimeout {
    /// What applies it: `ipvs` or `conntrack`.
    pub what: Escaped,
    /// The network namespace in which it does, inode number.
    pub netns: u32,
    /// After how many seconds without a packet.
    pub seconds: u64,
}

/// The first line of a log, whole: it has one key, which no record has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeaderLine<H = Header> {
    /// The header.
    pub header: H,
}

/// The value of a field, as the sinks see it.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Does not apply, or is not known.
    Absent,
    /// A number.
    Number(u64),
    /// Yes or no.
    Bool(bool),
    /// One of a few names.
    Word(&'static str),
    /// Some numbers.
    Numbers(&'a [u64]),
    /// Who holds a socket.
    Owners(&'a [OwnerFd]),
    /// A moment.
    Time(WallTime),
    /// An address.
    Address(IpAddr),
    /// Text that kaprobe did not make.
    Escaped(&'a Escaped),
    /// Any other text, printable and on one line.
    Text(&'a dyn Display),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => to.serialize_none(),
            Self::Number(number) => to.serialize_u64(*number),
            Self::Bool(bool) => to.serialize_bool(*bool),
            Self::Word(word) => to.serialize_str(word),
            Self::Numbers(numbers) => to.collect_seq(*numbers),
            Self::Owners(owners) => to.collect_seq(*owners),
            Self::Time(time) => to.collect_str(time),
            Self::Address(address) => to.collect_str(address),
            Self::Escaped(text) => to.serialize_str(text.as_str()),
            Self::Text(text) => to.collect_str(text),
        }
    }
}

/// What a field of a record can hold.
pub trait Field {
    /// Its value.
    fn value(&self) -> Value<'_>;
}

impl<F: Field> Field for Option<F> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Absent, F::value)
    }
}

impl Field for bool {
    fn value(&self) -> Value<'_> {
        Value::Bool(*self)
    }
}

macro_rules! fields {
    (numbers: $($number:ty),+; texts: $($text:ty),+) => {
        $(impl Field for $number {
            fn value(&self) -> Value<'_> {
                Value::Number(u64::from(*self))
            }
        })+
        $(impl Field for $text {
            fn value(&self) -> Value<'_> {
                Value::Text(self)
            }
        })+
    };
}

fields!(numbers: u16, u32, u64; texts: Errno, TcpFlags);

impl Field for WallTime {
    fn value(&self) -> Value<'_> {
        Value::Time(*self)
    }
}

impl Field for IpAddr {
    fn value(&self) -> Value<'_> {
        Value::Address(*self)
    }
}

impl Field for Escaped {
    fn value(&self) -> Value<'_> {
        Value::Escaped(self)
    }
}

/// A moment by the wall clock: ns since 1970 in UTC. Written in RFC 3339, in UTC,
/// with nine digits after the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The same moment in the type that knows calendars.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        // It holds every i64 of nanoseconds: the years 1677 to 2262.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
    }
}

impl Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.timestamp())
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        i64::try_from(time.as_nanosecond())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "see the kinds of the same names in `event::Kind`"
)]
pub enum EventName {
    Probe,
    ProbeCongested,
    Early,
    DataPending,
    Busy,
    Timeout,
    FinWait2,
    NotRearmed,
    Unclassified,
    RstSent,
    RstReceived,
    Closed,
    /// Events that could not be delivered.
    Lost,
    /// A probe was answered: seen as the answer came in, or else derived from the events
    /// that follow.
    Answered,
    /// What earlier records say together.
    Verdict,
    /// A connection that was dead already when the trace began, and whose end does not
    /// know: of the snapshot that it starts from.
    Zombie,
}

words!(EventName {
    Probe => "probe",
    ProbeCongested => "probe_congested",
    Early => "early",
    DataPending => "data_pending",
    Busy => "busy",
    Timeout => "timeout",
    FinWait2 => "fin_wait2",
    NotRearmed => "not_rearmed",
    Unclassified => "unclassified",
    RstSent => "rst_sent",
    RstReceived => "rst_received",
    Closed => "closed",
    Lost => "lost",
    Answered => "answered",
    Verdict => "verdict",
    Zombie => "zombie",
});

impl From<Kind> for EventName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Probe => Self::Probe,
            Kind::ProbeCongested => Self::ProbeCongested,
            Kind::Early => Self::Early,
            Kind::DataPending => Self::DataPending,
            Kind::Busy => Self::Busy,
            Kind::Timeout(_) => Self::Timeout,
            Kind::FinWait2(_) => Self::FinWait2,
            Kind::NotRearmed => Self::NotRearmed,
            Kind::Unclassified => Self::Unclassified,
            Kind::RstSent => Self::RstSent,
            Kind::RstReceived => Self::RstReceived,
            Kind::Closed => Self::Closed,
            Kind::Answered => Self::Answered,
        }
    }
}

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    Inet,
    /// AF_INET6, which can carry IPv4 as well.
    Inet6,
}

words!(Family { Inet => "inet", Inet6 => "inet6" });

impl Family {
    /// Its number on Linux: AF_INET or AF_INET6.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Inet => 2,
            Self::Inet6 => 10,
        }
    }
}

/// Who asked for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This host, of its own accord.
    Active,
    /// This host, in answer to a segment.
    Passive,
}

words!(Direction { Active => "active", Passive => "passive" });

words!(Met {
    Nothing => "nothing",
    TimeWait => "time_wait",
    Request => "request",
    Socket => "socket",
});

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictName {
    /// Probes went unanswered until keepalive gave up.
    PeerUnreachable,
    /// TCP_USER_TIMEOUT ran out with probes unanswered.
    UserTimeout,
    /// A keepalive probe was answered with a reset.
    ProbeReset,
    /// The first segment after an idle time was answered with a reset.
    IdleEviction,
    /// This host answered a segment in mid-stream with a reset: it has no such
    /// connection.
    StraySegment,
    /// The peer reset a connection that was not idle.
    AbortedByPeer,
    /// This host reset the connection.
    AbortedLocally,
    /// The FIN_WAIT2 timer of an orphan ended it; not keepalive.
    FinWait2,
}

words!(VerdictName {
    PeerUnreachable => "peer_unreachable",
    UserTimeout => "user_timeout",
    ProbeReset => "probe_reset",
    IdleEviction => "idle_eviction",
    StraySegment => "stray_segment",
    AbortedByPeer => "aborted_by_peer",
    AbortedLocally => "aborted_locally",
    FinWait2 => "fin_wait2",
});

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// It fits; so do other explanations.
    Low,
    /// Other explanations are unlikely.
    Medium,
    /// The records leave no other.
    High,
}

words!(Confidence { Low => "low", Medium => "medium", High => "high" });

/// What an idle timeout was learned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnedOf {
    /// Connections to one remote address and port.
    Endpoint,
    /// Connections to its network: /24, or /64 of IPv6.
    Network,
}

words!(LearnedOf { Endpoint => "endpoint", Network => "network" });

/// Numbers of records, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Evidence(pub Vec<u64>);

impl Field for Evidence {
    fn value(&self) -> Value<'_> {
        Value::Numbers(&self.0)
    }
}

/// A descriptor that a process holds a socket by.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwnerFd {
    /// The process, as kaprobe's own pid namespace numbers it.
    pub pid: u32,
    /// Its command.
    pub comm: Escaped,
    /// The descriptor.
    pub fd: u32,
}

/// All of them, by process and then by descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct OwnerFds(pub Vec<OwnerFd>);

impl Field for OwnerFds {
    fn value(&self) -> Value<'_> {
        Value::Owners(&self.0)
    }
}

/// The flags of a TCP segment: the 14th byte of its header. Written as tcpdump's
/// expressions name them, `SYN|ACK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Their names, from the lowest bit.
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// Whether the sender opens a connection with it.
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & 0b10 != 0
    }

    /// Whether it acknowledges something, as all but the first segment do.
    #[must_use]
    pub const fn acknowledges(self) -> bool {
        self.0 & 0b1_0000 != 0
    }
}

impl Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bits) = self;
        let set = (0..)
            .zip(Self::NAMES)
            .filter(|(bit, _)| bits >> bit & 1 != 0);
        let names: Vec<_> = set.map(|(_, name)| name).collect();
        f.write_str(&if names.is_empty() {
            "none".to_owned()
        } else {
            names.join("|")
        })
    }
}

impl<'de> Deserialize<'de> for TcpFlags {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut bits = 0;
        for name in text.split('|').filter(|name| *name != "none") {
            let bit = Self::NAMES.iter().position(|it| *it == name);
            bits |= 1 << bit.ok_or_else(|| de::Error::custom(format!("{name} is no TCP flag")))?;
        }
        Ok(Self(bits))
    }
}

/// TCP state, as the kernel names it (include/net/tcp_states.h) less `TCP_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum State {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynRecv,
    BoundInactive,
}

words!(State {
    Established => "ESTABLISHED",
    SynSent => "SYN_SENT",
    SynRecv => "SYN_RECV",
    FinWait1 => "FIN_WAIT1",
    FinWait2 => "FIN_WAIT2",
    TimeWait => "TIME_WAIT",
    Close => "CLOSE",
    CloseWait => "CLOSE_WAIT",
    LastAck => "LAST_ACK",
    Listen => "LISTEN",
    Closing => "CLOSING",
    NewSynRecv => "NEW_SYN_RECV",
    BoundInactive => "BOUND_INACTIVE",
});

impl State {
    /// The state of that number, where it is one; they count from 1.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

words!(Cause { ProbeCount => "probe_count", UserTimeout => "user_timeout" });
words!(FinWait2 { TimeWait => "time_wait", Reset => "reset" });
words!(Origin { Socket => "socket", Sysctl => "sysctl" });
words!(Hook {
    KeepaliveTimer => Self::KeepaliveTimer.name(),
    SendActiveReset => Self::SendActiveReset.name(),
    DestroySock => Self::DestroySock.name(),
    SendReset => Self::SendReset.name(),
    ReceiveReset => Self::ReceiveReset.name(),
    Probe => Self::Probe.name(),
});
words!(LostWhy { RingBuffer => "ring_buffer", FiringTable => "firing_table", Missed => "missed" });

/// A positive errno. Its name, where it is one that a TCP socket can have; else
/// its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// What a timeout sets, unless an ICMP error was there before.
    pub const TIMED_OUT: Self = Self(libc::ETIMEDOUT.cast_unsigned());
}

macro_rules! errnos {
    ($($name:ident),+ $(,)?) => {
        /// What TCP itself raises, and what an ICMP error becomes (`icmp_err_convert`,
        /// net/ipv4/icmp.c; `tab_unreach`, net/ipv6/icmp.c).
        const ERRNOS: &[(u32, &str)] = &[$((libc::$name.cast_unsigned(), stringify!($name))),+];
    };
}

errnos!(
    EPERM,
    EACCES,
    EINVAL,
    EPIPE,
    EPROTO,
    EMSGSIZE,
    ENOPROTOOPT,
    EOPNOTSUPP,
    ENETDOWN,
    ENETUNREACH,
    ENETRESET,
    ECONNABORTED,
    ECONNRESET,
    ENOBUFS,
    ETIMEDOUT,
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    ENONET,
    ENOMEM,
);

impl Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRNOS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match ERRNOS.iter().find(|(_, name)| *name == text) {
            Some((number, _)) => Ok(Self(*number)),
            None => text.parse().map(Self).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_back() {
        for bits in 0..=u8::MAX {
            let text = serde_json::Value::from(TcpFlags(bits).to_string());
            let read = TcpFlags::deserialize(text.clone()).map_err(|why| why.to_string());
            assert_eq!(read, Ok(TcpFlags(bits)), "{text}");
        }
        assert_eq!(TcpFlags(0x12).to_string(), "SYN|ACK");
        assert!(TcpFlags::deserialize(serde_json::Value::from("SYN|NAP")).is_err());
    }
}
