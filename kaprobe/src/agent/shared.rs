//! What the threads of the agent share. The thread of the trace never waits here: what another
//! thread holds just then, it takes or leaves at the next tick.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::filter::RecordFilter;
use crate::metrics::aggregator::Aggregator;
use crate::metrics::gauges::ConnectionGauges;
use crate::metrics::snapshot::MetricsSnapshot;
use crate::model::peer_group::Listeners;
use crate::trace::TraceNews;

/// What the threads of the agent share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What was counted up to the last tick.
    counted: Mutex<Arc<MetricsSnapshot>>,
    /// The connections, once they were read.
    connections: Mutex<Option<Arc<ConnectionGauges>>>,
    /// What the thread of the trace is to take over at the next tick.
    orders: Mutex<Orders>,
    /// How often the thread of the trace came by.
    turns: AtomicU64,
    /// Changes with what the metrics show.
    version: AtomicU64,
    snapshots_failed: AtomicU64,
    /// Pause until the connections are read again, ms.
    pause_ms: AtomicU64,
    /// How often the thread came by that has the connections counted.
    connection_turns: AtomicU64,
    /// The process that reads the connections; 0 if there is none.
    reader: AtomicU32,
    /// Whether the last file of settings was good.
    reloaded: Mutex<Option<bool>>,
}

/// Changes for the thread of the trace.
#[derive(Debug, Default)]
struct Orders {
    listeners: Option<Listeners>,
    counting: Option<(NonZeroUsize, Option<RecordFilter>)>,
}

impl Shared {
    /// Takes what the trace reports.
    pub(super) fn observe(&self, aggregator: &mut Aggregator, news: &TraceNews<'_>) {
        match news {
            TraceNews::Record(record) => aggregator.push(record),
            TraceNews::Tick(now, learned) => {
                self.turns.fetch_add(1, Ordering::Relaxed);
                self.take_orders(aggregator);
                aggregator.tick(now.mono_ns);
                if let Ok(mut counted) = self.counted.try_lock() {
                    *counted = Arc::new(aggregator.snapshot(learned));
                    self.change();
                }
            }
        }
    }

    fn take_orders(&self, aggregator: &mut Aggregator) {
        let Ok(mut orders) = self.orders.try_lock() else {
            return;
        };
        if let Some(listeners) = orders.listeners.take() {
            aggregator.set_listeners(listeners);
        }
        if let Some((series, filter)) = orders.counting.take() {
            aggregator.set(series, filter);
        }
    }

    /// Has so many series counted from the next tick on, and these records.
    pub(super) fn set_counting(&self, series: NonZeroUsize, filter: Option<RecordFilter>) {
        lock(&self.orders).counting = Some((series, filter));
    }

    /// Takes over the connections that were read.
    pub(super) fn set_connections(&self, gauges: ConnectionGauges, listeners: Listeners) {
        lock(&self.orders).listeners = Some(listeners);
        *lock(&self.connections) = Some(Arc::new(gauges));
        self.change();
    }

    pub(super) fn set_reloaded(&self, is_good: bool) {
        *lock(&self.reloaded) = Some(is_good);
        self.change();
    }

    pub(super) fn snapshot_failed(&self) {
        self.snapshots_failed.fetch_add(1, Ordering::Relaxed);
        self.change();
    }

    pub(super) fn set_pause(&self, pause: Duration) {
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.pause_ms.store(ms, Ordering::Relaxed);
        self.change();
    }

    /// Notes that the thread came by that has the connections counted.
    pub(super) fn turn_connections(&self) {
        self.connection_turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_reader(&self, pid: u32) {
        self.reader.store(pid, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> Arc<MetricsSnapshot> {
        Arc::clone(&lock(&self.counted))
    }

    pub(super) fn connections(&self) -> Option<Arc<ConnectionGauges>> {
        lock(&self.connections).clone()
    }

    pub(super) fn reloaded(&self) -> Option<bool> {
        *lock(&self.reloaded)
    }

    pub(super) fn failed_snapshots(&self) -> u64 {
        self.snapshots_failed.load(Ordering::Relaxed)
    }

    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms.load(Ordering::Relaxed))
    }

    /// How often the thread came by that has the connections counted: about once a second.
    pub(super) fn connection_turns(&self) -> u64 {
        self.connection_turns.load(Ordering::Relaxed)
    }

    pub(super) fn reader(&self) -> Option<u32> {
        Some(self.reader.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// How often the thread of the trace came by: about once a second.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// A number that changes with what the metrics show.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn change(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}

/// Locks a value that a thread other than that of the trace may wait for.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves the values consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
