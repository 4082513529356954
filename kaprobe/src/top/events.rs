//! Counts the records of a trace by program and remote end, and keeps the last ones of each
//! connection. Pure.
//!
//! Memory is bounded: the group or connection that had no record for the longest time makes
//! room. What a group has counted is added to [`Events::other`] then; a connection that makes
//! room is counted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::num::NonZeroUsize;

use crate::census::sums::group_of;
use crate::lru::LruMap;
use crate::model::flow::FlowKey;
use crate::model::peer_group::PeerGroup;
use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::model::time::WallTime;
use crate::model::values::VerdictName;

/// Most groups that are kept.
const MAX_GROUPS: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");
/// Most connections whose last records are kept.
pub(super) const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");
/// Most lines of a connection's timeline.
pub(super) const MAX_LINES: usize = 16;
/// Most characters of a line. Kaprobe itself writes fewer.
const MAX_LINE_LEN: usize = 1_000;

/// What the records of a trace have told.
#[derive(Clone, Debug)]
pub(super) struct Events {
    groups: LruMap<PeerGroup, Counts>,
    connections: LruMap<FlowKey, Timeline>,
    /// The counts of all records.
    pub(super) total: Counts,
    /// The counts of the groups that have made room.
    pub(super) other: Counts,
    /// Number of connections that have made room.
    pub(super) forgotten: u64,
    /// Number of events that could not be delivered.
    pub(super) lost: u64,
    /// A hook was switched off: it is not known how many events it missed.
    pub(super) silenced: bool,
    /// Namespaces and ports of the listeners that are known.
    listening: HashSet<(u32, u16)>,
    /// Changes with each record.
    pub(super) version: u64,
}

/// The counts of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keepalive probes that were sent.
    pub(super) probes: u64,
    /// Those that were answered.
    pub(super) answered: u64,
    /// Connections that the kernel has given up.
    pub(super) gave_up: u64,
    /// Resets that came in.
    pub(super) resets: u64,
    /// Data that stalled.
    pub(super) stalls: u64,
    /// The verdicts, by name.
    pub(super) verdicts: BTreeMap<VerdictName, u64>,
    /// The bounds of the idle timeout, as the last verdict that has some names them.
    pub(super) learned: Option<LearnedBounds>,
}

/// The bounds that an idle timeout was learned to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LearnedBounds {
    /// The longest idle time that was survived, ms.
    pub(super) survived_ms: Option<u64>,
    /// The shortest idle time that killed, ms.
    pub(super) died_ms: Option<u64>,
    /// A connection survived an idle time that killed another.
    pub(super) contradictory: bool,
}

/// The last records of a connection.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    pub(super) group: PeerGroup,
    pub(super) endpoints: Endpoints,
    /// Process ID of the owner.
    pub(super) pid: Option<u32>,
    /// The connection was closed or given up, as far as records tell.
    pub(super) is_over: bool,
    /// The last verdict.
    pub(super) verdict: Option<VerdictName>,
    /// The lines, oldest first.
    pub(super) lines: VecDeque<TimelineLine>,
    /// Number of older lines that are not kept.
    pub(super) dropped: u64,
}

/// A line of a timeline: a record, or several that tell the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimelineLine {
    /// The time of the first record.
    pub(super) first: WallTime,
    /// The time of the last record.
    pub(super) last: WallTime,
    pub(super) event: EventName,
    /// Number of records.
    pub(super) count: u64,
    pub(super) text: String,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            groups: LruMap::with_capacity(MAX_GROUPS),
            connections: LruMap::with_capacity(MAX_CONNECTIONS),
            total: Counts::default(),
            other: Counts::default(),
            forgotten: 0,
            lost: 0,
            silenced: false,
            listening: HashSet::new(),
            version: 0,
        }
    }
}

impl Events {
    /// Takes the next record, and the text that tells it.
    pub(super) fn push(&mut self, record: &Record, text: &str) {
        self.version += 1;
        if record.event == EventName::Lost {
            self.lost = self.lost.saturating_add(record.lost.unwrap_or(0));
            self.silenced |= record.lost.is_none();
            return;
        }
        self.total.count(record);
        let Some(endpoints) = &record.endpoints else {
            return;
        };
        let key = FlowKey::from(endpoints);
        let id = self.id(record, endpoints, &key);
        self.group(&id).count(record);
        self.timeline(key, id, endpoints).push(record, text);
    }

    /// The listeners of the last snapshot: connections to their ports were accepted.
    pub(super) fn set_listening(&mut self, listening: &[(u32, u16)]) {
        self.listening.clear();
        self.listening.extend(listening);
    }

    /// The counts of a group.
    pub(super) fn counts(&self, id: &PeerGroup) -> Option<&Counts> {
        self.groups.peek(id)
    }

