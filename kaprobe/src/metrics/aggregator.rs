//! Counts records by series. Time comes from the caller.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::filter::RecordFilter;
use crate::lru::LruMap;
use crate::metrics::key::SeriesKey;
use crate::metrics::series::SeriesTable;
use crate::metrics::snapshot::{HostCounts, MetricsSnapshot, ServerBounds};
use crate::model::flow::FlowKey;
use crate::model::owner::Owner;
use crate::model::peer_group::Listeners;
use crate::model::peers::Peers;
use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::timeout::estimate::TimeoutEstimator;

/// Most connections whose series is kept: a record without an owner belongs to the series that
/// its connection had before.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");

/// Time between two rounds of the competition for room.
const ROUND: Duration = Duration::from_secs(60);

/// Counts records by series.
#[derive(Debug)]
pub struct Aggregator {
    table: SeriesTable,
    connections: LruMap<FlowKey, KnownSeries>,
    listeners: Listeners,
    host: HostCounts,
    /// The connections that are counted; `None` for all.
    filter: Option<RecordFilter>,
    /// When the round ends, CLOCK_MONOTONIC ns.
    round_ends_ns: Option<u64>,
}

/// The series of a connection.
#[derive(Debug)]
struct KnownSeries {
    key: Arc<SeriesKey>,
    /// The owner that it is the series of.
    owner: Owner,
}

impl KnownSeries {
    /// Whether it is the series of this owner. Most owners are the last one.
    fn is_of(&self, owner: &Owner) -> bool {
        self.owner.is_same_copy(owner) || self.key.is_of(owner)
    }
}

impl Aggregator {
    /// An aggregator of so many series, beside the one that all others share.
    #[must_use]
    pub fn new(series: NonZeroUsize) -> Self {
        Self {
            table: SeriesTable::new(series.get()),
            connections: LruMap::with_capacity(MAX_CONNECTIONS),
            listeners: Listeners::default(),
            host: HostCounts::default(),
            filter: None,
            round_ends_ns: None,
        }
    }

    /// Counts so many series from now on, and these connections. No count begins anew.
    pub fn set(&mut self, series: NonZeroUsize, filter: Option<RecordFilter>) {
        self.table.allow(series.get());
        self.filter = filter;
    }

    /// Takes note of the ports that sockets listen on: connections to them were accepted.
    pub fn set_listeners(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// Counts a record.
    pub fn push(&mut self, record: &Record) {
        let is_kept = self.filter.as_ref().is_none_or(|it| it.keeps(record));
        if !is_kept {
            return;
        }
        self.host.count(record);
        if record.event == EventName::Lost {
            return;
        }
        let Some(endpoints) = &record.endpoints else {
            self.table.count_other(record);
            return;
        };
        let key = self.key(record, endpoints);
        self.table.count(&key, record);
    }

    /// Takes the time. Call it about once a second.
    pub fn tick(&mut self, mono_ns: u64) {
        let round_ns = u64::try_from(ROUND.as_nanos()).unwrap_or(u64::MAX);
        let ends_ns = *self.round_ends_ns.get_or_insert(mono_ns + round_ns);
        if mono_ns >= ends_ns {
            self.table.end_round();
            self.round_ends_ns = Some(mono_ns + round_ns);
        }
    }

    /// What was counted so far, and the idle timeouts that were learned of the servers that a
    /// series names. Copies no counts that have not changed since the last time.
    #[must_use]
    pub fn snapshot(&self, learned: &TimeoutEstimator) -> MetricsSnapshot {
        MetricsSnapshot {
            learned: self.learned(learned),
            series: self.table.all(),
            other: self.table.other(),
            dropped: self.table.dropped(),
            host: self.host.clone(),
        }
    }

    fn learned(&self, learned: &TimeoutEstimator) -> Vec<ServerBounds> {
        let servers: BTreeSet<_> = self.table.keys().filter_map(SeriesKey::server).collect();
        let bounds = servers.into_iter().filter_map(|server| {
            let bounds = learned.bounds(server)?;
            Some(ServerBounds { server, bounds })
        });
        bounds.collect()
    }

    /// The series of a record.
    fn key(&mut self, record: &Record, endpoints: &Endpoints) -> Arc<SeriesKey> {
        let flow = FlowKey::from(endpoints);
        if let Some(known) = self.connections.get_mut(&flow)
            && known.is_of(&record.process)
        {
            return Arc::clone(&known.key);
        }
        let accepted = self.listeners.accepted(endpoints) || endpoints.seem_accepted();
        let peers = Peers::of(endpoints, accepted);
        let key = self.table.shared(SeriesKey::new(&record.process, peers));
        let known = KnownSeries {
            key: Arc::clone(&key),
            owner: record.process.clone(),
        };
        self.connections.push(flow, known);
        key
    }
}
