//! Tests of events and the records they make, then properties of arbitrary events.

use crate::model::owner::Owner;
use crate::sample::with;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::model::named::Named as _;
use crate::model::socket::Ages;
use crate::model::values::{Cause, FinWait2, LostWhy, Origin};
use crate::sample::{at, event, lost, of, passive_reset, probe, row, unacked};

fn room_for(sockets: usize) -> Correlator {
    Correlator::new(NonZeroUsize::new(sockets).unwrap_or(NonZeroUsize::MIN))
}

fn run(mut correlator: Correlator, events: &[Event]) -> Vec<Record> {
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| records.push(record.clone()));
    }
    records
}

/// The records as `ms event #sock probe`, in ms since the start of the sample.
fn summaries(events: &[Event]) -> Vec<String> {
    let short = |record: Record| {
        let ms = (record.mono_ns - at(0).mono_ns) / 1_000_000;
        let sock = record
            .sock
            .map_or(String::new(), |sock| format!(" #{sock}"));
        let probe = record
            .probe
            .map_or(String::new(), |probe| format!(" {probe}"));
        format!("{ms} {}{sock}{probe}", record.event.name())
    };
    let correlator = room_for(8).with_snapshot(at(0).mono_ns, 432_000_000);
    run(correlator, events).into_iter().map(short).collect()
}

/// A firing with no probe out, `lastack_ms` after the last acknowledgement.
fn quiet(at_ms: u64, lastack_ms: u64) -> SocketEvent {
    SocketEvent {
        lastack_ms,
        ..event(at_ms, Kind::Early)
    }
}

#[test]
fn stalled_data_resumes_when_it_is_acknowledged() {
    let stalled = || unacked(event(10_000, Kind::Stalled), 3, 1_400, 5_000);
    let later = |at_ms, lastack_ms, retransmits| SocketEvent {
        retransmits,
        ..quiet(at_ms, lastack_ms)
    };
    for (name, event, expected) in [
        ("acknowledged", later(20_000, 8_000, 0), true),
        ("not acknowledged", later(20_000, 15_000, 0), false),
        (
            "heard, but still sent again",
            later(20_000, 8_000, 5),
            false,
        ),
        (
            "the end is no acknowledgement",
            with(later(20_000, 8_000, 0), |it| {
                it.kind = Kind::Timeout(Cause::Retransmission);
            }),
            false,
        ),
    ] {
        let records = run(room_for(8), &[of(stalled()), of(event)]);
        let resumed: Vec<_> = records
            .iter()
            .filter(|it| it.event == EventName::Resumed)
            .map(|it| (it.mono_ns, it.transfer.stalled_ms, it.retransmits))
            .collect();
        // Sent 1.4 s before the report, acknowledged 2 s after it.
        let once = [(at(12_000).mono_ns, Some(3_400), Some(3))];
        assert_eq!(resumed, if expected { &once[..] } else { &[] }, "{name}");
    }
}

#[test]
fn a_look_tells_that_stalled_data_is_acknowledged() {
    let stalled = || of(unacked(event(10_000, Kind::Stalled), 3, 1_400, 5_000));
    let look = |at_ms, lastack_ms| {
        let look = SocketEvent {
            lastack_ms,
            ..event(at_ms, Kind::Resumed)
        };
        of(look)
    };
    let later = || of(quiet(20_000, 8_000));
    let other = with(event(12_500, Kind::Resumed), |it| {
        it.lastack_ms = 500;
        it.endpoints.rport = 7;
    });
    let resumed = |events: &[Event]| -> Vec<u64> {
        let records = run(room_for(8), events);
        let records = records.iter().filter(|it| it.event == EventName::Resumed);
        records.map(|it| it.mono_ns).collect()
    };
    let at_ack = vec![at(12_000).mono_ns];
    let none: Vec<u64> = Vec::new();
    assert_eq!(resumed(&[stalled(), look(12_500, 500)]), at_ack);
    assert_eq!(
        resumed(&[stalled(), look(12_500, 500), later()]),
        at_ack,
        "told once"
    );
    assert_eq!(
        resumed(&[stalled(), look(12_500, 2_600)]),
        none,
        "before it stalled"
    );
    assert_eq!(resumed(&[stalled(), of(other)]), none, "another connection");
    assert_eq!(resumed(&[look(12_500, 500)]), none, "nothing had stalled");
    // Stalled again meanwhile: the latest is not acknowledged.
    let again = of(unacked(event(13_000, Kind::Stalled), 3, 1_400, 100));
    assert_eq!(resumed(&[stalled(), again, look(13_500, 1_500)]), none);
}

