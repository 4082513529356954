use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::correlate::Correlator;
use crate::filter::events::EventSet;
use crate::filter::{Filter, RecordFilter};
use crate::model::event::{Event, Kind, SocketEvent, SocketId};
use crate::model::header::Header;
use crate::model::host_timeout::HostTimeouts;
use crate::model::limits::MAX_SOCKETS;
use crate::model::segment::SegmentName;
use crate::model::socket::Endpoints;
use crate::model::time::WallTime;
use crate::model::values::{Cause, Evidence};
use crate::replay;
use crate::sample;
use crate::sink::{Encoder as _, Head, JsonLines, Sink as _};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutBounds;
use crate::verdict::judge::Judge;
use crate::verdict::pipeline::Pipeline;

const REMOTES: [([u8; 4], u16); 4] = [
    ([10, 9, 0, 1], 5672),
    ([10, 9, 0, 2], 5672),
    ([10, 9, 1, 1], 80),
    ([127, 0, 0, 1], 80),
];

/// What happens to a connection, some time after the last of it.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A probe is sent and answered.
    Answered,
    /// A probe is sent; the next event shows whether it was answered.
    Probe,
    /// Two probes are sent, the second is answered.
    SecondAnswered,
    Data,
    Sent,
    GaveUp,
    Reset,
    FinReceived,
    FinSent,
    Stalled,
    StalledGaveUp,
    Aborted,
    Closed,
    Lost,
    Stray,
}

/// A connection as this host sees it, ms.
struct Peer {
    id: u64,
    endpoints: Endpoints,
    received_ms: u64,
    acked_ms: u64,
    sent_ms: u64,
    probes_out: u8,
}

/// The events of connections.
struct World {
    now_ms: u64,
    next_id: u64,
    peers: Vec<Peer>,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now_ms: 1_000_000,
            next_id: 1,
            peers: Vec::new(),
            events: Vec::new(),
        };
        for nth in 0..8 {
            let peer = world.peer(nth);
            world.peers.push(peer);
        }
        world
    }

    fn peer(&mut self, nth: usize) -> Peer {
        let (address, port) = REMOTES[nth % REMOTES.len()];
        self.next_id += 1;
        let now_ms = self.now_ms;
        let local = (IpAddr::from([10, 0, 0, 1]), 40_000 + nth as u16);
        Peer {
            id: self.next_id,
            endpoints: Endpoints::new(local, (address.into(), port), 7),
            received_ms: now_ms,
            acked_ms: now_ms,
            sent_ms: now_ms,
            probes_out: 0,
        }
    }

    fn event(&self, nth: usize, kind: Kind) -> SocketEvent {
        let (peer, now_ms) = (&self.peers[nth], self.now_ms);
        SocketEvent {
            id: SocketId {
                sk: peer.id,
                born_ns: peer.id,
            },
            endpoints: peer.endpoints,
            probes_out: peer.probes_out,
            probes_out_after: peer.probes_out,
            lastrcv_ms: now_ms - peer.received_ms,
            lastack_ms: now_ms - peer.acked_ms,
            lastsnd_ms: now_ms - peer.sent_ms,
            ..sample::event(now_ms, kind)
        }
    }

    fn put(&mut self, event: SocketEvent) {
        self.events.push(Event::Socket(event));
    }

    fn probe(&mut self, nth: usize) {
        let event = self.event(nth, Kind::Probe);
        self.peers[nth].probes_out += 1;
        let probes_out_after = self.peers[nth].probes_out;
        self.put(SocketEvent {
            probes_out_after,
            ..event
        });
    }

    /// The answer to a probe, and the event that shows it.
    fn answer(&mut self, nth: usize) {
        // Some answers take longer than a kernel tick, so that they show what was survived.
        self.now_ms += 1 + 6 * nth as u64;
        self.peers[nth].acked_ms = self.now_ms;
        self.peers[nth].probes_out = 0;
        self.now_ms += 900;
        let event = self.event(nth, Kind::Early);
        self.put(event);
    }

    fn act(&mut self, nth: usize, act: Act, after_ms: u64) {
        self.now_ms += after_ms;
        match act {
            Act::Answered => {
                self.probe(nth);
                self.answer(nth);
            }
            Act::Probe => self.probe(nth),
            Act::SecondAnswered => {
                self.probe(nth);
                self.now_ms += 1_000;
                self.probe(nth);
                self.answer(nth);
            }
            Act::Data => {
                let peer = &mut self.peers[nth];
                (peer.received_ms, peer.acked_ms) = (self.now_ms, self.now_ms);
                peer.probes_out = 0;
            }
            Act::Sent => self.peers[nth].sent_ms = self.now_ms,
            Act::GaveUp => self.end(nth, Kind::Timeout(Cause::ProbeCount)),
            Act::Reset => self.end(nth, Kind::RstReceived),
            Act::FinReceived | Act::FinSent => {
                let kind = match act {
                    Act::FinSent => Kind::FinSent,
                    _ => Kind::FinReceived,
                };
                let event = self.event(nth, kind);
                self.put(event);
            }
            Act::Stalled => {
                let event = self.stalled(nth, Kind::Stalled);
                self.put(event);
            }
            Act::StalledGaveUp => {
                let event = self.stalled(nth, Kind::Timeout(Cause::Retransmission));
                self.put(event);
                self.end(nth, Kind::Closed);
            }
            Act::Aborted => self.end(nth, Kind::Aborted),
            Act::Closed => self.end(nth, Kind::Closed),
            Act::Lost => self
                .events
                .push(sample::lost(self.now_ms, Some(Kind::Probe))),
            Act::Stray => {
                let reset = crate::model::event::PassiveReset {
                    endpoints: self.peers[nth].endpoints,
                    ..sample::passive_reset(self.now_ms)
                };
                self.events.push(Event::PassiveReset(Box::new(reset)));
            }
        }
    }

    fn stalled(&self, nth: usize, kind: Kind) -> SocketEvent {
        let silent_ms = self.now_ms - self.peers[nth].acked_ms;
        SocketEvent {
            endpoints: self.peers[nth].endpoints,
            id: self.event(nth, kind).id,
            ..sample::unacked(self.event(nth, kind), 3, 1_400, silent_ms)
        }
    }

    /// The connection ends, and another begins between the same endpoints.
    fn end(&mut self, nth: usize, kind: Kind) {
        let event = self.event(nth, kind);
        self.put(event);
        if kind != Kind::Closed {
            let event = self.event(nth, Kind::Closed);
            self.put(event);
        }
        self.peers[nth] = self.peer(nth);
    }
}

