//! Rows, records and what is kept of them, for tests.

use std::net::IpAddr;

use jiff::tz::TimeZone;

use crate::audit::assessment::{Assessment, fate};
use crate::census::sums::{Census, CensusRequest, CensusTaker};
use crate::model::advice::Advice;
use crate::model::flow::FlowKey;
use crate::model::owner::Owner;
use crate::model::peer_group::PeerGroup;
use crate::model::record::{EventName, Record};
use crate::model::row::{Row, RowSource};
use crate::model::socket::{Ages, Endpoints, Process, Settings};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{Confidence, LearnedOf, Origin, State, VerdictName};
use crate::sample::at;
use crate::sink::event_text;
use crate::text::escape::Escaped;
use crate::text::histogram::Bars;
use crate::timeout::timeouts::{Timeout, Timeouts};
use crate::top::events::Events;
use crate::top::view::Status;
use crate::top::view::look::Look;

/// The address of a server.
pub fn server(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// A connection of this host, from a port to a port of a server.
pub fn to_server(lport: u16, last: u8, rport: u16) -> Endpoints {
    Endpoints::new((server(1), lport), (server(last), rport), 7)
}

/// A process.
pub fn process(comm: &str, pid: u32) -> Process {
    Process {
        pid: Some(pid),
        comm: Some(Escaped::from(comm)),
        ..Process::default()
    }
}

/// A row of a connection with keepalive times, s; off if there are none.
pub fn row(endpoints: Endpoints, process: impl Into<Owner>, times_s: Option<(u64, u64)>) -> Row {
    let mut row = Row::new(at(0), endpoints, State::Established, RowSource::IterTcp);
    let (time_s, intvl_s) = times_s.unwrap_or((7_200, 75));
    row.process = process.into();
    row.settings = Settings {
        keepalive: Some(times_s.is_some()),
        keepalive_time_ms: Some(time_s * 1_000),
        keepalive_time_from: Some(Origin::Socket),
        keepalive_intvl_ms: Some(intvl_s * 1_000),
        keepalive_intvl_from: Some(Origin::Socket),
        keepalive_probes: Some(9),
        keepalive_probes_from: Some(Origin::Sysctl),
        ..Settings::default()
    };
    row.ages = Ages::new(5_000, 5_000, 5_000);
    row.keepalive_next_ms = times_s.map(|it| it.0 * 1_000 - 5_000);
    (row.probes_out, row.unacked) = (Some(0), Some(0));
    row
}

/// A row of a listener.
pub fn listener(port: u16) -> Row {
    let any = IpAddr::from([0; 4]);
    let endpoints = Endpoints::new((any, port), (any, 0), 7);
    Row::new(at(0), endpoints, State::Listen, RowSource::IterTcp)
}

/// A census of these rows, judged by a timeout of 350 s.
pub fn census(rows: &[Row], open: Option<PeerGroup>) -> Census {
    let timeouts = Timeouts::new(vec![Timeout::given(350_000)], Vec::new());
    let mut taker = CensusTaker::new(CensusRequest::Worst { open });
    for row in rows {
        if row.state == State::Listen {
            taker.listener(row);
        } else {
            let fate = Some(fate(row, &timeouts));
            taker.connection(row, fate, |accepted| {
                Assessment::unobserved(row, accepted, &timeouts)
            });
        }
    }
    Census {
        time: WallTime(at(0).wall_ns),
        is_judged: true,
        ..taker.end()
    }
}

/// A record of a connection.
pub fn record(
    at: Instant,
    event: EventName,
    endpoints: Endpoints,
    process: impl Into<Owner>,
) -> Record {
    let mut record = Record::new(at, event);
    record.endpoints = Some(endpoints);
    record.process = process.into();
    record.settings.keepalive_probes = Some(9);
    record.ages = Ages::new(60_000, 60_000, 60_000);
    record.probe = Some(1);
    record.answered_after_ms = Some(20);
    record
}

/// A verdict with learned bounds.
pub fn eviction(at: Instant, endpoints: Endpoints, process: impl Into<Owner>) -> Record {
    let mut record = record(at, EventName::Verdict, endpoints, process);
    record.verdict = Some(VerdictName::IdleEviction);
    record.confidence = Some(Confidence::High);
    record.ages.idle_ms = Some(903_000);
    record.survived_ms = Some(880_000);
    record.died_ms = Some(903_000);
    record.learned_of = Some(LearnedOf::Endpoint);
    record.advice = Some(Box::new(Advice::from(Escaped::from(
        "a box between forgot the connection; set TCP_KEEPIDLE=440 in the program",
    ))));
    record
}

/// Takes a record as the trace gives it.
pub fn push(events: &mut Events, record: &Record) {
    events.push(record, &event_text(record));
}

/// What a terminal shows that has neither colors nor Unicode.
pub fn plain() -> Look {
    Look {
        colored: false,
        bars: Bars::Ascii,
        zone: TimeZone::UTC,
    }
}

/// The status at the start of the sample.
pub fn status() -> Status {
    Status {
        now: WallTime(at(0).wall_ns),
        host: Escaped::from("client"),
        untraced: None,
        unread: None,
        message: None,
        slow_s: None,
        has_census: true,
    }
}

/// A host with a broker that is dead for some of its clients, a healthy database, and an
/// application that this host serves.
pub fn host() -> (Census, Events) {
    let java = || Process {
        cmdline: Some(Escaped::from("java -jar app.jar")),
        ..process("java", 4242)
    };
    let mut rows = vec![listener(8080)];
    for port in 0..40 {
        let times = (port % 2 == 0).then_some((7_200, 75));
        let mut row = row(to_server(40_000 + port, 5, 5_672), java(), times);
        row.ages = Ages::new(900_000, 900_000, 900_000);
        if port < 3 {
            row.ages = Ages::new(7_400_000, 7_400_000, 7_400_000);
            row.probes_out = times.map(|_| 3).or(Some(0));
            row.dead_in_ms = times.map(|_| 480_000);
        }
        rows.push(row);
    }
    for port in 0..6 {
        let times = Some((60, 10));
        rows.push(row(
            to_server(41_000 + port, 6, 5_432),
            process("psql", 9),
            times,
        ));
        let client = Endpoints::new((server(1), 8_080), (server(9), 50_000 + port), 7);
        rows.push(row(client, process("nginx", 77), None));
    }
    let mut events = Events::default();
    for port in 0..6 {
        let psql = to_server(41_000 + port, 6, 5_432);
        for probe in 0..5 {
            for (event, late_ms) in [(EventName::Probe, 0), (EventName::Answered, 20)] {
                let at = at(probe * 60_000 + late_ms);
                push(&mut events, &record(at, event, psql, process("psql", 9)));
            }
        }
    }
    for port in 0..6 {
        let gone = to_server(42_000 + port, 5, 5_672);
        let at = at(100_000 + u64::from(port));
        push(
            &mut events,
            &record(at, EventName::RstReceived, gone, java()),
        );
        push(&mut events, &eviction(at, gone, java()));
    }
    events.set_listening(&[(7, 8_080)]);
    (census(&rows, None), events)
}

/// The key of the connection from a port to a port of a server.
pub fn key(endpoints: &Endpoints) -> FlowKey {
    FlowKey::from(endpoints)
}