/// An answer that an event reported when it arrived, with `probes_out` probes out.
fn answer(at_ms: u64, probes_out: u8) -> SocketEvent {
    SocketEvent {
        probes_out,
        probes_out_after: probes_out,
        ..event(at_ms, Kind::Answered)
    }
}

/// A row of the snapshot, as an event.
fn seen(row: Row) -> Event {
    Event::Snapshot(Box::new(row))
}

/// An event of the zombie in [`row`], with the same time since its peer was heard.
fn of_zombie(inode: u64, event: SocketEvent) -> SocketEvent {
    let row = row(0, inode);
    with(of_socket(70, 70, event), |it| {
        it.identity.inode = Some(inode);
        it.endpoints = row.endpoints;
        it.lastrcv_ms = 7_300_000;
    })
}

fn of_socket(sk: u64, born_ns: u64, event: SocketEvent) -> SocketEvent {
    SocketEvent {
        id: SocketId { sk, born_ns },
        ..event
    }
}

#[test]
fn events_make_the_expected_records() {
    let probe_lost = || lost(50, Some(Kind::Probe));
    let untracked = |event| of(of_socket(7, 0, event));
    let rows: &[(&str, &[Event], &[&str])] = &[
        (
            "answered, seen at the next firing",
            &[of(probe(0, 0, 3_000)), of(quiet(1_000, 980))],
            &["0 probe #1 1", "20 answered #1 1", "1000 early #1"],
        ),
        (
            "answered, seen at the next probe",
            &[of(probe(0, 2, 5_000)), of(probe(1_000, 0, 900))],
            &["0 probe #1 3", "100 answered #1 3", "1000 probe #1 1"],
        ),
        (
            "an acknowledgement answers only the last probe, once",
            &[
                of(probe(0, 0, 3_000)),
                of(probe(1_000, 1, 4_000)),
                of(quiet(2_000, 990)),
                of(quiet(3_000, 1_990)),
            ],
            &[
                "0 probe #1 1",
                "1000 probe #1 2",
                "1010 answered #1 2",
                "2000 early #1",
                "3000 early #1",
            ],
        ),
        (
            "an answer reported by an event is recorded once",
            &[
                of(probe(0, 0, 3_000)),
                of(answer(3, 1)),
                of(quiet(1_000, 997)),
            ],
            &["0 probe #1 1", "3 answered #1 1", "1000 early #1"],
        ),
        (
            "an answer to an unrecorded probe does not answer an earlier one",
            &[
                of(probe(0, 0, 3_000)),
                of(answer(1_003, 2)),
                of(quiet(2_000, 997)),
            ],
            &["0 probe #1 1", "2000 early #1"],
        ),
        (
            "an acknowledgement in the probe's own tick counts as after the probe",
            &[of(probe(0, 0, 3_000)), of(quiet(1_000, 1_003))],
            &["0 probe #1 1", "0 answered #1 1", "1000 early #1"],
        ),
        (
            "no acknowledgement since the probe: disconnected, not answered",
            &[
                of(probe(0, 0, 3_000)),
                of(SocketEvent {
                    lastack_ms: 4_000,
                    ..event(1_000, Kind::Closed)
                }),
            ],
            &["0 probe #1 1", "1000 closed #1"],
        ),
        (
            "a probe that was never recorded is not answered",
            &[
                of(SocketEvent {
                    probes_out: 2,
                    probes_out_after: 2,
                    ..event(0, Kind::Busy)
                }),
                of(quiet(1_000, 10)),
            ],
            &["0 busy #1", "1000 early #1"],
        ),
        (
            "a congested probe was not sent",
            &[of(event(0, Kind::ProbeCongested)), of(quiet(500, 10))],
            &["0 probe_congested #1 1", "500 early #1"],
        ),
        (
            "a gap: answered before another probe could be sent",
            &[
                of(probe(0, 0, 3_000)),
                probe_lost(),
                of(quiet(9_000, 8_500)),
            ],
            &[
                "0 probe #1 1",
                "50 lost",
                "500 answered #1 1",
                "9000 early #1",
            ],
        ),
        (
            "a gap: the acknowledgement may belong to another probe",
            &[
                of(probe(0, 0, 3_000)),
                probe_lost(),
                of(quiet(9_000, 8_000)),
            ],
            &["0 probe #1 1", "50 lost", "9000 early #1"],
        ),
        (
            "lost events of another kind hide no probe",
            &[
                of(probe(0, 0, 3_000)),
                lost(50, Some(Kind::Early)),
                of(quiet(9_000, 8_000)),
            ],
            &[
                "0 probe #1 1",
                "50 lost",
                "1000 answered #1 1",
                "9000 early #1",
            ],
        ),
        (
            "a gap does not affect a later probe",
            &[
                probe_lost(),
                of(probe(100, 0, 3_000)),
                of(quiet(9_000, 7_000)),
            ],
            &[
                "50 lost",
                "100 probe #1 1",
                "2000 answered #1 1",
                "9000 early #1",
            ],
        ),
        (
            "an untracked socket may be another one at the same address",
            &[
                untracked(probe(0, 0, 3_000)),
                untracked(quiet(9_000, 7_000)),
            ],
            &["0 probe #1 1", "9000 early #1"],
        ),
        (
            "a reused address is another socket",
            &[
                of(of_socket(7, 1, probe(0, 0, 3_000))),
                of(of_socket(7, 2, quiet(9_000, 100))),
            ],
            &["0 probe #1 1", "9000 early #2"],
        ),
        (
            "a firing that destroys its socket is reported after the close",
            &[
                of(event(0, Kind::Closed)),
                of(event(0, Kind::FinWait2(None))),
            ],
            &["0 closed #1", "0 fin_wait2 #1"],
        ),
    ];
    for (what, events, records) in rows {
        assert_eq!(summaries(events), *records, "{what}");
    }
}

