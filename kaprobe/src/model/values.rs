//! Types of record fields.

use std::fmt;
use std::fmt::Display;

use serde::de;
use serde::de::{Deserialize, Deserializer};

use crate::model::field::{Value, fields};
use crate::model::named::{Named as _, named_enum};

named_enum! {
    /// Address family of a socket.
    pub enum Family {
        /// AF_INET.
        Inet = "inet",
        /// AF_INET6, which can also carry IPv4.
        Inet6 = "inet6",
    }
}

impl Family {
    /// The number on Linux: AF_INET or AF_INET6.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Inet => 2,
            Self::Inet6 => 10,
        }
    }
}

named_enum! {
    /// The origin of a setting.
    pub enum Origin {
        /// A socket option, of the socket or of the listener that accepted it.
        Socket = "socket",
        /// The sysctl of the socket's network namespace.
        Sysctl = "sysctl",
    }
}

named_enum! {
    /// Why the kernel gave up on the peer.
    pub enum Cause {
        /// The number of keepalive probes was reached.
        ProbeCount = "probe_count",
        /// TCP_USER_TIMEOUT passed.
        UserTimeout = "user_timeout",
        /// The number of retransmissions was reached.
        Retransmission = "retransmission",
        /// The number of probes of a zero window was reached.
        ZeroWindow = "zero_window",
    }
}

named_enum! {
    /// Outcome of an orphan's FIN_WAIT2 timer.
    pub enum FinWait2 {
        /// The socket became a TIME_WAIT minisock.
        TimeWait = "time_wait",
        /// The connection was reset.
        Reset = "reset",
    }
}

named_enum! {
    /// What a segment matched on this host before it was answered with a reset.
    pub enum Met {
        /// No socket.
        Nothing = "nothing",
        /// The TIME_WAIT minisock of a closed connection.
        TimeWait = "time_wait",
        /// The minisock of a handshake in progress.
        Request = "request",
        /// A full socket.
        Socket = "socket",
    }
}

named_enum! {
    /// Why this host sent a reset.
    pub enum Direction {
        /// On its own initiative.
        Active = "active",
        /// In answer to a segment.
        Passive = "passive",
    }
}

named_enum! {
    /// A hook, named after its kernel function or tracepoint. Tracing requires the first
    /// one.
    pub enum Hook {
        /// `tcp_keepalive_timer`, entry and exit.
        KeepaliveTimer = "tcp_keepalive_timer",
        /// `tcp_send_active_reset`.
        SendActiveReset = "tcp_send_active_reset",
        /// `tcp_v4_send_reset` and `tcp_v6_send_reset`, always attached together.
        SendReset = "tcp_v4_send_reset",
        /// `tcp_receive_reset`.
        ReceiveReset = "tcp_receive_reset",
        /// `tcp_reset`, which has the segment that a received reset came in. It has no events
        /// of its own.
        Reset = "tcp_reset",
        /// `tcp_probe`, a tracepoint for every segment that a connection receives.
        Probe = "tcp_probe",
        /// `inet_sock_set_state`, a tracepoint for every change of a connection's state.
        SetState = "inet_sock_set_state",
        /// `tcp_retransmit_skb`, a tracepoint for every segment that is sent again.
        Retransmit = "tcp_retransmit_skb",
        /// `tcp_destroy_sock`.
        DestroySock = "tcp_destroy_sock",
    }
}

named_enum! {
    /// Why events were lost.
    pub enum LostWhy {
        /// The ring buffer was full.
        RingBuffer = "ring_buffer",
        /// The BPF map of running firings was full.
        FiringTable = "firing_table",
        /// The kernel skipped the program at a hook, or at one end of a firing.
        Missed = "missed",
        /// Tracing of functions or kprobes was switched off or on: it is not known how many
        /// events the hook missed.
        SwitchedOff = "switched_off",
        /// This output did not take the records in time, or had no room for them.
        Output = "output",
    }
}

