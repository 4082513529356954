//! Verdicts on fixed events, then properties of verdicts on any events.

mod http_hour;

use crate::model::advice::Advice;
use crate::model::host_timeout::{HostTimeout, HostTimeouts};
use crate::model::owner::Owner;
use crate::model::record::{EventName, Record};
use crate::model::remedy::SetIn;
use crate::model::socket::{Actor, Transfer};
use crate::model::values::{Confidence, Errno, Evidence, VerdictName};
use crate::sample::with;
use crate::text::escape::Escaped;
use crate::timeout::estimate::SAME_AGE_MS;
use crate::verdict::judge::{Judge, MAX_PROBES};
use crate::verdict::pipeline::Pipeline;
use crate::verdict::sent_resets::AllSentResets;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use crate::correlate::Correlator;
use crate::filter::{Filter, RecordFilter};
use crate::model::event::{ArrivedSegment, Event, Kind, PassiveReset, SocketEvent, SocketId};
use crate::model::named::Named as _;
use crate::model::values::{Cause, FinWait2, Met, Origin, TcpFlags};
use crate::sample::{event, lost, of, passive_reset, probe, unacked};

const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// The records shown for these events if only the `shown` events are requested. `host` has
/// the timeouts that the host applies.
fn run(events: &[Event], host: &HostTimeouts, shown: &[EventName]) -> Vec<Record> {
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
    let records = run(events, &HostTimeouts::default(), EventName::ALL);
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
        state_after: 7,
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
    let idle_first = |sk, at_ms, idle_ms| SocketEvent {
        id: SocketId { sk, born_ns: 1 },
        ..received(at_ms, idle_ms, 4)
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
            "the first segment after an idle time that matches a known default",
            &[of(received(0, 903_000, 4))],
            &["idle_eviction low 902996 [1]"],
        ),
        (
            "after a short idle time it may be coincidence",
            &[of(received(0, 4_004, 4))],
            &["idle_eviction low 4000 [1]"],
        ),
        (
            "after an idle time that matches none",
            &[of(received(0, 20_004, 4))],
            &["idle_eviction low 20000 [1]"],
        ),
        (
            "data and a FIN after an idle time",
            &[of(SocketEvent {
                state: 4,
                ..received(0, 903_000, 4)
            })],
            &["idle_eviction low 902996 [1]"],
        ),
        (
            "only a FIN after an idle time, which has no send time: its program had closed",
            &[of(SocketEvent {
                state: 4,
                retransmits: 5,
                ..received(0, 30_700, 40_000)
            })],
            &[],
        ),
        (
            "a FIN after the peer's FIN: both had closed",
            &[of(SocketEvent {
                state: 9,
                ..received(0, 10_000, 20_000)
            })],
            &[],
        ),
        (
            "data that the peer left unanswered was sent again",
            &[of(SocketEvent {
                retransmits: 7,
                ..received(0, 60_000, 10)
            })],
            &["aborted_by_peer medium 60000 [1]"],
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
            "data for an orphan is no received reset, and is answered with one",
            &[
                of(orphan(5, received(0, 0, 500))),
                passive(PassiveReset {
                    met: Met::Socket,
                    state: 7,
                    ..stray()
                }),
            ],
            &["aborted_locally medium [1]"],
        ),
        (
            "a received reset on an orphan whose data was all acknowledged",
            &[of(orphan(5, received(0, 30_000, 30_000)))],
            &[],
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
            "a FIN of a connection that this host has closed, or a full accept queue",
            &[
                passive(PassiveReset {
                    flags: 0x11,
                    len: 0,
                    ..stray()
                }),
                passive(with(stray(), |it| {
                    it.endpoints.lport = 1;
                    it.met = Met::Socket;
                    it.state = 10;
                    it.len = 0;
                    it.reason = Some("SK_RST_REASON_INVALID_SYN".to_owned());
                })),
            ],
            &["aborted_locally high [2]"],
        ),
        (
            "an idle time that the connection survived is no timeout",
            &[
                of(probe(3_000, 0, 3_000)),
                of(probe(6_200, 0, 3_200)),
                of(probe(9_200, 0, 3_000)),
                of(on_probe(9_204, 1)),
            ],
            &["probe_reset high 3008 [5, 6]"],
        ),
        (
            "two deaths at different times: the peer's program may close idle connections",
            &[
                of(idle_first(1, 30_000, 20_004)),
                of(idle_first(2, 90_000, 21_004)),
            ],
            &[
                "idle_eviction low 20000 [1]",
                "idle_eviction medium 21000 [3]",
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
    let state = |state, event: SocketEvent| SocketEvent {
        state,
        state_after: state,
        ..event
    };
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
        (
            sent(Some("ABORT_ON_CLOSE")),
            "or was killed, with data unread; a program",
        ),
        (sent(Some("ABORT_ON_LINGER")), "TCP_LINGER2"),
        (sent(Some("ABORT_ON_MEMORY")), "tcp_max_orphans"),
        (sent(Some("DISCONNECT_WITH_DATA")), "data unsent"),
        (
            sent(Some("STATE")),
            "SO_LINGER 0, or disconnected it; leave",
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

/// A received reset whose segment was seen.
fn arrived(
    event: SocketEvent,
    ttl: u8,
    from_this_host: Option<bool>,
    peer_ttl: Option<u8>,
) -> SocketEvent {
    SocketEvent {
        arrival: ArrivedSegment {
            flags: Some(TcpFlags(0x14)),
            ttl: Some(ttl),
            from_this_host,
            peer_ttl,
            data_received: Some(true),
        },
        ..event
    }
}

#[test]
fn whose_reset_it_was() {
    let idle = || received(0, 903_000, 4);
    let in_use = || received(0, 40, 20);
    let quiet = || SocketEvent {
        unacked: 0,
        ..received(0, 60_000, 60_000)
    };
    let elsewhere = Some(false);
    let answer = |ttl| SocketEvent {
        arrival: ArrivedSegment {
            ttl: Some(ttl),
            ..ArrivedSegment::default()
        },
        probes_out: 1,
        ..event(5, Kind::Answered)
    };
    let later = |event| SocketEvent {
        at: crate::sample::at(1_000_000),
        ..event
    };
    let rows: &[(&[SocketEvent], &str, &str)] = &[
        (
            &[arrived(idle(), 64, Some(true), Some(57))],
            "aborted_locally high 903000 [1]",
            "its firewall rejects the connection's segments; no keepalive setting prevents that; look \
             for `reject with tcp reset`",
        ),
        (
            &[arrived(in_use(), 64, Some(true), None)],
            "aborted_locally medium 40 [1]",
            "or a proxy on this host that the connection is redirected to",
        ),
        (
            &[arrived(idle(), 254, elsewhere, Some(57))],
            "idle_eviction medium 902996 [1]",
            "a box between sent the reset: its TTL is 254, where the peer's segments have 57",
        ),
        (
            &[
                probe(0, 0, 3_000),
                answer(57),
                later(arrived(idle(), 63, elsewhere, None)),
            ],
            "idle_eviction medium 902996 [3]",
            "its TTL is 63, where the peer's segments have 57",
        ),
        (
            &[arrived(in_use(), 63, elsewhere, Some(57))],
            "aborted_by_peer medium 40 [1]",
            "a box between sent the reset",
        ),
        (
            &[arrived(quiet(), 63, elsewhere, Some(57))],
            "aborted_by_peer medium 60000 [1]",
            "a firewall or a balancer ended the connection",
        ),
        (
            &[arrived(idle(), 57, elsewhere, Some(57))],
            "idle_eviction low 902996 [1]",
            "the reset's TTL of 57 is that of the peer's segments: no nearer box sent it",
        ),
        // Further away: the peer on another path, or a handshake that a box answered.
        (
            &[arrived(idle(), 55, elsewhere, Some(57))],
            "idle_eviction low 902996 [1]",
            "if it happens again, that tells which",
        ),
        (
            &[with(arrived(in_use(), 57, elsewhere, Some(57)), |it| {
                it.arrival.data_received = Some(false);
            })],
            "aborted_by_peer medium 40 [1]",
            "reset before the peer had sent any data, 40ms after it was heard: its program closed \
             or never accepted the connection, its accept queue was full",
        ),
        // The peer's TTL is not known.
        (
            &[arrived(in_use(), 63, elsewhere, None)],
            "aborted_by_peer medium 40 [1]",
            "see the peer's log",
        ),
    ];
    for (events, expected, text) in rows {
        let events: Vec<_> = events.iter().cloned().map(of).collect();
        let verdicts = verdicts(&events);
        let found: Vec<_> = verdicts.iter().map(brief).collect();
        assert_eq!(found, [*expected], "{events:?}");
        assert!(
            advice(&verdicts[0]).contains(text),
            "{}",
            advice(&verdicts[0])
        );
        assert_eq!(verdicts[0].set, None, "{events:?}");
    }
    // The segment shows that no reset came in.
    let data = with(arrived(idle(), 57, elsewhere, None), |it| {
        it.arrival.flags = Some(TcpFlags(0x18));
    });
    assert!(verdicts(&[of(data)]).is_empty());
}

/// A proxy on this host to which the connection was redirected has another address.
#[test]
fn a_local_proxy_is_named() {
    let proxy = with(sent(Some("ABORT_ON_CLOSE")), |it| {
        it.id = SocketId { sk: 9, born_ns: 9 };
        (it.endpoints.laddr, it.endpoints.lport) = (IpAddr::from([127, 0, 0, 1]), 15_001);
        (it.endpoints.raddr, it.endpoints.rport) = (IpAddr::from([10, 0, 0, 1]), 5672);
    });
    let redirected = arrived(received(51, 903_000, 4), 64, Some(true), None);
    let other = with(redirected.clone(), |it| it.endpoints.lport = 1);
    for (arrival, expected, text) in [
        (
            redirected,
            "aborted_by_peer high 903000 [1, 3]",
            "beam.smp[4242] closed it",
        ),
        (other, "aborted_locally medium 903000 [3]", "its firewall"),
    ] {
        let verdicts = verdicts(&[of(proxy.clone()), of(arrival)]);
        let last = verdicts.last().expect("a verdict on each end");
        assert_eq!(brief(last), expected);
        assert!(advice(last).contains(text), "{}", advice(last));
    }
}

#[test]
fn strays_are_told_apart() {
    let conntrack = HostTimeouts {
        timeouts: vec![HostTimeout {
            what: Escaped::from("conntrack"),
            netns: 4_026_531_840,
            seconds: 432_000,
            ..HostTimeout::default()
        }],
        ..HostTimeouts::default()
    };
    let tracked = |tracked| PassiveReset {
        tracked: Some(tracked),
        ..passive_reset(0)
    };
    let listening = |age_s| PassiveReset {
        met: Met::Socket,
        state: 10,
        owner: event(0, Kind::RstSent).owner,
        process_age_s: Some(age_s),
        ..passive_reset(0)
    };
    // Some 1,000 s after the start of the host.
    let booted = |reset| {
        with(reset, |it: &mut PassiveReset| {
            it.at.mono_ns -= 900_000_000_000
        })
    };
    let none = HostTimeouts::default();
    for (reset, host, confidence, text) in [
        (
            tracked(false),
            &conntrack,
            "medium",
            "took this segment for INVALID",
        ),
        (
            tracked(true),
            &conntrack,
            "low",
            "this host or its program restarted after the connection was made; or a load",
        ),
        (
            tracked(false),
            &none,
            "low",
            "this host or its program restarted after the connection was made; or a load",
        ),
        (
            listening(12),
            &none,
            "low",
            "beam.smp[4242] started 12s ago, after the connection was made",
        ),
        (
            listening(7_200),
            &none,
            "low",
            "beam.smp[4242] started 7200s ago, and the connection is older than that; or",
        ),
        (
            booted(passive_reset(0)),
            &none,
            "low",
            "this host started 100s ago, after the connection was made",
        ),
        (
            with(passive_reset(0), |it| it.len = 0),
            &none,
            "low",
            "this host has closed the connection, and 10.0.0.2:40000 has not; or this host or its \
             program restarted after the connection was made; or a load balancer forgot",
        ),
        (
            with(passive_reset(0), |it| {
                (it.endpoints.lport, it.endpoints.rport) = (40_000, 988);
            }),
            &none,
            "low",
            "or a NAT between forgot an idle or half-closed connection of this host, and sent its \
             segment here without translating it: `ss -tn sport = :40000` in netns 4026531840 shows",
        ),
        (
            booted(listening(95)),
            &none,
            "low",
            "this host started 100s ago, after the connection was made",
        ),
        (
            booted(listening(12)),
            &none,
            "low",
            "beam.smp[4242] started 12s ago",
        ),
        (
            PassiveReset {
                flags: 0x10,
                len: 0,
                met: Met::Socket,
                state: 2,
                ..passive_reset(0)
            },
            &none,
            "medium",
            "the peer still has an older connection with the ports of this new one",
        ),
    ] {
        let records = run(&[passive(reset.clone())], host, EventName::ALL);
        let verdict = records.last().expect("a record");
        assert_eq!(
            brief(verdict),
            format!("stray_segment {confidence} [1]"),
            "{reset:?}"
        );
        assert!(advice(verdict).contains(text), "{}", advice(verdict));
        let is_forgotten = advice(verdict).contains(" forgot an idle ");
        assert_eq!(verdict.set.is_some(), is_forgotten, "{}", advice(verdict));
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

/// A probe of a connection to 10.9.0.100:5672 that had no data for `quiet_s`; the answer
/// to an earlier probe came `answered_s` ago.
fn answered_probe(sk: u64, at_s: u64, quiet_s: u64, answered_s: u64) -> Vec<Event> {
    let event = SocketEvent {
        lastrcv_ms: quiet_s * 1000,
        lastsnd_ms: quiet_s * 1000,
        ..probe(at_s * 1000, 0, answered_s * 1000)
    };
    vec![of(with(event, |it| {
        it.id = SocketId { sk, born_ns: 1 };
        it.endpoints.lport = 99;
        it.endpoints.raddr = IpAddr::from([10, 9, 0, 100]);
        it.endpoints.rport = 5672;
    }))]
}

fn advice(record: &Record) -> &str {
    record.advice.as_ref().map_or("", |it| it.as_str())
}

/// What was seen and what to do are told apart where a verdict is laid out.
#[test]
fn advice_has_what_was_seen_before_what_to_do() {
    let unanswered = [
        of(probe(0, 1, 7_200_000)),
        of(with(
            event(75_000, Kind::Timeout(Cause::ProbeCount)),
            |it| {
                it.settings.keepalive_intvl_ms = Some(75_000);
                (it.probes_out, it.probes_out_after) = (2, 2);
            },
        )),
    ];
    let verdicts = verdicts(&unanswered);
    let advice = verdicts.first().and_then(|it| it.advice.as_deref());
    let (seen, advised) = advice.map(Advice::parts).unwrap_or_default();
    assert!(seen.starts_with("2 probes unanswered, "), "{seen}");
    let sooner = "to detect this sooner, lower TCP_KEEPINTVL in beam.smp[4242] (now 75s)";
    assert_eq!(advised, sooner);
}

#[test]
fn an_unknown_timeout_is_learned_and_reported() {
    let once = life(1, 1_000, Some(301), 351);
    let twice = [once.clone(), life(2, 5_000, None, 400)].concat();
    let three = [twice.clone(), life(3, 9_000, None, 352)].concat();
    // The peer's program kept a connection without data for longer, while probes passed.
    let held = [answered_probe(9, 900, 1_000, 200), twice.clone()].concat();
    let contradicted = [three.clone(), life(4, 20_000, Some(380), 410)].concat();
    type Expected = (&'static str, Option<u64>, Option<u64>, Option<bool>);
    let rows: &[(&[Event], Expected, &str)] = &[
        (
            &once,
            ("low", None, None, None),
            "if it happens again, that tells which",
        ),
        (
            &twice,
            ("medium", Some(300), Some(400), Some(false)),
            "idle timeout towards 10.9.0.100:5672 lies between 300s and 400s; AWS NLB's default is \
             350s; the peer's program closes idle connections or restarted more than once (see its \
             log), or a box between forgets them",
        ),
        (
            &held,
            ("high", Some(300), Some(400), Some(false)),
            "AWS NLB's default is 350s; the first probe of beam.smp[4242]",
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
    let lossy = [vec![lost(0, None)], held].concat();
    let last = verdicts(&lossy).pop().expect("a verdict on each death");
    assert_eq!(last.confidence, Some(Confidence::Medium));
}

/// These events, if the peer sent a probe `heard_ms` before each.
fn probed(heard_ms: u64, events: &[Event]) -> Vec<Event> {
    let events = events.iter().cloned();
    events
        .map(|event| match event {
            Event::Socket(event) => of(SocketEvent {
                heard_ms: Some(heard_ms),
                ..event
            }),
            other => other,
        })
        .collect()
}

#[test]
fn a_peer_that_probes_is_not_said_to_be_down() {
    let gave_up = |heard_ms| {
        let timeout = SocketEvent {
            probes_out: 9,
            probes_out_after: 9,
            lastack_ms: 16_000,
            lastrcv_ms: 16_000,
            heard_ms: Some(heard_ms),
            state_after: 7,
            ..event(16_000, Kind::Timeout(Cause::ProbeCount))
        };
        let all = verdicts(&[of(timeout)]);
        all.first().map(advice).unwrap_or_default().to_owned()
    };
    // The first of nine probes was sent nine seconds ago.
    let probed = gave_up(1_000);
    assert!(
        probed.contains("the last 1s before: what this host sends does not arrive"),
        "{probed}"
    );
    for silent in [gave_up(16_000), gave_up(10_000)] {
        assert!(
            silent.contains("the peer's host or the path to it is down"),
            "{silent}"
        );
    }
}

#[test]
fn the_peers_probes_end_an_idle_time() {
    let idle_reset = |sk, at_s| life(sk, at_s, None, 351);
    // Heard 9 s before: the path was not idle for longer.
    let verdict = &verdicts(&probed(9_000, &idle_reset(1, 1_000)))[0];
    assert_eq!(verdict.verdict, Some(VerdictName::IdleEviction));
    assert!(verdict.ages.idle_ms < Some(9_000), "{verdict:?}");

    // A first probe after 301 s that is answered shows what the path survived.
    let answered = [
        answered_probe(9, 900, 301, 301),
        answered_probe(9, 1_000, 90, 90),
    ]
    .concat();
    let survived = |before: &[Event]| {
        let after = [idle_reset(1, 2_000), idle_reset(2, 9_000)].concat();
        let all = verdicts(&[before, &after].concat());
        all.last().and_then(|it| it.survived_ms)
    };
    assert!(survived(&answered) > Some(300_000));
    let seen = survived(&probed(9_000, &answered));
    assert!(seen < Some(9_000) && seen.is_some(), "{seen:?}");
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
        owner: Owner::default(),
        ..received(0, 12_000, 10)
    };
    let why = "(half of the shortest common default)";
    let suspects = "the peer restarted, its program closed the connection, or a box between \
                    forgot it: if it happens again, that tells which; ";
    let first = "first see in the peer's log whether it restarted or closed the connection then; if \
                 not, against a box: ";
    for (event, expected) in [
        (
            sysctl,
            format!(
                "{suspects}{first}in beam.smp[4242], lower TCP_KEEPIDLE from 7200 to 120 {why}"
            ),
        ),
        (
            own,
            format!(
                "{suspects}{first}in beam.smp[4242], lower TCP_KEEPIDLE from 1200 to 120 {why}"
            ),
        ),
        (
            off,
            format!(
                "{suspects}{first}in beam.smp[4242], turn on SO_KEEPALIVE with TCP_KEEPIDLE=120 {why}"
            ),
        ),
        (
            received(0, 1_500, 10),
            "after 1.4s of silence the other end no longer knew the connection, as after a \
             restart; keepalive can't probe early enough"
                .to_owned(),
        ),
        (
            unnamed,
            format!(
                "{suspects}the first probe of the program after 3s is early enough against a box, \
                 unless keepalive was turned on only lately"
            ),
        ),
    ] {
        let verdicts = verdicts(&[of(event)]);
        assert_eq!(verdicts.first().map(advice), Some(expected.as_str()));
    }
    let own = HostTimeout {
        what: Escaped::from("ipvs"),
        netns: 7,
        seconds: 4,
        services: vec![([10, 0, 0, 1], 5672).into()],
        ..HostTimeout::default()
    };
    let own = HostTimeouts {
        timeouts: vec![own],
        routes: vec![],
    };
    let records = run(&[of(received(0, 12_000, 10))], &own, EventName::ALL);
    let verdict = records.last().expect("a verdict");
    let fits = verdict.middlebox.as_ref().map(Escaped::as_str);
    let known = "this host's ipvs in netns 7, which has the service 10.0.0.1:5672 (4s)";
    assert_eq!(fits, Some(known));
    assert_eq!(verdict.confidence, Some(Confidence::Medium));
}

#[test]
fn half_closed_connections_have_a_timeout_of_their_own() {
    let conntrack = |netns| HostTimeouts {
        timeouts: vec![HostTimeout {
            what: Escaped::from("conntrack"),
            netns,
            netns_name: Some(Escaped::from("router")),
            seconds: 432_000,
            half_closed_s: Some(3),
            ..HostTimeout::default()
        }],
        routes: vec![],
    };
    let (here, elsewhere) = (conntrack(4_026_531_840), conntrack(7));
    const CLOSE_WAIT: u8 = 8;
    const FIN_WAIT2: u8 = 5;
    let reset = |state, idle_ms| SocketEvent {
        state,
        ..received(0, idle_ms, 10)
    };
    let probed = |state| SocketEvent {
        state,
        ..on_probe(0, 1)
    };
    for (name, event, host, expected) in [
        (
            "data after the peer's FIN",
            reset(CLOSE_WAIT, 6_000),
            &here,
            true,
        ),
        ("too early", reset(CLOSE_WAIT, 1_900), &here, false),
        ("not closed", reset(1, 6_000), &here, false),
        (
            "not known to be on the path",
            reset(CLOSE_WAIT, 6_000),
            &elsewhere,
            false,
        ),
        (
            "a probe after the peer's FIN",
            probed(CLOSE_WAIT),
            &here,
            true,
        ),
        ("a probe after the own FIN", probed(FIN_WAIT2), &here, true),
    ] {
        let records = run(&[of(event)], host, EventName::ALL);
        let verdict = records.last().expect("a verdict");
        let text = advice(verdict);
        let start = "one end had closed, and this host's conntrack in netns router forgets such \
                     a connection after 3s; this one was silent for ";
        assert_eq!(text.starts_with(start), expected, "{name}: {text}");
        let fits = verdict.middlebox.as_ref().map(Escaped::as_str);
        let named = "this host's conntrack in netns router, the connection's own (3s)";
        assert_eq!(fits == Some(named), expected, "{name}: {fits:?}");
        assert_ne!(verdict.verdict, None, "{name}");
    }
    // The advice stays below the shortest common default.
    let mut long = here;
    long.timeouts[0].half_closed_s = Some(3_600);
    let event = with(reset(CLOSE_WAIT, 4_000_000), |it| {
        it.settings.keepalive = Some(false);
    });
    let records = run(&[of(event)], &long, EventName::ALL);
    let text = records.last().map(advice).unwrap_or_default();
    assert!(text.contains("after 3600s"), "{text}");
    assert!(text.contains("TCP_KEEPIDLE=120"), "{text}");
}

#[test]
fn verdicts_shown_alone_are_the_same_without_evidence() {
    let events = life(1, 1_000, Some(301), 351);
    let all = verdicts(&events);
    let alone = run(&events, &HostTimeouts::default(), &[EventName::Verdict]);
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

#[test]
fn both_ends_on_one_host_are_joined() {
    let peer = |event: SocketEvent| {
        with(event, |it| {
            it.id = SocketId { sk: 77, born_ns: 1 };
            // The other end is IPv4-mapped, in another namespace.
            let mapped = |address: IpAddr| match address {
                IpAddr::V4(v4) => IpAddr::from(v4.to_ipv6_mapped()),
                v6 => v6,
            };
            let (local, remote) = (it.endpoints.remote(), it.endpoints.local());
            (it.endpoints.laddr, it.endpoints.lport) = (mapped(local.0), local.1);
            (it.endpoints.raddr, it.endpoints.rport) = (mapped(remote.0), remote.1);
            it.endpoints.netns = 5;
        })
    };
    let closed = peer(SocketEvent {
        at: crate::sample::at(40),
        ..sent(Some("ABORT_ON_CLOSE"))
    });
    for (trigger, expected) in [
        (received(41, 4_004, 4), "aborted_by_peer high 4004 [1, 3]"),
        (on_probe(41, 1), "probe_reset high 3008 [1, 3]"),
        // Too late to be that reset.
        (received(60_041, 4_004, 4), "idle_eviction low 4000 [3]"),
    ] {
        let verdicts = verdicts(&[of(closed.clone()), of(trigger)]);
        let last = verdicts.last().expect("a verdict on each end");
        assert_eq!(brief(last), expected);
        let is_joined = advice(last).contains(
            "on this host, in netns 5: beam.smp[4242] closed it, or was killed, with data unread",
        );
        assert_eq!(is_joined, !expected.starts_with("idle"), "{}", advice(last));
        let repeated = advice(last).contains("a program should read to the end before it closes");
        assert!(!repeated, "{}", advice(last));
    }
}

#[test]
fn the_log_of_the_other_host_overrules() {
    let of_host = |event: SocketEvent, host: &str| {
        let mut records = Vec::new();
        Correlator::new(MAX_SOCKETS).push(&of(event), &mut |it| records.push(it.clone()));
        let mut record = records.remove(0);
        record.host = Some(Escaped::from(host));
        record
    };
    let server = with(sent(Some("ABORT_ON_CLOSE")), |it| {
        let (local, remote) = (it.endpoints.remote(), it.endpoints.local());
        (it.endpoints.laddr, it.endpoints.lport) = local;
        (it.endpoints.raddr, it.endpoints.rport) = remote;
    });
    let client = received(52, 4_004, 4);
    // The clocks since boot of two hosts have nothing in common.
    let mut closed = of_host(server, "mq1");
    closed.mono_ns += 7_000_000_000_000;
    let reset = of_host(client, "web");
    for (traces, expected) in [
        (
            &[(0, closed.clone()), (1, reset.clone())][..],
            "aborted_by_peer high 4004 [1, 3]",
        ),
        (&[(1, reset.clone())], "idle_eviction low 4000 [1]"),
    ] {
        let filter = Filter::new(RecordFilter {
            events: EventName::ALL.iter().copied().collect(),
            ..RecordFilter::default()
        });
        let mut pipeline = Pipeline::of(filter, 2);
        for source in 0..2 {
            pipeline.set_judge(
                source,
                Some(Judge::new(MAX_SOCKETS, &HostTimeouts::default())),
            );
        }
        let mut last = None;
        for (source, record) in traces {
            let mut record = record.clone();
            pipeline.push(*source, &mut record, |it| last = Some(it.clone()));
        }
        let last = last.expect("a verdict on the client");
        assert_eq!(brief(&last), expected);
        let names_server =
            advice(&last).starts_with("the other end is on mq1: beam.smp[4242] closed");
        assert_eq!(names_server, traces.len() == 2, "{}", advice(&last));
    }
}

#[test]
fn advice_stays_below_every_fatal_idle_time() {
    // One restart explains ten deaths at 20 s, so they are no upper bound.
    let mut events = Vec::new();
    for sk in 1..=10 {
        events.extend(life(sk, 5_000, None, 20));
    }
    events.extend(life(11, 9_000, None, 149));
    let off = |event: Event| match event {
        Event::Socket(it) => of(with(it, |it| it.settings.keepalive = Some(false))),
        event => event,
    };
    let verdicts = verdicts(&events.into_iter().map(off).collect::<Vec<_>>());
    let last = verdicts.last().expect("a verdict on each death");
    assert_eq!(last.confidence, Some(Confidence::Medium));
    let set = last.set.as_ref().map(Escaped::as_str);
    assert_eq!(set, Some("SO_KEEPALIVE=1 TCP_KEEPIDLE=10"));
}

/// Event `sk` of another connection to the same peer.
fn of_sock(sk: u64, event: SocketEvent) -> Event {
    of(with(event, |it| {
        it.id = SocketId { sk, born_ns: 1 };
        it.endpoints.lport = 4_000 + u16::try_from(sk).unwrap_or_default();
    }))
}

/// A name, events, the short forms of their verdicts, and words of the last one's advice.
type VerdictRow<'a> = (&'a str, Vec<Event>, &'a [&'a str], &'a str);

fn assert_verdicts(rows: &[VerdictRow<'_>]) {
    for (name, events, expected, words) in rows {
        let verdicts = verdicts(events);
        let found: Vec<_> = verdicts.iter().map(brief).collect();
        assert_eq!(found, *expected, "{name}");
        let text = verdicts.last().map_or("", advice);
        assert!(text.contains(words), "{name}: {text}");
    }
}

#[test]
fn who_reset_a_connection_is_named() {
    let by = |comm: &str, pid, exiting, event: SocketEvent| {
        with(event, |it| {
            it.actor = Some(std::sync::Arc::new(Actor {
                by_pid: Some(pid),
                by_comm: Some(Escaped::from(comm)),
                by_exiting: Some(exiting),
            }));
        })
    };
    let destroyed = || SocketEvent {
        state: 1,
        state_after: 1,
        ..sent(Some("STATE"))
    };
    let subflow = with(sent(Some("ABORT_ON_CLOSE")), |it| it.mptcp = Some(true));
    for (event, expected) in [
        (
            by("python3", 7, true, sent(Some("ABORT_ON_CLOSE"))),
            "python3[7] ended, by itself or killed, with data unread",
        ),
        (
            by("beam.smp", 4242, false, sent(Some("ABORT_ON_CLOSE"))),
            "beam.smp[4242] closed it with data unread; a program should read to the end before it \
             closes",
        ),
        (
            by("ss", 9, false, destroyed()),
            "ss[9] destroyed the connection of beam.smp[4242]",
        ),
        (
            destroyed(),
            "someone destroyed the connection of beam.smp[4242], as `ss -K` does",
        ),
        (
            subflow,
            "beam.smp[4242] closed it, or was killed, with data unread; this was one subflow of an \
             MPTCP connection, which may go on over its other subflows; a program should read to \
             the end before it closes",
        ),
    ] {
        let verdicts = verdicts(&[of(event)]);
        assert_eq!(verdicts.first().map(advice), Some(expected));
    }
}

#[test]
fn undelivered_data_has_these_verdicts() {
    let stalled = |at_ms, silent_ms| unacked(event(at_ms, Kind::Stalled), 3, 1_400, silent_ms);
    let gave_up = |at_ms, silent_ms| {
        let timeout = event(at_ms, Kind::Timeout(Cause::Retransmission));
        unacked(timeout, 15, 924_000, silent_ms)
    };
    let by = |cause, event: SocketEvent| {
        with(event, |it| {
            it.kind = Kind::Timeout(cause);
            it.settings.user_timeout_ms = Some(5_000);
        })
    };
    let waiting = |event: SocketEvent| {
        with(event, |it| {
            it.lastack_ms = 300;
            it.lastrcv_ms = 300;
            if let Some(transfer) = &mut it.transfer {
                transfer.unacked_bytes = Some(0);
                transfer.unsent_bytes = Some(65_536);
            }
        })
    };
    let icmp = |event: SocketEvent| {
        with(event, |it| {
            if let Some(transfer) = &mut it.transfer {
                transfer.err_soft = Some(Errno(libc::ECONNREFUSED.cast_unsigned()));
            }
        })
    };
    let connecting = with(gave_up(2_000, 71_000), |it| it.state = 2);
    let at = 2_000_000;
    let rows: &[VerdictRow<'_>] = &[
        (
            "a stall after a silence may be a silent drop",
            vec![of(stalled(at, 71_000))],
            &["silent_drop low 71000 [1]"],
            "after 71s of silence, 7 bytes retransmitted 3 times in 1.4s, not acknowledged so far: a box \
             between may have",
        ),
        (
            "the end makes it surer",
            vec![of(stalled(at, 71_000)), of(gave_up(at + 922_600, 71_000))],
            &["silent_drop low 71000 [1]", "silent_drop medium 71000 [3]"],
            "the kernel gave up 924s after the data was first sent, by net.ipv4.tcp_retries2 in netns \
             4026531840",
        ),
        (
            "a stall that passes is no end",
            vec![
                of(stalled(at, 71_000)),
                of(with(event(at + 2_000, Kind::Early), |it| {
                    it.lastack_ms = 500
                })),
                of(sent(Some("ABORT_ON_CLOSE"))),
            ],
            &["silent_drop low 71000 [1]", "aborted_locally high 3004 [5]"],
            "",
        ),
        (
            "another connection was heard meanwhile",
            vec![
                of_sock(2, event(at + 900_000, Kind::FinReceived)),
                of_sock(3, gave_up(at + 922_600, 71_000)),
            ],
            &["idle_close low 5000 [1]", "silent_drop medium 71000 [3]"],
            "so the peer's host is up",
        ),
        (
            "without a silence it is an outage",
            vec![of(gave_up(at, 1_500))],
            &["path_lost high 1500 [1]"],
            "7 bytes retransmitted 15 times in 924s, never acknowledged; 1.5s of silence before is too \
             short for an idle timeout: the path or the peer's host is down, which no keepalive \
             setting prevents: keepalive waits while data is out",
        ),
        (
            "an ICMP error took part",
            vec![of(icmp(stalled(at, 1_500))), of(icmp(gave_up(at, 1_500)))],
            &[
                "icmp_rejected medium 1500 [1]",
                "icmp_rejected high 1500 [3]",
            ],
            "the network answered ECONNREFUSED (ICMP): a firewall rejects the segments",
        ),
        (
            "TCP_USER_TIMEOUT with data out",
            vec![of(by(Cause::UserTimeout, gave_up(at, 1_500)))],
            &["user_timeout high 1500 [1]"],
            "TCP_USER_TIMEOUT of 5s passed with 7 bytes not acknowledged for 924s",
        ),
        (
            "TCP_USER_TIMEOUT behind a closed window",
            vec![of(waiting(by(Cause::UserTimeout, gave_up(at, 1_500))))],
            &["user_timeout high 1500 [1]"],
            "its host acknowledges (heard 300ms ago), its program does not read",
        ),
        (
            "the peer stopped answering behind its closed window",
            vec![of(with(
                waiting(by(Cause::ZeroWindow, gave_up(at, 1_500))),
                |it| it.probes_out_after = 15,
            ))],
            &["path_lost high 1500 [1]"],
            "the peer's window was closed, and its host stopped answering 300ms ago",
        ),
        (
            "a peer that does not read what an orphan left",
            vec![of(waiting(by(Cause::ZeroWindow, gave_up(at, 1_500))))],
            &["aborted_locally high 1500 [1]"],
            "the limit net.ipv4.tcp_orphan_retries in netns 4026531840 passed while the peer's \
             window was closed: its host acknowledges",
        ),
        (
            "a silence that the connection had survived is no idle timeout",
            vec![
                of(with(probe(at - 980_000, 0, 61_000), |it| {
                    (it.lastrcv_ms, it.lastsnd_ms) = (61_000, 61_000);
                })),
                of(event(at - 970_000, Kind::Early)),
                of(gave_up(at, 7_000)),
            ],
            &["path_lost high 7000 [4]"],
            "the connection had survived ",
        ),
        (
            "TCP_USER_TIMEOUT with data out after a silence",
            vec![of(by(Cause::UserTimeout, gave_up(at, 71_000)))],
            &["user_timeout high 71000 [1]"],
            "unless keepalive was turned on only lately; to wait longer for it, set a longer \
             TCP_USER_TIMEOUT in beam.smp[4242]",
        ),
        (
            "a stall of a connection without keepalive: the program alone is advised",
            vec![of(with(stalled(at, 71_000), |it| {
                it.settings.keepalive = Some(false);
                it.dead_in_ms = Some(922_600);
            }))],
            &["silent_drop low 71000 [1]"],
            "the kernel gives up 924s after the data was first sent, by net.ipv4.tcp_retries2 in \
             netns 4026531840; first see whether the peer's host is up, and whether another \
             connection to it works; if so, against a box: in beam.smp[4242], turn on SO_KEEPALIVE \
             with TCP_KEEPIDLE=35 (half of 71s, the shortest silence before such an end or stall; the \
             timeout may be shorter still); to learn of it sooner, set TCP_USER_TIMEOUT=44000 in \
             beam.smp[4242]",
        ),
        (
            "keepalive that gives up sooner than any user timeout that is safe",
            vec![of(with(gave_up(at, 1_500), |it| {
                it.settings.keepalive_probes = Some(3);
            }))],
            &["path_lost high 1500 [1]"],
            "by net.ipv4.tcp_retries2 in netns 4026531840",
        ),
        (
            "no program can set a socket that it has closed",
            vec![of(with(gave_up(at, 71_000), |it| {
                it.settings.keepalive = Some(false);
                it.identity.orphan = Some(true);
            }))],
            &["silent_drop medium 71000 [1]"],
            "its program has closed it, and no process holds it any more; the kernel gave up 924s \
             after the data was first sent, by net.ipv4.tcp_orphan_retries in netns 4026531840",
        ),
        (
            "a connect that nobody answered",
            vec![of(connecting)],
            &[],
            "",
        ),
    ];
    assert_verdicts(rows);
}

/// The parts of the advice of the only verdict on these events.
fn only_advice(events: &[Event]) -> (String, String) {
    let verdicts = verdicts(events);
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    let verdict = verdicts.first().expect("it is one");
    let advice = verdict.advice.as_deref().map(Advice::parts);
    let (seen, advised) = advice.unwrap_or_default();
    (seen.to_owned(), advised.to_owned())
}

/// A sysctl changes every program of a namespace: only what is known to repeat, or to be this
/// host's own timeout, is worth that.
#[test]
fn a_guess_advises_no_sysctl() {
    let defaults = |event: SocketEvent| {
        with(event, |it| {
            it.settings.keepalive = Some(true);
            it.settings.keepalive_time_ms = Some(7_200_000);
            it.settings.keepalive_time_from = Some(Origin::Sysctl);
            it.settings.keepalive_intvl_ms = Some(75_000);
            it.settings.keepalive_intvl_from = Some(Origin::Sysctl);
        })
    };
    let stalled = unacked(event(100_000, Kind::Stalled), 3, 1_400, 71_000);
    let gave_up = with(stalled.clone(), |it| {
        it.kind = Kind::Timeout(Cause::Retransmission);
    });
    let unanswered = with(event(100_000, Kind::Timeout(Cause::ProbeCount)), |it| {
        it.lastack_ms = 9_000_000;
    });
    for event in [
        stalled,
        gave_up,
        unanswered,
        received(100_000, 71_000, 4),
        on_probe(100_000, 1),
    ] {
        let event = defaults(event);
        let found = verdicts(&[of(event.clone())]);
        let verdict = found.first().expect("a verdict");
        assert_eq!(verdict.set_in, Some(SetIn::Program), "{}", advice(verdict));
        let (_, advised) = only_advice(&[of(event)]);
        assert!(
            advised.contains("TCP_KEEPIDLE from 7200 to ") && !advised.contains("set net.ipv4."),
            "{advised}"
        );
        assert!(!advice(verdict).contains("fatal"), "{}", advice(verdict));
    }
    // It repeats.
    let again = [1, 2].map(|sk| of_sock(sk, defaults(received(sk * 90_000, 70_000 + sk, 4))));
    let last = verdicts(&again).pop().expect("a verdict");
    assert_eq!(last.set_in, Some(SetIn::Sysctl), "{}", advice(&last));
}

/// What is said as something to do can be done.
#[test]
fn nothing_is_said_to_be_done_where_nothing_is() {
    for event in [
        with(on_probe(4, 1), |it| {
            it.settings.keepalive_time_ms = Some(1_000)
        }),
        with(on_probe(4, 1), |it| it.state = 8),
        event(0, Kind::FinWait2(Some(FinWait2::Reset))),
        received(0, 1_500, 10),
    ] {
        let (seen, advised) = only_advice(&[of(event)]);
        let is_close = advised == "beam.smp[4242] should close too when it reads EOF";
        assert!(advised.is_empty() || is_close, "{seen}; {advised}");
    }
}

/// A segment of a connection that ended here: the records know that it was there.
#[test]
fn a_connection_that_ended_without_a_word_is_not_denied() {
    let gone = event(0, Kind::Aborted);
    let segment = |at_ms| {
        passive(with(passive_reset(at_ms), |it| {
            it.endpoints = event(0, Kind::Aborted).endpoints;
            it.met = Met::Nothing;
        }))
    };
    let verdicts = verdicts(&[of(gone), segment(30_000), segment(60_000)]);
    let found: Vec<_> = verdicts.iter().map(brief).collect();
    assert_eq!(found, ["stray_segment medium [1, 2]"]);
    let text = advice(&verdicts[0]);
    let known = "this connection of beam.smp[4242] ended here 30s before, without a FIN or a reset";
    assert!(text.starts_with(known), "{text}");
    assert_eq!(verdicts[0].set, None);
}

#[test]
fn silent_drops_teach_the_idle_timeout() {
    let gave_up = |sk, at_ms, silent_ms| {
        let timeout = event(at_ms, Kind::Timeout(Cause::Retransmission));
        let timeout = unacked(timeout, 15, 924_000, silent_ms);
        of_sock(sk, with(timeout, |it| it.settings.keepalive = Some(false)))
    };
    let verdicts = verdicts(&[
        gave_up(1, 3_000_000, 353_000),
        gave_up(2, 9_000_000, 352_000),
    ]);
    let found: Vec<_> = verdicts.iter().map(brief).collect();
    let expected = [
        "silent_drop medium 353000 [1]",
        "silent_drop high 352000 [3]",
    ];
    assert_eq!(found, expected);
    let last = verdicts.last().expect("a verdict");
    assert_eq!(last.died_ms, Some(353_010));
    let set = last.set.as_ref().map(Escaped::as_str);
    assert_eq!(set, Some("SO_KEEPALIVE=1 TCP_KEEPIDLE=120"));
    let fits = last.middlebox.as_ref().map_or("", Escaped::as_str);
    assert!(
        fits.contains("AWS Network Firewall") && !fits.contains("NLB"),
        "{fits}"
    );
}

#[test]
fn closes_for_idleness_have_these_verdicts() {
    let fin = |kind, lastrcv_ms, lastsnd_ms, lastack_ms| SocketEvent {
        lastrcv_ms,
        lastsnd_ms,
        lastack_ms,
        ..event(1_000, kind)
    };
    let received = || fin(Kind::FinReceived, 5_004, 5_008, 1_000);
    let in_flight = |silent_ms| SocketEvent {
        unacked: 1,
        transfer: Some(Box::new(Transfer {
            silent_ms: Some(silent_ms),
            ..Transfer::default()
        })),
        ..fin(Kind::FinReceived, 4_012, 10, 4_012)
    };
    let own_of = |comm: &str, exiting| {
        with(fin(Kind::FinSent, 4_004, 4_000, 4_000), |it| {
            it.actor = Some(std::sync::Arc::new(Actor {
                by_pid: Some(7),
                by_comm: Some(Escaped::from(comm)),
                by_exiting: Some(exiting),
            }));
        })
    };
    let own = |exiting| own_of("beam.smp", exiting);
    let ended = |lastrcv_ms| {
        of(SocketEvent {
            lastrcv_ms,
            ..event(1_900, Kind::Closed)
        })
    };
    // The other end is on this host too.
    let far = |event: SocketEvent| {
        with(event, |it| {
            it.id.sk = 9;
            let (local, remote) = (it.endpoints.remote(), it.endpoints.local());
            (it.endpoints.laddr, it.endpoints.lport) = local;
            (it.endpoints.raddr, it.endpoints.rport) = remote;
        })
    };
    let reset = |at_ms| SocketEvent {
        state: 8,
        unacked: 1,
        lastack_ms: 20,
        lastrcv_ms: 20,
        lastsnd_ms: 22,
        ..event(at_ms, Kind::RstReceived)
    };
    let data = |at_ms| {
        let closed = event(0, Kind::FinSent).endpoints;
        passive(with(passive_reset(at_ms), |it| {
            it.endpoints = closed;
            (it.met, it.state, it.flags, it.len) = (Met::Socket, 5, 0x18, 18);
        }))
    };
    let rows: &[VerdictRow<'_>] = &[
        (
            "the peer closed, and its default is known",
            vec![
                of(with(probe(0, 0, 4_000), |it| it.lastrcv_ms = 4_004)),
                of(with(probe(900, 0, 800), |it| it.lastrcv_ms = 4_904)),
                of(received()),
            ],
            &["idle_close low 5004 [3, 4]"],
            "the peer's program closed the connection after 5.0s without data; TCP keepalive was on, and probes were answered",
        ),
        (
            "a busy connection",
            vec![of(fin(Kind::FinReceived, 40, 30, 30))],
            &[],
            "",
        ),
        ("a program that was ending", vec![of(own(true))], &[], ""),
        (
            "the process at the other end was killed",
            vec![of(far(own_of("broker", true))), of(received())],
            &["peer_exited high 5004 [1, 2]"],
            "broker[7] on this host, in netns 4026531840 held the other end, and ended, by itself or \
             killed",
        ),
        (
            "a close has one advice, on the end that closed",
            vec![of(far(own(false))), of(received())],
            &["idle_close low 4000 [1]", "idle_close low 5004 [1, 3]"],
            "beam.smp[7] on this host, in netns 4026531840 closed the connection after 5.0s without data",
        ),
        (
            "the other end gave up: it has the verdict",
            vec![
                of(far(SocketEvent {
                    firing_ns: Some(5),
                    state: 1,
                    ..sent(Some("KEEPALIVE_TIMEOUT"))
                })),
                of(SocketEvent {
                    unacked: 0,
                    ..super::tests::received(1_000, 60_000, 60_000)
                }),
            ],
            &["aborted_by_peer high 60000 [1, 2]"],
            "keepalive of beam.smp[4242] gave up on this end, which had not answered its probes",
        ),
        (
            "data that waits is no idleness",
            vec![
                of(with(own(false), |it| it.write_queue = true)),
                of_sock(2, with(own(false), |it| it.unacked = 1)),
                of_sock(3, with(received(), |it| it.write_queue = true)),
            ],
            &[],
            "",
        ),
        (
            "a program of this host closed",
            vec![of(own(false))],
            &["idle_close low 4000 [1]"],
            "beam.smp[7] closed the connection after 4s without data",
        ),
        (
            "a program of this host closed after its default",
            vec![of(with(own_of("node", false), |it| {
                (it.lastrcv_ms, it.lastsnd_ms) = (5_004, 5_004);
            }))],
            &["idle_close medium 5004 [1]"],
            "",
        ),
        (
            "a program of this host closed after another one's default",
            vec![of(with(own_of("api", false), |it| {
                (it.lastrcv_ms, it.lastsnd_ms) = (2_004, 2_004);
            }))],
            &["idle_close low 2004 [1]"],
            "",
        ),
        (
            "a request was on its way to the peer",
            vec![of(in_flight(4_002)), of(reset(1_020))],
            &["idle_close_race medium 4002 [1]"],
            "while data of beam.smp[4242] was on its way, which nobody answers; TCP keepalive was on: \
             its probes are no data, so they do not count; keep idle connections in beam.smp[4242] for less than 4.0s",
        ),
        (
            "the peer never sends data, and closes while this host does",
            vec![of(in_flight(40))],
            &[],
            "",
        ),
        (
            "a program on this host closed, and its default is another",
            vec![of(far(own_of("nginx", false))), of(in_flight(5_002))],
            &[
                "idle_close medium 4000 [1]",
                "idle_close_race medium 5002 [1, 3]",
            ],
            "nginx[7] on this host, in netns 4026531840 closed the connection after 5.0s without data",
        ),
        (
            "a program that reads on for a while, and a request was on its way to it",
            vec![of(own_of("apache2", false)), ended(890)],
            &[
                "idle_close medium 4000 [1]",
                "idle_close_race medium 4000 [1, 3]",
            ],
            "was on its way, which nobody answered (a proxy in front shows a 502)",
        ),
        (
            "a program that may have waited for an answer",
            vec![of(own(false)), ended(890)],
            &["idle_close low 4000 [1]"],
            "",
        ),
        (
            "no data came after the close",
            vec![of(own_of("apache2", false)), ended(4_904)],
            &["idle_close medium 4000 [1]"],
            "",
        ),
        (
            "a request was on its way to this host",
            vec![of(own(false)), data(1_030)],
            &[
                "idle_close low 4000 [1]",
                "idle_close_race medium 4000 [1, 3]",
            ],
            "raise the idle timeout of beam.smp[7] above that of its clients",
        ),
        (
            "the program wrote long after the peer had closed",
            vec![of(received()), of(reset(3_000))],
            &["idle_close low 5004 [1]", "idle_close medium 5004 [1, 3]"],
            "and beam.smp[4242] wrote to it 2s later, without having read its end",
        ),
        (
            "the client wrote long after the close",
            vec![of(own(false)), data(3_000)],
            &["idle_close low 4000 [1]", "idle_close medium 4000 [1, 3]"],
            "and its client wrote to it 2s later",
        ),
        (
            "the peer closes after the same time again",
            vec![
                of_sock(2, received()),
                of_sock(3, with(received(), |it| it.at = crate::sample::at(90_000))),
            ],
            &["idle_close low 5004 [1]", "idle_close high 5004 [3]"],
            "",
        ),
    ];
    assert_verdicts(rows);
}

#[test]
fn the_table_of_mistakes_names_every_verdict() {
    let rows = most_confidence();
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let all: Vec<_> = VerdictName::ALL.iter().map(|it| it.name()).collect();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(names), sorted(all));
}

/// The highest confidence of each verdict, from the table in docs/.
fn most_confidence() -> Vec<(&'static str, Confidence)> {
    let table = include_str!("../../../../docs/verdicts.md");
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?;
        let most = cells.next()?;
        let most = Confidence::ALL.iter().find(|it| it.name() == most)?;
        Some((name, *most))
    };
    table.lines().filter_map(row).collect()
}

/// The advised TCP_KEEPIDLE of a verdict, s.
fn advised_s(record: &Record) -> Option<u64> {
    let set = record.set.as_ref()?.as_str();
    let value = |it: &str| {
        let (name, value) = it.split_once('=')?;
        let is_time = ["TCP_KEEPIDLE", "net.ipv4.tcp_keepalive_time"].contains(&name);
        value.parse().ok().filter(|_| is_time)
    };
    set.split(' ').find_map(value)
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
        1 => Just(Kind::Timeout(Cause::Retransmission)),
        1 => Just(Kind::Stalled),
        1 => Just(Kind::Resumed),
        2 => Just(Kind::FinReceived),
        2 => Just(Kind::FinSent),
        1 => Just(Kind::Aborted),
    ];
    let ms = || prop_oneof![4 => 0..2_000_000_u64, 4 => 0..20_000_u64, 1 => Just(u64::MAX)];
    let counts = (0..4_u8, 0..3_u32, 0..3_u8);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let arrival = (
        any::<Option<u8>>(),
        any::<Option<bool>>(),
        any::<Option<u8>>(),
    );
    let socket = (
        kind,
        0..4_u64,
        0..14_u8,
        counts,
        flags,
        0..9_000_000_u64,
        ms(),
        ms(),
        prop::option::of(ms()),
        arrival,
    );
    let socket = socket.prop_map(
        |(kind, sk, state, counts, flags, at_ms, idle, sent, heard, arrival)| {
            let (out, unacked, retransmits) = counts;
            let (ttl, from_this_host, peer_ttl) = arrival;
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
                it.heard_ms = heard.map(|ms| ms.min(idle));
                it.arrival.ttl = ttl;
                it.arrival.from_this_host = from_this_host;
                it.arrival.peer_ttl = peer_ttl;
                if matches!(kind, Kind::Stalled | Kind::Timeout(_)) && retransmits > 0 {
                    *it = crate::sample::unacked(it.clone(), retransmits, sent, idle);
                }
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
        let records = run(&events, &HostTimeouts::default(), EventName::ALL);
        prop_assert_eq!(&records, &run(&events, &HostTimeouts::default(), EventName::ALL));
        for (index, record) in records.iter().enumerate() {
            prop_assert_eq!(record.seq, index as u64 + 1);
            let Some(Evidence(evidence)) = &record.evidence else { continue };
            prop_assert!(evidence.is_sorted_by(|a, b| a < b));
            // The last number is of the record right before the verdict.
            prop_assert_eq!(evidence.last(), Some(&(record.seq - 1)));
            for seq in evidence {
                let named = records.get(*seq as usize - 1);
                let is_evidence = |it: &Record| {
                    // A segment that drew a reset has no socket; the end before it has.
                    let is_other_end =
                        matches!(it.event, EventName::RstSent | EventName::FinSent | EventName::Aborted);
                    it.verdict.is_none() && (it.sock == record.sock || is_other_end)
                };
                prop_assert!(named.is_some_and(is_evidence));
            }
            prop_assert!(!advice(record).is_empty() && !advice(record).contains('\n'));
        }
    }

    /// No advice is above the longest idle time that the log shows survived, nor below a
    /// second, nor does it lower what is at its minimum. No verdict is surer than its row
    /// in docs/verdicts.md allows.
    #[test]
    fn advice_is_within_what_survived(events in prop::collection::vec(any_event(), 0..60)) {
        let most = most_confidence();
        let records = run(&events, &HostTimeouts::default(), EventName::ALL);
        let mut judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
        let mut resets = AllSentResets::new(1);
        for record in records.iter().filter(|it| it.verdict.is_none()) {
            let Some(verdict) = judge.push(record, &mut resets.of_trace((0, 0))) else { continue };
            let name = verdict.verdict.map(|it| it.name());
            let row = most.iter().find(|(row, _)| Some(*row) == name);
            prop_assert!(verdict.confidence <= row.map(|(_, most)| *most));
            prop_assert!(!advice(&verdict).contains("TCP_KEEPINTVL (now 1s)"));
            let is_forgotten = matches!(
                verdict.verdict,
                Some(
                    VerdictName::IdleEviction | VerdictName::ProbeReset | VerdictName::SilentDrop
                )
            );
            let Some(seconds) = advised_s(&verdict) else { continue };
            prop_assert!(seconds >= 1);
            let now_ms = verdict.settings.keepalive_time_ms.unwrap_or_default();
            let is_on = verdict.settings.keepalive == Some(true);
            prop_assert!(!is_on || verdict.set_in == Some(SetIn::Peer) || seconds * 1_000 < now_ms);
            let remote = verdict.endpoints.map(|it| it.remote()).filter(|_| is_forgotten);
            let bounds = remote.and_then(|it| judge.estimator().bounds(it));
            if let Some(survived_ms) = bounds.and_then(|it| it.survived_ms) {
                let most_ms = (survived_ms + SAME_AGE_MS).max(1_000);
                prop_assert!(seconds * 1_000 <= most_ms, "{verdict:?}");
            }
        }
    }

    /// Behind one middlebox and without restarts, the advice keeps every connection alive
    /// once a connection has survived an idle time; it never makes one die that lived.
    #[test]
    fn advice_that_is_followed_keeps_connections_alive(
        timeout_s in 3..2_000_u64,
        quiets in prop::collection::vec((1..4_000_u64, 1..4_000_u64), 1..20),
    ) {
        let mut events = Vec::new();
        let mut at_s = 10_000;
        for (sk, &(quiet_s, last_s)) in (1..).zip(&quiets) {
            let survived_s = Some(quiet_s).filter(|&it| it < timeout_s);
            if last_s > timeout_s {
                events.extend(life(sk, at_s, survived_s, last_s));
            } else if let Some(survived_s) = survived_s {
                let mut lived = life(sk, at_s, Some(survived_s), last_s);
                lived.pop();
                // The next probe shows that the peer was heard.
                let next = at_s + last_s;
                lived.extend(answered_probe(sk, next, last_s, last_s));
                events.extend(lived);
            }
            at_s += 10_000;
        }
        let Some(last) = verdicts(&events).pop() else { return Ok(()) };
        let Some(seconds) = advised_s(&last) else { return Ok(()) };
        for &(quiet_s, last_s) in &quiets {
            let [before, after] = [[quiet_s, last_s], [quiet_s.min(seconds), last_s.min(seconds)]];
            let lives = |quiets: [u64; 2]| quiets.into_iter().all(|it| it <= timeout_s);
            prop_assert!(!lives(before) || lives(after));
            prop_assert!(last.survived_ms.is_none() || lives(after), "{last:?}");
        }
    }

    /// A server without an idle timeout, whose clients show what they survived: restarts
    /// and redeployments, port scans and ordinary closes never give a sure verdict that
    /// blames an idle timeout or a balancer.
    #[test]
    fn healthy_traffic_is_not_called_ill(
        longest_s in 1_000..4_000_u64,
        restarts in prop::collection::vec((1..1_000_u64, 1..10_u64), 0..6),
        scans in prop::collection::vec((any::<u8>(), 0..2_u32), 0..10),
    ) {
        let mut events = answered_probe(1_000, 5_000, longest_s, longest_s);
        events.extend(answered_probe(1_000, 15_000, longest_s, 10));
        let mut sk = 0;
        for (nth, &(idle_s, connections)) in (2..).zip(&restarts) {
            for _ in 0..connections {
                sk += 1;
                events.extend(life(sk, nth * 10_000, None, idle_s));
            }
        }
        for (port, &(flags, len)) in (1..).zip(&scans) {
            events.push(passive(with(passive_reset(90_000_000), |it| {
                it.endpoints.lport = port;
                it.flags = flags;
                // A scan has no data, but for a SYN.
                it.len = if flags & 2 == 0 { 0 } else { len };
            })));
        }
        // A program's own late FIN, and a reset of an orphan.
        for (state, orphan) in [(4, false), (9, false), (5, true)] {
            sk += 1;
            events.push(of(with(received(95_000_000, 400_000, 500_000), |it| {
                it.id = SocketId { sk, born_ns: 1 };
                it.state = state;
                it.identity.orphan = Some(orphan);
            })));
        }
        for verdict in verdicts(&events) {
            let blames = matches!(
                verdict.verdict,
                Some(VerdictName::IdleEviction | VerdictName::StraySegment)
            );
            prop_assert!(
                !blames || verdict.confidence == Some(Confidence::Low),
                "{verdict:?}"
            );
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

    /// A part of a log may lack what the connection survived, or how one end closed it: then
    /// it may take another cause for the end, and is not sure. Otherwise its verdict is that of
    /// the whole log. If the whole log has no verdict there, the part's verdict does not have
    /// high confidence, or the whole log judged the connection earlier.
    #[test]
    fn a_part_of_a_log_does_not_contradict_the_whole(
        events in prop::collection::vec(any_event(), 1..60),
        cut in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let records = run(&events, &HostTimeouts::default(), EventName::ALL);
        let records: Vec<_> = records.into_iter().filter(|it| it.verdict.is_none()).collect();
        let judged = |records: &[Record]| -> Vec<Option<Record>> {
            let mut judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
            let mut resets = AllSentResets::new(1);
            let mut judge = |it| judge.push(it, &mut resets.of_trace((0, 0)));
            records.iter().map(&mut judge).collect()
        };
        // An event that only ends what another began has no record without that.
        prop_assume!(!records.is_empty());
        let (from, to) = (cut.0.index(records.len()), cut.1.index(records.len()) + 1);
        let part = from.min(to)..to;
        let (whole_log, cut) = (judged(&records), judged(&records[part.clone()]));
        let judged_before = |whole: &[Option<Record>], cut: &Record| {
            let mut before = whole.iter().flatten().filter(|it| it.sock.is_some());
            before.any(|it| it.sock == cut.sock)
        };
        for (index, cut) in part.zip(&cut) {
            let Some(cut) = cut else { continue };
            match &whole_log[index] {
                Some(whole) if whole.verdict == cut.verdict => {}
                Some(whole) => {
                    use VerdictName as Of;
                    let (Some(part), Some(whole)) = (cut.verdict, whole.verdict) else {
                        return Err(TestCaseError::fail("a verdict without a name"));
                    };
                    let lacks = match (part, whole) {
                        (Of::IdleEviction, Of::AbortedByPeer) | (Of::SilentDrop, Of::PathLost) => {
                            "what the connection survived"
                        }
                        // The whole log judged an end of this socket before: what it had survived until
                        // then counts no more.
                        (Of::PathLost, Of::SilentDrop)
                            if judged_before(&whole_log[..index], cut) =>
                        {
                            continue;
                        }
                        (
                            Of::AbortedByPeer | Of::IdleEviction | Of::AbortedLocally,
                            Of::IdleClose | Of::IdleCloseRace,
                        ) => "how one end closed",
                        _ => "nothing that explains it",
                    };
                    prop_assert_ne!(lacks, "nothing that explains it", "{:?} {:?}", part, whole);
                    // It repeated: no single outage explains it.
                    let repeats = part == Of::SilentDrop && cut.died_ms.is_some();
                    prop_assert!(repeats || cut.confidence < Some(Confidence::High));
                }
                None => {
                    let was_judged = judged_before(&whole_log[..index], cut);
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
        let mut judge = Judge::new(max_sockets, &HostTimeouts::default());
        let mut resets = AllSentResets::new(1);
        for event in &events {
            correlator.push(event, &mut |record| {
                judge.push(record, &mut resets.of_trace((0, 0)));
            });
            let (connections, probes) = judge.kept();
            prop_assert!(connections <= 2 && probes <= MAX_PROBES);
        }
    }
}
