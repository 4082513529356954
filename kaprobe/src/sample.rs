//! Test events: every kind of event, on ordinary and unusual sockets.

use crate::keepalive::forecast;
use crate::model::socket::{Actor, Ages, Endpoints, Identity, Process, Settings, Transfer};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::correlate::Correlator;
use crate::filter::{Filter, RecordFilter};
use crate::model::advice::Advice;
use crate::model::alive::{AgeList, Alive};
use crate::model::event::{ArrivedSegment, Event, Kind, Lost, PassiveReset, SocketEvent, SocketId};
use crate::model::host_timeout::HostTimeouts;
use crate::model::named::Named as _;
use crate::model::owner::{Owner, OwnerLease};
use crate::model::record::{EventName, Record};
use crate::model::remedy::SetIn;
use crate::model::row::{Row, RowSource, Timer};
use crate::model::time::Instant;
use crate::model::values::{
    Cause, Confidence, Errno, Evidence, Family, FinWait2, Hook, LearnedOf, LostWhy, Met, Origin,
    State, TcpFlags, VerdictName,
};
use crate::text::escape::Escaped;
use crate::verdict::judge::Judge;
use crate::verdict::pipeline::Pipeline;

#[path = "../../testkit/src/golden.rs"]
pub mod golden;

/// The fixed socket rows for the golden output of `sockets` and `audit`.
pub fn golden_rows() -> Result<Vec<Row>, String> {
    let rows = include_str!("../../tests/golden/sockets.jsonl").lines();
    let read = |line| serde_json::from_str(line).map_err(|why| format!("{why}: {line}"));
    rows.map(read).collect()
}

/// 2024-05-06T07:08:09Z.
const WALL_NS: i64 = 1_714_979_289_000_000_000;

/// The time `ms` after the start of the sample.
pub fn at(ms: u64) -> Instant {
    let ns = ms * 1_000_000;
    Instant {
        mono_ns: 1_000_000_000_000 + ns,
        wall_ns: WALL_NS.saturating_add_unsigned(ns),
    }
}

