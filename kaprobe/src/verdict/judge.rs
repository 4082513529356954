//! The judge makes verdicts from records. A trace and its replay pass the same records, so
//! both give the same verdicts.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use smallvec::SmallVec;

use crate::lru::LruMap;
use crate::model::alive::Alive;
use crate::model::flow::FlowKey;
use crate::model::host_timeout::{HostTimeouts, NetnsTimeouts};
use crate::model::record::{EventName, Record};
use crate::model::socket::{Ages, Transfer};
use crate::model::values::{Direction, Evidence, LearnedOf, VerdictName};
use crate::text::escape::Escaped;
use crate::timeout::estimate::{Death, LivedThrough, TimeoutBounds, TimeoutEstimator, is_survived};
use crate::timeout::middlebox::MiddleboxTable;
use crate::timeout::quiet::{Quiet, held_ms};
use crate::verdict::closes::Closed;
use crate::verdict::finding::{Explanation, Finding, OtherEnd, OtherEndWhy, SilentEnd};
use crate::verdict::rules::{Earlier, ResetContext, ResetTrigger};
use crate::verdict::sent_resets::{Sender, SentResets};
use crate::verdict::undelivered::StuckContext;
use crate::verdict::{closes, remedies, rules, undelivered, words};

/// The events that verdicts need. If a log lacks some of them, there are fewer verdicts.
pub const EVIDENCE: [EventName; 12] = [
    EventName::Probe,
    EventName::Answered,
    EventName::Timeout,
    EventName::FinWait2,
    EventName::RstSent,
    EventName::RstReceived,
    EventName::FinReceived,
    EventName::FinSent,
    EventName::Stalled,
    EventName::Resumed,
    EventName::Aborted,
    EventName::Closed,
];

/// Whether a judge takes records of this event: those of [`EVIDENCE`], and the sums of them.
#[must_use]
pub fn is_judged(event: EventName) -> bool {
    event == EventName::Alive || EVIDENCE.contains(&event)
}

/// The maximum number of probes that a verdict names. The last ones are kept.
pub(super) const MAX_PROBES: usize = 16;

/// Makes verdicts from the records of one host.
#[derive(Debug)]
pub struct Judge {
    /// The connections seen, up to a bound.
    connections: LruMap<FlowKey, Tracked>,
    learned: Learned,
    /// The time since which no record is missing, CLOCK_MONOTONIC ns.
    since_ns: Option<u64>,
}

/// What the records of all connections show together.
#[derive(Debug)]
struct Learned {
    estimator: TimeoutEstimator,
    /// The idle timeouts by which the programs of peers close connections.
    closes: TimeoutEstimator,
    middleboxes: MiddleboxTable,
    /// True if an event was lost. It may have contradicted the estimate.
    is_lossy: bool,
}

/// The state that the judge keeps for a connection.
#[derive(Debug, Default)]
struct Tracked {
    /// The number of the socket; 0 if segments met none. Another number between the same
    /// endpoints means another connection.
    sock: u64,
    /// The record numbers of the probes since the last answer.
    probes: Probes,
    /// A silence that it may survive.
    quiet: Quiet,
    /// The longest idle age that the connection survived, ms.
    survived_ms: Option<u64>,
    /// When a probe was last answered, CLOCK_MONOTONIC ns.
    answered_ns: Option<u64>,
    /// How one end closed the connection after a time without data.
    closed: Option<Box<Closed>>,
    /// The TTL of the peer's last answer to a probe, if it was seen.
    peer_ttl: Option<u8>,
    /// True if the end of the connection has a verdict.
    is_judged: bool,
    /// How the connection ended, if the peer was not told, as when TCP_REPAIR ends one. To the
    /// peer, this host is as one that never had it.
    silent_end: Option<Box<SilentEnd>>,
}

/// A remote address and port.
type Remote = (IpAddr, u16);

/// There is no middlebox between a host and itself.
const fn is_remote((address, _): Remote) -> bool {
    !address.is_loopback()
}

/// Record numbers of probes. There are tens of thousands of lists, and few have more than
/// three probes: if many probes are sent together, the host drops some of them
/// (`net.core.netdev_max_backlog`).
type Probes = SmallVec<[u64; 3]>;

