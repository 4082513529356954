//! What is kept of a connection while logs are read: its marks, on each host that has seen
//! it. Addresses and ports identify it on all hosts, as in the stories of verdicts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::model::time::ms_to_ns;
use crate::model::values::VerdictName;
use crate::report::mark::{Mark, Shape, VerdictMark};
use crate::text::escape::Escaped;

/// Most marks that are kept of one lane. Answered probes then share marks; what still does
/// not fit is counted.
const MAX_MARKS: usize = 40;

/// Most lanes of a conversation: hosts, and both ends where one host has both.
const MAX_LANES: usize = 8;

/// Most verdicts that are kept of a conversation.
const MAX_VERDICTS: usize = 8;

/// An address and a port.
pub(super) type End = (IpAddr, u16);

/// The ends of a connection: the one that seems to have opened it first.
pub(super) type Ends = [End; 2];

/// The ends of a record's connection, and whether its own end is the first.
pub(super) fn ends(endpoints: &Endpoints) -> (Ends, bool) {
    let canonical = |(address, port): End| (address.to_canonical(), port);
    let (local, remote) = (canonical(endpoints.local()), canonical(endpoints.remote()));
    let is_first = if endpoints.seem_initiated() {
        true
    } else if endpoints.seem_accepted() {
        false
    } else {
        // Equal on both hosts: the server is likely to have the lower port.
        (local.1, local.0) >= (remote.1, remote.0)
    };
    if is_first {
        ([local, remote], true)
    } else {
        ([remote, local], false)
    }
}

/// What a record is to its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The idle age at the end of the connection, ms: that of the first verdict on this end
    /// that has one. A stall has a verdict, and so has the end.
    pub(super) died_ms: Option<u64>,
    /// A silence that ended with the answer to a probe, ms.
    pub(super) survived_ms: Option<u64>,
    /// It is the first record of a socket.
    pub(super) is_new: bool,
}

/// Which lane of a conversation a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneKey {
    /// Number of the host among the hosts of the logs.
    pub(super) host: usize,
    /// Network namespace, inode number.
    pub(super) netns: u32,
    /// The lane is of the end that opened the connection.
    pub(super) is_first_end: bool,
}

/// A connection, as all hosts saw it.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) ends: Ends,
    pub(super) lanes: Vec<Lane>,
    pub(super) verdicts: Vec<VerdictMark>,
    /// Verdicts that are not kept.
    pub(super) more_verdicts: u64,
    /// What the verdicts of several hosts tell together.
    pub(super) story: Option<Escaped>,
    /// Records of hosts or ends for which there was no lane.
    pub(super) without_lane: u64,
}

/// What one end of a connection saw, or a host that did not have it.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    /// The number of the trace and of the socket. `None` while no record has a socket.
    pub(super) socket: Option<(u64, u64)>,
    /// The program that holds the socket, once it is known.
    pub(super) program: Option<Box<str>>,
    pub(super) marks: Vec<Mark>,
    /// Marks that are not kept.
    pub(super) more: u64,
    /// The idle age of the first probe that is not answered yet, ms.
    pub(super) probed_ms: Option<u64>,
    /// A verdict on this end had an idle age.
    pub(super) is_aged: bool,
    /// The time of its last record, wall clock ns.
    pub(super) last_ns: i64,
    /// The first time at which the connection is known to have been open, wall clock ns.
    pub(super) since_ns: i64,
}

impl Lane {
    const fn new(key: LaneKey, at_ns: i64) -> Self {
        Self {
            key,
            socket: None,
            program: None,
            marks: Vec::new(),
            more: 0,
            probed_ms: None,
            is_aged: false,
            last_ns: at_ns,
            since_ns: at_ns,
        }
    }

    /// Notes the socket, its program, and how long silences were.
    pub(super) fn see(&mut self, socket: Option<(u64, u64)>, record: &Record) -> Seen {
        let is_new = socket.is_some() && self.socket.is_none();
        self.socket = self.socket.or(socket);
        if self.program.is_none() {
            self.program = record.process.label().map(Into::into);
        }
        let mut seen = Seen {
            is_new,
            ..Seen::default()
        };
        match record.event {
            EventName::Probe if record.probe == Some(1) => {
                let quiet_ms = record.ages.quiet_ms();
                self.probed_ms = quiet_ms.min(record.ages.lastsnd_ms.or(quiet_ms));
            }
            EventName::Answered => seen.survived_ms = self.probed_ms.take(),
            EventName::Alive => self.probed_ms = None,
            EventName::Verdict if !self.is_aged => {
                seen.died_ms = record.ages.idle_ms;
                self.is_aged = seen.died_ms.is_some();
            }
            _ => {}
        }
        seen
    }

    /// When this end ceased to be of use: an event that ends the connection. `None` if the
    /// records show none.
    pub(super) fn ended_ns(&self) -> Option<i64> {
        let end = self.marks.iter().find(|it| it.shape.ends());
        end.filter(|_| self.socket.is_some()).map(|it| it.at_ns)
    }

    fn is_closed(&self) -> bool {
        let mut marks = self.marks.iter().rev();
        marks.any(|it| it.shape == Shape::Closed)
    }