/// An event of an idle socket that sets its own keepalive times; the count is a sysctl.
pub fn event(at_ms: u64, kind: Kind) -> SocketEvent {
    let firing = !matches!(
        kind,
        Kind::RstSent
            | Kind::RstReceived
            | Kind::FinReceived
            | Kind::FinSent
            | Kind::Stalled
            | Kind::Resumed
            | Kind::Aborted
            | Kind::Answered
            | Kind::Closed
    );
    SocketEvent {
        at: at(at_ms),
        kind,
        id: SocketId {
            sk: 0xffff_8880_0123_4000,
            born_ns: 900,
        },
        owner: owner(4242, "beam.smp"),
        endpoints: endpoints(40_000),
        identity: Identity {
            inode: Some(31_337),
            cookie: None,
            uid: Some(1000),
            cgroup: Some(77),
            orphan: Some(false),
        },
        state: 1,
        state_after: 1,
        settings: Settings {
            keepalive: Some(true),
            keepalive_time_ms: Some(3_000),
            keepalive_time_from: Some(Origin::Socket),
            keepalive_intvl_ms: Some(1_000),
            keepalive_intvl_from: Some(Origin::Socket),
            keepalive_probes: Some(9),
            keepalive_probes_from: Some(Origin::Sysctl),
            user_timeout_ms: None,
            user_timeout_from: None,
        },
        probes_out: 0,
        probes_out_after: 0,
        lastrcv_ms: 5_000,
        lastack_ms: 3_004,
        lastsnd_ms: 9_000,
        heard_ms: None,
        next_ms: firing.then_some(1_000),
        late_ms: firing.then_some(4),
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

/// The endpoints of a connection to a client with this remote port.
/// A process that holds a socket.
pub fn owner(pid: u32, comm: &str) -> Owner {
    Owner::from(Process {
        pid: Some(pid),
        comm: Some(Escaped::from(comm)),
        ..Process::UNKNOWN
    })
}

fn endpoints(rport: u16) -> Endpoints {
    let [local, remote] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
    Endpoints::new((local, 5672), (remote, rport), 4_026_531_840)
}

/// Returns the value after `change`.
pub fn with<T>(mut it: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut it);
    it
}

/// A probe event. `probes_out` probes were already unanswered, and the last ACK arrived
/// `lastack_ms` ago.
pub fn probe(at_ms: u64, probes_out: u8, lastack_ms: u64) -> SocketEvent {
    SocketEvent {
        probes_out,
        probes_out_after: probes_out + 1,
        lastack_ms,
        ..event(at_ms, Kind::Probe)
    }
}

/// Twelve lost events, reported at `at_ms`.
pub fn lost(at_ms: u64, kind: Option<Kind>) -> Event {
    Event::Lost(Lost {
        at: at(at_ms),
        hook: Hook::KeepaliveTimer,
        kind,
        why: LostWhy::RingBuffer,
        count: 12,
    })
}

/// Wraps a socket event as an event source returns it.
pub fn of(event: SocketEvent) -> Event {
    Event::Socket(event)
}

/// A reset sent in answer to a mid-stream segment that matches no socket on this host.
pub fn passive_reset(at_ms: u64) -> PassiveReset {
    PassiveReset {
        at: at(at_ms),
        endpoints: endpoints(40_000),
        flags: 0x18,
        len: 100,
        ttl: 64,
        reason: Some("SK_RST_REASON_NO_SOCKET".to_owned()),
        met: Met::Nothing,
        state: 0,
        tracked: None,
        inode: None,
        owner: Owner::default(),
        process_age_s: None,
    }
}

/// A snapshot row for the socket `inode`, with no known owner.
///
/// The peer was last heard two hours ago. Two probes are out, with no answer for 75 s.
pub fn row(at_ms: u64, inode: u64) -> Row {
    let endpoints = Endpoints {
        raddr: IpAddr::from([10, 0, 0, 9]),
        ..endpoints(50_000)
    };
    let row = Row {
        timer: Timer::Keepalive,
        identity: Identity {
            uid: Some(1000),
            inode: Some(inode),
            orphan: Some(false),
            ..Identity::default()
        },
        probes_out: Some(2),
        unacked: Some(0),
        settings: Settings {
            keepalive: Some(true),
            keepalive_time_ms: Some(7_200_000),
            keepalive_time_from: Some(Origin::Sysctl),
            keepalive_intvl_ms: Some(75_000),
            keepalive_intvl_from: Some(Origin::Sysctl),
            keepalive_probes: Some(9),
            keepalive_probes_from: Some(Origin::Sysctl),
            ..Settings::default()
        },
        ages: Ages::new(7_300_000, 7_300_000, 7_300_000),
        keepalive_next_ms: Some(50_000),
        ..Row::new(at(at_ms), endpoints, State::Established, RowSource::IterTcp)
    };
    forecast::with_give_up(row)
}

/// A verdict on the last of these records, with every field set.
pub fn verdict(records: &[Record]) -> Option<Record> {
    let last = records.last()?;
    let mut verdict = Record {
        time: last.time,
        mono_ns: last.mono_ns,
        seq: last.seq + 1,
        event: EventName::Verdict,
        endpoints: last.endpoints,
        netns_name: Some(Escaped::from("blue")),
        ..Record::default()
    };
    verdict.ages.idle_ms = Some(352_000);
    verdict.verdict = Some(VerdictName::IdleEviction);
    verdict.confidence = Some(Confidence::Medium);
    verdict.evidence = Some(Evidence(vec![1, last.seq]));
    verdict.middlebox = Some(Escaped::from("AWS NLB (350s)"));
    (verdict.survived_ms, verdict.died_ms) = (Some(301_000), Some(352_000));
    verdict.learned_of = Some(LearnedOf::Endpoint);
    verdict.contradictory = Some(false);
    verdict.advice = Some(Box::new(Advice::from(Escaped::from(
        "set TCP_KEEPIDLE to 150 s",
    ))));
    verdict.set_in = Some(SetIn::Program);
    verdict.set = Some(Escaped::from("TCP_KEEPIDLE=150"));
    Some(verdict)
}

/// A sum of answered probes of the connection of the first of these records, with every
/// field set.
pub fn alive(records: &[Record]) -> Option<Record> {
    let (first, last) = (records.first()?, records.last()?);
    Some(Record {
        time: last.time,
        mono_ns: last.mono_ns,
        seq: last.seq + 1,
        event: EventName::Alive,
        sock: first.sock,
        process: first.process.clone(),
        endpoints: first.endpoints,
        identity: first.identity,
        state: first.state,
        settings: first.settings,
        probes_out: Some(0),
        ttl: Some(57),
        alive: Some(Box::new(Alive {
            probes_answered: 20,
            since_ns: first.mono_ns,
            answered_ns: last.mono_ns,
            answered_min_ms: Some(0),
            answered_max_ms: Some(8),
            rtt_min_us: Some(431),
            rtt_max_us: Some(8_100),
            survived_ages_ms: AgeList(vec![2_790, 59_790]),
            held_ages_ms: AgeList(vec![60_000, 120_000]),
            quiet_ms: Some(59_790),
            quiet_ns: Some(last.mono_ns),
        })),
        ..Record::default()
    })
}

/// A filter that passes every event.
fn every_event() -> Filter {
    Filter::new(RecordFilter {
        events: EventName::ALL.iter().copied().collect(),
        ..RecordFilter::default()
    })
}

/// All records and verdicts that follow from these events, numbered.
pub fn judged(events: &[Event]) -> Vec<Record> {
    const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
    let mut correlator = Correlator::new(MAX_SOCKETS).with_snapshot(at(0).mono_ns, 432_000_000);
    let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
    let mut pipeline = Pipeline::new(every_event(), judge);
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| {
            pipeline.push(0, record, |it| records.push(it.clone()));
        });
    }
    records
}

