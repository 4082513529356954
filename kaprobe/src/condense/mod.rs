//! Sums the probes that peers answer, and keeps every other record.
//!
//! On a host with many idle connections nearly all records are probes and their answers. One
//! `alive` record for each connection and interval stands for them. It has all that verdicts
//! are made of, so that the same records with the sums lead to the same verdicts:
//!
//! - A probe waits for its answer. If another record of its connection comes first, the
//!   probe is kept, before that record.
//! - What a record of a connection is judged by comes before it: the sum of the connection,
//!   and each sum of another that may change the learned bounds of its endpoint or network.
//!
//! Pure: time comes from records and the caller. Memory is bounded by the number of
//! connections.

mod sum;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use ipnet::IpNet;

use crate::condense::sum::Sum;
use crate::lru::LruMap;
use crate::model::flow::FlowKey;
use crate::model::record::{EventName, Record};
use crate::model::time::Instant;
use crate::model::values::Direction;
use crate::timeout::estimate::{
    LivedThrough, MAX_REMOTES, NewBounds, TimeoutEstimator, endpoint, network,
};
use crate::timeout::quiet::{Quiet, held_ms};

/// Most records whose numbers are kept, for the verdicts that name them.
const MAX_NUMBERS: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");

/// Where records go.
type Emit<'a> = &'a mut dyn FnMut(&mut Record);

/// Sums the probes that peers answer.
#[derive(Debug)]
pub struct Condenser {
    connections: LruMap<FlowKey, Connection>,
    news: News,
    numbers: Numbers,
    /// The first record is kept: it shows since when no record is missing.
    has_begun: bool,
}

/// What is kept of a connection.
#[derive(Debug, Default)]
struct Connection {
    /// The number of its socket. Another number between the same endpoints means another
    /// connection.
    sock: u64,
    quiet: Quiet,
    sum: Sum,
    /// The last probe that is summed or waits for its answer.
    probe: Option<Box<Record>>,
    is_waiting: bool,
}

impl Connection {
    /// Makes the record of the sum, if there is one.
    fn take_sum(&mut self, at: Instant) -> Option<Record> {
        let probe = self.probe.as_deref()?;
        (!self.sum.is_empty()).then(|| self.sum.take(at, probe, self.quiet))
    }

    /// Takes the probe that waits for its answer.
    fn take_waiting(&mut self) -> Option<Box<Record>> {
        let probe = self.probe.take_if(|_| self.is_waiting);
        self.is_waiting = false;
        probe
    }
}

impl Condenser {
    /// A condenser that keeps at most `max_connections`. Beyond that, it ends the sum of the
    /// one that was seen least recently.
    #[must_use]
    pub fn new(max_connections: NonZeroUsize) -> Self {
        Self {
            connections: LruMap::with_capacity(max_connections),
            news: News::default(),
            numbers: Numbers::default(),
            has_begun: false,
        }
    }

    /// Takes the next record. Emits it unless it is summed, after what it needs.
    pub fn push(&mut self, record: &mut Record, emit: Emit<'_>) {
        let begins = record.event != EventName::Lost && !mem::replace(&mut self.has_begun, true);
        let is_summed = !begins
            && match record.event {
                EventName::Probe if record.probe == Some(1) => self.probe(record, emit),
                EventName::Answered => self.answer(record),
                _ => false,
            };
        if !is_summed {
            self.keep(record, emit);
        }
    }

    /// Emits the sums of all connections. Probes go on waiting for their answers.
    pub fn end_sums(&mut self, at: Instant, emit: Emit<'_>) {
        for (_, connection) in self.connections.iter_mut() {
            if let Some(mut sum) = connection.take_sum(at) {
                self.numbers.put(&mut sum, emit);
            }
        }
        let connections = &self.connections;
        let waits = |key: &FlowKey| connections.peek(key).is_some_and(|it| it.is_waiting);
        self.news.retain(waits);
    }

    /// Emits the sums and the probes that wait: no record follows.
    pub fn finish(&mut self, at: Instant, emit: Emit<'_>) {
        for (_, connection) in self.connections.iter_mut() {
            end(connection, at, &mut self.numbers, emit);
        }
    }

    /// Takes the first probe after a silence. Returns whether it waits for its answer.
    fn probe(&mut self, record: &mut Record, emit: Emit<'_>) -> bool {
        let (Some(endpoints), Some(sock)) = (&record.endpoints, record.sock) else {
            return false;
        };
        let key = FlowKey::from(endpoints);
        let connection = connection(&mut self.connections, &key, |key, ended| {
            end(ended, at(record), &mut self.numbers, emit);
            self.news.forget(key);
        });
        if connection.sock != sock || connection.is_waiting {
            end(connection, at(record), &mut self.numbers, emit);
        }
        if connection.sock != sock {
            *connection = Connection {
                sock,
                ..Connection::default()
            };
        }
        self.news.learn(record, &key, connection);
        match &mut connection.probe {
            // The caller drops the one before.
            Some(probe) => mem::swap(&mut **probe, record),
            None => connection.probe = Some(Box::new(mem::take(record))),
        }
        connection.is_waiting = true;
        true
    }

