//! The row: a socket as it was, one of a snapshot.
//!
//! The meaning of the fields is also in `schema/kaprobe-sockets.schema.json`, which a test
//! holds to the same names.

use crate::model::field::record;
use crate::model::named::named_enum;
use crate::model::owner::OwnerFds;
use crate::model::socket::{Ages, Endpoints, Identity, Process, Settings};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{Cause, State};
use crate::text::escape::Escaped;

record! {
    /// A socket as it was. A field that does not apply, or is not known, is absent.
    /// Times in ms are made from the kernel's ticks; their grain is a tick, 1 to 10 ms.
    Row {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Who the socket is between.
        endpoints: Endpoints,
        /// TCP state, as /proc/net/tcp tells it.
        state: State,
        /// Bytes received and not read; of a listener, connections not accepted.
        recvq: u64,
        /// Bytes sent or to be sent, and not acknowledged.
        sendq: u64,
        /// The timer that is pending, as netstat names it.
        timer: Timer,
        /// What told of the socket.
        source: Source,
        /// Name of the network namespace: as `ip netns` lists it, or else the host name
        /// that the processes in it have, where that is not this host's own: what a
        /// container calls itself.
        netns_name: Option<Escaped>,
        /// Who holds the socket.
        process: Process,
        /// Every descriptor that refers to the socket. Empty where it has a file, and
        /// nobody who may be looked at holds it.
        owners: Option<OwnerFds>,
        /// Which socket it is.
        identity: Identity,
        /// Path of that cgroup in its hierarchy, as `ss --cgroup` shows it.
        cgroup_path: Option<Escaped>,
        /// Until that timer fires, ms.
        timer_ms: Option<u64>,
        /// How often in a row the oldest unacknowledged segment was sent again.
        retransmits: Option<u32>,
        /// Unanswered probes, of keepalive or of a closed window.
        probes_out: Option<u32>,
        /// Segments sent and not acknowledged.
        unacked: Option<u32>,
        /// Its keepalive settings.
        settings: Settings,
        /// How long ago anything passed.
        ages: Ages,
        /// Until the keepalive timer fires, ms, whatever other timer is pending.
        keepalive_next_ms: Option<u64>,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: Option<u64>,
        /// By which rule.
        dead_by: Option<Cause>,
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
        state,
        recvq,
        sendq,
        timer,
        source,
        netns_name,
        process.pid,
        process.comm,
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
        ages.lastrcv_ms,
        ages.lastack_ms,
        ages.lastsnd_ms,
        keepalive_next_ms,
        dead_in_ms,
        dead_by,
    }
}

impl Row {
    /// A row that says no more than which socket it is, and what told of it.
    #[must_use]
    pub fn new(at: Instant, endpoints: Endpoints, state: State, source: Source) -> Self {
        Self {
            time: WallTime(at.wall_ns),
            mono_ns: at.mono_ns,
            endpoints,
            state,
            source,
            ..Self::default()
        }
    }

    /// Whether it has a file, and nobody who may be looked at holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.owners
            .as_ref()
            .is_some_and(|owners| owners.0.is_empty())
    }
}

named_enum! {
    /// What told of a socket.
    Source {
        /// The BPF iterator: everything.
        IterTcp = "iter/tcp",
        /// Netlink's sock_diag, which `ss` asks: neither the keepalive settings, nor
        /// TCP_USER_TIMEOUT, nor a keepalive timer that another timer hides. SO_KEEPALIVE
        /// follows from the timer, where a connection is open and no other is pending.
        SockDiag = "sock_diag",
    }
}

named_enum! {
    /// A timer, as `netstat -o` names it.
    Timer {
        /// None.
        Off = "off",
        /// Retransmission, of data or of a SYN, and the loss probe.
        On = "on",
        /// Keepalive; FIN_WAIT2 of an orphan, which shares the timer.
        Keepalive = "keepalive",
        /// The end of TIME_WAIT.
        TimeWait = "timewait",
        /// The probe of a closed window.
        Probe = "probe",
    }
}

/// `icsk_pending`: `ICSK_TIME_DACK` and `ICSK_TIME_PROBE0`, include/net/inet_connection_sock.h.
const DACK: u8 = 2;
const PROBE0: u8 = 3;

impl Timer {
    /// The timer that /proc/net/tcp tells of (`get_tcp4_sock`, net/ipv4/tcp_ipv4.c):
    /// any other hides keepalive's.
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
    use crate::model::field::Fields as _;

    #[test]
    fn the_schema_has_the_same_fields() -> serde_json::Result<()> {
        let schema = include_str!("../../../schema/kaprobe-sockets.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema)?;
        let properties = schema["properties"].as_object();
        let mut documented: Vec<_> = properties.into_iter().flat_map(|it| it.keys()).collect();
        let mut names = Row::NAMES.to_vec();
        documented.sort();
        names.sort_unstable();
        assert_eq!(documented, names);
        Ok(())
    }

    #[test]
    fn other_timers_hide_keepalives() {
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
