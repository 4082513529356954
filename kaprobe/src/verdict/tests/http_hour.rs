//! Simulates an hour of HTTP with keep-alive between a server and its clients, all of it
//! closed in order: no verdict of failure follows, on either side or on both together.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use crate::correlate::Correlator;
use crate::filter::{Filter, RecordFilter};
use crate::model::event::{Kind, SocketEvent, SocketId};
use crate::model::host_timeout::HostTimeouts;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::model::values::{Confidence, VerdictName};
use crate::sample::{event, of, with};
use crate::verdict::judge::Judge;
use crate::verdict::pipeline::Pipeline;

const MAX_SOCKETS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

const HOUR_MS: u64 = 3_600_000;

/// The programs report a FIN after so long a time without data, ms.
const FIN_IDLE_MS: u64 = 1_000;

/// A segment is so long on its way, ms.
const WAY_MS: u64 = 20;

const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

#[derive(Clone, Copy, Debug)]
enum ClosedBy {
    /// The server's idle timeout.
    Timeout,
    /// The client, a while after its last answer.
    Client,
    /// Both at the same time, a while after the last answer.
    Both,
    /// The server, with its last answer: `Connection: close`.
    Answer,
}

#[derive(Clone, Debug)]
struct HttpConnection {
    starts_ms: u64,
    /// The pauses before the second and each later request, per mille of the timeout.
    pauses: Vec<u64>,
    closed_by: ClosedBy,
    /// TCP_KEEPIDLE of the client and of the server, s; without, keepalive is off.
    keepalive_s: [Option<u64>; 2],
}

fn connection() -> impl Strategy<Value = HttpConnection> {
    let closed_by = prop_oneof![
        Just(ClosedBy::Timeout),
        Just(ClosedBy::Client),
        Just(ClosedBy::Both),
        Just(ClosedBy::Answer),
    ];
    let keepalive_s = || prop::option::of(1..90_u64);
    let pauses = prop::collection::vec(0..950_u64, 1..30);
    let all = (0..HOUR_MS, pauses, closed_by, keepalive_s(), keepalive_s());
    all.prop_map(
        |(starts_ms, pauses, closed_by, client, server)| HttpConnection {
            starts_ms,
            pauses,
            closed_by,
            keepalive_s: [client, server],
        },
    )
}

/// The events of one end of a connection.
struct End {
    nth: u16,
    is_server: bool,
    keepalive_s: Option<u64>,
    events: Vec<SocketEvent>,
}

impl End {
    /// An event of this end, when no data had come or gone for `quiet_ms`.
    fn event(&self, at_ms: u64, kind: Kind, quiet_ms: u64) -> SocketEvent {
        let host = |last: u8| IpAddr::from([10, 0, 0, last]);
        let server = (host(1), 80);
        let client = (host(2), 33_000 + self.nth);
        let (local, remote) = if self.is_server {
            (server, client)
        } else {
            (client, server)
        };
        with(event(at_ms, kind), |it| {
            it.id = SocketId {
                sk: u64::from(self.nth) + 1,
                born_ns: 1,
            };
            it.endpoints = Endpoints::new(local, remote, 7);
            it.state = ESTABLISHED;
            it.settings.keepalive = Some(self.keepalive_s.is_some());
            (it.lastrcv_ms, it.lastsnd_ms) = (quiet_ms, quiet_ms);
            it.lastack_ms = quiet_ms;
        })
    }

    /// The probes of a pause that begins at `from_ms`. Each is answered at once.
    fn probes(&mut self, from_ms: u64, pause_ms: u64) {
        let Some(time_ms) = self.keepalive_s.map(|it| it * 1_000) else {
            return;
        };
        for nth in 1..=pause_ms.saturating_sub(WAY_MS) / time_ms {
            let quiet_ms = nth * time_ms;
            let probe = self.event(from_ms + quiet_ms, Kind::Probe, quiet_ms);
            self.events.push(with(probe, |it| {
                it.lastack_ms = time_ms;
                it.probes_out_after = 1;
                it.next_ms = Some(time_ms);
            }));
        }
    }

    /// A FIN, if the programs report it.
    fn fin(&mut self, at_ms: u64, kind: Kind, state: u8, quiet_ms: u64) {
        if quiet_ms >= FIN_IDLE_MS {
            let fin = self.event(at_ms, kind, quiet_ms);
            self.events.push(with(fin, |it| it.state = state));
        }
    }
}

