//! `kaprobe replay --summary`: what became of the connections to each remote endpoint.
//!
//! It counts as records come and keeps none. What it keeps is bounded: an address with
//! many ports, as a client has them, is one row, and so is what comes after [`PLACES`]
//! rows. Nothing is left out of the counts.

mod output;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::correlate::MAX_SOCKETS;
use crate::lru::LruMap;
use crate::model::header::Header;
use crate::model::record::{EventName, Record};
use crate::model::values::{Confidence, LearnedOf, VerdictName};
use crate::replay::stream::Output;
use crate::sink::{Head, SinkError};
use crate::text::escape::Escaped;
use crate::text::histogram::Histogram;
use crate::timeout::estimate::TimeoutEstimator;

pub(super) use crate::replay::summary::output::{Look, write};

/// How many ports of one address have a row each.
const PORTS: usize = 16;
/// How many rows there are, less the one of what came after them.
const PLACES: usize = 4_096;
/// How many hosts are told apart.
const HOSTS: usize = 1_000;
/// How much of an advice is kept, characters: what kaprobe writes has less.
const ADVICE: usize = 1_000;

/// The summary of what was shown so far.
#[derive(Debug)]
pub(super) struct Summary {
    hosts: Vec<Host>,
    places: BTreeMap<(usize, IpAddr), Ports>,
    rows: usize,
    /// What came after the last row that there is room for.
    rest: Option<Row>,
    sockets: LruMap<(usize, u64, u64), Ends>,
    pub(super) totals: Totals,
}

/// What is told of all rows together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Totals {
    /// Records counted.
    pub(super) records: u64,
    /// Events that could not be delivered.
    pub(super) lost: u64,
    /// Sockets forgotten for want of room: spoken of again, they count once more.
    pub(super) forgotten: u64,
}

#[derive(Debug)]
struct Host {
    name: Option<Escaped>,
    /// Which of its traces it is: sockets are numbered anew in each.
    trace: u64,
}

/// The ends of a connection: a socket that has others is another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends(Option<IpAddr>, Option<u16>, Option<IpAddr>, Option<u16>);

#[derive(Debug)]
enum Ports {
    Each(BTreeMap<u16, Row>),
    Together(Box<Row>),
}

/// What was counted of one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) connections: u64,
    pub(super) events: BTreeMap<EventName, u64>,
    pub(super) verdicts: BTreeMap<VerdictName, Verdict>,
    /// Idle ages at death, by the verdicts that tell one.
    pub(super) idle: Histogram,
    pub(super) timeout: Option<Timeout>,
}

/// A verdict, and how often it was given.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) count: u64,
    /// The highest.
    pub(super) confidence: Option<Confidence>,
    /// The last.
    pub(super) advice: Option<Escaped>,
}

/// What is known of the idle timeout towards a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeout {
    pub(super) of: LearnedOf,
    pub(super) survived_ms: Option<u64>,
    pub(super) died_ms: Option<u64>,
    pub(super) contradictory: bool,
    /// There were deaths enough to speak of a timeout.
    pub(super) is_believed: bool,
}

/// A row, and of what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) host: Option<&'a Escaped>,
    /// `None` for what came after the last row.
    pub(super) raddr: Option<IpAddr>,
    /// `None` for all ports of the address.
    pub(super) rport: Option<u16>,
    pub(super) row: &'a Row,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            places: BTreeMap::new(),
            rows: 0,
            rest: None,
            sockets: LruMap::with_capacity(MAX_SOCKETS),
            totals: Totals::default(),
        }
    }
}

impl Output for Summary {
    fn head(&mut self, _: &Head<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    fn next_trace(&mut self, _: &Header) -> Result<(), SinkError> {
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
        for ((_, address), ports) in self.places.range_mut(of_host) {
            match ports {
                Ports::Each(rows) => {
                    for (port, row) in rows {
                        row.learn(estimator.bounds((*address, *port)).map(Timeout::from));
                    }
                }
                // Its ports are clients': what is known is known of their network.
                Ports::Together(row) => {
                    row.learn(estimator.bounds((*address, 0)).map(Timeout::from));
                }
            }
        }
    }
}

impl Summary {
    fn count(&mut self, record: &Record) {
        self.totals.records += 1;
        if let Some(lost) = record.lost {
            self.totals.lost = self.totals.lost.saturating_add(lost);
            return;
        }
        let host = self.host(record.host.as_ref());
        let is_new = self.is_new_connection(host, record);
        let row = self.row(
            host,
            record
                .endpoints
                .map(|it| it.raddr)
                .map(|it| it.to_canonical()),
            record.endpoints.map(|it| it.rport),
        );
        row.connections += u64::from(is_new);
        row.count(record);
    }

    /// The place of a host among those told apart.
    fn host(&mut self, name: Option<&Escaped>) -> Option<usize> {
        let known = self.hosts.iter().position(|it| it.name.as_ref() == name);
        if known.is_none() && self.hosts.len() < HOSTS {
            self.hosts.push(Host {
                name: name.cloned(),
                trace: 0,
            });
            return Some(self.hosts.len() - 1);
        }
        known
    }