impl Judge {
    /// A judge that tracks at most `max_sockets` connections. `host` has the timeouts that
    /// the host itself applies.
    #[must_use]
    pub fn new(max_sockets: NonZeroUsize, host: &HostTimeouts) -> Self {
        Self {
            connections: LruMap::with_capacity(max_sockets),
            learned: Learned {
                estimator: TimeoutEstimator::default(),
                closes: TimeoutEstimator::default(),
                middleboxes: MiddleboxTable::new(host),
                is_lossy: false,
            },
            since_ns: None,
        }
    }

    /// Applies a change of the timeouts that the host itself applies.
    pub fn apply(&mut self, change: &[NetnsTimeouts]) {
        self.learned.middleboxes.apply(change);
    }

    /// Notes that an unknown number of records is missing before the next one.
    pub fn lose(&mut self) {
        self.learned.is_lossy = true;
        self.since_ns = None;
    }

    /// Takes the next record. Its number is 0 if it is not shown. Returns the verdict that
    /// follows from it, with number 0. `resets` has the resets that other ends sent.
    pub fn push(&mut self, record: &Record, resets: &mut SentResets<'_>) -> Option<Record> {
        match (record.event, &mut self.since_ns) {
            (EventName::Lost, since_ns) => {
                self.learned.is_lossy = true;
                *since_ns = since_ns.map(|it| it.max(record.mono_ns));
            }
            (_, since_ns) => {
                since_ns.get_or_insert(record.mono_ns);
            }
        }
        // A verdict is not evidence.
        if record.event == EventName::Verdict {
            return None;
        }
        let flow = FlowKey::from(record.endpoints.as_ref()?);
        resets.note_host(record);
        let finding = match record.direction {
            Some(Direction::Passive) => self.passive(record, flow),
            _ => self.socket(record, flow, resets),
        };
        if matches!(record.event, EventName::RstSent | EventName::FinSent) {
            resets.note(record, finding.as_ref());
        }
        let mut finding = finding?;
        remedies::restrict(record, &mut finding);
        Some(verdict_record(record, finding))
    }

    /// The idle timeouts learned from the records so far.
    #[must_use]
    pub fn estimator(&self) -> &TimeoutEstimator {
        &self.learned.estimator
    }

    /// Returns the idle timeouts learned, and drops the rest of the judge.
    #[must_use]
    pub fn into_estimator(self) -> TimeoutEstimator {
        self.learned.estimator
    }

    /// The number of tracked connections, and the most probes of one connection.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let probes = self.connections.iter().map(|(_, it)| it.probes.len());
        (self.connections.len(), probes.max().unwrap_or_default())
    }

    fn passive(&mut self, record: &Record, flow: FlowKey) -> Option<Finding> {
        let since_ns = record.mono_ns.saturating_sub(self.since_ns?);
        let mut seen = self.connections.get_mut(&flow);
        let earlier = match seen.as_mut().map(|it| it.silent_end.take()) {
            Some(Some(end)) => Earlier::EndedSilently(*end),
            Some(None) => Earlier::Seen,
            None => Earlier::Unknown { since_ns },
        };
        let closed = seen.and_then(|it| it.closed.take());
        if !matches!(earlier, Earlier::Seen) {
            self.connections.push(flow, Tracked::default());
        }
        let middleboxes = &self.learned.middleboxes;
        let finding = rules::passive(record, earlier, middleboxes)?;
        let is_late = finding.explanation == Explanation::DataAfterClose;
        match closed.filter(|it| is_late && !it.is_by_peer()) {
            Some(closed) => Some(closes::late_data(record, &closed, None, middleboxes)),
            None => Some(finding),
        }
    }

    fn socket(
        &mut self,
        record: &Record,
        flow: FlowKey,
        resets: &mut SentResets<'_>,
    ) -> Option<Finding> {
        let (sock, remote) = (record.sock?, flow.remote());
        let sender = match record.event {
            EventName::RstReceived | EventName::FinReceived => resets.sender(record),
            _ => Sender::default(),
        };
        let tracked = self.connections.get_or_insert_with(flow, Tracked::default);
        if tracked.sock != sock {
            if record.event == EventName::Closed {
                // The end of the previous connection can be reported late.
                return None;
            }
            *tracked = Tracked {
                sock,
                ..Tracked::default()
            };
        }
        if record.event == EventName::Aborted {
            tracked.silent_end = Some(Box::new(SilentEnd::of(record)));
        }
        let learned = &mut self.learned;
        learned.survivors(record, tracked, remote);
        if let Some(alive) = record.alive.as_deref() {
            learned.alive(alive, tracked, remote);
        }
        let finding = match record.event {
            EventName::Probe => {
                tracked.probe(record);
                None
            }
            EventName::Answered => {
                tracked.probes = Probes::new();
                tracked.answered_ns = Some(record.mono_ns);
                tracked.peer_ttl = record.ttl.or(tracked.peer_ttl);
                None
            }
            EventName::Alive => {
                tracked.peer_ttl = record.ttl.or(tracked.peer_ttl);
                None
            }
            EventName::Timeout if record.transfer == Transfer::default() => rules::gave_up(record),
            EventName::Timeout | EventName::Stalled => learned.undelivered(record, tracked, remote),
            EventName::FinReceived | EventName::FinSent => {
                learned.closed(record, tracked, remote, sender)
            }
            EventName::Closed => learned.lingered(record, tracked),
            EventName::FinWait2 => Some(rules::fin_wait2()),
            EventName::RstSent => rules::sent(record),
            EventName::RstReceived => learned.reset(record, tracked, remote, sender),
            _ => None,
        };
        let mut finding = finding.filter(|_| !tracked.is_judged)?;
        // A connection ends once, so its end has one verdict.
        tracked.is_judged = match record.event {
            EventName::Stalled => false,
            EventName::FinReceived | EventName::FinSent => {
                finding.verdict == VerdictName::IdleCloseRace
            }
            _ => true,
        };
        finding.evidence.extend(tracked.probes.iter());
        finding.evidence.sort_unstable();
        Some(finding)
    }
}