/// A pipeline that passes these events.
fn pipeline(events: EventSet) -> Pipeline {
    let filter = Filter::new(RecordFilter {
        events: events.names().collect(),
        ..RecordFilter::default()
    });
    let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
    Pipeline::new(filter, judge)
}

/// The records that a trace shows of these events.
fn traced(events: &[Event], shown: EventSet) -> Vec<Record> {
    let mut correlator = Correlator::new(MAX_SOCKETS);
    let mut pipeline = pipeline(shown);
    let mut records = Vec::new();
    for event in events {
        correlator.push(event, &mut |record| {
            pipeline.push(0, record, |record| records.push(record.clone()));
        });
    }
    records
}

/// The records with sums. `each` records, all sums end; 0 for never.
fn condensed(records: &[Record], each: usize, most: NonZeroUsize) -> Vec<Record> {
    let mut condenser = Condenser::new(most);
    let mut out = Vec::new();
    let mut emit = |record: &mut Record| out.push(record.clone());
    for (nth, record) in records.iter().enumerate() {
        condenser.push(&mut record.clone(), &mut emit);
        if each > 0 && nth % each == each - 1 {
            condenser.end_sums(at(record), &mut emit);
        }
    }
    if let Some(last) = records.last() {
        condenser.finish(at(last), &mut emit);
    }
    out
}

/// What a replay of these records shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    verdicts: Vec<Record>,
    bounds: Vec<Option<TimeoutBounds>>,
    heard: Vec<Option<u64>>,
    /// Probes and answers, summed or not, and all other records.
    counts: BTreeMap<&'static str, u64>,
}

