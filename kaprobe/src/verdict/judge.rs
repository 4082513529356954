//! The judge: from records to verdicts. It takes records as they are shown and
//! replayed, so that both give the same verdicts.

use std::mem;
use std::num::NonZeroUsize;

use smallvec::SmallVec;

use crate::lru::LruMap;
use crate::model::flow::FlowKey;
use crate::model::header::HostTimeout;
use crate::model::record::{EventName, Record};
use crate::model::socket::Ages;
use crate::model::time::TICK_MS;
use crate::model::values::{Direction, Evidence};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutEstimator;
use crate::timeout::middlebox::MiddleboxTable;
use crate::verdict::finding::Finding;
use crate::verdict::{rules, words};

/// The records that verdicts rest on. Where some of them were left out, fewer
/// verdicts can be had.
pub const EVIDENCE: [EventName; 7] = [
    EventName::Probe,
    EventName::Answered,
    EventName::Timeout,
    EventName::FinWait2,
    EventName::RstSent,
    EventName::RstReceived,
    EventName::Closed,
];

/// Longest wait before the kernel acknowledges data, ms: `TCP_DELACK_MAX`
/// (include/net/tcp.h). That acknowledgement is a packet too, and stamped nowhere.
const DELAYED_ACK_MS: u64 = 200;

/// How many probes a verdict names at most, the last ones.
pub(super) const MAX_PROBES: usize = 16;

/// Makes verdicts of records.
#[derive(Debug)]
pub struct Judge {
    /// Each connection seen.
    connections: LruMap<FlowKey, Tracked>,
    estimator: TimeoutEstimator,
    known: MiddleboxTable,
    /// Since when nothing is missing, CLOCK_MONOTONIC ns.
    since_ns: Option<u64>,
    /// Something was lost: it may have contradicted what was estimator.
    is_lossy: bool,
}

/// What is remembered of a connection.
#[derive(Debug, Default)]
struct Tracked {
    /// Number of the socket, 0 where segments met none. Another one between the same ends
    /// is another connection.
    sock: u64,
    /// Numbers of the probes since the last answer.
    probes: Probes,
    /// A moment, CLOCK_MONOTONIC ns.
    quiet_at_ns: u64,
    /// For how long at least no packet had passed then, ms; 0 where there is no such
    /// moment.
    quiet_ms: u32,
    /// Its end has its verdict.
    is_judged: bool,
}

/// There are tens of thousands of these, and few are of more than three probes: a host
/// drops some of those that fire together (`net.core.netdev_max_backlog`).
type Probes = SmallVec<[u64; 3]>;

impl Judge {
    /// A judge that keeps at most so many connections in mind, on a host that applies
    /// these timeouts itself.
    #[must_use]
    pub fn new(max_sockets: NonZeroUsize, host: &[HostTimeout]) -> Self {
        Self {
            connections: LruMap::with_capacity(max_sockets),
            estimator: TimeoutEstimator::default(),
            known: MiddleboxTable::new(host),
            since_ns: None,
            is_lossy: false,
        }
    }

    /// Takes the next record, with its number, or 0 where it is not shown; gives the
    /// verdict that follows, if any, with number 0.
    pub fn push(&mut self, record: &Record) -> Option<Record> {
        match (record.event, &mut self.since_ns) {
            (EventName::Lost, since_ns) => {
                self.is_lossy = true;
                *since_ns = since_ns.map(|it| it.max(record.mono_ns));
            }
            (_, since_ns) => {
                since_ns.get_or_insert(record.mono_ns);
            }
        }
        // A verdict is no evidence.
        if record.event == EventName::Verdict {
            return None;
        }
        let ends = FlowKey::from(record.endpoints.as_ref()?);
        let finding = match record.direction {
            Some(Direction::Passive) => self.passive(record, ends),
            _ => self.socket(record, ends),
        };
        finding.map(|finding| verdict_record(record, finding))
    }

    /// What the records so far show of idle timeouts.
    #[must_use]
    pub fn estimator(&self) -> &TimeoutEstimator {
        &self.estimator
    }

    /// The same, to be owned.
    #[must_use]
    pub fn into_estimator(self) -> TimeoutEstimator {
        self.estimator
    }

