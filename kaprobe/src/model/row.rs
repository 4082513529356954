//! The row: one socket of a snapshot.
//!
//! `schema/kaprobe-sockets.schema.json` documents the fields too. A test checks that the
//! names are the same.

use crate::model::field::{Value, record};
use crate::model::named::named_enum;
use crate::model::owner::Owner;
use crate::model::owner_fds::OwnerFds;
use crate::model::socket::{Ages, Endpoints, Identity, Settings, Transfer};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{Cause, State};
use crate::text::escape::Escaped;

/// Version of this format, which each JSON line bears. The major number changes when a reader
/// of the old format would misread the new one.
pub const VERSION: &str = "1.0";

record! {
    /// A socket of a snapshot. A field that does not apply, or is not known, is absent.
    /// Times in ms are converted from kernel ticks; their resolution is one tick, 1 to
    /// 10 ms.
    pub struct Row {
        /// Time of reading, wall clock.
        time: WallTime,
        /// Time of reading, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Local and remote address and port.
        endpoints: Endpoints,
        /// TCP state, as in /proc/net/tcp.
        state: State,
        /// Bytes received and not read; for a listener, connections not accepted.
        recvq: u64,
        /// Bytes in the send queue and not acknowledged.
        sendq: u64,
        /// The pending timer, as netstat names it.
        timer: Timer,
        /// Where the row was read from.
        source: RowSource,
        /// Name of the network namespace, from `ip netns`. Without one, the host name of
        /// its processes (for a container, the container's name), if that differs from
        /// this host's.
        netns_name: Option<Escaped>,
        /// The process that holds the socket.
        process: Owner,
        /// All file descriptors that refer to the socket. Empty if the socket has a file
        /// but no readable process holds it.
        owners: Option<OwnerFds>,
        /// Inode, cookie, uid and cgroup.
        identity: Identity,
        /// Path of the cgroup in its hierarchy, as in `ss --cgroup`.
        cgroup_path: Option<Escaped>,
        /// Time until the pending timer fires, ms.
        timer_ms: Option<u64>,
        /// Consecutive retransmissions of the oldest unacknowledged segment.
        retransmits: Option<u8>,
        /// Unanswered keepalive or zero-window probes.
        probes_out: Option<u8>,
        /// Segments sent and not acknowledged.
        unacked: Option<u32>,
        /// Keepalive settings of the socket.
        settings: Settings,
        /// Ages of the last traffic.
        ages: Ages,
        /// Time until the keepalive timer fires, ms, even if another timer is pending.
        keepalive_next_ms: Option<u64>,
        /// Time until the kernel gives up if the peer is gone, ms: keepalive or, while data is
        /// not acknowledged, the timer of what is sent again.
        dead_in_ms: Option<u64>,
        /// The rule by which the kernel gives up then.
        dead_by: Option<Cause>,
        /// What was sent in vain, if data was sent again or a shut window is probed.
        transfer: Transfer,
    }
    order {
        time,
        mono_ns,
        endpoints.netns,
        endpoints.family,
        endpoints.laddr,
        endpoints.lport,
        endpoints.raddr,
        endpoints.rport,
        derived.community_id,
        state,
        recvq,
        sendq,
        timer,
        source,
        netns_name,
        process.pid,
        process.comm,
        process.cmdline,
        process.unit,
        process.container,
        process.container_id,
        process.pod,
        process.pod_namespace,
        process.pod_uid,
        owners,
        identity.uid,
        identity.inode,
        identity.cookie,
        identity.cgroup,
        cgroup_path,
        identity.orphan,
        timer_ms,
        retransmits,
        probes_out,
        unacked,
        settings.keepalive,
        settings.keepalive_time_ms,
        settings.keepalive_time_from,
        settings.keepalive_intvl_ms,
        settings.keepalive_intvl_from,
        settings.keepalive_probes,
        settings.keepalive_probes_from,
        settings.user_timeout_ms,
        settings.user_timeout_from,
        ages.idle_ms,
        ages.heard_ms,
        ages.lastrcv_ms,
        ages.lastack_ms,
        ages.lastsnd_ms,
        keepalive_next_ms,
        dead_in_ms,
        dead_by,
        transfer.unacked_bytes,
        transfer.unsent_bytes,
        transfer.stalled_ms,
        transfer.silent_ms,
        transfer.err_soft,
    }
}

impl Row {
    /// Makes a row with only a time, endpoints, a state and a source.
    #[must_use]
    pub fn new(at: Instant, endpoints: Endpoints, state: State, source: RowSource) -> Self {
        Self {
            time: WallTime(at.wall_ns),
            mono_ns: at.mono_ns,
            endpoints,
            state,
            source,
            ..Self::default()
        }
    }

    /// The Community ID of the connection. A listener has none.
    fn community_id(&self) -> Value<'_> {
        let id = self.endpoints.community_id();
        id.map_or(Value::Absent, Value::CommunityId)
    }

    /// Whether the socket has a file but no readable process holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.owners
            .as_ref()
            .is_some_and(|owners| owners.0.is_empty())
    }
}

named_enum! {
    /// Where a row was read from.
    pub enum RowSource {
        /// The BPF iterator: has every field.
        IterTcp = "iter/tcp",
        /// Netlink sock_diag, as `ss` uses. It has no keepalive settings, no
        /// TCP_USER_TIMEOUT, and no keepalive timer that another timer hides.
        /// SO_KEEPALIVE is inferred from the timer of an open connection, unless another
        /// timer is pending.
        SockDiag = "sock_diag",
    }
}

named_enum! {
    /// A timer, as `netstat -o` names it.
    pub enum Timer {
        /// No timer.
        Off = "off",
        /// Retransmission of data or of a SYN, or the loss probe.
        On = "on",
        /// Keepalive, or FIN_WAIT2 of an orphan, which shares the timer.
        Keepalive = "keepalive",
        /// TIME_WAIT.
        TimeWait = "timewait",
        /// Zero-window probe.
        Probe = "probe",
    }
}

/// `ICSK_TIME_DACK`, a value of `icsk_pending` (include/net/inet_connection_sock.h).
const DACK: u8 = 2;
/// `ICSK_TIME_PROBE0`.
const PROBE0: u8 = 3;

impl Timer {
    /// The timer in /proc/net/tcp (`get_tcp4_sock`, net/ipv4/tcp_ipv4.c). Any other timer
    /// hides the keepalive timer.
    #[must_use]
    pub const fn pending(icsk_pending: u8, keepalive: bool) -> Self {
        match icsk_pending {
            PROBE0 => Self::Probe,
            0 | DACK if keepalive => Self::Keepalive,
            0 | DACK => Self::Off,
            _ => Self::On,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_timers_hide_the_keepalive_timer() {
        for (pending, keepalive, timer) in [
            (0, false, Timer::Off),
            (0, true, Timer::Keepalive),
            (1, true, Timer::On),
            (2, true, Timer::Keepalive),
            (2, false, Timer::Off),
            (3, true, Timer::Probe),
            (5, true, Timer::On),
            (6, false, Timer::On),
        ] {
            assert_eq!(Timer::pending(pending, keepalive), timer, "{pending}");
        }
    }
}