fn shown(records: &[Record]) -> Shown {
    use crate::model::named::Named as _;
    let mut pipeline = pipeline(EventSet::All);
    let mut verdicts = Vec::new();
    let mut counts = BTreeMap::new();
    for record in records {
        pipeline.push(0, &mut record.clone(), |record| {
            if let Some(alive) = &record.alive {
                for event in ["probe", "answered"] {
                    *counts.entry(event).or_default() += alive.probes_answered;
                }
            } else {
                *counts.entry(record.event.name()).or_default() += 1;
            }
            if record.event == EventName::Verdict {
                let mut verdict = record.clone();
                let evidence = verdict.evidence.take().unwrap_or_default();
                // The numbers differ.
                verdict.evidence = Some(Evidence(vec![evidence.0.len() as u64]));
                verdict.seq = 0;
                verdicts.push(verdict);
            }
        });
    }
    let remotes = REMOTES.map(|(address, port)| (IpAddr::from(address), port));
    let estimator = pipeline.judge(0).map(Judge::estimator);
    Shown {
        verdicts,
        bounds: remotes
            .map(|it| estimator.and_then(|all| all.bounds(it)))
            .into(),
        heard: remotes
            .map(|it| estimator.and_then(|all| all.heard_ns(it)))
            .into(),
        counts,
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => Just(Act::Answered),
        2 => Just(Act::Probe),
        2 => Just(Act::SecondAnswered),
        2 => Just(Act::Data),
        3 => Just(Act::Sent),
        1 => Just(Act::GaveUp),
        2 => Just(Act::Reset),
        1 => Just(Act::FinReceived),
        1 => Just(Act::FinSent),
        2 => Just(Act::Stalled),
        1 => Just(Act::StalledGaveUp),
        1 => Just(Act::Aborted),
        1 => Just(Act::Closed),
        1 => Just(Act::Lost),
        1 => Just(Act::Stray),
    ]
}

/// The events of these connections, what happens to each, and how long after the last of it.
fn events(acts: &[(usize, Act, u64)]) -> Vec<Event> {
    let mut world = World::new();
    for (nth, act, after_ms) in acts {
        world.act(*nth, *act, *after_ms);
    }
    world.events
}

