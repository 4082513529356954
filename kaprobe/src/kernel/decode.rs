//! Decodes what the programs send. Every value is checked, and every unit made explicit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use kaprobe_ebpf::wire::{self, cause, flag, kind, path};

use crate::model::event::{ArrivedSegment, Event, Kind, PassiveReset, SocketEvent, SocketId};
use crate::model::owner::{Owner, OwnerLease};
use crate::model::socket::{Actor, Endpoints, Identity, Settings};
use crate::model::time::Instant;
use crate::model::values::{Cause, Family, FinWait2, Met, Origin, TcpFlags};
use crate::text::escape::Escaped;

/// `AF_INET` and `AF_INET6`, as Linux numbers them.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Turns wire events into events.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Timer ticks a second.
    pub hz: u32,
    /// The kernel's names of the reset reasons.
    pub reset_reasons: BTreeMap<u32, String>,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC, ns.
    pub clock_offset_ns: i64,
}

/// Why a record of the ring buffer is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record does not have the length of an event.
    #[error("a record of {0} bytes is not an event: the BPF object does not belong to this binary")]
    Length(usize),
    /// Another version of the programs wrote it.
    #[error("wire version {0}: the BPF object does not belong to this binary")]
    Version(u16),
    /// This binary does not know its kind.
    #[error("unknown kind {0}")]
    Kind(u16),
    /// This binary does not know its cause.
    #[error("unknown cause {0}")]
    Cause(u8),
    /// Its address family is neither IPv4 nor IPv6.
    #[error("unknown address family {0}")]
    Family(u16),
    /// This binary does not know its TCP state.
    #[error("unknown TCP state {0}")]
    State(u8),
}

