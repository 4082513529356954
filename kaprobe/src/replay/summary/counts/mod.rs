//! The counts of a summary.
//!
//! Counts records as they come and keeps none. The connections that a server accepts have
//! one row for each client address and local port. Memory is bounded: the ports of an
//! address with many ports share one row; and all endpoints after the first [`MAX_ROWS`]
//! share one. Every record is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::advice::Advice;
use crate::model::header::Header;
use crate::model::limits::MAX_SOCKETS;
use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::model::values::{Confidence, LearnedOf, VerdictName};
use crate::replay::stream::RecordSink;
use crate::sink::{Head, SinkError};
use crate::text::escape::Escaped;
use crate::text::histogram::Histogram;
use crate::timeout::estimate::{TimeoutBounds, TimeoutEstimator};

/// Most ports of one address that have a row each.
const MAX_PORTS: usize = 16;
/// Most rows, without the row for all other endpoints.
const MAX_ROWS: usize = 4_096;
/// Most hosts that have their own rows.
const MAX_HOSTS: usize = 1_000;
/// Longest advice that is kept, characters. Kaprobe itself writes fewer.
const MAX_ADVICE_LEN: usize = 1_000;
/// Most different advice for one verdict that is kept. The rest is only counted.
const MAX_ADVICE: usize = 4;

/// The local and remote endpoint. If they change, a socket is a new connection.
type LocalAndRemote = Option<((IpAddr, u16), (IpAddr, u16))>;

/// What is kept of a connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    endpoints: LocalAndRemote,
    /// Its close was counted: nothing is lost when it is evicted.
    is_closed: bool,
    /// Its idle age at death was counted. A stall has a verdict, and so has its end.
    is_aged: bool,
}

/// What a record is to its connection.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    /// It is the first record.
    is_first: bool,
    /// An earlier verdict had an idle age.
    is_aged: bool,
}

/// The counts so far.
#[derive(Debug)]
pub(crate) struct ReplaySummary {
    hosts: Vec<HostTrace>,
    addresses: BTreeMap<(usize, IpAddr), Ports>,
    row_count: usize,
    /// The row for all other endpoints.
    rest: Option<EndpointCounts>,
    /// Most sockets that are told apart; `None` for as many as each trace remembered.
    max_sockets: Option<NonZeroUsize>,
    sockets: LruMap<(usize, u64, u64), Connection>,
    pub(crate) totals: Totals,
    /// A filter has removed probes or answers.
    lacks_answers: bool,
}

/// The totals of all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Totals {
    /// Records counted.
    pub(crate) records: u64,
    /// Events that could not be delivered.
    pub(crate) lost: u64,
    /// A hook was switched off: it is not known how many events it missed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) silenced: bool,
    /// Sockets evicted for lack of room before their close. If seen again, they are counted
    /// again.
    pub(crate) forgotten: u64,
    /// Probes, and what became of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probes: Option<ProbeCounts>,
}

/// How many probes were sent, and what became of them. The last two make the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ProbeCounts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Those that were lost or rejected, and those whose answers were still on their way.
    pub(crate) unanswered: u64,
}

#[derive(Debug)]
struct HostTrace {
    name: Option<Escaped>,
    /// The number of its current trace: sockets are numbered per trace.
    trace: u64,
}

#[derive(Debug)]
enum Ports {
    Each(BTreeMap<RowPort, EndpointCounts>),
    Together(Box<EndpointCounts>),
}

/// The port that a row is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowPort {
    /// The port of the remote server.
    Remote(u16),
    /// The port of the server on this host. Each connection has another remote port.
    Local(u16),
}

impl RowPort {
    fn of(it: &Endpoints) -> Self {
        if it.seem_accepted() {
            Self::Local(it.lport)
        } else {
            Self::Remote(it.rport)
        }
    }
}

/// The counts of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointCounts {
    pub(crate) connections: u64,
    pub(crate) events: BTreeMap<EventName, u64>,
    pub(crate) verdicts: BTreeMap<VerdictName, AdviceCounts>,
    /// Idle ages at death: of each connection, that of the first verdict that has one.
    pub(crate) idle: Histogram,
    pub(crate) timeout: Option<LearnedTimeout>,
}

/// The counts of one verdict, for each advice. Advice that differs only in numbers counts
/// as one.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdviceCounts(Vec<VerdictCount>);

