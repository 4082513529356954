//! Rows of events and the verdicts on them; then what must hold for any events.

use std::num::NonZeroUsize;

use super::*;
use crate::correlate::Correlator;
use crate::event::{Event, FinWait2, Kind, Met, PassiveReset, SocketEvent, SocketId};
use crate::filter::{Filter, RecordFilter};
use crate::sample::{event, of, passive_reset, probe};
use crate::words::Word as _;

const ROOM: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// What is shown of these events on a host with these timeouts, `events` being asked
/// for.
fn run(events: &[Event], host: &[HostTimeout], asked: &[EventName]) -> Vec<Record> {
    let mut correlator = Correlator::new(ROOM);
    let mut filter = Filter::new(RecordFilter {
        events: asked.iter().copied().collect(),
        ..RecordFilter::default()
    });
    let mut judge = Judge::new(ROOM, host);
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| {
            stage::judge(&mut filter, &mut judge, record, |it| records.push(it));
        });
    }
    records
}

fn verdicts(events: &[Event]) -> Vec<Record> {
    let records = run(events, &[], EventName::ALL);
    records
        .into_iter()
        .filter(|it| it.verdict.is_some())
        .collect()
}

/// A verdict in short: `verdict confidence idle_ms [evidence]`.
fn told(record: &Record) -> String {
    let verdict = record.verdict.map_or("", |it| it.word());
    let confidence = record.confidence.map_or("", |it| it.word());
    let idle = record.idle_ms.map_or(String::new(), |ms| format!(" {ms}"));
    let Some(Evidence(evidence)) = &record.evidence else {
        return String::new();
    };
    format!("{verdict} {confidence}{idle} {evidence:?}")
}

/// A reset that came in after nothing was heard for `idle_ms`, data having been sent
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

fn on_probe(at_ms: u64, out: u8) -> SocketEvent {
    SocketEvent {
        unacked: 0,
        probes_out: out,
        probes_out_after: out,
        ..received(at_ms, 3_008, 9_000)
    }
}

fn sent(reason: Option<&str>) -> SocketEvent {
    SocketEvent {
        state: 7,
        reason: reason.map(|it| format!("SK_RST_REASON_TCP_{it}")),
        ..event(50, Kind::RstSent)
    }
}

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
    let orphan = |state, event: SocketEvent| SocketEvent {
        orphan: true,
        state,
        ..event
    };
    let stray = || passive_reset(0);
    let late = |event| SocketEvent {
        at: crate::sample::at(500_000),
        ..event
    };
    use crate::event::Cause::{ProbeCount, UserTimeout};
    let rows: &[(&str, &[Event], &[&str])] = &[
        (
            "gave up: the probes are the evidence",
            &[
                of(probe(0, 0, 3_000)),
                of(probe(1_000, 1, 4_000)),
                of(timeout(ProbeCount, 2)),
            ],
            &["peer_unreachable high 5000 [1, 2, 3]"],
        ),
        (
            "what was answered before is none",
            &[
                of(probe(0, 0, 3_000)),
                of(probe(3_000, 0, 2_900)),
                of(timeout(ProbeCount, 1)),
            ],
            &["peer_unreachable high 5000 [3, 4]"],
        ),
        (
            "the reset of a firing has no verdict of its own, and one end has one",
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
            "a probe that is not on record, by the socket itself",
            &[of(on_probe(4, 1))],
            &["probe_reset medium 3008 [1]"],
        ),
        (
            "the first segment after an idle time",
            &[of(received(0, 903_000, 4))],
            &["idle_eviction medium 902996 [1]"],
        ),
        (
            "after a short one it may be chance",
            &[of(received(0, 4_004, 4))],
            &["idle_eviction low 4000 [1]"],
        ),
        (
            "a FIN after an idle time is not stamped",
            &[of(SocketEvent {
                state: 4,
                ..received(0, 903_000, 910_000)
            })],
            &["idle_eviction medium 903000 [1]"],
        ),
        (
            "sent again and again, it says less",
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
            "in the middle of traffic",
            &[of(received(0, 40, 20))],
            &["aborted_by_peer medium 40 [1]"],
        ),
        (
            "quiet, and unasked",
            &[of(SocketEvent {
                unacked: 0,
                ..received(0, 60_000, 60_000)
            })],
            &["aborted_by_peer low 60000 [1]"],
        ),
        (
            "the peer had closed: nobody has forgotten anything",
            &[of(SocketEvent {
                state: 8,
                ..received(0, 903_000, 4)
            })],
            &["aborted_by_peer medium 903000 [1]"],
        ),
        (
            "a connection that was refused",
            &[of(SocketEvent {
                state: 2,
                ..received(0, 10, 10)
            })],
            &[],
        ),
        (
            "data for an orphan passes the hook of received resets, and is answered",
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
            "a reset for an orphan",
            &[of(orphan(5, received(0, 30_000, 30_000)))],
            &["aborted_by_peer medium 30000 [1]"],
        ),
        (
            "an orphan's timer",
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
                passive(PassiveReset {
                    at: crate::sample::at(500_000),
                    lport: 1,
                    ..stray()
                }),
                passive(PassiveReset {
                    at: crate::sample::at(500_000),
                    lport: 2,
                    met: Met::Socket,
                    state: 10,
                    ..stray()
                }),
            ],
            &[
                "stray_segment low [1]",
                "stray_segment medium [4]",
                "stray_segment medium [6]",
            ],
        ),
        (
            "no stray: it is of a connection that was here",
            &[of(event(0, Kind::Closed)), passive(stray())],
            &[],
        ),
        (
            "no stray: a closed port, an old duplicate, a handshake",
            &[
                passive(PassiveReset {
                    flags: 2,
                    len: 0,
                    ..stray()
                }),
                passive(PassiveReset {
                    lport: 1,
                    flags: 1,
                    ..stray()
                }),
                passive(PassiveReset {
                    lport: 2,
                    met: Met::TimeWait,
                    ..stray()
                }),
                passive(PassiveReset {
                    lport: 3,
                    met: Met::Request,
                    ..stray()
                }),
            ],
            &[],
        ),
    ];
    for (what, events, expected) in rows {
        let told: Vec<_> = verdicts(events).iter().map(told).collect();
        assert_eq!(told, *expected, "{what}");
    }
}

#[test]
fn every_cause_of_an_active_reset_is_told_with_and_without_reasons() {
    let state = |state, event: SocketEvent| SocketEvent { state, ..event };
    let orphan = |event| SocketEvent {
        orphan: true,
        ..event
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
        (orphan(sent(None)), "TCP_LINGER2 below 0, or beyond"),
        (state(1, sent(None)), "`ss -K`"),
    ] {
        let verdicts = verdicts(&[of(event.clone())]);
        let told: Vec<_> = verdicts.iter().map(told).collect();
        assert_eq!(told, ["aborted_locally high 3004 [1]"], "{event:?}");
        let advice = verdicts.first().and_then(|it| it.advice.as_ref());
        let advice = advice.map_or("", |it| it.as_str());
        assert!(advice.contains(words), "{advice}");
    }
}