fn any_acts() -> impl Strategy<Value = Vec<(usize, Act, u64)>> {
    let after = prop_oneof![10..5_000_u64, 50_000..70_000_u64, 300_000..400_000_u64];
    prop::collection::vec((0..8_usize, any_act(), after), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The records with sums lead to the same verdicts and bounds as all records, wherever
    /// sums end.
    #[test]
    fn sums_change_no_verdict_and_no_bound(
        acts in any_acts(),
        each in 0..40_usize,
        noise in any::<bool>(),
        most in prop_oneof![Just(2_usize), Just(1_000)],
    ) {
        let shown_events = if noise { EventSet::All } else { EventSet::Default };
        let records = traced(&events(&acts), shown_events);
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        let sums = condensed(&records, each, most);
        let numbers: Vec<_> = sums.iter().map(|it| it.seq).collect();
        prop_assert_eq!(numbers, (1..=sums.len() as u64).collect::<Vec<_>>());
        if most.get() > 8 {
            prop_assert_eq!(shown(&sums), shown(&records));
        } else {
            // Without room, what a connection survived may be forgotten. Nothing is lost.
            let counts = [&sums, &records].map(|it| shown(it).counts.get("probe").copied());
            prop_assert_eq!(counts[0], counts[1]);
        }
    }
}

/// The evidence of a verdict are the kept probes.
#[test]
fn a_problem_is_kept_with_the_probes_that_led_to_it() {
    let mut world = World::new();
    for _ in 0..20 {
        world.act(2, Act::Answered, 60_000);
    }
    for _ in 0..3 {
        world.act(2, Act::Probe, 60_000);
    }
    world.act(2, Act::GaveUp, 60_000);
    let records = traced(&world.events, EventSet::Default);
    let sums = condensed(&records, 0, MAX_SOCKETS);
    let events: Vec<_> = sums.iter().map(|it| it.event).collect();
    use EventName::{Alive, Answered, Closed, Probe, Timeout, Verdict};
    assert_eq!(
        events,
        [
            // The first record shows when the trace began.
            Probe, Answered, Alive, Probe, Probe, Probe, Timeout, Verdict, Closed
        ]
    );
    let alive = sums[2].alive.clone().unwrap_or_default();
    assert_eq!(alive.probes_answered, 19);
    assert_eq!(alive.survived_ages_ms.0, [60_690]);
    assert_eq!(sums[7].evidence, Some(Evidence(vec![4, 5, 6, 7])));
}

/// A log of these records.
fn log(records: &[Record], alive_ms: Option<u64>) -> io::Result<Vec<u8>> {
    let header = Header {
        version: crate::model::header::VERSION.to_owned(),
        host: Escaped::from("mq1"),
        alive_ms,
        ..Header::default()
    };
    let mut out = JsonLines::new(Vec::new());
    out.head(&Head::from(&header))?;
    records.iter().try_for_each(|it| out.record(it))?;
    Ok(out.take())
}

/// The summary of a recorder's folder says of deaths, verdicts, bounds, probes and answers
/// what that of the whole log says.
#[test]
fn the_summary_of_a_folder_is_that_of_the_log() -> Result<(), Box<dyn std::error::Error>> {
    let mut world = World::new();
    for minute in 0..300 {
        for nth in 0..8 {
            let act = match (minute, nth) {
                (150 | 250, 1) => Act::Reset,
                (180, 5) => Act::StalledGaveUp,
                (200, 2) => Act::GaveUp,
                (220, 6) => Act::FinReceived,
                (240, 4) => Act::Closed,
                _ => Act::Answered,
            };
            world.act(nth, act, 7_500);
        }
    }
    let records = traced(&world.events, EventSet::Default);
    let dir = tempfile::tempdir()?;
    let (whole, folder) = (dir.path().join("log.jsonl"), dir.path().join("kept"));
    std::fs::write(&whole, log(&records, None)?)?;
    std::fs::create_dir(&folder)?;
    let name = SegmentName {
        number: 1,
        began: WallTime(0),
    };
    let sums = condensed(&records, 1_000, MAX_SOCKETS);
    assert!(
        sums.len() * 20 < records.len(),
        "{} of {}",
        sums.len(),
        records.len()
    );
    std::fs::write(folder.join(name.to_string()), log(&sums, Some(3_600_000))?)?;
    let [whole, folder] = [whole, folder].map(|path| {
        let summary = replay::summary_of(&[path]).map_err(|why| format!("{why:#}"))?;
        let lines = summary
            .lines()
            .map(serde_json::from_str::<serde_json::Value>);
        let mut lines: Vec<_> = lines
            .collect::<Result<_, _>>()
            .map_err(|it| it.to_string())?;
        for line in &mut lines {
            // How many records there are is the difference.
            if let Some(events) = line.get_mut("events").and_then(|it| it.as_object_mut()) {
                events.remove("alive");
            }
            if let Some(total) = line.get_mut("total").and_then(|it| it.as_object_mut()) {
                total.remove("records");
            }
        }
        Ok::<_, String>(lines)
    });
    let whole = whole?;
    assert!(
        whole
            .iter()
            .any(|it| it["verdicts"].as_array().is_some_and(|it| !it.is_empty()))
    );
    assert!(
        whole
            .iter()
            .any(|it| it["idle_timeout"]["survived_ms"].is_u64())
    );
    assert_eq!(folder?, whole);
    Ok(())
}

#[test]
fn memory_is_bounded() {
    let mut condenser = Condenser::new(MAX_SOCKETS);
    let mut world = World::new();
    // Connections to ever new endpoints, that come and go.
    for nth in 0..2_000_u32 {
        let mut peer = world.peer(0);
        peer.endpoints.raddr = IpAddr::from((0x0b00_0000 + nth * 7).to_be_bytes());
        world.peers[0] = peer;
        world.act(0, Act::Answered, 60_000);
        world.act(0, Act::Answered, 60_000);
        world.act(0, Act::Closed, 1_000);
    }
    for mut record in traced(&world.events, EventSet::Default) {
        condenser.push(&mut record, &mut |_| {});
    }
    assert!(condenser.connections.is_empty());
    assert!(condenser.news.endpoints.is_empty() && condenser.news.networks.is_empty());
}