impl Learned {
    /// Learns what the connection survived, and that its peer was heard.
    fn survivors(&mut self, record: &Record, tracked: &mut Tracked, remote: Remote) {
        let is_heard = matches!(
            record.event,
            EventName::Answered
                | EventName::Resumed
                | EventName::FinReceived
                | EventName::RstReceived
        );
        let through = LivedThrough {
            survived_ms: tracked.quiet.survived(record),
            held_ms: held_ms(record),
            heard_ns: is_heard.then_some(record.mono_ns),
        };
        tracked.survived_ms = tracked.survived_ms.max(through.survived_ms);
        if is_remote(remote) {
            self.estimator.lived(remote, through);
            // Probes are no data: only what the peer's program held counts.
            let held = LivedThrough {
                survived_ms: through.held_ms,
                ..LivedThrough::default()
            };
            self.closes.lived(remote, held);
        }
    }

    /// Learns what the probes show that a record sums.
    fn alive(&mut self, alive: &Alive, tracked: &mut Tracked, remote: Remote) {
        let survived = &alive.survived_ages_ms.0;
        tracked.probes = Probes::new();
        tracked.answered_ns = Some(alive.answered_ns);
        tracked.quiet = Quiet::after(alive);
        tracked.survived_ms = tracked.survived_ms.max(survived.iter().copied().max());
        if !is_remote(remote) {
            return;
        }
        let held = &alive.held_ages_ms.0;
        let through = LivedThrough {
            survived_ms: None,
            held_ms: held.iter().copied().max(),
            heard_ns: Some(alive.answered_ns),
        };
        self.estimator.lived(remote, through);
        let silence = |&ms: &u64| LivedThrough {
            survived_ms: Some(ms),
            ..LivedThrough::default()
        };
        for age in survived {
            self.estimator.lived(remote, silence(age));
        }
        for age in held {
            self.closes.lived(remote, silence(age));
        }
    }

    /// The verdict on data that is not acknowledged, or never was.
    fn undelivered(
        &mut self,
        record: &Record,
        tracked: &Tracked,
        remote: Remote,
    ) -> Option<Finding> {
        let gave_up = record.event == EventName::Timeout;
        let death = undelivered::death(record, tracked.survived_ms);
        if let Some(death) = death.filter(|_| gave_up && is_remote(remote)) {
            self.estimator.died(remote, death);
        }
        let context = StuckContext {
            bounds: self.estimator.bounds(remote),
            survived_ms: tracked.survived_ms,
            others_heard_ns: self.estimator.heard_ns(remote),
            is_lossy: self.is_lossy,
            middleboxes: &self.middleboxes,
        };
        undelivered::explain(record, &context, gave_up)
    }

