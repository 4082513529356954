//! How the logs were recorded, and what is not in them.

use std::collections::BTreeMap;

use crate::model::header::{Filters, Header};
use crate::model::host_timeout::HostTimeout;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::model::values::{Hook, LostWhy};
use crate::text::escape::Escaped;
use crate::verdict::judge::EVIDENCE;

/// Most traces that are described. The others are counted.
const MAX_TRACES: usize = 64;

/// Most characters of a text in a header. kaprobe writes fewer.
const MAX_TEXT: usize = 200;

/// Most hooks, filters or timeouts of a trace that are listed. The others are counted.
const MAX_LISTED: usize = 32;

/// Most reasons of losses, over all hosts.
const MAX_LOSSES: usize = 256;

/// A trace that was recorded.
#[derive(Clone, Debug)]
pub(super) struct RecordedTrace {
    pub(super) host: Escaped,
    pub(super) kernel: Escaped,
    pub(super) kaprobe: Escaped,
    pub(super) started: WallTime,
    /// Each hook, and how it was attached.
    pub(super) hooks: Vec<(Escaped, Escaped)>,
    /// The hooks that a trace has by default, and this one lacks.
    pub(super) without: Vec<&'static str>,
    /// The filters, as flags.
    pub(super) filters: Vec<Escaped>,
    /// The time over which answered probes are summed, ms.
    pub(super) summed_ms: Option<u64>,
    /// The idle timeouts that the host applied at the start.
    pub(super) timeouts: Vec<String>,
}

/// What was lost, on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LossKey {
    pub(super) host: usize,
    pub(super) hook: Option<Hook>,
    pub(super) kind: Option<EventName>,
    pub(super) why: Option<LostWhy>,
}

/// How the logs were recorded.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) traces: Vec<RecordedTrace>,
    /// Traces that are not described.
    pub(super) more_traces: u64,
    /// The number of events that were lost; `None` if it is not known.
    pub(super) losses: BTreeMap<LossKey, Option<u64>>,
    /// `lost` records for which there is no room in `losses`.
    pub(super) more_losses: u64,
}

impl RecordedTrace {
    fn new(header: &Header) -> Self {
        let escaped = |text: &String| Escaped::from_escaped(text).shortened(MAX_TEXT);
        let hooks = header.hooks.iter();
        // One is hooked only with --rtt.
        let by_default = Hook::ALL.iter().filter(|it| **it != Hook::Probe);
        let names = by_default.map(|it| it.name());
        let all_filters = std::iter::once(&header.filters).chain(&header.narrowed);
        Self {
            host: header.host.shortened(MAX_TEXT),
            kernel: header.kernel.shortened(MAX_TEXT),
            kaprobe: escaped(&header.kaprobe),
            started: header.started,
            summed_ms: header.alive_ms,
            hooks: listed(hooks.map(|(a, b)| (escaped(a), escaped(b))), |more| {
                (Escaped::from(more), Escaped::default())
            }),
            without: names.filter(|it| !header.hooks.contains_key(*it)).collect(),
            filters: listed(all_filters.flat_map(flags), |more| Escaped::from(more)),
            timeouts: listed(header.timeouts.iter().map(timeout), str::to_owned),
        }
    }
}

/// The first items, and a last one that counts the others.
fn listed<T>(all: impl Iterator<Item = T>, rest: impl Fn(&str) -> T) -> Vec<T> {
    let mut all = all.fuse();
    let mut first: Vec<_> = all.by_ref().take(MAX_LISTED).collect();
    let more = all.count();
    if more > 0 {
        first.push(rest(&format!("and {more} more")));
    }
    first
}

/// An idle timeout of a host, and where it applies.
fn timeout(it: &HostTimeout) -> String {
    let name = Escaped::from_escaped(&it.name()).shortened(MAX_TEXT);
    format!("{name}: {} s", it.seconds)
}

/// Filters as flags. That of events is left out if it keeps all that verdicts need, as the
/// default does.
fn flags(filters: &Filters) -> Vec<Escaped> {
    let has = |values: &[String], event: &EventName| values.iter().any(|it| it == event.name());
    let told = filters.iter().filter(|(name, values)| {
        *name != "events" || !EVIDENCE.iter().all(|event| has(values, event))
    });
    told.map(|(name, values)| {
        let flag = format!("--{name} {}", values.join(","));
        Escaped::from_escaped(&flag).shortened(MAX_TEXT)
    })
    .collect()
}

impl Recording {
    /// Adds a trace.
    pub(super) fn trace(&mut self, header: &Header) {
        if self.traces.len() < MAX_TRACES {
            self.traces.push(RecordedTrace::new(header));
        } else {
            self.more_traces += 1;
        }
    }

    /// Adds a `lost` record of a host.
    pub(super) fn lost(&mut self, host: usize, record: &Record) {
        let key = LossKey {
            host,
            hook: record.hook,
            kind: record.lost_kind,
            why: record.lost_why,
        };
        if !self.losses.contains_key(&key) && self.losses.len() == MAX_LOSSES {
            self.more_losses += 1;
            return;
        }
        let sum = self.losses.entry(key).or_insert(Some(0));
        *sum = sum.zip(record.lost).map(|(a, b)| a.saturating_add(b));
    }

    /// The number of events that are known to be lost.
    pub(super) fn lost_count(&self) -> u64 {
        let counts = self.losses.values().flatten();
        counts.fold(0, |sum, it| sum.saturating_add(*it))
    }

    /// Whether events were lost of which the number is not known.
    pub(super) fn has_unknown_losses(&self) -> bool {
        self.losses.values().any(Option::is_none) || self.more_losses > 0
    }
}