/// All records that the correlator makes from these events, numbered.
pub fn records(events: &[Event]) -> Vec<Record> {
    let correlator = Correlator::new(NonZeroUsize::MIN.saturating_add(63));
    let mut correlator = correlator.with_snapshot(at(0).mono_ns, 432_000_000);
    let mut filter = every_event();
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| {
            if filter.pass(record) {
                records.push(record.clone());
            }
        });
    }
    records
}

/// Events of unusual sockets: IPv6, IPv4-mapped IPv6, a hostile command name, an orphan.
fn unusual_sockets() -> [SocketEvent; 4] {
    let v6 = with(probe(700, 1, 6_000), |it| {
        it.id = SocketId { sk: 2, born_ns: 2 };
        it.endpoints.family = Family::Inet6;
        it.endpoints.laddr = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10]);
        it.endpoints.raddr = IpAddr::from([
            0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
        ]);
        it.identity.cookie = Some(4_711);
    });
    let mapped = with(probe(710, 0, 3_000), |it| {
        it.id = SocketId { sk: 3, born_ns: 3 };
        it.endpoints.family = Family::Inet6;
        it.endpoints.laddr = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc0a8, 0x0001]);
        it.endpoints.raddr = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc0a8, 0x0002]);
    });
    let hostile = SocketEvent {
        id: SocketId { sk: 4, born_ns: 4 },
        owner: Owner::from(Process {
            pid: Some(666),
            comm: Some(Escaped::from_bytes(b"=\x1b[2J\n\" ,\xff\xe2\x80\xae\\")),
            cmdline: Some(Escaped::from_bytes(b"=\x1b[2J\n\" ,\xff")),
            unit: Some(Escaped::from_bytes(b"\x1b]0;x\x07.service")),
            container: Some(Escaped::from_bytes(b"\x1b[2J")),
            container_id: Some(Escaped::from("0123456789abcdef".repeat(4).as_str())),
            pod: Some(Escaped::from_bytes(b"=x\x07")),
            pod_namespace: Some(Escaped::from_bytes(b"\xe2\x80\xae")),
            pod_uid: Some(Escaped::from("5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f")),
        }),
        ..probe(720, 0, 3_000)
    };
    let orphan = with(event(730, Kind::FinWait2(Some(FinWait2::Reset))), |it| {
        it.id = SocketId { sk: 5, born_ns: 0 };
        it.owner = Owner::default();
        it.identity.inode = None;
        it.identity.cgroup = None;
        it.identity.orphan = Some(true);
        it.settings.keepalive = Some(false);
        it.state = 5;
        it.state_after = 7;
        it.next_ms = None;
    });
    [v6, mapped, hostile, orphan]
}

