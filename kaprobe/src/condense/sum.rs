//! The sum of the probes of one connection that its peer answered.

use crate::model::alive::{AgeList, Alive};
use crate::model::record::{EventName, Record};
use crate::model::time::Instant;
use crate::timeout::ages::LongestAges;
use crate::timeout::quiet::Quiet;

/// A sum of answered probes.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    answered: u64,
    /// When the last sum of the connection ended; of the first, when its first probe was
    /// sent. 0 if there is none.
    since_ns: u64,
    answered_ns: u64,
    after_ms: Range,
    rtt_us: Range,
    ttl: Option<u8>,
    /// The idle ages survived.
    pub(super) survived: LongestAges,
    /// The times without data after which the peer answered.
    pub(super) held: LongestAges,
}

/// The least and the greatest of some values.
#[derive(Clone, Copy, Debug, Default)]
struct Range(Option<(u64, u64)>);

impl Range {
    fn add(&mut self, value: Option<u64>) {
        let Some(value) = value else {
            return;
        };
        let (least, greatest) = self.0.unwrap_or((value, value));
        self.0 = Some((least.min(value), greatest.max(value)));
    }
}

impl Sum {
    /// Whether no probe was answered.
    pub(super) const fn is_empty(&self) -> bool {
        self.answered == 0
    }

    /// Adds a probe and its answer.
    pub(super) fn add(&mut self, probe: &Record, answer: &Record) {
        if self.since_ns == 0 {
            self.since_ns = probe.mono_ns;
        }
        self.answered += 1;
        self.answered_ns = answer.mono_ns;
        self.after_ms.add(answer.answered_after_ms);
        self.rtt_us.add(answer.rtt_us);
        self.ttl = answer.ttl.or(self.ttl);
    }

    /// Makes the record of this sum, and begins the next. `of` is a record of the connection,
    /// and `quiet` what the last one has shown.
    pub(super) fn take(&mut self, at: Instant, of: &Record, quiet: Quiet) -> Record {
        let list = |ages: &LongestAges| AgeList(ages.iter().collect());
        let pending = quiet.pending();
        let alive = Alive {
            probes_answered: self.answered,
            since_ns: self.since_ns,
            answered_ns: self.answered_ns,
            answered_min_ms: self.after_ms.0.map(|it| it.0),
            answered_max_ms: self.after_ms.0.map(|it| it.1),
            rtt_min_us: self.rtt_us.0.map(|it| it.0),
            rtt_max_us: self.rtt_us.0.map(|it| it.1),
            survived_ages_ms: list(&self.survived),
            held_ages_ms: list(&self.held),
            quiet_ms: pending.map(|it| it.0),
            quiet_ns: pending.map(|it| it.1),
        };
        let record = Record {
            host: of.host.clone(),
            sock: of.sock,
            process: of.process.clone(),
            endpoints: of.endpoints,
            netns_name: of.netns_name.clone(),
            identity: of.identity,
            state: of.state,
            settings: of.settings,
            probes_out: Some(0),
            ttl: self.ttl,
            mptcp: of.mptcp,
            alive: Some(Box::new(alive)),
            ..Record::new(at, EventName::Alive)
        };
        *self = Self {
            since_ns: at.mono_ns,
            ..Self::default()
        };
        record
    }
}
