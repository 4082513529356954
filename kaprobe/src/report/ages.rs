//! How long connections were idle when they ended, and what silences they survived.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::host_timeout::HostTimeout;
use crate::model::record::Record;
use crate::report::conversation::Seen;
use crate::report::rank::is_idle_end;
use crate::text::histogram::Histogram;
use crate::timeout::middlebox::middleboxes;
use crate::timeout::timeouts::Timeout;

/// Most timeouts of hosts that are kept.
const MAX_HOST_TIMEOUTS: usize = 64;

/// Idle ages, and the timeouts that they are compared with.
#[derive(Debug, Default)]
pub(super) struct IdleAges {
    /// At the end of connections, where an idle timeout explains the end.
    pub(super) idle_ends: Histogram,
    /// At the end of others.
    pub(super) other_ends: Histogram,
    /// Silences that ended with the answer to a probe.
    pub(super) survived: Histogram,
    /// The timeouts that hosts apply themselves, by s.
    host: BTreeMap<u64, BTreeSet<String>>,
    host_count: usize,
}

/// A known timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownTimeout {
    pub(super) seconds: u64,
    /// Whose it is.
    pub(super) names: Vec<String>,
    pub(super) origin: TimeoutOrigin,
}

/// How a timeout is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimeoutOrigin {
    /// From the command line.
    Given,
    /// A host of the logs applies it.
    Host,
    /// A default from the table of middleboxes and programs.
    Default,
}

impl TimeoutOrigin {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Given => "given on the command line",
            Self::Host => "applied by a host of these logs",
            Self::Default => "a default",
        }
    }
}

impl IdleAges {
    /// Counts what a record shows.
    pub(super) fn count(&mut self, record: &Record, seen: Seen) {
        let summed = record.alive.iter().flat_map(|it| &it.survived_ages_ms.0);
        let survived = summed.copied().chain(seen.survived_ms);
        survived.for_each(|ms| self.survived.add(ms));
        if let Some(ms) = seen.died_ms {
            if record.verdict.is_some_and(is_idle_end) {
                self.idle_ends.add(ms);
            } else {
                self.other_ends.add(ms);
            }
        }
    }

    /// Notes a timeout that a host applies.
    pub(super) fn host_timeout(&mut self, host: Option<&str>, it: &HostTimeout) {
        if self.host_count == MAX_HOST_TIMEOUTS {
            return;
        }
        let name = match host {
            Some(host) => format!("{} of {host}", it.name()),
            None => it.name(),
        };
        let is_new = self.host.entry(it.seconds).or_default().insert(name);
        self.host_count += usize::from(is_new);
    }

    /// All known timeouts by length.
    pub(super) fn known(&self, given: &[Timeout]) -> Vec<KnownTimeout> {
        let mut all: BTreeMap<(u64, TimeoutOrigin), Vec<String>> = BTreeMap::new();
        for it in given {
            let key = (it.ms / 1_000, TimeoutOrigin::Given);
            all.entry(key).or_default().push(it.of.to_string());
        }
        for (&seconds, names) in &self.host {
            let names = names.iter().cloned();
            all.entry((seconds, TimeoutOrigin::Host))
                .or_default()
                .extend(names);
        }
        for it in middleboxes() {
            let key = (it.default_s, TimeoutOrigin::Default);
            all.entry(key).or_default().push(it.name.clone());
        }
        let known = all
            .into_iter()
            .map(|((seconds, origin), names)| KnownTimeout {
                seconds,
                names,
                origin,
            });
        known.collect()
    }
}