impl Decoder {
    /// Decodes one record of the ring buffer.
    ///
    /// # Errors
    /// Says what does not follow the wire format. Never panics, whatever the bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Event, DecodeError> {
        let detailed = wire::Detailed::from_bytes(bytes);
        let raw = match &detailed {
            Some(detailed) => detailed.event,
            None => wire::Event::from_bytes(bytes).ok_or(DecodeError::Length(bytes.len()))?,
        };
        if raw.version != wire::VERSION {
            return Err(DecodeError::Version(raw.version));
        }
        if detailed.is_some() != wire::is_detailed(raw.kind) {
            return Err(DecodeError::Length(bytes.len()));
        }
        Ok(if raw.kind == kind::RST_PASSIVE {
            Event::PassiveReset(Box::new(self.passive_reset(&raw)?))
        } else {
            let event = self.socket_event(&raw)?;
            Event::Socket(match &detailed {
                Some(detailed) => self.detailed(event, detailed),
                None => event,
            })
        })
    }

    /// Adds what only a detailed event reports.
    fn detailed(&self, event: SocketEvent, raw: &wire::Detailed) -> SocketEvent {
        let is_of_data = match event.kind {
            Kind::Timeout(_) | Kind::Aborted | Kind::Stalled => true,
            // Data that the peer had not seen when it closed.
            Kind::FinReceived => raw.sending.snd_nxt != raw.sending.snd_una,
            _ => false,
        };
        let is_stalled = event.kind == Kind::Stalled;
        let give_up = is_stalled.then(|| self.give_up_after(raw)).flatten();
        SocketEvent {
            dead_in_ms: give_up.map(|it| it.in_ms),
            dead_by: give_up.map(|it| it.cause),
            actor: actor(raw).map(Arc::new),
            transfer: is_of_data.then(|| Box::new(self.transfer_of(raw))),
            ..event
        }
    }

    fn passive_reset(&self, raw: &wire::Event) -> Result<PassiveReset, DecodeError> {
        Ok(PassiveReset {
            at: self.instant(raw.mono_ns),
            endpoints: endpoints(&raw.socket)?,
            flags: raw.segment_flags,
            len: raw.segment_len,
            ttl: raw.segment_ttl,
            reason: self.reason(raw),
            met: met(raw.state),
            state: raw.state,
            tracked: tracked(raw.segment_path),
            inode: known(raw.inode),
            owner: Owner::default(),
            process_age_s: None,
        })
    }

    fn socket_event(&self, raw: &wire::Event) -> Result<SocketEvent, DecodeError> {
        let has = |bit| raw.flags & bit != 0;
        let firing = raw.kind < kind::RST_SENT;
        Ok(SocketEvent {
            at: self.instant(raw.mono_ns),
            kind: kind_of(raw)?,
            id: SocketId {
                sk: raw.socket.sk,
                born_ns: raw.born_ns,
            },
            owner: Owner::default(),
            endpoints: endpoints(&raw.socket)?,
            identity: identity(raw),
            state: raw.state,
            state_after: raw.state_after,
            settings: self.settings(raw),
            probes_out: raw.probes_out,
            probes_out_after: raw.probes_out_after,
            lastrcv_ms: self.ms(raw.jiffies.wrapping_sub(raw.lrcvtime)),
            lastack_ms: self.ms(raw.jiffies.wrapping_sub(raw.rcv_tstamp)),
            lastsnd_ms: self.ms(raw.jiffies.wrapping_sub(raw.lsndtime)),
            heard_ms: self.heard_ms(raw),
            next_ms: (firing && has(flag::PENDING_AFTER))
                .then(|| self.ms(ticks_until(raw.expires_after, raw.jiffies_after))),
            late_ms: firing.then(|| self.ms(ticks_until(raw.jiffies, raw.expires))),
            unacked: raw.packets_out,
            retransmits: raw.retransmits,
            write_queue: has(flag::WRITE_QUEUE),
            err: (raw.err != 0).then_some(raw.err),
            reason: self.reason(raw),
            firing_ns: has(flag::RESET_IN_TIMER).then_some(raw.firing_ns),
            arrival: arrival(raw),
            news: has(flag::NEWS),
            actor: None,
            transfer: None,
            dead_in_ms: None,
            lease: OwnerLease::default(),
            dead_by: None,
            mptcp: has(flag::MPTCP).then_some(true),
        })
    }

    pub(super) fn instant(&self, mono_ns: u64) -> Instant {
        let mono = i64::try_from(mono_ns).unwrap_or(i64::MAX);
        Instant {
            mono_ns,
            wall_ns: mono.saturating_add(self.clock_offset_ns),
        }
    }

    /// Time since any segment of the peer was received, ms. `None` if the kernel does not note
    /// when one came from outside the window.
    ///
    /// A keepalive probe of the peer is such a segment: it repeats a sequence number that is
    /// acknowledged. It moves neither `lrcvtime` nor `rcv_tstamp`: `tcp_validate_incoming`
    /// (net/ipv4/tcp_input.c) answers it at once. `tcp_oow_rate_limited` notes the time, though
    /// no more often than `net.ipv4.tcp_invalid_ratelimit` allows (500 ms), and not if the
    /// segment has data.
    #[inline]
    pub(super) fn heard_ms(&self, raw: &wire::Event) -> Option<u64> {
        let idle_ms = self.idle_ms(raw);
        let is_seen = raw.flags & flag::OOW_SEEN != 0;
        is_seen.then(|| match raw.last_oow_ack_time {
            0 => idle_ms,
            stamp => idle_ms.min(self.ms(raw.jiffies.wrapping_sub(stamp))),
        })
    }

    /// Time since data or an acknowledgement of the peer was received, ms. The kernel stamps
    /// both only to a jiffy.
    #[inline]
    pub(super) fn idle_ms(&self, raw: &wire::Event) -> u64 {
        let age_ms = |stamp: u32| self.ms(raw.jiffies.wrapping_sub(stamp));
        age_ms(raw.lrcvtime).min(age_ms(raw.rcv_tstamp))
    }

    /// Converts jiffies to ms, rounded down. The usual values of HZ (kernel/Kconfig.hz)
    /// need no division: seven of them would be a third of the time that decoding takes.
    #[inline]
    pub(super) fn ms(&self, jiffies: u32) -> u64 {
        let jiffies = u64::from(jiffies);
        match self.hz {
            1000 => jiffies,
            250 => jiffies * 4,
            100 => jiffies * 10,
            hz => jiffies * 1000 / u64::from(hz.max(1)),
        }
    }

    /// The settings in force: the socket's own, or else the sysctl's, as `keepalive_time_when`
    /// and similar functions resolve them (include/net/tcp.h).
    #[inline]
    pub(super) fn settings(&self, raw: &wire::Event) -> Settings {
        let set = |own: u32, sysctl: u32| match own {
            0 => (sysctl, Origin::Sysctl),
            own => (own, Origin::Socket),
        };
        let (time, time_from) = set(raw.keepalive_time, raw.sysctl_time);
        let (intvl, intvl_from) = set(raw.keepalive_intvl, raw.sysctl_intvl);
        let (probes, probes_from) = set(raw.keepalive_probes, raw.sysctl_probes);
        let user_timeout_ms = (raw.user_timeout != 0).then_some(raw.user_timeout);
        Settings {
            keepalive: Some(raw.flags & flag::KEEPOPEN != 0),
            keepalive_time_ms: Some(self.ms(time)),
            keepalive_time_from: Some(time_from),
            keepalive_intvl_ms: Some(self.ms(intvl)),
            keepalive_intvl_from: Some(intvl_from),
            keepalive_probes: Some(probes.into()),
            keepalive_probes_from: Some(probes_from),
            user_timeout_ms,
            user_timeout_from: user_timeout_ms.map(|_| Origin::Socket),
        }
    }

    #[inline]
    fn reason(&self, raw: &wire::Event) -> Option<String> {
        (raw.flags & flag::HAS_REASON != 0).then(|| {
            let known = self.reset_reasons.get(&raw.reason);
            known.cloned().unwrap_or_else(|| raw.reason.to_string())
        })
    }
}

