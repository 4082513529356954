//! Verdicts on fixed events, then properties of verdicts on any events.

use crate::model::host_timeout::HostTimeout;
use crate::model::record::{EventName, Record};
use crate::model::values::{Confidence, Evidence};
use crate::sample::with;
use crate::text::escape::Escaped;
use crate::verdict::judge::{Judge, MAX_PROBES};
use crate::verdict::pipeline::Pipeline;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use crate::correlate::Correlator;
use crate::filter::{Filter, RecordFilter};
use crate::model::event::{Event, Kind, PassiveReset, SocketEvent, SocketId};
use crate::model::named::Named as _;
use crate::model::values::{Cause, FinWait2, Met, Origin};
use crate::sample::{event, lost, of, passive_reset, probe};

const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// The records shown for these events if only the `shown` events are requested. `host` has
/// the timeouts that the host applies.
fn run(events: &[Event], host: &[HostTimeout], shown: &[EventName]) -> Vec<Record> {
    let mut correlator = Correlator::new(MAX_SOCKETS);
    let filter = Filter::new(RecordFilter {
        events: shown.iter().copied().collect(),
        ..RecordFilter::default()
    });
    let mut pipeline = Pipeline::new(filter, Judge::new(MAX_SOCKETS, host));
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| {
            pipeline.push(0, record, |it| records.push(it.clone()));
        });
    }
    records
}

/// The verdicts on these events.
fn verdicts(events: &[Event]) -> Vec<Record> {
    let records = run(events, &[], EventName::ALL);
    records
        .into_iter()
        .filter(|it| it.verdict.is_some())
        .collect()
}

/// The short form of a verdict: `verdict confidence idle_ms [evidence]`.
fn brief(record: &Record) -> String {
    let verdict = record.verdict.map_or("", |it| it.name());
    let confidence = record.confidence.map_or("", |it| it.name());
    let idle = record
        .ages
        .idle_ms
        .map_or(String::new(), |ms| format!(" {ms}"));
    let Some(Evidence(evidence)) = &record.evidence else {
        return String::new();
    };
    format!("{verdict} {confidence}{idle} {evidence:?}")
}

/// A received reset. The peer was last heard `idle_ms` ago, and data was last sent
/// `lastsnd_ms` ago.
fn received(at_ms: u64, idle_ms: u64, lastsnd_ms: u64) -> SocketEvent {
    SocketEvent {
        lastrcv_ms: idle_ms + 7,
        lastack_ms: idle_ms,
        lastsnd_ms,
        unacked: 1,
        ..event(at_ms, Kind::RstReceived)
    }
}

/// A received reset with `out` probes unanswered.
fn on_probe(at_ms: u64, out: u8) -> SocketEvent {
    SocketEvent {
        unacked: 0,
        probes_out: out,
        probes_out_after: out,
        ..received(at_ms, 3_008, 9_000)
    }
}

/// A sent reset with the kernel's reason.
fn sent(reason: Option<&str>) -> SocketEvent {
    SocketEvent {
        state: 7,
        reason: reason.map(|it| format!("SK_RST_REASON_TCP_{it}")),
        ..event(50, Kind::RstSent)
    }
}

/// The event of a passive reset.
fn passive(reset: PassiveReset) -> Event {
    Event::PassiveReset(Box::new(reset))
}