/// The events of a connection on the client and on the server, and the time without data at
/// its close, ms.
fn events(nth: u16, it: &HttpConnection, timeout_ms: u64) -> ([Vec<SocketEvent>; 2], u64) {
    let mut ends = [false, true].map(|is_server| End {
        nth,
        is_server,
        keepalive_s: it.keepalive_s[usize::from(is_server)],
        events: Vec::new(),
    });
    let mut now_ms = it.starts_ms;
    let (last, before) = it.pauses.split_last().unwrap_or((&0, &[]));
    for pause in before {
        let pause_ms = timeout_ms * pause / 1_000;
        for end in &mut ends {
            end.probes(now_ms, pause_ms);
        }
        now_ms += pause_ms + 4 * WAY_MS;
    }
    let quiet_ms = match it.closed_by {
        ClosedBy::Timeout => timeout_ms,
        ClosedBy::Answer => 0,
        ClosedBy::Client | ClosedBy::Both => timeout_ms * last / 1_000,
    };
    for end in &mut ends {
        end.probes(now_ms, quiet_ms);
    }
    now_ms += quiet_ms;
    let by_server = matches!(it.closed_by, ClosedBy::Timeout | ClosedBy::Answer);
    let [client, server] = &mut ends;
    if matches!(it.closed_by, ClosedBy::Both) {
        for end in [client, server] {
            end.fin(now_ms, Kind::FinSent, ESTABLISHED, quiet_ms);
        }
    } else {
        let (first, second) = if by_server {
            (server, client)
        } else {
            (client, server)
        };
        first.fin(now_ms, Kind::FinSent, ESTABLISHED, quiet_ms);
        second.fin(now_ms + WAY_MS, Kind::FinReceived, ESTABLISHED, quiet_ms);
        // The FIN counts as received data.
        second.fin(now_ms + 2 * WAY_MS, Kind::FinSent, CLOSE_WAIT, WAY_MS);
    }
    let ended = ends.map(|mut end| {
        // Only of sockets that have other events.
        if !end.events.is_empty() {
            let closed = end.event(now_ms + 4 * WAY_MS, Kind::Closed, quiet_ms);
            end.events.push(with(closed, |it| it.state = 7));
        }
        end.events
    });
    (ended, quiet_ms)
}

/// The verdicts of the client's host, of the server's, and of both together.
fn verdicts(sides: &[Vec<SocketEvent>; 2]) -> Vec<Vec<Record>> {
    [&[0][..], &[1], &[0, 1]]
        .map(|shown| judged(sides, shown))
        .into()
}

/// The verdicts from the events of some sides, merged by time.
fn judged(sides: &[Vec<SocketEvent>; 2], shown: &[usize]) -> Vec<Record> {
    let filter = Filter::new(RecordFilter {
        events: EventName::ALL.iter().copied().collect(),
        ..RecordFilter::default()
    });
    let mut pipeline = Pipeline::of(filter, shown.len());
    let mut merged = Vec::new();
    let mut correlators = Vec::new();
    for (source, &side) in shown.iter().enumerate() {
        let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
        pipeline.set_judge(source, Some(judge));
        correlators.push(Correlator::new(MAX_SOCKETS));
        merged.extend(sides[side].iter().map(|it| (it.at.mono_ns, source, it)));
    }
    merged.sort_by_key(|(at, source, _)| (*at, *source));
    let mut verdicts = Vec::new();
    for (_, source, event) in merged {
        correlators[source].push(&of(event.clone()), &mut |record| {
            pipeline.push(source, record, |it| {
                if it.verdict.is_some() {
                    verdicts.push(it.clone());
                }
            });
        });
    }
    verdicts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_hour_of_http_has_no_verdict_of_failure(
        timeout_ms in 2_000..120_000_u64,
        connections in prop::collection::vec(connection(), 1..200),
    ) {
        let mut sides = [Vec::new(), Vec::new()];
        let mut closes = Vec::new();
        for (nth, it) in (0..).zip(&connections) {
            let (events, quiet_ms) = events(nth, it, timeout_ms);
            for (side, events) in sides.iter_mut().zip(events) {
                side.extend(events);
            }
            closes.push(quiet_ms);
        }
        let idle = closes.iter().filter(|&&it| it >= FIN_IDLE_MS).count();
        for (verdicts, ends) in verdicts(&sides).iter().zip([1, 1, 2]) {
            prop_assert_eq!(verdicts.len(), ends * idle);
            for verdict in verdicts {
                prop_assert_eq!(verdict.verdict, Some(VerdictName::IdleClose));
                let quiet_ms = verdict.ages.idle_ms.unwrap_or_default();
                prop_assert!(closes.contains(&quiet_ms), "{verdict:?}");
                // A timeout that was learned is that of the server, or no shorter.
                let is_sure = verdict.confidence == Some(Confidence::High);
                let died_ms = verdict.died_ms.unwrap_or(u64::MAX);
                prop_assert!(!is_sure || died_ms >= quiet_ms, "{verdict:?}");
            }
        }
    }
}

#[test]
fn the_simulated_hour_has_idle_closes_and_probes() {
    let connection = HttpConnection {
        starts_ms: 0,
        pauses: vec![500, 500],
        closed_by: ClosedBy::Timeout,
        keepalive_s: [Some(1), None],
    };
    let (sides, _) = events(1, &connection, 5_000);
    let kinds = sides.map(|it| it.into_iter().map(|it| it.kind).collect::<Vec<_>>());
    let probes = [Kind::Probe; 6];
    let client = [&probes[..], &[Kind::FinReceived, Kind::Closed]].concat();
    assert_eq!(kinds, [client, vec![Kind::FinSent, Kind::Closed]]);
}