/// The count of one verdict with one advice.
#[derive(Clone, Debug)]
pub(crate) struct VerdictCount {
    pub(crate) count: u64,
    /// The highest confidence.
    pub(crate) confidence: Option<Confidence>,
    /// The last advice. `None` also for the verdicts with more advice than is kept.
    pub(crate) advice: Option<Escaped>,
}

impl AdviceCounts {
    /// The counts, the most frequent advice first.
    pub(crate) fn sorted(&self) -> Vec<&VerdictCount> {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|it| (it.advice.is_none(), std::cmp::Reverse(it.count)));
        counts
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|it| it.count).sum()
    }

    fn add(&mut self, more: &VerdictCount) {
        let same = |it: &&mut VerdictCount| match (&it.advice, &more.advice) {
            (Some(one), Some(other)) => differ_only_in_numbers(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if let Some(known) = self.0.iter_mut().find(same) {
            known.count += more.count;
            known.confidence = known.confidence.max(more.confidence);
            known.advice.clone_from(&more.advice);
            return;
        }
        let with_advice = self.0.iter().filter(|it| it.advice.is_some()).count();
        if more.advice.is_some() && with_advice >= MAX_ADVICE {
            self.add(&VerdictCount {
                advice: None,
                ..*more
            });
        } else {
            self.0.push(more.clone());
        }
    }
}

/// Whether two texts are the same but for their digits.
fn differ_only_in_numbers(one: &Escaped, other: &Escaped) -> bool {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let [one, other] = [one, other].map(|text| {
        let words = text.as_str().split(is_number);
        words.filter(|it| !it.is_empty())
    });
    one.eq(other)
}

/// The learned bounds of the idle timeout towards an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LearnedTimeout {
    pub(crate) of: LearnedOf,
    pub(crate) survived_ms: Option<u64>,
    pub(crate) died_ms: Option<u64>,
    pub(crate) contradictory: bool,
    /// Enough connections died to conclude that there is a timeout.
    pub(crate) is_believed: bool,
}

/// A row of the summary: an endpoint and its counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SummaryRow<'a> {
    pub(crate) host: Option<&'a Escaped>,
    /// `None` for all other endpoints.
    pub(crate) raddr: Option<IpAddr>,
    /// `None` for all ports of the address.
    pub(crate) port: Option<RowPort>,
    pub(crate) counts: &'a EndpointCounts,
}

impl Default for ReplaySummary {
    fn default() -> Self {
        Self::new(None)
    }
}

impl ReplaySummary {
    /// An empty summary that tells at most `max_sockets` apart; `None` for as many as each trace
    /// remembered.
    pub(crate) fn new(max_sockets: Option<NonZeroUsize>) -> Self {
        Self {
            hosts: Vec::new(),
            addresses: BTreeMap::new(),
            row_count: 0,
            rest: None,
            max_sockets,
            sockets: LruMap::with_capacity(max_sockets.unwrap_or(MAX_SOCKETS)),
            totals: Totals::default(),
            lacks_answers: false,
        }
    }
}

impl RecordSink for ReplaySummary {
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        head.headers.iter().for_each(|it| self.header(it));
        Ok(())
    }

    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        self.header(header);
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        self.count(record);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn learned(&mut self, host: Option<&Escaped>, estimator: &TimeoutEstimator) {
        let Some(host) = self.host(host) else {
            return;
        };
        self.hosts[host].trace += 1;
        let of_host = (host, IpAddr::from([0; 4]))..(host + 1, IpAddr::from([0; 4]));
        for ((_, address), ports) in self.addresses.range_mut(of_host) {
            match ports {
                Ports::Each(rows) => {
                    for (port, row) in rows {
                        let port = match port {
                            RowPort::Remote(port) => *port,
                            RowPort::Local(_) => 0,
                        };
                        let bounds = estimator.bounds((*address, port));
                        row.learn(bounds.map(LearnedTimeout::from));
                    }
                }
                // The ports are client ports: the timeout is known for the network only.
                Ports::Together(row) => {
                    row.learn(estimator.bounds((*address, 0)).map(LearnedTimeout::from));
                }
            }
        }
    }
}