named_enum! {
    /// The conclusion of a verdict.
    pub enum VerdictName {
        /// Probes went unanswered until keepalive gave up.
        PeerUnreachable = "peer_unreachable",
        /// TCP_USER_TIMEOUT ran out with probes unanswered, or data not acknowledged.
        UserTimeout = "user_timeout",
        /// A keepalive probe was answered with a reset.
        ProbeReset = "probe_reset",
        /// The first segment after an idle time was answered with a reset.
        IdleEviction = "idle_eviction",
        /// This host answered a mid-stream segment with a reset: it does not have the
        /// connection.
        StraySegment = "stray_segment",
        /// The peer reset a connection that was not idle.
        AbortedByPeer = "aborted_by_peer",
        /// This host reset the connection.
        AbortedLocally = "aborted_locally",
        /// The FIN_WAIT2 timer of an orphan ended the connection; not keepalive.
        FinWait2 = "fin_wait2",
        /// The first data after an idle time was never acknowledged.
        SilentDrop = "silent_drop",
        /// Data was never acknowledged, and the connection had not been idle.
        PathLost = "path_lost",
        /// A program closed the connection after a time without data.
        IdleClose = "idle_close",
        /// A program closed the connection after a time without data, while data for it was
        /// on its way.
        IdleCloseRace = "idle_close_race",
        /// The process at the other end ended, and the kernel closed its connections.
        PeerExited = "peer_exited",
        /// ICMP reported an error while data was not acknowledged, or probes not answered.
        IcmpRejected = "icmp_rejected",
    }
}

named_enum! {
    /// How sure a verdict is.
    pub enum Confidence {
        /// The verdict fits, but so do other explanations.
        Low = "low",
        /// Other explanations are unlikely.
        Medium = "medium",
        /// The records exclude other explanations.
        High = "high",
    }
}

named_enum! {
    /// The connections that an idle timeout was learned from.
    pub enum LearnedOf {
        /// Connections to one remote address and port.
        Endpoint = "endpoint",
        /// Connections to one remote network: /24, or /64 for IPv6.
        Network = "network",
    }
}

/// Record numbers, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Evidence(pub Vec<u64>);

fields! {
    Evidence: |it| Value::Numbers(&it.0),
    Errno: |it| Value::Text(it),
    TcpFlags: |it| Value::Text(it),
}

/// The flags of a TCP segment: the 14th byte of its header. Written with tcpdump's
/// names, `SYN|ACK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The flag names, from the lowest bit.
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// Whether the segment opens a connection (SYN).
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & 0b10 != 0
    }

    /// Whether the segment closes a connection (FIN).
    #[must_use]
    pub const fn closes(self) -> bool {
        self.0 & 0b1 != 0
    }

    /// Whether the segment resets a connection (RST).
    #[must_use]
    pub const fn resets(self) -> bool {
        self.0 & 0b100 != 0
    }

    /// Whether the segment has ACK, as all but the first segment do.
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

named_enum! {
    /// TCP state. The names and their order are the kernel's (include/net/tcp_states.h),
    /// without `TCP_`.
    #[expect(missing_docs, reason = "the kernel's names")]
    pub enum State {
        Established = "ESTABLISHED",
        SynSent = "SYN_SENT",
        SynRecv = "SYN_RECV",
        FinWait1 = "FIN_WAIT1",
        FinWait2 = "FIN_WAIT2",
        TimeWait = "TIME_WAIT",
        Close = "CLOSE",
        CloseWait = "CLOSE_WAIT",
        LastAck = "LAST_ACK",
        Listen = "LISTEN",
        Closing = "CLOSING",
        NewSynRecv = "NEW_SYN_RECV",
        BoundInactive = "BOUND_INACTIVE",
    }
}

impl State {
    /// The state with this kernel number, counted from 1. `None` if there is none.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// A positive errno. Written as a name if a TCP socket can have it, else as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// The error of a timeout, unless an ICMP error came before it.
    pub const TIMED_OUT: Self = Self(libc::ETIMEDOUT.cast_unsigned());
}

macro_rules! errnos {
    ($($name:ident),+ $(,)?) => {
        /// Errors of TCP itself, and errors from ICMP (`icmp_err_convert`,
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
    fn tcp_flags_round_trip() {
        for bits in 0..=u8::MAX {
            let text = serde_json::Value::from(TcpFlags(bits).to_string());
            let read = TcpFlags::deserialize(text.clone()).map_err(|why| why.to_string());
            assert_eq!(read, Ok(TcpFlags(bits)), "{text}");
        }
        assert_eq!(TcpFlags(0x12).to_string(), "SYN|ACK");
        assert!(TcpFlags::deserialize(serde_json::Value::from("SYN|NAP")).is_err());
    }
}