    /// Takes an answer. Returns whether its probe waits for it: both are summed.
    fn answer(&mut self, record: &Record) -> bool {
        let key = record.endpoints.as_ref().map(FlowKey::from);
        let Some(connection) = key.as_ref().and_then(|key| self.connections.get_mut(key)) else {
            return false;
        };
        let is_its_own = Some(connection.sock) == record.sock && record.probe == Some(1);
        match &connection.probe {
            Some(probe) if connection.is_waiting && is_its_own => {
                connection.sum.add(probe, record);
            }
            _ => return false,
        }
        connection.is_waiting = false;
        if let Some(key) = key {
            self.news.heard(&key, record.mono_ns);
        }
        true
    }

    /// Emits a record that is not summed, after what it is judged by.
    fn keep(&mut self, record: &mut Record, emit: Emit<'_>) {
        let is_derived = matches!(record.event, EventName::Lost | EventName::Verdict);
        if let Some(key) = record.endpoints.as_ref().map(FlowKey::from)
            && !is_derived
        {
            self.before(record, &key, emit);
        }
        self.numbers.put(record, emit);
    }

    /// Emits what a record of this connection is judged by.
    fn before(&mut self, record: &Record, key: &FlowKey, emit: Emit<'_>) {
        for other in self.news.before(record, key) {
            let Some(other) = self.connections.get_mut(&other) else {
                continue;
            };
            match other.take_sum(at(record)) {
                Some(mut sum) => self.numbers.put(&mut sum, emit),
                // The probe that waits shows it.
                None => end(other, at(record), &mut self.numbers, emit),
            }
        }
        if let Some(own) = self.connections.get_mut(key) {
            end(own, at(record), &mut self.numbers, emit);
        }
        match (record.event, record.sock) {
            (_, None) => {}
            _ if record.direction == Some(Direction::Passive) => {}
            (EventName::Closed, Some(sock)) => {
                let is_own = |it: &Connection| it.sock == sock;
                if self.connections.peek(key).is_some_and(is_own) {
                    self.connections.remove(key);
                    self.news.forget(key);
                }
            }
            (_, Some(sock)) => {
                let own = connection(&mut self.connections, key, |key, ended| {
                    end(ended, at(record), &mut self.numbers, emit);
                    self.news.forget(key);
                });
                if own.sock != sock {
                    *own = Connection {
                        sock,
                        ..Connection::default()
                    };
                }
                self.news.learn(record, key, own);
                // The record has it already.
                own.sum = Sum::default();
            }
        }
    }
}

/// The time of a record.
const fn at(record: &Record) -> Instant {
    Instant {
        mono_ns: record.mono_ns,
        wall_ns: record.time.0,
    }
}

/// The connection of a key, a new one if there is none. Calls `evict` with the connection
/// that has no room any more.
fn connection<'a>(
    all: &'a mut LruMap<FlowKey, Connection>,
    key: &FlowKey,
    evict: impl FnOnce(&FlowKey, &mut Connection),
) -> &'a mut Connection {
    let (connection, evicted) = all.get_or_push(key.clone(), Connection::default);
    if let Some((key, mut evicted)) = evicted {
        evict(&key, &mut evicted);
    }
    connection
}

/// Emits the sum of a connection, and its probe that waits.
fn end(connection: &mut Connection, at: Instant, numbers: &mut Numbers, emit: Emit<'_>) {
    let sum = connection.take_sum(at);
    let probe = connection.take_waiting();
    for mut record in sum.into_iter().chain(probe.map(|it| *it)) {
        numbers.put(&mut record, emit);
    }
}

/// The numbers of the records that were kept.
#[derive(Debug)]
struct Numbers {
    last: u64,
    /// The new number of each record, by the old one.
    new: LruMap<u64, u64>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            last: 0,
            new: LruMap::with_capacity(MAX_NUMBERS),
        }
    }
}

impl Numbers {
    /// Emits a record with the next number.
    fn put(&mut self, record: &mut Record, emit: Emit<'_>) {
        let old = record.seq;
        self.last += 1;
        record.seq = self.last;
        match record.event {
            EventName::Verdict => self.renumber(record),
            EventName::Alive | EventName::Lost | EventName::Closed => {}
            _ => {
                self.new.push(old, record.seq);
            }
        }
        emit(record);
    }