#[test]
fn a_probe_answered_before_its_firing_ends_is_still_probe_one() {
    let answered_at_once = SocketEvent {
        probes_out_after: 0,
        ..probe(0, 0, 3_000)
    };
    let records = run(room_for(1), &[of(answered_at_once), of(quiet(1_000, 999))]);
    let numbers: Vec<_> = records
        .iter()
        .map(|it| (it.event, it.probe, it.probes_out))
        .collect();
    let expected = [
        (EventName::Probe, Some(1), Some(0)),
        (EventName::Answered, Some(1), Some(0)),
        (EventName::Early, None, Some(0)),
    ];
    assert_eq!(numbers, expected);
}

#[test]
fn closed_sockets_are_evicted_first_then_the_oldest() {
    let mut correlator = room_for(2);
    let mut numbers = Vec::new();
    for (sk, kind) in [
        (1, Kind::Busy),
        (2, Kind::Busy),
        (2, Kind::Closed),
        (3, Kind::Busy), // evicts 2
        (1, Kind::Busy),
        (4, Kind::Busy), // evicts 3
        (1, Kind::Busy),
        (3, Kind::Busy), // gets a new number
    ] {
        let event = of(of_socket(sk, 1, event(0, kind)));
        correlator.push(&event, &mut |record| numbers.extend(record.sock));
    }
    assert_eq!(numbers, [1, 2, 2, 3, 1, 4, 1, 5]);
    // A closed socket is not missed, so it does not count.
    assert_eq!((correlator.sockets(), correlator.evicted()), (5, 2));
}