    /// The verdict on a connection that one end closes.
    fn closed(
        &mut self,
        record: &Record,
        tracked: &mut Tracked,
        remote: Remote,
        mut sender: Sender,
    ) -> Option<Finding> {
        let exited = |it: &mut OtherEnd| it.why == OtherEndWhy::Exited;
        if let Some(other_end) = sender.other_end.take_if(exited) {
            return closes::peer_exited(record, other_end);
        }
        let closed = Closed::of(record, tracked.answered_ns, sender.other_end)?;
        if closed.is_by_peer() {
            self.closes.died(remote, closed.death());
        }
        let bounds = self.close_bounds(&closed, remote);
        let closed = tracked.closed.insert(Box::new(closed));
        Some(closes::closed(closed, bounds, &self.middleboxes))
    }

    /// The verdict on data that came after a program of this host had closed.
    fn lingered(&self, record: &Record, tracked: &Tracked) -> Option<Finding> {
        closes::lingered(record, tracked.closed.as_deref()?, &self.middleboxes)
    }

    /// The verdict on a received reset.
    fn reset(
        &mut self,
        record: &Record,
        tracked: &Tracked,
        remote: Remote,
        sender: Sender,
    ) -> Option<Finding> {
        let reset = rules::received(record, !tracked.probes.is_empty())?;
        if record.from_this_host != Some(true)
            && let Some(closed) = tracked.closed.as_deref().filter(|it| it.is_by_peer())
            && matches!(reset, ResetTrigger::CrossedClose | ResetTrigger::Traffic)
        {
            let bounds = self.close_bounds(closed, remote);
            return Some(closes::late_data(record, closed, bounds, &self.middleboxes));
        }
        // What this very connection survived is no timeout of its path.
        let may_be_timeout =
            |it: &Death| is_remote(remote) && !is_survived(tracked.survived_ms, it.age_ms);
        if let Some(death) = reset.death(record).filter(may_be_timeout) {
            self.estimator.died(remote, death);
        }
        let context = ResetContext {
            bounds: self.estimator.bounds(remote),
            survived_ms: tracked.survived_ms,
            sender,
            peer_ttl: record.peer_ttl.or(tracked.peer_ttl),
            is_lossy: self.is_lossy,
            middleboxes: &self.middleboxes,
        };
        Some(rules::explain(record, reset, &context))
    }

    /// The learned bounds for the idle timeout of the program that closed a connection.
    fn close_bounds(&self, closed: &Closed, remote: Remote) -> Option<TimeoutBounds> {
        // Another endpoint of the same network is another program.
        let bounds = closed.is_by_peer().then(|| self.closes.bounds(remote))?;
        bounds.filter(|it| it.of == LearnedOf::Endpoint)
    }
}

impl Tracked {
    /// Adds a probe. Drops earlier probes that the kernel no longer counts as unanswered:
    /// the record of their answer may be missing.
    fn probe(&mut self, record: &Record) {
        let earlier = record.probe.unwrap_or(1).saturating_sub(1) as usize;
        let kept = earlier.min(MAX_PROBES - 1);
        self.probes.drain(..self.probes.len().saturating_sub(kept));
        self.probes.push(record.seq);
    }
}

/// The record of a verdict, at the time and on the socket of the record judged.
fn verdict_record(record: &Record, finding: Finding) -> Record {
    let advice = words::advice(record, &finding);
    let mut evidence = finding.evidence;
    evidence.push(record.seq);
    // A record that is not shown has no number.
    evidence.retain(|&seq| seq > 0);
    let (bounds, remedy) = (finding.bounds, finding.remedy);
    Record {
        time: record.time,
        mono_ns: record.mono_ns,
        event: EventName::Verdict,
        sock: record.sock,
        process: record.process.clone(),
        endpoints: record.endpoints,
        netns_name: record.netns_name.clone(),
        identity: record.identity,
        mptcp: record.mptcp,
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
        advice: Some(Box::new(advice)),
        set_in: remedy.map(|it| it.set_in),
        set: remedy.map(|it| Escaped::from(it.to_string().as_str())),
        ..Record::default()
    }
}