    /// Names the records behind a verdict by their new numbers.
    fn renumber(&self, verdict: &mut Record) {
        let Some(evidence) = &mut verdict.evidence else {
            return;
        };
        let new = |old: &u64| self.new.peek(old).copied();
        evidence.0 = evidence.0.iter().filter_map(new).collect();
        evidence.0.sort_unstable();
    }
}

/// The sums that verdicts on other connections depend on.
#[derive(Debug)]
struct News {
    estimator: TimeoutEstimator,
    /// The idle timeouts by which the programs of peers close connections.
    closes: TimeoutEstimator,
    /// The connections whose sums may change the learned bounds of an endpoint.
    endpoints: BTreeMap<(IpAddr, u16), Vec<FlowKey>>,
    /// The connections whose sums may change the learned bounds of a network.
    networks: BTreeMap<IpNet, Vec<FlowKey>>,
    /// When each endpoint was heard last, CLOCK_MONOTONIC ns, and the connection whose sum
    /// has that.
    heard: LruMap<(IpAddr, u16), (u64, Option<FlowKey>)>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            estimator: TimeoutEstimator::default(),
            closes: TimeoutEstimator::default(),
            endpoints: BTreeMap::new(),
            networks: BTreeMap::new(),
            heard: LruMap::with_capacity(MAX_REMOTES),
        }
    }
}

impl News {
    /// Adds what a record shows to the sum of its connection.
    fn learn(&mut self, record: &Record, key: &FlowKey, connection: &mut Connection) {
        let remote = key.remote();
        let survived_ms = connection.quiet.survived(record);
        let held_ms = held_ms(record);
        let survived = survived_ms.is_some_and(|ms| connection.sum.survived.add(ms));
        let held = held_ms.is_some_and(|ms| connection.sum.held.add(ms));
        if !survived && !held || remote.0.is_loopback() {
            return;
        }
        let through = LivedThrough {
            survived_ms,
            held_ms,
            heard_ns: None,
        };
        let NewBounds {
            endpoint: of_endpoint,
            network: of_network,
        } = self.estimator.lived(remote, through);
        let holds = LivedThrough {
            survived_ms: held_ms,
            ..LivedThrough::default()
        };
        let of_closes = self.closes.lived(remote, holds).endpoint;
        if of_endpoint || of_closes {
            note(self.endpoints.entry(endpoint(remote)).or_default(), key);
        }
        if of_network {
            note(self.networks.entry(network(remote)).or_default(), key);
        }
    }

    /// Notes that the peer of a connection was heard at this time.
    fn heard(&mut self, key: &FlowKey, now_ns: u64) {
        let last = endpoint(key.remote());
        let last = self.heard.get_or_insert_with(last, || (0, None));
        if now_ns > last.0 {
            *last = (now_ns, Some(key.clone()));
        }
    }

    /// Forgets a connection that has no sum any more.
    fn forget(&mut self, key: &FlowKey) {
        let remote = key.remote();
        remove(self.endpoints.entry(endpoint(remote)), key);
        remove(self.networks.entry(network(remote)), key);
    }

    /// The connections whose sums come before a record of this one.
    fn before(&mut self, record: &Record, key: &FlowKey) -> Vec<FlowKey> {
        let remote = key.remote();
        let mut before = match record.event {
            EventName::Stalled
            | EventName::Timeout
            | EventName::FinReceived
            | EventName::FinSent
            | EventName::RstReceived => {
                let mut of_endpoint = self.endpoints.remove(&endpoint(remote)).unwrap_or_default();
                of_endpoint.extend(self.networks.remove(&network(remote)).unwrap_or_default());
                of_endpoint
            }
            _ => Vec::new(),
        };
        if matches!(record.event, EventName::Stalled | EventName::Timeout) {
            let last = self.heard.get_mut(&endpoint(remote));
            before.extend(last.and_then(|it| it.1.take()));
        }
        before
    }

    /// Keeps only these connections: what the others have shown is written.
    fn retain(&mut self, keep: impl Fn(&FlowKey) -> bool) {
        let kept = |all: &mut Vec<FlowKey>| {
            all.retain(|key| keep(key));
            !all.is_empty()
        };
        self.endpoints.retain(|_, all| kept(all));
        self.networks.retain(|_, all| kept(all));
    }
}

/// Adds a connection, if it is not there.
fn note(all: &mut Vec<FlowKey>, key: &FlowKey) {
    if !all.contains(key) {
        all.push(key.clone());
    }
}

/// Removes a connection, and the list once it is empty.
fn remove<K: Ord>(all: Entry<'_, K, Vec<FlowKey>>, key: &FlowKey) {
    if let Entry::Occupied(mut all) = all {
        all.get_mut().retain(|it| it != key);
        if all.get().is_empty() {
            all.remove();
        }
    }
}

#[cfg(test)]
mod tests;