#[test]
fn events_have_these_verdicts() {
    let timeout = |cause, out| SocketEvent {
        probes_out: out,
        probes_out_after: out,
        lastack_ms: 5_000,
        state_after: 7,
        ..event(4_000, Kind::Timeout(cause))
    };
    let orphan = |state, event: SocketEvent| {
        with(event, |it| {
            it.identity.orphan = Some(true);
            it.state = state;
        })
    };
    let stray = || passive_reset(0);
    let late = |event| SocketEvent {
        at: crate::sample::at(500_000),
        ..event
    };
    use crate::model::values::Cause::{ProbeCount, UserTimeout};
    let rows: &[(&str, &[Event], &[&str])] = &[
        (
            "keepalive gave up: the probes are the evidence",
            &[
                of(probe(0, 0, 3_000)),
                of(probe(1_000, 1, 4_000)),
                of(timeout(ProbeCount, 2)),
            ],
            &["peer_unreachable high 5000 [1, 2, 3]"],
        ),
        (
            "an answered probe is not evidence",
            &[
                of(probe(0, 0, 3_000)),
                of(probe(3_000, 0, 2_900)),
                of(timeout(ProbeCount, 1)),
            ],
            &["peer_unreachable high 5000 [3, 4]"],
        ),
        (
            "a firing, its reset and the close have one verdict",
            &[
                of(SocketEvent {
                    firing_ns: Some(5),
                    state: 1,
                    ..sent(Some("KEEPALIVE_TIMEOUT"))
                }),
                of(timeout(UserTimeout, 1)),
                of(event(4_001, Kind::Closed)),
            ],
            &["user_timeout high 5000 [2]"],
        ),
        (
            "a probe drew a reset",
            &[of(probe(0, 0, 3_000)), of(on_probe(4, 1))],
            &["probe_reset high 3008 [1, 2]"],
        ),
        (
            "a probe drew a reset, but its record is missing",
            &[of(on_probe(4, 1))],
            &["probe_reset medium 3008 [1]"],
        ),
        (
            "the first segment after an idle time",
            &[of(received(0, 903_000, 4))],
            &["idle_eviction medium 902996 [1]"],
        ),
        (
            "after a short idle time it may be coincidence",
            &[of(received(0, 4_004, 4))],
            &["idle_eviction low 4000 [1]"],
        ),
        (
            "a FIN after an idle time, which has no send time",
            &[of(SocketEvent {
                state: 4,
                ..received(0, 903_000, 910_000)
            })],
            &["idle_eviction medium 903000 [1]"],
        ),
        (
            "retransmissions lower the confidence",
            &[
                of(SocketEvent {
                    retransmits: 3,
                    ..received(0, 903_000, 4)
                }),
                of(SocketEvent {
                    retransmits: 3,
                    id: SocketId { sk: 9, born_ns: 9 },
                    ..received(0, 20_000, 4)
                }),
            ],
            &[
                "idle_eviction low 902996 [1]",
                "aborted_by_peer medium 20000 [3]",
            ],
        ),
        (
            "a reset during traffic",
            &[of(received(0, 40, 20))],
            &["aborted_by_peer medium 40 [1]"],
        ),
        (
            "a reset while idle, with nothing sent",
            &[of(SocketEvent {
                unacked: 0,
                ..received(0, 60_000, 60_000)
            })],
            &["aborted_by_peer low 60000 [1]"],
        ),
        (
            "the peer had closed: not an eviction",
            &[of(SocketEvent {
                state: 8,
                ..received(0, 903_000, 4)
            })],
            &["aborted_by_peer medium 903000 [1]"],
        ),
        (
            "a refused connection",
            &[of(SocketEvent {
                state: 2,
                ..received(0, 10, 10)
            })],
            &[],
        ),
        (
            "data for an orphan looks like a received reset, then is answered",
            &[
                of(orphan(5, received(0, 0, 500))),
                passive(PassiveReset {
                    met: Met::Socket,
                    state: 7,
                    ..stray()
                }),
            ],
            &["aborted_locally medium [2]"],
        ),
        (
            "a received reset on an orphan",
            &[of(orphan(5, received(0, 30_000, 30_000)))],
            &["aborted_by_peer medium 30000 [1]"],
        ),
        (
            "an orphan's FIN_WAIT2 timer",
            &[of(orphan(
                5,
                event(0, Kind::FinWait2(Some(FinWait2::Reset))),
            ))],
            &["fin_wait2 high [1]"],
        ),
        (
            "a stray segment, in the first minutes and later",
            &[
                passive(stray()),
                of(late(event(0, Kind::Busy))),
                passive(with(stray(), |it| {
                    it.at = crate::sample::at(500_000);
                    it.endpoints.lport = 1;
                })),
                passive(with(stray(), |it| {
                    it.at = crate::sample::at(500_000);
                    it.endpoints.lport = 2;
                    it.met = Met::Socket;
                    it.state = 10;
                })),
            ],
            &[
                "stray_segment low [1]",
                "stray_segment medium [4]",
                "stray_segment medium [6]",
            ],
        ),
        (
            "a stray segment after a loss: the close may be lost",
            &[
                of(event(0, Kind::Busy)),
                lost(499_000, None),
                passive(with(stray(), |it| {
                    it.at = crate::sample::at(500_000);
                    it.endpoints.lport = 1;
                })),
            ],
            &["stray_segment low [3]"],
        ),
        (
            "not a stray segment: the connection was seen here",
            &[of(event(0, Kind::Closed)), passive(stray())],
            &[],
        ),
        (
            "data after close, data in TIME_WAIT, TCP_LINGER2 below 0",
            &[
                passive(PassiveReset {
                    met: Met::Socket,
                    state: 4,
                    ..stray()
                }),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 1;
                    it.met = Met::TimeWait;
                    it.state = 6;
                })),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 2;
                    it.met = Met::Socket;
                    it.state = 7;
                    it.len = 0;
                })),
            ],
            &[
                "aborted_locally medium [1]",
                "aborted_locally medium [3]",
                "aborted_locally medium [5]",
            ],
        ),
        (
            "not a stray segment: closed port, no ACK, TIME_WAIT, handshake",
            &[
                passive(PassiveReset {
                    flags: 2,
                    len: 0,
                    ..stray()
                }),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 1;
                    it.flags = 1;
                })),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 2;
                    it.met = Met::TimeWait;
                    it.state = 6;
                    it.len = 0;
                })),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 3;
                    it.met = Met::Request;
                })),
            ],
            &[],
        ),
    ];
    for (name, events, expected) in rows {
        let found: Vec<_> = verdicts(events).iter().map(brief).collect();
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn active_resets_are_explained_with_and_without_kernel_reasons() {
    let state = |state, event: SocketEvent| SocketEvent { state, ..event };
    let orphan = |event: SocketEvent| {
        with(event, |it| {
            it.identity.orphan = Some(true);
            it.identity.inode = None;
        })
    };
    let fileless = |event: SocketEvent| {
        with(event, |it| {
            it.identity.inode = None;
        })
    };
    let unspecified = || SocketEvent {
        reason: Some("NOT_SPECIFIED".to_owned()),
        ..sent(None)
    };
    for (event, words) in [
        (sent(Some("ABORT_ON_CLOSE")), "data unread: read"),
        (sent(Some("ABORT_ON_LINGER")), "TCP_LINGER2"),
        (sent(Some("ABORT_ON_MEMORY")), "tcp_max_orphans"),
        (sent(Some("DISCONNECT_WITH_DATA")), "data unsent"),
        (
            sent(Some("STATE")),
            "SO_LINGER 0, or disconnected it: leave",
        ),
        (state(1, sent(Some("STATE"))), "`ss -K`"),
        (sent(None), "data unread or SO_LINGER 0, or disconnected"),
        (orphan(sent(None)), "TCP_LINGER2 below 0, or over"),
        (state(1, sent(None)), "`ss -K`"),
        (
            orphan(state(4, sent(None))),
            "tcp_mem, or someone destroyed",
        ),
        (
            orphan(state(4, unspecified())),
            "tcp_mem, or someone destroyed",
        ),
        (orphan(state(4, sent(Some("STATE")))), "`ss -K`"),
        (unspecified(), "data unread or SO_LINGER 0, or disconnected"),
        (fileless(sent(Some("STATE"))), "before a program accepted"),
        (fileless(sent(None)), "before a program accepted"),
    ] {
        let verdicts = verdicts(&[of(event.clone())]);
        let found: Vec<_> = verdicts.iter().map(brief).collect();
        assert_eq!(found, ["aborted_locally high 3004 [1]"], "{event:?}");
        let advice = verdicts.first().and_then(|it| it.advice.as_ref());
        let advice = advice.map_or("", |it| it.as_str());
        assert!(advice.contains(words), "{advice}");
    }
}

/// The events of a connection to 10.9.0.100:5672, from `at_s` on. It survives `quiet_s` of
/// silence, shown by an answered probe, and dies after `last_s` of silence.
fn life(sk: u64, at_s: u64, quiet_s: Option<u64>, last_s: u64) -> Vec<Event> {
    let on_socket = |event: SocketEvent| {
        of(with(event, |it| {
            it.id = SocketId { sk, born_ns: 1 };
            it.endpoints.raddr = IpAddr::from([10, 9, 0, 100]);
            it.endpoints.rport = 5672;
        }))
    };
    let mut events = Vec::new();
    let mut now_ms = at_s * 1000;
    if let Some(quiet_s) = quiet_s {
        let quiet = SocketEvent {
            lastrcv_ms: quiet_s * 1000,
            lastsnd_ms: quiet_s * 1000,
            ..probe(now_ms, 0, quiet_s * 1000)
        };
        events.push(on_socket(quiet));
        now_ms += last_s * 1000;
    }
    events.push(on_socket(received(now_ms + 24, last_s * 1000, 20)));
    events
}

fn advice(record: &Record) -> &str {
    record.advice.as_ref().map_or("", |it| it.as_str())
}

#[test]
fn an_unknown_timeout_is_learned_and_reported() {
    let once = life(1, 1_000, Some(301), 351);
    let twice = [once.clone(), life(2, 5_000, None, 400)].concat();
    let three = [twice.clone(), life(3, 9_000, None, 352)].concat();
    let contradicted = [three.clone(), life(4, 20_000, Some(380), 410)].concat();
    type Expected = (&'static str, Option<u64>, Option<u64>, Option<bool>);
    let rows: &[(&[Event], Expected, &str)] = &[
        (&once, ("medium", None, None, None), "keepalive"),
        (
            &twice,
            ("high", Some(300), Some(400), Some(false)),
            "idle timeout towards 10.9.0.100:5672 lies between 300s and 400s; AWS NLB's default is \
             350s; ",
        ),
        (
            &contradicted,
            ("low", Some(300), Some(400), Some(true)),
            "lies between 300s and 400s, but the evidence contradicts itself",
        ),
    ];
    for (events, expected, words) in rows {
        let verdicts = verdicts(events);
        let last = verdicts.last().expect("a verdict on each death");
        let seconds = |ms: Option<u64>| ms.map(|ms| (ms + 300) / 1000);
        let found = (
            last.confidence.map_or("", |it| it.name()),
            seconds(last.survived_ms).map(|s| s - 1),
            seconds(last.died_ms),
            last.contradictory,
        );
        assert_eq!(found, *expected, "{last:?}");
        assert!(advice(last).contains(words), "{}", advice(last));
    }
    // A lost event may have contradicted the timeout.
    let lossy = [vec![lost(0, None)], twice].concat();
    let last = verdicts(&lossy).pop().expect("a verdict on each death");
    assert_eq!(last.confidence, Some(Confidence::Medium));
}

#[test]
fn advice_names_the_setting_its_scope_and_the_reason() {
    let dead = || received(0, 903_000, 4);
    let time = |ms, from| {
        with(dead(), |it| {
            it.settings.keepalive_time_ms = Some(ms);
            it.settings.keepalive_time_from = Some(from);
        })
    };
    let sysctl = time(7_200_000, Origin::Sysctl);
    let own = time(1_200_000, Origin::Socket);
    let off = with(dead(), |it| {
        it.settings.keepalive = Some(false);
    });
    let unnamed = SocketEvent {
        owner: None,
        ..received(0, 12_000, 10)
    };
    let why = "(half of Linux IPVS's 900s)";
    for (event, expected) in [
        (
            sysctl,
            format!(
                "set net.ipv4.tcp_keepalive_time=450 (now 7200) in netns 4026531840, or \
                 TCP_KEEPIDLE=450 in beam.smp[4242] {why}"
            ),
        ),
        (
            own,
            format!("in beam.smp[4242] lower TCP_KEEPIDLE from 1200 to 450 {why}"),
        ),
        (
            off,
            format!("in beam.smp[4242] turn on SO_KEEPALIVE with TCP_KEEPIDLE=450 {why}"),
        ),
        (
            received(0, 1_500, 10),
            "after 1.4s of silence the other end no longer knew the connection, as after a \
             restart: keepalive cannot probe early enough"
                .to_owned(),
        ),
        (
            unnamed,
            "keepalive is on in the program; its first probe after 3s should be early enough \
             (within half of 11.9s, the shortest fatal idle time)"
                .to_owned(),
        ),
    ] {
        let verdicts = verdicts(&[of(event)]);
        assert_eq!(verdicts.first().map(advice), Some(expected.as_str()));
    }
    let own = [HostTimeout {
        what: Escaped::from("ipvs"),
        netns: 7,
        seconds: 4,
        services: vec![([10, 0, 0, 1], 5672).into()],
        ..HostTimeout::default()
    }];
    let records = run(&[of(received(0, 12_000, 10))], &own, EventName::ALL);
    let verdict = records.last().expect("a verdict");
    let fits = verdict.middlebox.as_ref().map(Escaped::as_str);
    let known = "this host's ipvs in netns 7, which has the service 10.0.0.1:5672 (4s)";
    assert_eq!(fits, Some(known));
    assert_eq!(verdict.confidence, Some(Confidence::Medium));
}

#[test]
fn verdicts_shown_alone_are_the_same_without_evidence() {
    let events = life(1, 1_000, Some(301), 351);
    let all = verdicts(&events);
    let alone = run(&events, &[], &[EventName::Verdict]);
    let numbered = |record: &Record| Record {
        seq: 0,
        evidence: None,
        ..record.clone()
    };
    let both = [&all, &alone].map(|it| it.iter().map(numbered).collect::<Vec<_>>());
    assert_eq!(both[0], both[1]);
    assert_eq!(alone.first().map(|it| it.seq), Some(1));
    assert_eq!(
        alone.first().and_then(|it| it.evidence.clone()),
        Some(Evidence(vec![]))
    );
}

/// Any event, even one that no kernel sends.
fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        4 => Just(Kind::Probe),
        1 => Just(Kind::Early),
        1 => Just(Kind::Timeout(Cause::ProbeCount)),
        1 => Just(Kind::Timeout(Cause::UserTimeout)),
        1 => Just(Kind::FinWait2(None)),
        2 => Just(Kind::RstSent),
        6 => Just(Kind::RstReceived),
        1 => Just(Kind::Closed),
    ];
    let ms = || prop_oneof![4 => 0..2_000_000_u64, 4 => 0..20_000_u64, 1 => Just(u64::MAX)];
    let counts = (0..4_u8, 0..3_u32, 0..3_u8);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let socket = (
        kind,
        0..4_u64,
        0..14_u8,
        counts,
        flags,
        0..9_000_000_u64,
        ms(),
        ms(),
    );
    let socket = socket.prop_map(
        |(kind, sk, state, (out, unacked, retransmits), flags, at_ms, idle, sent)| {
            let (orphan, write_queue, keepalive) = flags;
            of(with(event(at_ms, kind), |it| {
                it.id = SocketId { sk, born_ns: 1 };
                it.endpoints.lport = 4_000 + u16::try_from(sk).unwrap_or_default();
                it.state = state;
                it.probes_out = out;
                it.probes_out_after = out;
                it.unacked = unacked;
                it.retransmits = retransmits;
                it.identity.orphan = Some(orphan);
                it.write_queue = write_queue;
                it.settings.keepalive = Some(keepalive);
                it.lastack_ms = idle;
                it.lastrcv_ms = idle;
                it.lastsnd_ms = sent;
            }))
        },
    );
    let met = prop_oneof![
        Just(Met::Nothing),
        Just(Met::TimeWait),
        Just(Met::Request),
        Just(Met::Socket)
    ];
    let stray = (
        met,
        any::<u8>(),
        0..14_u8,
        0..9_000_000_u64,
        0..6_u16,
        0..3_u32,
    );
    let stray = stray.prop_map(|(met, flags, state, at_ms, port, len)| {
        passive(with(passive_reset(at_ms), |it| {
            it.endpoints.lport = 4_000 + port;
            it.met = met;
            it.flags = flags;
            it.state = state;
            it.len = len;
        }))
    });
    prop_oneof![8 => socket, 2 => stray, 1 => Just(lost(0, None))]
}