    /// Turns the mark of the last probe into that of a probe that was answered. False if
    /// there is none since the last answer.
    fn answer(&mut self) -> bool {
        let since = self.marks.iter_mut().rev();
        let mut since = since.take_while(|it| it.shape != Shape::Answered);
        let probe = since.find(|it| it.shape == Shape::Probe);
        probe.map(Mark::answer).is_some()
    }

    fn add(&mut self, mark: Mark) {
        self.marks.push(mark);
        if self.marks.len() > MAX_MARKS {
            self.shorten();
        }
    }

    /// Joins two marks of answered probes, or drops one that is neither first nor last.
    fn shorten(&mut self) {
        let is_answered = |it: &Mark| it.shape == Shape::Answered;
        let pairs = self.marks.windows(2).enumerate();
        let joined = pairs
            .filter(|(_, pair)| pair.iter().all(is_answered))
            .min_by_key(|(_, pair)| pair[0].count + pair[1].count);
        if let Some((at, _)) = joined {
            let later = self.marks.remove(at + 1);
            self.marks[at].merge(&later);
        } else {
            self.marks.remove(MAX_MARKS / 2);
            self.more += 1;
        }
    }
}

impl Conversation {
    pub(super) fn new(ends: Ends) -> Self {
        Self {
            ends,
            lanes: Vec::new(),
            verdicts: Vec::new(),
            more_verdicts: 0,
            story: None,
            without_lane: 0,
        }
    }

    /// The lane with this key.
    pub(super) fn find(&self, key: LaneKey) -> Option<&Lane> {
        self.lanes.iter().find(|it| it.key == key)
    }

    /// The number of the lane of a record, made if there is none. `None` if there are too
    /// many.
    pub(super) fn lane(&mut self, key: LaneKey, at_ns: i64) -> Option<usize> {
        let found = self.lanes.iter().position(|it| it.key == key);
        if found.is_none() && self.lanes.len() < MAX_LANES {
            self.lanes.push(Lane::new(key, at_ns));
            return Some(self.lanes.len() - 1);
        }
        self.without_lane += u64::from(found.is_none());
        found
    }

    /// Whether all ends that have been seen are closed.
    pub(super) fn is_over(&self) -> bool {
        let mut lanes = self.lanes.iter().filter(|it| it.socket.is_some());
        lanes.all(Lane::is_closed) && self.lanes.iter().any(|it| it.socket.is_some())
    }

    /// Whether one end has no record.
    pub(super) fn is_one_ended(&self) -> bool {
        let has = |first: bool| {
            let mut lanes = self.lanes.iter().filter(|it| it.socket.is_some());
            lanes.any(|it| it.key.is_first_end == first)
        };
        !has(true) || !has(false)
    }

    /// The time of the last record, wall clock ns.
    pub(super) fn last_ns(&self) -> i64 {
        let times = self.lanes.iter().map(|it| it.last_ns);
        times.max().unwrap_or_default()
    }

    /// The first time at which the connection is known to have been open, wall clock ns.
    pub(super) fn since_ns(&self) -> i64 {
        let times = self.lanes.iter().map(|it| it.since_ns);
        times.min().unwrap_or_default()
    }

    /// The conclusions on the connection.
    pub(super) fn verdict_names(&self) -> BTreeSet<VerdictName> {
        self.verdicts.iter().map(|it| it.verdict).collect()
    }

    /// Whether something was wrong with the connection.
    pub(super) fn has_problem(&self) -> bool {
        let is_problem = |it: &Mark| {
            matches!(
                it.shape,
                Shape::GaveUp | Shape::Stalled | Shape::Zombie | Shape::Aborted
            )
        };
        let is_silent = |it: &Lane| {
            let probes = it.marks.iter().filter(|it| it.shape == Shape::Probe);
            // The answer to the last probe may not have been seen yet.
            probes.count() > 1
        };
        !self.verdicts.is_empty()
            || self
                .lanes
                .iter()
                .any(|it| it.marks.iter().any(is_problem) || is_silent(it))
    }

    /// Adds a record to a lane: a mark, or a verdict.
    pub(super) fn add(&mut self, lane: usize, record: &Record) {
        let it = &mut self.lanes[lane];
        it.last_ns = it.last_ns.max(record.time.0);
        if record.event == EventName::Verdict {
            return self.add_verdict(lane, record);
        }
        if record.event == EventName::Answered && it.answer() {
            return;
        }
        if let Some(mark) = Mark::of(record) {
            let idle_ns = ms_to_ns(mark.idle_ms.unwrap_or_default());
            if it.socket.is_some() && mark.shape != Shape::Closed {
                let since_ns = mark.at_ns.saturating_sub_unsigned(idle_ns);
                it.since_ns = it.since_ns.min(since_ns);
            }
            it.add(mark);
        }
    }

    fn add_verdict(&mut self, lane: usize, record: &Record) {
        let Some(verdict) = record.verdict else {
            return;
        };
        if record.story.is_some() {
            self.story.clone_from(&record.story);
        }
        if self.verdicts.len() == MAX_VERDICTS {
            self.more_verdicts += 1;
            return;
        }
        self.verdicts.push(VerdictMark {
            verdict,
            confidence: record.confidence,
            lane,
            at_ns: record.time.0,
            idle_ms: record.ages.idle_ms,
            advice: record.advice.as_ref().map(|it| it.text().clone()),
        });
    }
}