/// The state of a minisock after a connection: include/net/tcp_states.h.
const TCP_TIME_WAIT: u8 = 6;
/// The state of a minisock during a handshake: include/net/tcp_states.h.
const TCP_NEW_SYN_RECV: u8 = 12;

const fn met(state: u8) -> Met {
    match state {
        0 => Met::Nothing,
        TCP_TIME_WAIT => Met::TimeWait,
        TCP_NEW_SYN_RECV => Met::Request,
        _ => Met::Socket,
    }
}

/// Jiffies from `now` to `then`; 0 if `then` is past. The clock wraps, so a time that is
/// ahead by more than half of its range is past (`time_after`, include/linux/jiffies.h).
pub(super) fn ticks_until(then: u32, now: u32) -> u32 {
    let ahead = then.wrapping_sub(now);
    if ahead > u32::MAX / 2 { 0 } else { ahead }
}

/// A number that is 0 if it is not known.
fn known<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|it| *it != T::default())
}

/// Whether conntrack has an entry for a segment, if that is known.
const fn tracked(path: u8) -> Option<bool> {
    match (path & path::TRACKED != 0, path & path::UNTRACKED != 0) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// What is known of the segment that caused an event.
fn arrival(raw: &wire::Event) -> ArrivedSegment {
    if !matches!(raw.kind, kind::RST_RECEIVED | kind::ANSWERED) {
        return ArrivedSegment::default();
    }
    let has = |bit| raw.segment_path & bit != 0;
    let flags = known(raw.segment_flags).map(TcpFlags);
    let from_this_host = match (has(path::LOOPBACK), has(path::ELSEWHERE)) {
        (true, true) => Some(true),
        (true, false) => None,
        (false, _) => Some(false),
    };
    ArrivedSegment {
        flags,
        ttl: known(raw.segment_ttl),
        from_this_host: from_this_host.filter(|_| flags.is_some()),
        peer_ttl: known(raw.peer_ttl),
        data_received: (raw.kind == kind::RST_RECEIVED)
            .then_some(raw.flags & flag::DATA_RECEIVED != 0),
    }
}

/// The process that did what the event reports, if one did.
fn actor(raw: &wire::Detailed) -> Option<Actor> {
    let name = raw.comm.split(|&byte| byte == 0).next();
    let name = name.filter(|name| !name.is_empty())?;
    Some(Actor {
        by_pid: (raw.pid != 0).then_some(raw.pid),
        by_comm: Some(Escaped::from_bytes(name)),
        by_exiting: Some(raw.exiting != 0),
    })
}

/// The facts that identify a socket. 0 means that it does not have the fact.
#[inline]
pub(super) fn identity(raw: &wire::Event) -> Identity {
    Identity {
        inode: known(raw.inode),
        cookie: known(raw.cookie),
        uid: Some(raw.uid),
        cgroup: known(raw.cgroup),
        orphan: Some(raw.flags & flag::DEAD != 0),
    }
}

fn kind_of(raw: &wire::Event) -> Result<Kind, DecodeError> {
    Ok(match raw.kind {
        kind::PROBE => Kind::Probe,
        kind::PROBE_CONGESTED => Kind::ProbeCongested,
        kind::EARLY => Kind::Early,
        kind::DATA_PENDING => Kind::DataPending,
        kind::BUSY => Kind::Busy,
        kind::TIMEOUT | kind::GAVE_UP => Kind::Timeout(match raw.cause {
            cause::PROBE_COUNT => Cause::ProbeCount,
            cause::USER_TIMEOUT => Cause::UserTimeout,
            cause::RETRANSMISSION => Cause::Retransmission,
            cause::ZERO_WINDOW => Cause::ZeroWindow,
            other => return Err(DecodeError::Cause(other)),
        }),
        kind::FIN_WAIT2 => Kind::FinWait2(fin_wait2(raw.flags)),
        kind::NOT_REARMED => Kind::NotRearmed,
        kind::UNCLASSIFIED => Kind::Unclassified,
        kind::CHANGED_MEANWHILE => Kind::ChangedMeanwhile,
        kind::RST_SENT => Kind::RstSent,
        kind::RST_RECEIVED => Kind::RstReceived,
        kind::CLOSED => Kind::Closed,
        kind::ANSWERED => Kind::Answered,
        kind::FIN_RECEIVED => Kind::FinReceived,
        kind::FIN_SENT => Kind::FinSent,
        kind::ABORTED => Kind::Aborted,
        kind::STALLED => Kind::Stalled,
        kind::RESUMED => Kind::Resumed,
        other => return Err(DecodeError::Kind(other)),
    })
}

/// How a firing of a FIN_WAIT2 timer ended. A firing that sent no reset proves TIME_WAIT only
/// if resets are hooked.
fn fin_wait2(flags: u16) -> Option<FinWait2> {
    if flags & flag::RESET_IN_TIMER != 0 {
        Some(FinWait2::Reset)
    } else if flags & flag::RESETS_SEEN != 0 {
        Some(FinWait2::TimeWait)
    } else {
        None
    }
}

/// The two ends of a socket's connection, and its network namespace.
#[inline]
pub(super) fn endpoints(raw: &wire::Socket) -> Result<Endpoints, DecodeError> {
    let v4 = |[a, b, c, d, ..]: [u8; 16]| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let v6 = |bytes| IpAddr::V6(Ipv6Addr::from(bytes));
    let (family, laddr, raddr) = match raw.family {
        AF_INET => (Family::Inet, v4(raw.laddr), v4(raw.raddr)),
        AF_INET6 => (Family::Inet6, v6(raw.laddr), v6(raw.raddr)),
        other => return Err(DecodeError::Family(other)),
    };
    Ok(Endpoints {
        family,
        laddr,
        lport: raw.lport,
        raddr,
        rport: raw.rport,
        netns: raw.netns,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test that fails says what it saw")]

    use super::*;
    use crate::model::named::Named as _;
    use crate::model::socket::Transfer;
    use crate::model::values::{Errno, State};

    fn decoder(hz: u32) -> Decoder {
        Decoder {
            hz,
            reset_reasons: BTreeMap::from([(15, "KEEPALIVE_TIMEOUT".to_owned())]),
            clock_offset_ns: 1_000,
        }
    }

    fn bytes(raw: &wire::Event) -> Vec<u8> {
        // SAFETY: integers only, without padding: every byte is initialized.
        unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(raw).cast::<u8>(), wire::EVENT_SIZE)
        }
        .to_vec()
    }

    fn decoded(raw: &wire::Event) -> SocketEvent {
        match decoder(250).decode(&bytes(raw)) {
            Ok(Event::Socket(event)) => event,
            other => panic!("not of a socket: {other:?}"),
        }
    }

    fn sample() -> wire::Event {
        let mut raw = wire::Event::EMPTY;
        raw.version = wire::VERSION;
        raw.socket.family = AF_INET;
        raw.socket.laddr[..4].copy_from_slice(&[10, 9, 0, 1]);
        raw.mono_ns = 5_000;
        raw
    }

    #[test]
    fn ms_follow_from_hz() {
        for hz in [100, 250, 300, 1000, 1024] {
            for jiffies in [0, 1, 7, 251, u32::MAX] {
                let ms = u64::from(jiffies) * 1000 / u64::from(hz);
                assert_eq!(decoder(hz).ms(jiffies), ms, "{jiffies} at {hz}");
            }
        }
    }

    fn detailed(raw: &wire::Detailed) -> Result<Event, DecodeError> {
        // SAFETY: integers only, without padding: every byte is initialized.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(raw).cast::<u8>(), wire::DETAILED_SIZE)
        };
        decoder(250).decode(bytes)
    }

    #[test]
    fn what_was_sent_is_counted_without_syn_and_fin() {
        const START: u32 = u32::MAX - 1;
        // State, sent, given; bytes in flight, bytes that wait, whether there is a time.
        for (state, sent, given, unacked, unsent, is_timed) in [
            (State::SynSent, 1, 1, 0, 0, true),
            (State::Established, 7, 9, 7, 2, true),
            (State::Established, 0, 9, 0, 9, false),
            (State::FinWait1, 8, 8, 7, 0, true),
            (State::LastAck, 1, 1, 0, 0, true),
            (State::FinWait1, 7, 10, 7, 2, true),
        ] {
            let mut raw = wire::Detailed::EMPTY;
            raw.event = sample();
            raw.event.kind = kind::GAVE_UP;
            raw.event.cause = cause::RETRANSMISSION;
            raw.event.state = State::ALL
                .iter()
                .position(|it| *it == state)
                .and_then(|at| u8::try_from(at + 1).ok())
                .unwrap_or_default();
            raw.event.mono_ns = 9_000_000_000;
            raw.sending.first_tx_mstamp = 7_000_000;
            // Nothing was received for 5 s.
            raw.event.jiffies = 1_250;
            (raw.sending.snd_una, raw.sending.err_soft) = (START, 113);
            raw.sending.snd_nxt = START.wrapping_add(sent);
            raw.sending.write_seq = START.wrapping_add(given);
            let Ok(Event::Socket(event)) = detailed(&raw) else {
                panic!("not of a socket");
            };
            let transfer = event.transfer.map(|it| *it);
            let expected = Transfer {
                unacked_bytes: Some(unacked),
                unsent_bytes: Some(unsent),
                stalled_ms: is_timed.then_some(2_000),
                silent_ms: is_timed.then_some(3_000),
                err_soft: Some(Errno(113)),
            };
            assert_eq!(transfer, Some(expected), "{state:?} {sent} {given}");
        }
    }

    #[test]
    fn whoever_did_it_is_named() {
        let check = |comm: &[u8], pid, exiting, expected: Option<(Option<u32>, &str, bool)>| {
            let mut raw = wire::Detailed::EMPTY;
            raw.event = sample();
            raw.event.kind = kind::FIN_SENT;
            raw.comm[..comm.len()].copy_from_slice(comm);
            (raw.pid, raw.exiting) = (pid, exiting);
            let Ok(Event::Socket(event)) = detailed(&raw) else {
                panic!("not of a socket");
            };
            let expected = expected.map(|(by_pid, comm, exiting)| Actor {
                by_pid,
                by_comm: Some(Escaped::from(comm)),
                by_exiting: Some(exiting),
            });
            assert_eq!(event.actor.as_deref(), expected.as_ref());
            assert_eq!(event.transfer, None);
        };
        check(b"", 0, 0, None);
        check(b"nginx", 7, 0, Some((Some(7), "nginx", false)));
        check(b"a\x1b[2J", 0, 1, Some((None, "a\x1b[2J", true)));
        check(
            b"sixteen bytes in",
            7,
            0,
            Some((Some(7), "sixteen bytes in", false)),
        );
    }

    #[test]
    fn each_kind_has_its_size() {
        for number in 0..kind::COUNT {
            let mut raw = wire::Detailed::EMPTY;
            raw.event = sample();
            raw.event.kind = number;
            raw.event.cause = cause::USER_TIMEOUT;
            let is_detailed = wire::is_detailed(number);
            assert_eq!(detailed(&raw).is_ok(), is_detailed, "{number}");
            let plain = decoder(250).decode(&bytes(&raw.event));
            assert_eq!(plain.is_ok(), !is_detailed, "{number}");
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        proptest::proptest!(|(mut raw in proptest::collection::vec(proptest::num::u8::ANY, wire::EVENT_SIZE),
                              rest in proptest::collection::vec(proptest::num::u8::ANY, wire::DETAILED_SIZE - wire::EVENT_SIZE),
                              kind in 0..=kind::COUNT, family in 0_u16..12, hz in 0_u32..=1000)| {
            if wire::is_detailed(kind) {
                raw.extend(rest);
            }
            let _refused = decoder(hz).decode(&raw);
            raw[..2].copy_from_slice(&wire::VERSION.to_ne_bytes());
            raw[2..4].copy_from_slice(&kind.to_ne_bytes());
            let place = std::mem::offset_of!(wire::Event, socket)
                + std::mem::offset_of!(wire::Socket, family);
            raw[place..place + 2].copy_from_slice(&family.to_ne_bytes());
            let decoded = decoder(hz).decode(&raw);
            if kind == kind::COUNT || !matches!(family, AF_INET | AF_INET6) {
                proptest::prop_assert!(decoded.is_err());
            }
        });
    }

    #[test]
    fn what_is_not_the_contract_is_named() {
        let check = |change: fn(&mut wire::Event), expected: DecodeError| {
            let mut raw = sample();
            change(&mut raw);
            assert_eq!(decoder(250).decode(&bytes(&raw)), Err(expected));
        };
        check(|raw| raw.version = 99, DecodeError::Version(99));
        check(|raw| raw.socket.family = 1, DecodeError::Family(1));
        check(|raw| raw.kind = kind::TIMEOUT, DecodeError::Cause(0));
        assert_eq!(decoder(250).decode(&[0; 7]), Err(DecodeError::Length(7)));
        let mut raw = wire::Detailed::EMPTY;
        (raw.event, raw.event.kind) = (sample(), kind::COUNT);
        assert_eq!(detailed(&raw), Err(DecodeError::Kind(kind::COUNT)));
    }

    #[test]
    fn jiffies_become_ms_across_the_wrap() {
        let mut raw = sample();
        raw.kind = kind::PROBE;
        raw.flags = flag::PENDING_AFTER;
        // Fired two ticks late, four ticks after jiffies wrapped.
        raw.jiffies = 4;
        raw.jiffies_after = 4;
        raw.expires = 2;
        raw.lrcvtime = 4_u32.wrapping_sub(250);
        raw.rcv_tstamp = 4_u32.wrapping_sub(500);
        raw.expires_after = 254;
        let event = decoded(&raw);
        assert_eq!(event.late_ms, Some(8));
        assert_eq!((event.lastrcv_ms, event.lastack_ms), (1000, 2000));
        assert_eq!(event.ages().idle_ms, Some(1000));
        assert_eq!(event.next_ms, Some(1000));
        assert_eq!(event.at.wall_ns, 6_000);
    }

    #[test]
    fn the_peer_is_heard_by_data_acknowledgements_and_probes() {
        // Ages in ticks of 4 ms: of data, of an acknowledgement, of a segment outside the window.
        for (lrcv, acked, oow, is_seen, expected) in [
            (500, 250, Some(100), true, Some(400)),
            (500, 250, Some(300), true, Some(1_000)),
            (100, 250, Some(300), true, Some(400)),
            (500, 250, None, true, Some(1_000)),
            (500, 250, Some(100), false, None),
        ] {
            let mut raw = sample();
            // `jiffies` wraps five minutes after the boot.
            raw.jiffies = 50;
            let ago = |ticks| 50_u32.wrapping_sub(ticks);
            (raw.lrcvtime, raw.rcv_tstamp) = (ago(lrcv), ago(acked));
            raw.last_oow_ack_time = oow.map_or(0, ago);
            raw.flags = if is_seen { flag::OOW_SEEN } else { 0 };
            let heard_ms = decoder(250).heard_ms(&raw);
            assert_eq!(heard_ms, expected, "{lrcv} {acked} {oow:?}");
        }
    }

    #[test]
    fn settings_say_where_they_come_from() {
        let mut raw = sample();
        raw.keepalive_time = 500;
        raw.sysctl_time = 1_800_000;
        raw.sysctl_intvl = 18_750;
        raw.sysctl_probes = 9;
        let event = decoded(&raw);
        let expected = Settings {
            keepalive: Some(false),
            keepalive_time_ms: Some(2_000),
            keepalive_time_from: Some(Origin::Socket),
            keepalive_intvl_ms: Some(75_000),
            keepalive_intvl_from: Some(Origin::Sysctl),
            keepalive_probes: Some(9),
            keepalive_probes_from: Some(Origin::Sysctl),
            user_timeout_ms: None,
            user_timeout_from: None,
        };
        assert_eq!(event.settings, expected);
    }

    #[test]
    fn a_fin_wait2_orphan_is_told_by_its_reset() {
        let check = |flags, expected| {
            let mut raw = sample();
            raw.kind = kind::FIN_WAIT2;
            raw.flags = flags;
            let event = decoded(&raw);
            assert_eq!(event.kind, Kind::FinWait2(expected));
        };
        check(flag::RESETS_SEEN, Some(FinWait2::TimeWait));
        check(
            flag::RESETS_SEEN | flag::RESET_IN_TIMER,
            Some(FinWait2::Reset),
        );
        check(0, None);
    }

    #[test]
    fn a_passive_reset_tells_of_its_segment() {
        let mut raw = sample();
        raw.kind = kind::RST_PASSIVE;
        raw.socket.lport = 5672;
        (raw.segment_len, raw.segment_flags, raw.segment_ttl) = (100, 0x18, 63);
        for (state, expected) in [
            (0, Met::Nothing),
            (6, Met::TimeWait),
            (12, Met::Request),
            (10, Met::Socket),
        ] {
            raw.state = state;
            let Ok(Event::PassiveReset(reset)) = decoder(250).decode(&bytes(&raw)) else {
                panic!("not a passive reset");
            };
            assert_eq!((reset.met, reset.state), (expected, state));
            assert_eq!(
                (reset.endpoints.lport, reset.len, reset.flags, reset.ttl),
                (5672, 100, 0x18, 63)
            );
        }
    }

    #[test]
    fn reasons_have_the_kernels_names() {
        let check = |number, expected: Option<&str>| {
            let mut raw = sample();
            let mut whole = wire::Detailed::EMPTY;
            raw.kind = kind::RST_SENT;
            raw.reason = number;
            raw.flags = if expected.is_some() {
                flag::HAS_REASON
            } else {
                0
            };
            whole.event = raw;
            let Ok(Event::Socket(event)) = detailed(&whole) else {
                panic!("not of a socket");
            };
            assert_eq!(event.reason.as_deref(), expected);
        };
        check(15, Some("KEEPALIVE_TIMEOUT"));
        check(999, Some("999"));
        check(0, None);
    }
}