impl ReplaySummary {
    fn count(&mut self, record: &Record) {
        self.totals.records += 1;
        if record.event == EventName::Lost {
            let lost = record.lost.unwrap_or(0);
            self.totals.lost = self.totals.lost.saturating_add(lost);
            self.totals.silenced |= record.lost.is_none();
            return;
        }
        let host = self.host(record.host.as_ref());
        let sighting = self.sight(host, record);
        let row = self.row(
            host,
            record.endpoints.map(|it| it.raddr.to_canonical()),
            record.endpoints.as_ref().map(RowPort::of),
        );
        row.connections += u64::from(sighting.is_first);
        row.count(record, sighting);
    }

    /// The index of a host. `None` if there are too many.
    fn host(&mut self, name: Option<&Escaped>) -> Option<usize> {
        let known = self.hosts.iter().position(|it| it.name.as_ref() == name);
        if known.is_none() && self.hosts.len() < MAX_HOSTS {
            self.hosts.push(HostTrace {
                name: name.cloned(),
                trace: 0,
            });
            return Some(self.hosts.len() - 1);
        }
        known
    }

    /// Remembers the connection of a record.
    fn sight(&mut self, host: Option<usize>, record: &Record) -> Sighting {
        let Some(sock) = record.sock else {
            return Sighting::default();
        };
        let host = host.unwrap_or(MAX_HOSTS);
        let trace = self.hosts.get(host).map_or(0, |it| it.trace);
        let key = (host, trace, sock);
        let endpoints = record.endpoints.map(|it| (it.local(), it.remote()));
        let is_closed = record.event == EventName::Closed;
        let connection = Connection {
            endpoints,
            is_closed,
            is_aged: has_age(record),
        };
        let (now, before) = self.sockets.push(key, connection);
        let known = before.filter(|(it, _)| *it == key);
        let known = known.filter(|(_, it)| it.endpoints == endpoints);
        let is_aged = known.is_some_and(|(_, it)| it.is_aged);
        now.is_aged |= is_aged;
        let evicted = before.filter(|(it, before)| *it != key && !before.is_closed);
        self.totals.forgotten += u64::from(evicted.is_some());
        if is_closed {
            // Kept while there is room: more records of its close may follow.
            self.sockets.demote(&key);
        }
        Sighting {
            is_first: known.is_none(),
            is_aged,
        }
    }

    fn row(
        &mut self,
        host: Option<usize>,
        address: Option<IpAddr>,
        port: Option<RowPort>,
    ) -> &mut EndpointCounts {
        let (Some(host), Some(address), Some(port)) = (host, address, port) else {
            return self.rest.get_or_insert_default();
        };
        let is_full = self.row_count >= MAX_ROWS;
        let has_room = match self.addresses.get(&(host, address)) {
            Some(Ports::Together(_)) => true,
            Some(Ports::Each(rows)) => {
                !is_full || rows.contains_key(&port) || rows.len() == MAX_PORTS
            }
            None => !is_full,
        };
        if !has_room {
            return self.rest.get_or_insert_default();
        }
        let ports = self.addresses.entry((host, address));
        let ports = ports.or_insert_with(|| Ports::Each(BTreeMap::new()));
        if let Ports::Each(rows) = ports
            && rows.len() == MAX_PORTS
            && !rows.contains_key(&port)
        {
            let mut all = EndpointCounts::default();
            rows.values().for_each(|row| all.merge(row));
            self.row_count -= MAX_PORTS - 1;
            *ports = Ports::Together(Box::new(all));
        }
        match ports {
            Ports::Together(row) => row,
            Ports::Each(rows) => rows.entry(port).or_insert_with(|| {
                self.row_count += 1;
                EndpointCounts::default()
            }),
        }
    }

    fn header(&mut self, header: &Header) {
        self.lacks_answers |= !header.keeps(&[EventName::Probe, EventName::Answered]);
        if self.max_sockets.is_none() {
            self.sockets.allow(header.max_sockets());
        }
    }

    /// The totals of all rows. Without probes if a filter has removed some of them or their
    /// answers.
    pub(crate) fn totals(&self) -> Totals {
        let rows = self.rows();
        let sum = |event| rows.iter().map(|it| it.counts.event_count(event)).sum();
        let (sent, answered): (u64, u64) = (sum(EventName::Probe), sum(EventName::Answered));
        let unanswered = sent.checked_sub(answered).filter(|_| !self.lacks_answers);
        Totals {
            probes: unanswered.map(|unanswered| ProbeCounts {
                sent,
                answered,
                unanswered,
            }),
            ..self.totals
        }
    }

