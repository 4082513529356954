//! The events of a connection, as the kernel of its host would show them.

use std::net::SocketAddr;

use kaprobe::model::event::{ArrivedSegment, Event, Kind, PassiveReset, SocketEvent, SocketId};
use kaprobe::model::owner::{Owner, OwnerLease};
use kaprobe::model::socket::{Endpoints, Identity, Settings, Transfer};
use kaprobe::model::time::Instant;
use kaprobe::model::values::{Cause, Met, Origin};

use crate::fleet::world::SECOND;

/// Numbers of TCP states (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;

/// Flags of a TCP segment.
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// How long an answer of the peer takes, ns: more than a tick, so that the ages of a socket show
/// that it came.
const RTT_NS: u64 = 22_000_000;

/// How long data is sent again before it is reported, and before the kernel gives up with
/// net.ipv4.tcp_retries2=15, ms.
const STALLED_MS: u64 = 6_200;
const GIVE_UP_MS: u64 = 924_600;

/// ETIMEDOUT.
const TIMED_OUT: u32 = 110;

/// The keepalive settings of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    pub(super) is_on: bool,
    /// s.
    pub(super) time: u64,
    /// s.
    pub(super) interval: u64,
    pub(super) probes: u8,
    pub(super) from: Origin,
}

/// The settings of a host that nobody has changed.
pub(super) const DEFAULT: Keepalive = Keepalive {
    is_on: false,
    time: 7_200,
    interval: 75,
    probes: 9,
    from: Origin::Sysctl,
};

impl Keepalive {
    /// On, with a first probe after this time, s.
    pub(super) const fn after(time: u64) -> Self {
        Self {
            is_on: true,
            time,
            from: Origin::Socket,
            ..DEFAULT
        }
    }

    fn settings(self) -> Settings {
        Settings {
            keepalive: Some(self.is_on),
            keepalive_time_ms: Some(self.time * 1_000),
            keepalive_time_from: Some(self.from),
            keepalive_intvl_ms: Some(self.interval * 1_000),
            keepalive_intvl_from: Some(Origin::Sysctl),
            keepalive_probes: Some(self.probes.into()),
            keepalive_probes_from: Some(Origin::Sysctl),
            user_timeout_ms: None,
            user_timeout_from: None,
        }
    }
}

/// An event, and when it happens, ns after the logs begin.
pub(super) type Timed = (u64, Event);

/// A connection of a host. Times are ns after the logs begin.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The address of the socket in the kernel; it is never used again.
    pub(super) sk: u64,
    pub(super) owner: Owner,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The socket is AF_INET6, and carries IPv4.
    pub(super) is_mapped: bool,
    pub(super) netns: u32,
    pub(super) keepalive: Keepalive,
    /// When data came from the peer.
    pub(super) received_ns: u64,
    /// When an acknowledgement came.
    pub(super) acked_ns: u64,
    /// When data was sent.
    pub(super) sent_ns: u64,
}

impl Connection {
    fn endpoints(&self) -> Endpoints {
        let end = |it: SocketAddr| match it.ip() {
            std::net::IpAddr::V4(v4) if self.is_mapped => (v4.to_ipv6_mapped().into(), it.port()),
            other => (other, it.port()),
        };
        Endpoints::new(end(self.local), end(self.remote), self.netns)
    }

    fn event(&self, at: u64, kind: Kind) -> SocketEvent {
        let ms = |since: u64| at.saturating_sub(since) / 1_000_000;
        SocketEvent {
            // The host fills in its own clocks.
            at: Instant {
                mono_ns: at,
                wall_ns: 0,
            },
            kind,
            id: SocketId {
                sk: self.sk,
                born_ns: self.sk,
            },
            owner: self.owner.clone(),
            endpoints: self.endpoints(),
            identity: Identity {
                inode: Some(self.sk % 1_000_000),
                cookie: None,
                uid: Some(1_000),
                cgroup: Some(4_711),
                orphan: Some(false),
            },
            state: ESTABLISHED,
            state_after: ESTABLISHED,
            settings: self.keepalive.settings(),
            probes_out: 0,
            probes_out_after: 0,
            lastrcv_ms: ms(self.received_ns),
            lastack_ms: ms(self.acked_ns),
            lastsnd_ms: ms(self.sent_ns),
            heard_ms: Some(ms(self.received_ns.max(self.acked_ns))),
            next_ms: None,
            late_ms: None,
            unacked: 0,
            retransmits: 0,
            write_queue: false,
            err: None,
            reason: None,
            firing_ns: None,
            arrival: ArrivedSegment::default(),
            news: false,
            actor: None,
            transfer: None,
            dead_in_ms: None,
            lease: OwnerLease::default(),
            dead_by: None,
            mptcp: None,
        }
    }

    /// The probe that is sent now, with so many out before.
    pub(super) fn probe(&self, at: u64, out: u8) -> Timed {
        let event = SocketEvent {
            probes_out: out,
            probes_out_after: out + 1,
            next_ms: Some(self.keepalive.interval * 1_000),
            late_ms: Some(at / 1_000_000 % 4),
            ..self.event(at, Kind::Probe)
        };
        (at, Event::Socket(event))
    }