    /// Whether this is the first record of a connection.
    fn is_new_connection(&mut self, host: Option<usize>, record: &Record) -> bool {
        let Some(sock) = record.sock else {
            return false;
        };
        let host = host.unwrap_or(HOSTS);
        let trace = self.hosts.get(host).map_or(0, |it| it.trace);
        let key = (host, trace, sock);
        let ends = Ends(
            record.endpoints.map(|it| it.laddr),
            record.endpoints.map(|it| it.lport),
            record.endpoints.map(|it| it.raddr),
            record.endpoints.map(|it| it.rport),
        );
        let is_full = self.sockets.is_full();
        let (_, before) = self.sockets.push(key, ends);
        let is_new = before.is_none_or(|it| it != (key, ends));
        if is_full && before.is_some_and(|(it, _)| it != key) {
            self.totals.forgotten += 1;
        }
        if record.event == EventName::Closed {
            // Kept while there is room: more may be told of its end.
            self.sockets.demote(&key);
        }
        is_new
    }

    fn row(&mut self, host: Option<usize>, address: Option<IpAddr>, port: Option<u16>) -> &mut Row {
        let (Some(host), Some(address), Some(port)) = (host, address, port) else {
            return self.rest.get_or_insert_default();
        };
        let is_full = self.rows >= PLACES;
        let has_room = match self.places.get(&(host, address)) {
            Some(Ports::Together(_)) => true,
            Some(Ports::Each(rows)) => !is_full || rows.contains_key(&port) || rows.len() == PORTS,
            None => !is_full,
        };
        if !has_room {
            return self.rest.get_or_insert_default();
        }
        let ports = self.places.entry((host, address));
        let ports = ports.or_insert_with(|| Ports::Each(BTreeMap::new()));
        if let Ports::Each(rows) = ports
            && rows.len() == PORTS
            && !rows.contains_key(&port)
        {
            let mut all = Row::default();
            rows.values().for_each(|row| all.merge(row));
            self.rows -= PORTS - 1;
            *ports = Ports::Together(Box::new(all));
        }
        match ports {
            Ports::Together(row) => row,
            Ports::Each(rows) => rows.entry(port).or_insert_with(|| {
                self.rows += 1;
                Row::default()
            }),
        }
    }

    /// The rows: those with the most verdicts first, then those with the most
    /// connections.
    pub(super) fn places(&self) -> Vec<Place<'_>> {
        let mut places = Vec::with_capacity(self.rows + 1);
        for ((host, address), ports) in &self.places {
            let place = |rport, row| Place {
                host: self.hosts.get(*host).and_then(|it| it.name.as_ref()),
                raddr: Some(*address),
                rport,
                row,
            };
            match ports {
                Ports::Each(rows) => {
                    places.extend(rows.iter().map(|(port, row)| place(Some(*port), row)));
                }
                Ports::Together(row) => places.push(place(None, row)),
            }
        }
        let most = std::cmp::Reverse;
        places.sort_by_key(|it| (most(it.row.judged()), most(it.row.connections)));
        places.extend(self.rest.as_ref().map(|row| Place {
            host: None,
            raddr: None,
            rport: None,
            row,
        }));
        places
    }
}

impl Row {
    fn count(&mut self, record: &Record) {
        *self.events.entry(record.event).or_default() += 1;
        let Some(verdict) = record.verdict else {
            return;
        };
        if let Some(ms) = record.ages.idle_ms {
            self.idle.add(ms);
        }
        let advice = record.advice.as_ref().map(shortened);
        self.add(
            verdict,
            &Verdict {
                count: 1,
                confidence: record.confidence,
                advice,
            },
        );
        self.learn(Timeout::told_by(record));
    }

    fn add(&mut self, name: VerdictName, more: &Verdict) {
        let verdict = self.verdicts.entry(name).or_insert(Verdict {
            count: 0,
            confidence: None,
            advice: None,
        });
        verdict.count += more.count;
        verdict.confidence = verdict.confidence.max(more.confidence);
        if more.advice.is_some() {
            verdict.advice.clone_from(&more.advice);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        for (event, count) in &other.events {
            *self.events.entry(*event).or_default() += count;
        }
        for (name, verdict) in &other.verdicts {
            self.add(*name, verdict);
        }
        self.idle.merge(&other.idle);
        self.learn(other.timeout);
    }

    /// Takes what a later trace knows, unless the one before knew better.
    fn learn(&mut self, timeout: Option<Timeout>) {
        let is_better =
            |new: &Timeout| new.is_believed || !self.timeout.is_some_and(|it| it.is_believed);
        if let Some(timeout) = timeout.filter(is_better) {
            self.timeout = Some(timeout);
        }
    }

    fn judged(&self) -> u64 {
        self.verdicts.values().map(|it| it.count).sum()
    }

    /// How many records of these events there were.
    pub(super) fn of(&self, event: EventName) -> u64 {
        self.events.get(&event).copied().unwrap_or_default()
    }
}

impl Timeout {
    /// What a verdict says of it: it does where it is believed.
    fn told_by(record: &Record) -> Option<Self> {
        Some(Self {
            of: record.learned_of?,
            survived_ms: record.survived_ms,
            died_ms: record.died_ms,
            contradictory: record.contradictory.unwrap_or_default(),
            is_believed: true,
        })
    }
}

impl From<crate::timeout::estimate::TimeoutBounds> for Timeout {
    fn from(it: crate::timeout::estimate::TimeoutBounds) -> Self {
        Self {
            of: it.of,
            survived_ms: it.survived_ms,
            died_ms: it.died_ms,
            contradictory: it.contradictory,
            is_believed: it.is_believed(),
        }
    }
}

/// An advice of a log may be of any length.
fn shortened(advice: &Escaped) -> Escaped {
    match advice.as_str().char_indices().nth(ADVICE) {
        Some((end, _)) => Escaped::from_escaped(&advice.as_str()[..end]),
        None => advice.clone(),
    }
}

#[cfg(test)]
mod tests;
