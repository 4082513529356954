//! What was counted up to a moment, for the thread that encodes it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::metrics::counts::{Reset, SeriesCounts};
use crate::metrics::key::SeriesKey;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::values::{Hook, LostWhy};
use crate::timeout::estimate::TimeoutBounds;

/// Most reasons of resets that are counted apart. The kernel has fewer.
const MAX_REASONS: usize = 128;

/// What was counted up to a moment.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// The series, in no particular order.
    pub series: Vec<(Arc<SeriesKey>, Arc<SeriesCounts>)>,
    /// What all other connections share.
    pub other: Arc<SeriesCounts>,
    /// How many series made room for others.
    pub dropped: u64,
    /// The counts of all connections together.
    pub host: HostCounts,
    /// The idle timeouts that were learned, in the order of their servers.
    pub learned: Vec<ServerBounds>,
}

/// The counts of all connections that the filters let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// The records, in the order of their events.
    pub records: [u64; EventName::ALL.len()],
    /// The resets, by the kernel's reason; `None` if there is none.
    pub reasons: BTreeMap<(Reset, Option<Box<str>>), u64>,
    /// Events that could not be delivered.
    pub lost: BTreeMap<(Hook, LostWhy, Option<EventName>), u64>,
    /// How often hooks were switched off or on: it is not known how many events they missed.
    pub switched_off: BTreeMap<Hook, u64>,
}

/// The bounds that the idle timeout towards a server was learned to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerBounds {
    /// The server.
    pub server: (IpAddr, u16),
    /// The bounds.
    pub bounds: TimeoutBounds,
}

impl HostCounts {
    pub(super) fn count(&mut self, record: &Record) {
        if record.event == EventName::Lost {
            self.lose(record);
        }
        self.records[record.event as usize] += 1;
        if let Some(reset) = Reset::of(record) {
            let reason = record.reason.as_ref().map(|it| it.as_str().into());
            let key = (reset, reason);
            let is_known = self.reasons.contains_key(&key);
            let is_full = self.reasons.len() >= MAX_REASONS && !is_known;
            let key = if is_full { (reset, None) } else { key };
            *self.reasons.entry(key).or_default() += 1;
        }
    }

    fn lose(&mut self, record: &Record) {
        let Some(hook) = record.hook else { return };
        match (record.lost, record.lost_why) {
            (Some(count), Some(why)) => {
                let lost = self.lost.entry((hook, why, record.lost_kind));
                *lost.or_default() += count;
            }
            _ => *self.switched_off.entry(hook).or_default() += 1,
        }
    }
}
