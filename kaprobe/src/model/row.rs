//! What is told of a socket. The fields are declared once; their meaning is also in
//! `schema/kaprobe-sockets.schema.json`, which a test holds to the same names.

#![expect(
    clippy::too_many_arguments,
    reason = "a row is made from all the fields that every socket has"
)]

use std::net::IpAddr;

use crate::model::event::{Cause, Origin};
use crate::model::named::words;
use crate::model::record::{Family, OwnerFds, State, WallTime, record};
use crate::text::escape::Escaped;

record! {
    /// A socket as it was. A field that does not apply, or is not known, is absent.
    /// Times in ms are made from the kernel's ticks; their grain is a tick, 1 to 10 ms.
    Row
    required {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Network namespace, inode number.
        netns: u32,
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
    }
    optional {
        /// Name of the network namespace: as `ip netns` lists it, or else the host name
        /// that the processes in it have, where that is not this host's own: what a
        /// container calls itself.
        netns_name: Escaped,
        /// A process that holds the socket.
        pid: u32,
        /// Its command.
        comm: Escaped,
        /// Every descriptor that refers to the socket. Empty where it has a file, and
        /// nobody who may be looked at holds it.
        owners: OwnerFds,
        /// uid of the socket's owner, in the initial user namespace.
        uid: u32,
        /// Inode number in sockfs.
        inode: u64,
        /// Socket cookie, where the kernel has made one.
        cookie: u64,
        /// cgroup v2 id.
        cgroup: u64,
        /// Path of that cgroup in its hierarchy, as `ss --cgroup` shows it.
        cgroup_path: Escaped,
        /// No process holds the socket any more.
        orphan: bool,
        /// Until that timer fires, ms.
        timer_ms: u64,
        /// How often in a row the oldest unacknowledged segment was sent again.
        retransmits: u32,
        /// Unanswered probes, of keepalive or of a closed window.
        probes_out: u32,
        /// Segments sent and not acknowledged.
        unacked: u32,
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
        /// Since anything came from the peer, ms.
        idle_ms: u64,
        /// Since data came, ms.
        lastrcv_ms: u64,
        /// Since an acknowledgement came, ms.
        lastack_ms: u64,
        /// Since data was sent, ms.
        lastsnd_ms: u64,
        /// Until the keepalive timer fires, ms, whatever other timer is pending.
        keepalive_next_ms: u64,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: u64,
        /// By which rule.
        dead_by: Cause,
    }
}

impl Row {
    /// Whether it has a file, and nobody who may be looked at holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.owners
            .as_ref()
            .is_some_and(|owners| owners.0.is_empty())
    }
}

/// What told of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The BPF iterator: everything.
    IterTcp,
    /// Netlink's sock_diag, which `ss` asks: neither the keepalive settings, nor
    /// TCP_USER_TIMEOUT, nor a keepalive timer that another timer hides. SO_KEEPALIVE
    /// follows from the timer, where a connection is open and no other is pending.
    SockDiag,
}

words!(Source { IterTcp => "iter/tcp", SockDiag => "sock_diag" });

/// A timer, as `netstat -o` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// None.
    Off,
    /// Retransmission, of data or of a SYN, and the loss probe.
    On,
    /// Keepalive; FIN_WAIT2 of an orphan, which shares the timer.
    Keepalive,
    /// The end of TIME_WAIT.
    TimeWait,
    /// The probe of a closed window.
    Probe,
}

words!(Timer {
    Off => "off",
    On => "on",
    Keepalive => "keepalive",
    TimeWait => "timewait",
    Probe => "probe",
});

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