proptest! {
    #[test]
    fn evidence_of_any_verdict_is_a_shown_record(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let records = run(&events, &[], EventName::ALL);
        prop_assert_eq!(&records, &run(&events, &[], EventName::ALL));
        for (index, record) in records.iter().enumerate() {
            prop_assert_eq!(record.seq, index as u64 + 1);
            let Some(Evidence(evidence)) = &record.evidence else { continue };
            prop_assert!(evidence.is_sorted_by(|a, b| a < b));
            // The last number is of the record right before the verdict.
            prop_assert_eq!(evidence.last(), Some(&(record.seq - 1)));
            for seq in evidence {
                let named = records.get(*seq as usize - 1);
                prop_assert!(named.is_some_and(|it| it.sock == record.sock && it.verdict.is_none()));
            }
            prop_assert!(!advice(record).is_empty() && !advice(record).contains('\n'));
        }
    }

    #[test]
    fn a_loss_never_raises_confidence(
        events in prop::collection::vec(any_event(), 0..60),
        at in any::<prop::sample::Index>(),
    ) {
        let mut lossy = events.clone();
        lossy.insert(at.index(events.len() + 1), lost(0, None));
        let (before, after) = (verdicts(&events), verdicts(&lossy));
        prop_assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            prop_assert_eq!(before.verdict, after.verdict);
            prop_assert!(after.confidence <= before.confidence);
        }
    }

    /// A part of a log never has a verdict that differs from the verdict of the whole log.
    /// If the whole log has no verdict there, the part's verdict does not have high
    /// confidence, or the whole log judged the connection earlier.
    #[test]
    fn a_part_of_a_log_does_not_contradict_the_whole(
        events in prop::collection::vec(any_event(), 1..60),
        cut in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let records = run(&events, &[], EventName::ALL);
        let records: Vec<_> = records.into_iter().filter(|it| it.verdict.is_none()).collect();
        let judged = |records: &[Record]| -> Vec<Option<Record>> {
            let mut judge = Judge::new(MAX_SOCKETS, &[]);
            records.iter().map(|it| judge.push(it)).collect()
        };
        let (from, to) = (cut.0.index(records.len()), cut.1.index(records.len()) + 1);
        let part = from.min(to)..to;
        let (whole, cut) = (judged(&records), judged(&records[part.clone()]));
        for (index, cut) in part.zip(&cut) {
            let Some(cut) = cut else { continue };
            match &whole[index] {
                Some(whole) => prop_assert_eq!(whole.verdict, cut.verdict),
                None => {
                    let before = whole[..index].iter().flatten();
                    let was_judged = before.filter(|it| it.sock.is_some()).any(|it| it.sock == cut.sock);
                    let is_sure = cut.confidence == Some(Confidence::High);
                    prop_assert!(was_judged || !is_sure, "{:?}", cut);
                }
            }
        }
    }

    #[test]
    fn memory_is_bounded(
        events in prop::collection::vec(any_event(), 0..200),
    ) {
        let mut correlator = Correlator::new(MAX_SOCKETS);
        let max_sockets = NonZeroUsize::MIN.saturating_add(1);
        let mut judge = Judge::new(max_sockets, &[]);
        for event in &events {
            correlator.push(event, &mut |record| {
                judge.push(record);
            });
            let (connections, probes) = judge.kept();
            prop_assert!(connections <= 2 && probes <= MAX_PROBES);
        }
    }
}