    /// The rows, most verdicts first, then most connections.
    pub(crate) fn rows(&self) -> Vec<SummaryRow<'_>> {
        let mut rows = Vec::with_capacity(self.row_count + 1);
        for ((host, address), ports) in &self.addresses {
            let row = |port, counts| SummaryRow {
                host: self.hosts.get(*host).and_then(|it| it.name.as_ref()),
                raddr: Some(*address),
                port,
                counts,
            };
            match ports {
                Ports::Each(ports) => {
                    rows.extend(ports.iter().map(|(port, counts)| row(Some(*port), counts)));
                }
                Ports::Together(counts) => rows.push(row(None, counts)),
            }
        }
        let most = std::cmp::Reverse;
        rows.sort_by_key(|it| (most(it.counts.verdict_count()), most(it.counts.connections)));
        rows.extend(self.rest.as_ref().map(|counts| SummaryRow {
            host: None,
            raddr: None,
            port: None,
            counts,
        }));
        rows
    }
}

/// Whether a record is a verdict with an idle age.
fn has_age(record: &Record) -> bool {
    record.verdict.is_some() && record.ages.idle_ms.is_some()
}

impl EndpointCounts {
    fn count(&mut self, record: &Record, sighting: Sighting) {
        *self.events.entry(record.event).or_default() += 1;
        if let Some(alive) = record.alive.as_deref() {
            for event in [EventName::Probe, EventName::Answered] {
                let sum = self.events.entry(event).or_default();
                *sum = sum.saturating_add(alive.probes_answered);
            }
        }
        let Some(verdict) = record.verdict else {
            return;
        };
        if let Some(ms) = record.ages.idle_ms.filter(|_| !sighting.is_aged) {
            self.idle.add(ms);
        }
        let advice = record.advice.as_deref().map(shorten);
        self.add(
            verdict,
            &VerdictCount {
                count: 1,
                confidence: record.confidence,
                advice,
            },
        );
        self.learn(LearnedTimeout::of_verdict(record));
    }

    fn add(&mut self, name: VerdictName, more: &VerdictCount) {
        self.verdicts.entry(name).or_default().add(more);
    }

    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        for (event, count) in &other.events {
            *self.events.entry(*event).or_default() += count;
        }
        for (name, verdicts) in &other.verdicts {
            verdicts.0.iter().for_each(|it| self.add(*name, it));
        }
        self.idle.merge(&other.idle);
        self.learn(other.timeout);
    }

    /// Takes the bounds of a later trace, unless only the earlier bounds are believed.
    fn learn(&mut self, timeout: Option<LearnedTimeout>) {
        let is_better = |new: &LearnedTimeout| {
            new.is_believed || !self.timeout.is_some_and(|it| it.is_believed)
        };
        if let Some(timeout) = timeout.filter(is_better) {
            self.timeout = Some(timeout);
        }
    }

    /// The number of each verdict.
    pub(crate) fn verdict_counts(&self) -> impl Iterator<Item = (VerdictName, u64)> {
        self.verdicts.iter().map(|(name, it)| (*name, it.count()))
    }

    fn verdict_count(&self) -> u64 {
        self.verdicts.values().map(AdviceCounts::count).sum()
    }

    /// The number of records of an event.
    pub(crate) fn event_count(&self, event: EventName) -> u64 {
        self.events.get(&event).copied().unwrap_or_default()
    }
}

impl LearnedTimeout {
    /// The bounds in a verdict. Verdicts have bounds only if they are believed.
    fn of_verdict(record: &Record) -> Option<Self> {
        Some(Self {
            of: record.learned_of?,
            survived_ms: record.survived_ms,
            died_ms: record.died_ms,
            contradictory: record.contradictory.unwrap_or_default(),
            is_believed: true,
        })
    }
}

impl From<TimeoutBounds> for LearnedTimeout {
    fn from(it: TimeoutBounds) -> Self {
        Self {
            of: it.of,
            survived_ms: it.survived_ms,
            died_ms: it.died_ms,
            contradictory: it.contradictory,
            is_believed: it.is_believed(),
        }
    }
}

/// Shortens an advice, which may have any length in a log.
fn shorten(advice: &Advice) -> Escaped {
    advice.text().shortened(MAX_ADVICE_LEN)
}

#[cfg(test)]
mod tests;