    /// The probes until the connection ends, each after the keepalive time, and all answered.
    pub(super) fn probes(&mut self, until: u64, events: &mut Vec<Timed>) {
        let period = self.keepalive.time * SECOND;
        while let at = self.acked_ns + period
            && at < until
        {
            events.push(self.probe(at, 0));
            self.acked_ns = at + RTT_NS;
        }
    }

    /// The reset that answers data sent after a silence, and the end of the socket.
    pub(super) fn reset_after_silence(&mut self, at: u64, events: &mut Vec<Timed>) {
        self.sent_ns = at;
        let at = at + RTT_NS;
        let event = SocketEvent {
            unacked: 1,
            arrival: arrived_reset(),
            ..self.event(at, Kind::RstReceived)
        };
        events.push((at, Event::Socket(event)));
        events.push(self.closed(at + 5 * RTT_NS));
    }

    /// Data that is sent after a silence, and sent again until the kernel gives up: nobody
    /// answers. Returns when that is.
    pub(super) fn drop_after_silence(&mut self, at: u64, events: &mut Vec<Timed>) -> u64 {
        let silent_ms = (at - self.received_ns.max(self.acked_ns)) / 1_000_000;
        let resent = |after_ms: u64, retransmits: u8, kind| SocketEvent {
            unacked: 1,
            write_queue: true,
            retransmits,
            lastsnd_ms: after_ms / 2,
            transfer: Some(Box::new(Transfer {
                unacked_bytes: Some(37),
                unsent_bytes: Some(0),
                stalled_ms: Some(after_ms),
                silent_ms: Some(silent_ms),
                err_soft: None,
            })),
            ..self.event(at + after_ms * 1_000_000, kind)
        };
        let stalled = resent(STALLED_MS, 4, Kind::Stalled);
        let end = SocketEvent {
            state_after: CLOSE,
            err: Some(TIMED_OUT),
            ..resent(GIVE_UP_MS, 15, Kind::Timeout(Cause::Retransmission))
        };
        let end_ns = end.at.mono_ns;
        events.push((stalled.at.mono_ns, Event::Socket(stalled)));
        events.push((end_ns, Event::Socket(end)));
        events.push(self.closed(end_ns + 100_000));
        end_ns
    }

    /// The reset that answers a probe, and the end of the socket.
    pub(super) fn reset_of_probe(&self, at: u64, events: &mut Vec<Timed>) {
        events.push(self.probe(at, 0));
        let at = at + RTT_NS;
        let event = SocketEvent {
            probes_out: 1,
            probes_out_after: 1,
            arrival: arrived_reset(),
            ..self.event(at, Kind::RstReceived)
        };
        events.push((at, Event::Socket(event)));
        events.push(self.closed(at + 5 * RTT_NS));
    }

    /// The probes that nobody answers, and the end of the connection. Returns when the probes
    /// were sent.
    pub(super) fn give_up(&self, events: &mut Vec<Timed>) -> Vec<u64> {
        let mut at = self.acked_ns + self.keepalive.time * SECOND;
        let mut sent = Vec::new();
        for out in 0..self.keepalive.probes {
            events.push(self.probe(at, out));
            sent.push(at);
            at += self.keepalive.interval * SECOND;
        }
        let out = self.keepalive.probes;
        let reset = SocketEvent {
            probes_out: out,
            probes_out_after: out,
            firing_ns: Some(at),
            ..self.event(at + 10_000, Kind::RstSent)
        };
        let end = SocketEvent {
            state_after: CLOSE,
            probes_out: out,
            probes_out_after: out,
            late_ms: Some(0),
            err: Some(TIMED_OUT),
            firing_ns: Some(at),
            ..self.event(at, Kind::Timeout(Cause::ProbeCount))
        };
        events.push((at + 10_000, Event::Socket(reset)));
        events.push((at, Event::Socket(end)));
        events.push(self.closed(at + 100_000));
        sent
    }

    /// The end of the socket.
    pub(super) fn closed(&self, at: u64) -> Timed {
        let event = SocketEvent {
            state: CLOSE,
            state_after: CLOSE,
            ..self.event(at, Kind::Closed)
        };
        (at, Event::Socket(event))
    }

    /// The reset by which this end's host answers a segment that meets no socket. With data,
    /// or a probe without.
    pub(super) fn met_nothing(&self, at: u64, len: u32) -> Timed {
        let reset = PassiveReset {
            at: Instant {
                mono_ns: at,
                wall_ns: 0,
            },
            endpoints: self.endpoints(),
            flags: if len > 0 { PSH | ACK } else { ACK },
            len,
            ttl: 62,
            reason: Some("NO_SOCKET".to_owned()),
            met: Met::Nothing,
            state: 0,
            tracked: Some(false),
            inode: None,
            owner: Owner::default(),
            process_age_s: None,
        };
        (at, Event::PassiveReset(Box::new(reset)))
    }
}

fn arrived_reset() -> ArrivedSegment {
    ArrivedSegment {
        flags: None,
        ttl: Some(60),
        from_this_host: Some(false),
        peer_ttl: None,
        data_received: Some(true),
    }
}