/// Data that is not acknowledged, sent again `retransmits` times.
pub fn unacked(
    event: SocketEvent,
    retransmits: u8,
    stalled_ms: u64,
    silent_ms: u64,
) -> SocketEvent {
    SocketEvent {
        next_ms: None,
        late_ms: None,
        unacked: 1,
        retransmits,
        lastsnd_ms: 4,
        lastrcv_ms: silent_ms.saturating_add(stalled_ms),
        lastack_ms: silent_ms.saturating_add(stalled_ms),
        transfer: Some(Box::new(Transfer {
            unacked_bytes: Some(7),
            unsent_bytes: Some(0),
            stalled_ms: Some(stalled_ms),
            silent_ms: Some(silent_ms),
            err_soft: None,
        })),
        ..event
    }
}

/// Events of connections that are closed, stall, and end.
fn endings() -> [SocketEvent; 8] {
    let of_sock = |sk, event: SocketEvent| SocketEvent {
        id: SocketId { sk, born_ns: sk },
        ..event
    };
    let stalled = unacked(event(1_772, Kind::Stalled), 3, 1_400, 71_000);
    let stalled = with(stalled, |it| {
        (it.dead_in_ms, it.dead_by) = (Some(900_000), Some(Cause::Retransmission));
        if let Some(transfer) = &mut it.transfer {
            transfer.err_soft = Some(Errno(libc::EHOSTUNREACH.cast_unsigned()));
        }
    });
    let gave_up = unacked(
        event(1_774, Kind::Timeout(Cause::Retransmission)),
        15,
        924_000,
        71_000,
    );
    let actor = |exiting| {
        Some(Arc::new(Actor {
            by_pid: Some(4_243),
            by_comm: Some(Escaped::from("node")),
            by_exiting: Some(exiting),
        }))
    };
    let lingered = with(event(1_776, Kind::RstSent), |it| {
        (it.state, it.state_after) = (8, 7);
        it.actor = actor(true);
    });
    [
        of_sock(26, lingered),
        of_sock(
            21,
            with(event(1_771, Kind::FinReceived), |it| it.mptcp = Some(true)),
        ),
        of_sock(
            22,
            with(event(1_771, Kind::FinSent), |it| it.actor = actor(false)),
        ),
        of_sock(23, stalled),
        of_sock(24, unacked(event(1_772, Kind::Stalled), 3, 1_400, 71_000)),
        of_sock(
            24,
            with(event(1_800, Kind::Early), |it| {
                (it.lastack_ms, it.lastsnd_ms) = (5, 28);
            }),
        ),
        of_sock(23, with(gave_up, |it| it.err = Some(110))),
        of_sock(
            25,
            with(event(1_775, Kind::Aborted), |it| {
                it.err = Some(libc::ECONNABORTED.cast_unsigned());
                it.actor = actor(true);
            }),
        ),
    ]
}