    /// All groups, in no particular order.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&PeerGroup, &Counts)> {
        self.groups.iter()
    }

    /// The last records of a connection.
    pub(super) fn timeline_of(&self, key: &FlowKey) -> Option<&Timeline> {
        self.connections.peek(key)
    }

    /// All connections with records, in no particular order.
    pub(super) fn connections(&self) -> impl Iterator<Item = (&FlowKey, &Timeline)> {
        self.connections.iter()
    }

    /// The group of a record. A record without an owner belongs to the group that the
    /// connection had before.
    fn id(&self, record: &Record, endpoints: &Endpoints, key: &FlowKey) -> PeerGroup {
        let known = self.connections.peek(key);
        if let (None, Some(known)) = (&record.process.comm, known) {
            return known.group.clone();
        }
        let listener = (endpoints.netns, endpoints.lport);
        let accepted = self.listening.contains(&listener) || endpoints.seem_accepted();
        group_of(endpoints, &record.process, accepted)
    }

    fn group(&mut self, id: &PeerGroup) -> &mut Counts {
        if self.groups.peek(id).is_none() {
            let (_, evicted) = self.groups.push(id.clone(), Counts::default());
            if let Some((_, counts)) = evicted {
                self.other.add(&counts);
            }
        }
        self.groups.get_or_insert_with(id.clone(), Counts::default)
    }

    fn timeline(&mut self, key: FlowKey, id: PeerGroup, endpoints: &Endpoints) -> &mut Timeline {
        let is_new = self.connections.peek(&key).is_none();
        self.forgotten += u64::from(is_new && self.connections.is_full());
        let endpoints = *endpoints;
        let timeline = self.connections.get_or_insert_with(key, || Timeline {
            group: id.clone(),
            endpoints,
            pid: None,
            is_over: false,
            verdict: None,
            lines: VecDeque::new(),
            dropped: 0,
        });
        timeline.group = id;
        timeline
    }
}

impl Counts {
    /// No counts.
    pub(super) const NONE: Self = Self {
        probes: 0,
        answered: 0,
        gave_up: 0,
        resets: 0,
        stalls: 0,
        verdicts: BTreeMap::new(),
        learned: None,
    };

    fn count(&mut self, record: &Record) {
        match record.event {
            EventName::Probe => self.probes += 1,
            EventName::Answered => self.answered += 1,
            EventName::Timeout => self.gave_up += 1,
            EventName::RstReceived => self.resets += 1,
            EventName::Stalled => self.stalls += 1,
            _ => {}
        }
        if let Some(verdict) = record.verdict {
            *self.verdicts.entry(verdict).or_default() += 1;
        }
        if record.learned_of.is_some() {
            self.learned = Some(LearnedBounds {
                survived_ms: record.survived_ms,
                died_ms: record.died_ms,
                contradictory: record.contradictory == Some(true),
            });
        }
    }

    /// Adds the counts of another. Bounds of different endpoints can't be joined.
    pub(super) fn add(&mut self, other: &Self) {
        self.probes += other.probes;
        self.answered += other.answered;
        self.gave_up += other.gave_up;
        self.resets += other.resets;
        self.stalls += other.stalls;
        for (verdict, count) in &other.verdicts {
            *self.verdicts.entry(*verdict).or_default() += count;
        }
    }

    /// The number of verdicts.
    pub(super) fn verdict_count(&self) -> u64 {
        self.verdicts.values().sum()
    }
}

impl Timeline {
    fn push(&mut self, record: &Record, text: &str) {
        self.pid = record.process.pid.or(self.pid);
        self.verdict = record.verdict.or(self.verdict);
        // Ports that are used again are a connection of their own.
        self.is_over = match record.event {
            EventName::Verdict => self.is_over,
            event => is_end(event),
        };
        if self.joins(record) {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(TimelineLine {
            first: record.time,
            last: record.time,
            event: record.event,
            count: 1,
            text: text.chars().take(MAX_LINE_LEN).collect(),
        });
    }

    /// Joins the answer to the first probe of a silence with that probe, and with the answers
    /// before it: a healthy connection has one line.
    fn joins(&mut self, record: &Record) -> bool {
        let is_first = |it: &TimelineLine| it.event == EventName::Probe;
        let answers_first = record.event == EventName::Answered && record.probe == Some(1);
        if !answers_first || !self.lines.back().is_some_and(is_first) {
            return false;
        }
        let Some(probe) = self.lines.pop_back() else {
            return false;
        };
        match self.lines.back_mut() {
            Some(answers) if answers.event == EventName::Answered => {
                answers.count += 1;
                answers.last = record.time;
            }
            _ => self.lines.push_back(TimelineLine {
                event: EventName::Answered,
                last: record.time,
                text: "probe answered".to_owned(),
                ..probe
            }),
        }
        true
    }
}

/// Whether a connection is over after this event.
const fn is_end(event: EventName) -> bool {
    matches!(
        event,
        EventName::Timeout | EventName::RstReceived | EventName::Aborted | EventName::Closed
    )
}