/// Arbitrary events of a few sockets, at any time, in orders that no kernel produces.
fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        4 => Just(Kind::Probe),
        2 => Just(Kind::Early),
        1 => Just(Kind::ProbeCongested),
        1 => Just(Kind::Timeout(Cause::ProbeCount)),
        1 => Just(Kind::FinWait2(Some(FinWait2::Reset))),
        1 => Just(Kind::RstSent),
        1 => Just(Kind::RstReceived),
        1 => Just(Kind::Answered),
        1 => Just(Kind::Closed),
    ];
    let ms = || prop_oneof![8 => 0..20_000_u64, 1 => Just(u64::MAX)];
    let ns = prop_oneof![8 => 0..20_000_000_000_u64, 1 => Just(u64::MAX)];
    let socket = (
        kind,
        0..4_u64,
        0..3_u64,
        0..4_u8,
        0..=u8::MAX,
        ns,
        ms(),
        ms(),
    );
    let socket = socket.prop_map(
        |(kind, sk, born_ns, probes_out, state, mono_ns, ack, next)| {
            of(SocketEvent {
                at: Instant {
                    mono_ns,
                    wall_ns: i64::MAX - 1,
                },
                id: SocketId { sk, born_ns },
                probes_out,
                probes_out_after: probes_out,
                state,
                lastack_ms: ack,
                next_ms: (next % 3 != 0).then_some(next),
                ..event(0, kind)
            })
        },
    );
    let passive = (0..20_000_u64).prop_map(|ms| Event::PassiveReset(Box::new(passive_reset(ms))));
    let row = (0..20_000_u64, 0..4_u64, 0..4_u16, 0..4_u8).prop_map(|(ms, inode, rport, out)| {
        seen(with(row(ms, inode), |it| {
            it.identity.inode = (inode != 0).then_some(inode);
            it.endpoints.rport = rport;
            it.probes_out = Some(out);
            it.mono_ns = ms;
        }))
    });
    prop_oneof![
        12 => socket,
        1 => passive,
        1 => any_loss().prop_map(Event::Lost),
        2 => row,
        1 => Just(Event::SnapshotEnd),
    ]
}

fn any_loss() -> impl Strategy<Value = Lost> {
    (0..25_000_000_000_u64, any::<bool>(), any::<u64>()).prop_map(|(mono_ns, is_probe, count)| {
        Lost {
            at: Instant {
                mono_ns,
                wall_ns: 0,
            },
            hook: Hook::KeepaliveTimer,
            kind: is_probe.then_some(Kind::Probe),
            why: LostWhy::Missed,
            count,
        }
    })
}

fn answers_of(records: &[Record]) -> Vec<&Record> {
    records
        .iter()
        .filter(|record| record.event == EventName::Answered)
        .collect()
}

