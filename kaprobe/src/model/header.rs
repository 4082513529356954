//! The header: the first line of a log.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::model::host_timeout::{HostTimeout, HostTimeouts, NetnsRoutes, NetnsTimeouts};
use crate::model::limits::{MAX_SOCKETS, MOST_SOCKETS};
use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::time::WallTime;
use crate::model::timeouts_change;
use crate::text::escape::Escaped;

/// Version of the log format. The major number changes when a reader of the old format
/// would misread the new one.
pub const VERSION: &str = "1.7";

/// Filter values from the command line, by flag name.
pub type Filters = BTreeMap<String, Vec<String>>;

/// The header of a log: the host, the trace and its filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the log format, see [`VERSION`].
    pub version: String,
    /// Host name.
    pub host: Escaped,
    /// Kernel release of the host, as in `uname -r`.
    pub kernel: Escaped,
    /// Version of kaprobe.
    pub kaprobe: String,
    /// Which file of the trace this is, if it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// When the trace began.
    pub started: WallTime,
    /// Wall clock minus CLOCK_MONOTONIC when the trace began, ns.
    pub clock_offset_ns: i64,
    /// Kernel timer ticks per second (HZ).
    pub hz: u32,
    /// The attach mode of each hook.
    pub hooks: BTreeMap<String, String>,
    /// Filters of the trace.
    pub filters: Filters,
    /// Filters of each later replay that rewrote the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Filters>,
    /// Idle timeouts that this host applies to connections that pass through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeouts: Vec<HostTimeout>,
    /// The ways of packets to these timeouts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<NetnsRoutes>,
    /// The probes that a peer answers have no records: `alive` records sum them over this
    /// time, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive_ms: Option<u64>,
    /// Most sockets that the trace remembers. Those of older versions remember
    /// [`MAX_SOCKETS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sockets: Option<u32>,
}

impl Header {
    /// The idle timeouts of this host when the trace, or this part of it, began, and the ways of packets to them.
    #[must_use]
    pub fn host_timeouts(&self) -> HostTimeouts {
        HostTimeouts {
            timeouts: self.timeouts.clone(),
            routes: self.routes.clone(),
        }
    }
}

impl Header {
    /// When the trace began, CLOCK_MONOTONIC ns.
    #[must_use]
    pub fn began_ns(&self) -> u64 {
        let ns = self.started.0.saturating_sub(self.clock_offset_ns);
        u64::try_from(ns).unwrap_or(0)
    }
}

impl Header {
    /// Most sockets to remember, so that a replay concludes what the trace did.
    #[must_use]
    pub fn max_sockets(&self) -> NonZeroUsize {
        let max = self.max_sockets.map(|it| it.min(MOST_SOCKETS) as usize);
        max.and_then(NonZeroUsize::new).unwrap_or(MAX_SOCKETS)
    }

    /// Takes over the host's idle timeouts as they are after a change.
    pub fn apply(&mut self, change: &TimeoutsChange) {
        let mut host = self.host_timeouts();
        timeouts_change::apply(&mut host, &change.namespaces);
        (self.timeouts, self.routes) = (host.timeouts, host.routes);
    }

    /// Whether the filters of the trace, and of what rewrote its log, keep these events.
    #[must_use]
    pub fn keeps(&self, events: &[EventName]) -> bool {
        let mut filters = std::iter::once(&self.filters).chain(&self.narrowed);
        filters.all(|it| events.iter().all(|event| keeps(it, *event)))
    }

    /// The header of the next file of the same trace.
    #[must_use]
    pub fn next_part(&self) -> Self {
        Self {
            part: Some(self.part.unwrap_or(1).saturating_add(1)),
            ..self.clone()
        }
    }

    /// Whether this is the header of a later file of the trace of `last`. Files between them
    /// may be missing: see [`Self::missing_since`].
    #[must_use]
    pub fn continues(&self, last: &Self) -> bool {
        self.part_number() > last.part_number()
            && (&self.host, self.started) == (&last.host, last.started)
    }

    /// The parts of the trace that are missing between `last` and this one, which continues it.
    /// `None` if none is.
    #[must_use]
    pub fn missing_since(&self, last: &Self) -> Option<(u32, u32)> {
        let next = last.part_number().saturating_add(1);
        (self.part_number() > next).then(|| (next, self.part_number() - 1))
    }

    /// The header without what takes much memory: enough to tell what continues it.
    #[must_use]
    pub fn without_maps(&self) -> Self {
        Self {
            host: self.host.clone(),
            started: self.started,
            part: self.part,
            ..Self::default()
        }
    }

    fn part_number(&self) -> u32 {
        self.part.unwrap_or(1)
    }
}

/// Whether filters keep an event.
#[must_use]
pub fn keeps(filters: &Filters, event: EventName) -> bool {
    let events = filters.get("events");
    events.is_none_or(|it| it.iter().any(|it| it == event.name()))
}

/// The first line of a log. Its only key is `header`, which no record has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderLine<H = Header> {
    /// The header of the log.
    pub header: H,
}

/// A line of a log between records: from here on the host has other idle timeouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsChange {
    /// When the change was seen, wall clock.
    pub time: WallTime,
    /// When the change was seen, CLOCK_MONOTONIC, ns.
    pub mono_ns: u64,
    /// The host. The sink adds it if the log is of one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Escaped>,
    /// The network namespaces where something changed, as they are now.
    pub namespaces: Vec<NetnsTimeouts>,
}

/// The line of a [`TimeoutsChange`]. Its only key is `timeouts`, which no record has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsLine<T = TimeoutsChange> {
    /// The change.
    pub timeouts: T,
}