/// Events that produce every kind of record. Each field is set in at least one.
pub fn everything() -> Vec<Event> {
    let answered = SocketEvent {
        lastack_ms: 990,
        next_ms: Some(2_010),
        ..event(1_000, Kind::Early)
    };
    let data = SocketEvent {
        unacked: 2,
        write_queue: true,
        ..event(1_100, Kind::DataPending)
    };
    let timeout = SocketEvent {
        probes_out: 9,
        probes_out_after: 9,
        lastack_ms: 12_040,
        lastrcv_ms: 12_345,
        err: Some(110),
        state_after: 7,
        next_ms: None,
        firing_ns: Some(at(1_400).mono_ns),
        ..event(1_400, Kind::Timeout(Cause::ProbeCount))
    };
    let reset = SocketEvent {
        reason: Some("SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT".to_owned()),
        ..event(1_401, Kind::RstSent)
    };
    let reset = SocketEvent {
        firing_ns: timeout.firing_ns,
        ..reset
    };
    let user_timeout = with(event(1_500, Kind::Timeout(Cause::UserTimeout)), |it| {
        it.settings.user_timeout_ms = Some(5_000);
        it.settings.user_timeout_from = Some(Origin::Socket);
        it.probes_out = 2;
        it.probes_out_after = 2;
        it.err = Some(999);
    });
    let off = with(event(1_300, Kind::NotRearmed), |it| {
        it.settings.keepalive = Some(false);
    });
    let events = [
        probe(0, 0, 3_004),
        answered,
        data,
        event(1_200, Kind::Busy),
        SocketEvent {
            next_ms: Some(500),
            ..event(1_250, Kind::ProbeCongested)
        },
        off,
        event(1_350, Kind::Unclassified),
        with(event(1_360, Kind::ChangedMeanwhile), |it| {
            it.err = Some(104)
        }),
        timeout,
        reset,
        user_timeout,
        event(1_600, Kind::FinWait2(Some(FinWait2::TimeWait))),
        event(1_650, Kind::FinWait2(None)),
        event(1_700, Kind::Closed),
    ];
    let mut all: Vec<_> = events
        .into_iter()
        .chain(unusual_sockets())
        .map(of)
        .collect();
    all.push(of(SocketEvent {
        lastsnd_ms: 4,
        unacked: 1,
        err: Some(104),
        arrival: ArrivedSegment {
            flags: Some(TcpFlags(0x14)),
            ttl: Some(64),
            from_this_host: Some(true),
            peer_ttl: Some(57),
            data_received: Some(true),
        },
        ..event(1_750, Kind::RstReceived)
    }));
    let number = |event| {
        of(SocketEvent {
            id: SocketId { sk: 7, born_ns: 7 },
            ..event
        })
    };
    all.push(number(SocketEvent {
        heard_ms: Some(1_200),
        ..probe(1_760, 1, 4_000)
    }));
    all.push(number(SocketEvent {
        at: Instant {
            mono_ns: at(1_760).mono_ns + 431_700,
            wall_ns: at(1_760).wall_ns + 431_700,
        },
        probes_out: 2,
        arrival: ArrivedSegment {
            ttl: Some(57),
            ..ArrivedSegment::default()
        },
        ..event(1_760, Kind::Answered)
    }));
    all.push(Event::Snapshot(Box::new(with(row(1_770, 77), |it| {
        it.process.pid = Some(4242);
        it.process.comm = Some(Escaped::from("beam.smp"));
        it.process.cmdline = Some(Escaped::from("beam.smp -s rabbit"));
    }))));
    all.extend(endings().map(of));
    all.push(lost(1_800, Some(Kind::Probe)));
    all.push(lost(1_900, None));
    all.push(Event::PassiveReset(Box::new(PassiveReset {
        tracked: Some(false),
        ..passive_reset(1_950)
    })));
    all.push(Event::PassiveReset(Box::new(PassiveReset {
        flags: 0x10,
        reason: None,
        met: Met::Socket,
        state: 10,
        owner: event(1_960, Kind::RstSent).owner,
        process_age_s: Some(12),
        ..passive_reset(1_960)
    })));
    all
}