proptest! {
    #[test]
    fn the_same_events_give_the_same_records_in_bounded_memory(
        events in prop::collection::vec(any_event(), 0..60),
        room in 1..6_usize,
    ) {
        let correlator = || room_for(room).with_snapshot(at(0).mono_ns, 432_000_000);
        let (twin, mut correlator) = (correlator(), correlator());
        let mut records = Vec::new();
        for event in &events {
            correlator.push(event, &mut |record| records.push(record.clone()));
            prop_assert!(correlator.sockets.len() <= room);
        }
        prop_assert_eq!(&records, &run(twin, &events));
        // Each event makes one record, except two kinds: an answer makes one if its probe
        // is known, and a row of a snapshot makes one if it is a zombie.
        let is_recorded = |it: &&Event| match it {
            Event::Socket(it) => it.kind != Kind::Answered,
            Event::PassiveReset(_) | Event::Lost(_) => true,
            Event::Snapshot(_) | Event::SnapshotEnd => false,
        };
        let is_zombie = |it: &&Record| it.event == EventName::Zombie;
        let zombies = records.iter().filter(is_zombie).count();
        let others = records.len() - answers_of(&records).len() - zombies;
        prop_assert_eq!(others, events.iter().filter(is_recorded).count());
    }

    #[test]
    fn an_answer_is_to_a_recorded_probe(events in prop::collection::vec(any_event(), 0..60)) {
        let mut waiting = BTreeMap::new();
        for record in run(room_for(64), &events) {
            match record.event {
                EventName::Probe => {
                    waiting.insert(record.sock, record);
                }
                EventName::Answered => {
                    let probe = waiting.remove(&record.sock);
                    let number = probe.as_ref().and_then(|probe| probe.probe);
                    prop_assert_eq!(number, record.probe);
                    let sent_ns = probe.map_or(u64::MAX, |probe| probe.mono_ns);
                    prop_assert!(sent_ns <= record.mono_ns);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_loss_never_adds_an_answer(
        events in prop::collection::vec(any_event(), 0..60),
        loss in any_loss(),
        index in any::<prop::sample::Index>(),
    ) {
        let mut with_loss = events.clone();
        with_loss.insert(index.index(events.len() + 1), Event::Lost(loss));
        let (before, after) = (run(room_for(4), &events), run(room_for(4), &with_loss));
        let mut all = answers_of(&before).into_iter();
        for answer in answers_of(&after) {
            prop_assert!(all.any(|it| it == answer));
        }
    }

    #[test]
    fn answers_are_true_despite_losses(world in any_world()) {
        let (events, truth) = world.events();
        let mut recorded = BTreeMap::new();
        for record in run(room_for(64), &events) {
            match record.event {
                EventName::Probe => {
                    recorded.insert(record.sock, record.mono_ns);
                }
                EventName::Answered => {
                    let probe = recorded.get(&record.sock).copied();
                    prop_assert!(truth.contains(&(record.endpoints.map(|it| it.rport), probe)));
                }
                _ => {}
            }
        }
    }
}

/// A probe: its socket's remote port, and when it was sent, CLOCK_MONOTONIC ns.
type SentProbe = (Option<u16>, Option<u64>);

/// Sockets of a simulated kernel, and which of their events are lost.
#[derive(Clone, Debug)]
struct World {
    sockets: Vec<Peer>,
    /// The lost events: their indices, modulo the number of events.
    losses: Vec<prop::sample::Index>,
    /// How many events are read at once.
    batch: usize,
}

/// One socket and how its peer behaves.
#[derive(Clone, Debug)]
struct Peer {
    time_ms: u64,
    intvl_ms: u64,
    /// The delay before each answer, ms; `None` if the probe is not answered.
    answers: Vec<Option<u64>>,
}

fn any_world() -> impl Strategy<Value = World> {
    let seconds = || prop_oneof![Just(1_000_u64), Just(2_000), Just(5_000)];
    let answer = prop_oneof![
        2 => Just(None),
        3 => (0..40_u64).prop_map(Some),
        1 => (0..6_000_u64).prop_map(Some),
    ];
    let answers = prop::collection::vec(answer, 1..12);
    let peer = (seconds(), seconds(), answers).prop_map(|(time_ms, intvl_ms, answers)| Peer {
        time_ms,
        intvl_ms,
        answers,
    });
    let losses = prop::collection::vec(any::<prop::sample::Index>(), 0..12);
    (prop::collection::vec(peer, 1..4), losses, 1..6_usize).prop_map(|(sockets, losses, batch)| {
        World {
            sockets,
            losses,
            batch,
        }
    })
}

impl World {
    /// The events that arrive, and the probes that were answered.
    fn events(&self) -> (Vec<Event>, BTreeSet<SentProbe>) {
        let mut truth = BTreeSet::new();
        let mut all = Vec::new();
        for (rport, peer) in (1..).zip(&self.sockets) {
            let (events, answered) = peer.live(rport);
            truth.extend(answered.into_iter().map(|probe| (Some(rport), Some(probe))));
            all.extend(events);
        }
        all.sort_by_key(|event| event.at);
        let lost: BTreeSet<_> = self
            .losses
            .iter()
            .map(|it| it.index(all.len().max(1)))
            .collect();
        let mut arrived = Vec::new();
        for (batch, events) in all.chunks(self.batch).enumerate() {
            let from = batch * self.batch;
            let missing = (from..from + events.len())
                .filter(|index| lost.contains(index))
                .count();
            if let (1.., Some(last)) = (missing, events.last()) {
                arrived.push(Event::Lost(Lost {
                    at: last.at,
                    hook: Hook::KeepaliveTimer,
                    kind: None,
                    why: LostWhy::RingBuffer,
                    count: missing as u64,
                }));
            }
            let kept = (from..)
                .zip(events)
                .filter(|(index, _)| !lost.contains(index));
            arrived.extend(kept.map(|(_, event)| of(event.clone())));
        }
        (arrived, truth)
    }
}

impl Peer {
    /// Simulates `tcp_keepalive_timer` in ticks of 4 ms. Returns the firings, and the
    /// send times of the probes that were acknowledged before the next one was sent.
    fn live(&self, rport: u16) -> (Vec<SocketEvent>, BTreeSet<u64>) {
        const TICK: u64 = 4;
        let tick = |ms: u64| ms / TICK * TICK;
        let mut answers = self.answers.iter();
        let (mut events, mut answered) = (Vec::new(), BTreeSet::new());
        // Acknowledgements in flight, the last one received, the probe that is out.
        let mut coming: Vec<u64> = Vec::new();
        let (mut acked, mut out, mut sent) = (0, 0_u8, None);
        let mut now = self.time_ms;
        loop {
            coming.sort_unstable();
            for ack in coming.extract_if(.., |ack| *ack <= now) {
                (acked, out) = (ack, 0);
                answered.extend(sent.take());
            }
            let elapsed = tick(now) - tick(acked);
            let mut event = with(
                of_socket(u64::from(rport), 1, event(now, Kind::Early)),
                |it| {
                    it.lastack_ms = elapsed;
                    it.lastrcv_ms = tick(now);
                    it.probes_out = out;
                    it.probes_out_after = out;
                    it.endpoints.rport = rport;
                },
            );
            let next = if elapsed < self.time_ms {
                self.time_ms - elapsed
            } else {
                let Some(answer) = answers.next() else { break };
                coming.extend(answer.map(|after| now + after));
                out += 1;
                sent = Some(event.at.mono_ns);
                (event.kind, event.probes_out_after) = (Kind::Probe, out);
                self.intvl_ms
            };
            event.next_ms = Some(next);
            events.push(event);
            // Late by up to a tick, never early.
            now = tick(now + next + TICK) + now % TICK;
        }
        (events, answered)
    }
}

#[test]
fn settings_carry_their_origin_and_errors_their_name() {
    let timeout = with(event(0, Kind::Timeout(Cause::UserTimeout)), |it| {
        it.settings.user_timeout_ms = Some(5_000);
        it.settings.user_timeout_from = Some(Origin::Socket);
        it.err = Some(110);
        it.state = 200;
    });
    let records = run(room_for(1), &[of(timeout)]);
    let [record] = records.as_slice() else {
        return assert_eq!(records.len(), 1);
    };
    assert_eq!(record.settings.keepalive_time_from, Some(Origin::Socket));
    assert_eq!(record.settings.keepalive_probes_from, Some(Origin::Sysctl));
    assert_eq!(record.settings.user_timeout_from, Some(Origin::Socket));
    assert_eq!(
        record.err.map(|err| err.to_string()).as_deref(),
        Some("ETIMEDOUT")
    );
    assert_eq!(record.state, None);
}

#[test]
fn a_close_is_recorded_with_the_last_known_owner_and_endpoints() {
    let records = run(
        room_for(8),
        &[
            of(probe(0, 0, 1000)),
            of(with(event(10, Kind::Closed), |it| {
                it.owner = Owner::default();
                it.identity.inode = None;
                it.endpoints.laddr = Ipv4Addr::UNSPECIFIED.into();
                it.endpoints.rport = 0;
            })),
        ],
    );
    let owners: Vec<_> = records
        .iter()
        .map(|it| {
            (
                it.process.pid,
                it.identity.inode,
                it.endpoints.map(|it| it.laddr),
                it.endpoints.map(|it| it.rport),
            )
        })
        .collect();
    assert!(owners[0].0.is_some());
    assert_eq!(owners.first(), owners.last());
    // An orphan that is still open keeps the owner that held it last.
    let orphan = with(event(10, Kind::Early), |it| {
        it.owner = Owner::default();
        it.identity.inode = None;
        it.identity.orphan = Some(true);
    });
    let records = run(room_for(8), &[of(probe(0, 0, 1000)), of(orphan)]);
    let owners: Vec<_> = records.iter().map(|it| it.process.pid).collect();
    assert_eq!(owners.first(), owners.last());
    assert_eq!(
        records.last().map(|it| it.identity.orphan),
        Some(Some(true))
    );
}

#[test]
fn data_for_an_orphan_is_no_received_reset() {
    let received = |state, is_orphan, lastack_ms| {
        let event = SocketEvent {
            state,
            lastack_ms,
            ..event(5, Kind::RstReceived)
        };
        of(with(event, |it| it.identity.orphan = Some(is_orphan)))
    };
    for (event, is_recorded) in [
        (received(4, true, 0), false),
        (received(5, true, 0), false),
        // The reset itself acknowledges nothing.
        (received(5, true, 2_000), true),
        // A process can still read.
        (received(5, false, 0), true),
        (received(1, true, 0), true),
    ] {
        let expected: &[&str] = if is_recorded {
            &["5 rst_received #1"]
        } else {
            &[]
        };
        assert_eq!(
            summaries(std::slice::from_ref(&event)),
            expected,
            "{event:?}"
        );
    }
}

#[test]
fn a_zombie_of_a_snapshot_is_recorded_once() {
    let answered = |at_ms, inode| Row {
        probes_out: Some(0),
        ..row(at_ms, inode)
    };
    let off = |idle_ms| {
        with(row(10, 1), |it| {
            it.settings.keepalive = Some(false);
            it.probes_out = Some(0);
            (it.ages.idle_ms, it.ages.heard_ms) = (Some(idle_ms), Some(idle_ms));
        })
    };
    let other_port = |row: Row| {
        with(row, |it| {
            it.endpoints.rport = 9;
        })
    };
    let next = |at_ms, inode| of(of_zombie(inode, probe(at_ms, 2, 1)));
    let orphan = |at_ms, lastrcv_ms| {
        with(of_zombie(1, event(at_ms, Kind::DataPending)), |it| {
            it.identity.inode = None;
            it.lastrcv_ms = lastrcv_ms;
        })
    };
    let rows: &[(&str, &[Event], &[&str])] = &[
        ("a zombie", &[seen(row(10, 1))], &["10 zombie #1"]),
        ("the peer answers", &[seen(answered(10, 1))], &[]),
        ("keepalive is off", &[seen(off(864_000_000 - 1))], &[]),
        (
            "keepalive is off, and the peer is silent for twice the longest timeout",
            &[seen(off(864_000_010))],
            &["10 zombie #1"],
        ),
        (
            "unknown settings",
            &[seen(with(row(10, 1), |it| {
                it.settings.keepalive_time_ms = None;
            }))],
            &[],
        ),
        (
            "a socket that the iterator shows twice",
            &[
                seen(row(10, 1)),
                seen(row(11, 1)),
                seen(other_port(row(12, 2))),
            ],
            &["10 zombie #1", "12 zombie #2"],
        ),
        (
            "the next event with the same inode is of the same socket",
            &[seen(row(10, 1)), next(20, 1), next(30, 1)],
            &["10 zombie #1", "20 probe #1 3", "30 probe #1 3"],
        ),
        (
            "another inode with the same endpoints is another socket",
            &[seen(row(10, 1)), next(20, 2)],
            &["10 zombie #1", "20 probe #2 3"],
        ),
        (
            "an orphan that heard its peer before the snapshot is the same socket",
            &[seen(row(10, 1)), of(orphan(20, 11))],
            &["10 zombie #1", "20 data_pending #1"],
        ),
        (
            "an orphan that heard its peer since may be another socket",
            &[seen(row(10, 1)), of(orphan(20, 9))],
            &["10 zombie #1", "20 data_pending #2"],
        ),
        (
            "an event before the row: the zombie gets its number, once",
            &[next(5, 1), seen(row(10, 1)), seen(row(11, 1)), next(20, 1)],
            &["5 probe #1 3", "10 zombie #1", "20 probe #1 3"],
        ),
        (
            "after a newer unanswered probe the row still shows a zombie",
            &[next(15, 1), seen(row(10, 1)), next(20, 1)],
            &["15 probe #1 3", "10 zombie #1", "20 probe #1 3"],
        ),
        (
            "any other newer event overrides the row",
            &[of(of_zombie(1, quiet(15, 1))), seen(row(10, 1))],
            &["15 early #1"],
        ),
        (
            "an older event does not override the row",
            &[of(of_zombie(1, quiet(5, 1))), seen(row(10, 1))],
            &["5 early #1", "10 zombie #1"],
        ),
    ];
    for (what, events, records) in rows {
        assert_eq!(summaries(events), *records, "{what}");
    }
}

#[test]
fn the_number_of_remembered_zombies_is_bounded() {
    let mut correlator = room_for(4).with_snapshot(at(0).mono_ns, 0);
    let rows = (0..20).map(|n| {
        seen(with(row(n.into(), n.into()), |it| {
            it.endpoints.rport = n;
        }))
    });
    let mut emitted = 0;
    for row in rows {
        correlator.push(&row, &mut |_| emitted += 1);
    }
    assert_eq!(
        (emitted, correlator.sockets(), correlator.evicted()),
        (20, 20, 16)
    );
}

#[test]
fn a_socket_whose_end_was_missed_does_not_give_its_number_away() {
    // The programs still know the address, so the next socket there has the same id.
    let first = |at_ms| with(probe(at_ms, 0, 1), |it| it.identity.cookie = Some(7));
    let port = |event: SocketEvent| with(event, |it| it.endpoints.rport = 9);
    let cookie = |event: SocketEvent| with(event, |it| it.identity.cookie = Some(8));
    let none = |event: SocketEvent| with(event, |it| it.identity.cookie = None);
    let disconnected = |event: SocketEvent| {
        with(event, |it| {
            it.endpoints.rport = 0;
            it.endpoints.laddr = Ipv4Addr::UNSPECIFIED.into();
        })
    };
    let closed = |at_ms| {
        with(event(at_ms, Kind::Closed), |it| {
            it.identity.cookie = Some(7)
        })
    };
    let rows: [(&str, SocketEvent, &str); 7] = [
        ("the same socket", first(20), "20 probe #1 1"),
        ("another remote port", port(first(20)), "20 probe #2 1"),
        ("another cookie", cookie(first(20)), "20 probe #2 1"),
        ("a cookie never goes", none(first(20)), "20 probe #2 1"),
        ("its end", closed(20), "20 closed #1"),
        (
            "its end, disconnected",
            disconnected(closed(20)),
            "20 closed #1",
        ),
        (
            "disconnected during a firing",
            disconnected(with(first(20), |it| it.kind = Kind::ChangedMeanwhile)),
            "20 changed_meanwhile #1",
        ),
    ];
    for (what, second, expected) in rows {
        let records = summaries(&[of(first(10)), of(second)]);
        assert_eq!(records, ["10 probe #1 1", expected], "{what}");
    }
    let made = summaries(&[of(none(first(10))), of(first(20))]);
    assert_eq!(
        made,
        ["10 probe #1 1", "20 probe #1 1"],
        "a cookie is made later"
    );
}

#[test]
fn a_connection_that_was_heard_since_the_trace_began_is_no_zombie() {
    let silent_for = |at_ms, idle_ms| {
        seen(with(row(at_ms, 1), |it| {
            it.settings.keepalive = Some(false);
            (it.ages.idle_ms, it.ages.heard_ms) = (Some(idle_ms), Some(idle_ms));
        }))
    };
    let rows = [
        ("heard before", 60_000, 60_002, 1),
        (
            "silent for too short a time when it began",
            60_000,
            60_001,
            0,
        ),
        ("heard or made since", 60_000, 59_999, 0),
        ("heard as the trace began", 60_000, 60_000, 0),
    ];
    for (what, at_ms, idle_ms, zombies) in rows {
        // Every silence is longer than any timeout.
        let correlator = room_for(8).with_snapshot(at(0).mono_ns, 1);
        let records = run(correlator, &[silent_for(at_ms, idle_ms)]);
        assert_eq!(records.len(), zombies, "{what}");
    }
}

/// A peer that went after the trace began left no dead connection before it.
#[test]
fn a_connection_whose_probes_were_answered_when_the_trace_began_is_no_zombie() {
    // Three probes are out, of which the second was sent 75 s to 150 s before.
    let probed = |at_ms, next_ms| {
        seen(with(row(at_ms, 1), |it| {
            it.settings.keepalive_intvl_ms = Some(75_000);
            (it.probes_out, it.keepalive_next_ms) = (Some(3), Some(next_ms));
            it.ages = Ages::new(7_475_000, 7_475_000, 7_475_000);
        }))
    };
    let rows = [
        ("the second was unanswered when it began", 10_000, 65_000, 1),
        ("the second had a second before it began", 84_000, 65_000, 1),
        ("the second had less than that", 84_001, 65_000, 0),
        ("sent after it began", 140_000, 20_000, 0),
    ];
    for (what, at_ms, next_ms, zombies) in rows {
        let correlator = room_for(8).with_snapshot(at(0).mono_ns, 432_000_000);
        let records = run(correlator, &[probed(at_ms, next_ms)]);
        assert_eq!(records.len(), zombies, "{what}");
    }
}

#[test]
fn a_switched_off_hook_loses_an_unknown_number_of_events() {
    let lost = |why| {
        Event::Lost(Lost {
            at: at(10),
            hook: Hook::KeepaliveTimer,
            kind: None,
            why,
            count: 0,
        })
    };
    let records = run(room_for(1), &[lost(LostWhy::SwitchedOff)]);
    let number: Vec<_> = records.iter().map(|it| it.lost).collect();
    assert_eq!(number, [None]);
    // A probe that went out before the hook was seen to be off has no certain answer.
    let answered = |why| {
        let events = [of(probe(0, 0, 3_000)), lost(why), of(quiet(2_000, 10))];
        let records = summaries(&events);
        records.iter().any(|it| it.contains("answered"))
    };
    assert_eq!(
        answered(LostWhy::SwitchedOff),
        answered(LostWhy::Missed),
        "both leave the same gap"
    );
}