    /// How many connections are kept, and the most probes of one of them.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let probes = self.connections.iter().map(|(_, it)| it.probes.len());
        (self.connections.len(), probes.max().unwrap_or_default())
    }

    fn passive(&mut self, record: &Record, ends: FlowKey) -> Option<Finding> {
        let was_seen = self.connections.get_mut(&ends).is_some();
        if !was_seen {
            self.connections.push(ends, Tracked::default());
        }
        let since_ns = record.mono_ns.saturating_sub(self.since_ns?);
        rules::passive(record, was_seen, since_ns, &self.known)
    }

    fn socket(&mut self, record: &Record, ends: FlowKey) -> Option<Finding> {
        let (sock, remote) = (record.sock?, ends.remote());
        let tracked = self.connections.get_or_insert_with(ends, Tracked::default);
        if tracked.sock != sock {
            if record.event == EventName::Closed {
                // The one before; its end can be told late.
                return None;
            }
            *tracked = Tracked {
                sock,
                ..Tracked::default()
            };
        }
        // On the way from a host to itself is no middlebox.
        let is_remote = !remote.0.is_loopback();
        if let Some(age_ms) = tracked.survived(record).filter(|_| is_remote) {
            self.estimator.survived(remote, age_ms);
        }
        let finding = match record.event {
            EventName::Probe => {
                tracked.probe(record);
                None
            }
            EventName::Answered => {
                tracked.probes = Probes::new();
                None
            }
            EventName::Timeout => rules::gave_up(record, &self.known),
            EventName::FinWait2 => Some(rules::fin_wait2()),
            EventName::RstSent => rules::sent(record),
            EventName::RstReceived => {
                let reset = rules::received(record, !tracked.probes.is_empty())?;
                if let Some(death) = reset.death(record).filter(|_| is_remote) {
                    self.estimator.died(remote, death);
                }
                let bounds = self.estimator.bounds(remote);
                let bounds = bounds.filter(|it| it.is_believed());
                Some(rules::explain(
                    record,
                    reset,
                    bounds,
                    self.is_lossy,
                    &self.known,
                ))
            }
            _ => None,
        };
        let mut finding = finding.filter(|_| !tracked.is_judged)?;
        // One end has one verdict.
        tracked.is_judged = true;
        finding.evidence.extend(tracked.probes.iter());
        Some(finding)
    }
}

impl Tracked {
    /// Remembers a probe, and no more before it than were out: their answer may have
    /// gone unseen.
    fn probe(&mut self, record: &Record) {
        let before = record.probe.unwrap_or(1).saturating_sub(1) as usize;
        let kept = before.min(MAX_PROBES - 1);
        self.probes.drain(..self.probes.len().saturating_sub(kept));
        self.probes.push(record.seq);
    }

    /// An age that this record shows to have been survived, ms: the peer was heard
    /// again after a moment up to which nothing had passed for so long.
    fn survived(&mut self, record: &Record) -> Option<u64> {
        let tick_ns = TICK_MS * 1_000_000;
        let ages = (
            record.ages.lastrcv_ms,
            record.ages.lastack_ms,
            record.ages.lastsnd_ms,
        );
        let (Some(lastrcv), Some(lastack), Some(lastsnd)) = ages else {
            return None;
        };
        let heard_ns = record
            .mono_ns
            .saturating_sub(lastrcv.min(lastack).saturating_mul(1_000_000));
        let is_heard = heard_ns > self.quiet_at_ns.saturating_add(tick_ns);
        let survived = (is_heard && self.quiet_ms > 0).then(|| mem::take(&mut self.quiet_ms));
        // A probe that is out passed the middlebox too, unstamped.
        let is_first = match record.event {
            EventName::Probe => record.probe == Some(1),
            EventName::Early | EventName::RstReceived => record.probes_out == Some(0),
            _ => false,
        };
        if is_first {
            let age_ms = lastrcv.min(lastack).min(lastsnd);
            let age_ms = age_ms.saturating_sub(DELAYED_ACK_MS + TICK_MS);
            self.quiet_at_ns = record.mono_ns;
            self.quiet_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        }
        survived.map(u64::from)
    }
}

/// The record of a verdict: at the record that it follows from, on the same socket.
fn verdict_record(record: &Record, finding: Finding) -> Record {
    let advice = words::advice(record, &finding);
    let mut evidence = finding.evidence;
    evidence.push(record.seq);
    // What is not shown has no number.
    evidence.retain(|&seq| seq > 0);
    let (bounds, remedy) = (finding.bounds, finding.remedy);
    Record {
        time: record.time,
        mono_ns: record.mono_ns,
        event: EventName::Verdict,
        sock: record.sock,
        process: record.process.clone(),
        endpoints: record.endpoints,
        identity: record.identity,
        state: record.state,
        settings: record.settings,
        ages: Ages {
            idle_ms: finding.idle_ms,
            ..Ages::default()
        },
        verdict: Some(finding.verdict),
        confidence: Some(finding.confidence),
        evidence: Some(Evidence(evidence)),
        middlebox: (!finding.fits.is_empty()).then(|| words::names(&finding.fits)),
        survived_ms: bounds.and_then(|it| it.survived_ms),
        died_ms: bounds.and_then(|it| it.died_ms),
        learned_of: bounds.map(|it| it.of),
        contradictory: bounds.map(|it| it.contradictory),
        advice: Some(Escaped::from_escaped(&advice)),
        set_in: remedy.map(|it| it.set_in),
        set: remedy.map(|it| Escaped::from(it.to_string().as_str())),
        ..Record::default()
    }
}
