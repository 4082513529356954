//! Follows connections through the logs, and keeps examples of those with problems. Memory
//! is bounded, however many connections there are; what is not kept is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::record::{EventName, Record};
use crate::model::values::VerdictName;
use crate::report::conversation::{Conversation, End, Ends, LaneKey, Seen, ends};
use crate::report::rank::rank;

/// Most connections that are followed at a time.
const MAX_FOLLOWED: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// Most kinds of problems of which examples are kept.
const MAX_KINDS: usize = 64;

/// Most examples that are kept of one kind.
const MAX_EXAMPLES: usize = 3;

/// A segment without a socket is of the connection that was last seen between its ends, if
/// that is no longer ago than this, ns. The ports may have been used again after that.
const MAX_GAP_NS: i64 = 600 * 1_000_000_000;

/// Connections that went wrong in the same way: towards the same service, with the same
/// verdicts, seen by as many hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    service: End,
    verdicts: BTreeSet<VerdictName>,
    lanes: usize,
}

/// The connections of one kind.
#[derive(Debug, Default)]
struct Alike {
    count: u64,
    examples: Vec<Conversation>,
}

/// The connections in the logs.
#[derive(Debug)]
pub(super) struct Conversations {
    followed: LruMap<Ends, Conversation>,
    kinds: BTreeMap<Kind, Alike>,
    /// One of the connections without a problem.
    healthy: Option<Conversation>,
    counts: ConversationCounts,
}

/// How many connections there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConversationCounts {
    /// With a problem.
    pub(super) with_problem: u64,
    /// Of those, the ones of which only one end was recorded.
    pub(super) one_ended: u64,
    /// Without one.
    pub(super) healthy: u64,
    /// No longer followed for lack of room, and not known to have ended. One that was seen
    /// again counts twice.
    pub(super) forgotten: u64,
}

/// An example, and how many connections are like it, itself among them.
#[derive(Debug)]
pub(super) struct Example {
    pub(super) conversation: Conversation,
    pub(super) alike: u64,
}

impl Default for Conversations {
    fn default() -> Self {
        Self {
            followed: LruMap::with_capacity(MAX_FOLLOWED),
            kinds: BTreeMap::new(),
            healthy: None,
            counts: ConversationCounts::default(),
        }
    }
}

impl Conversations {
    /// Takes the next record of a host's trace. Returns what it is to its connection.
    pub(super) fn push(&mut self, host: usize, trace: u64, record: &Record) -> Seen {
        let Some(endpoints) = &record.endpoints else {
            return Seen::default();
        };
        let (ends, is_first_end) = ends(endpoints);
        let key = LaneKey {
            host,
            netns: endpoints.netns,
            is_first_end,
        };
        let socket = record.sock.map(|it| (trace, it));
        if let Some(before) = self.followed.peek(&ends)
            && is_other(before, key, socket, record.time.0)
        {
            if record.event == EventName::Closed {
                // The end of the previous connection can be reported late.
                return Seen::default();
            }
            if let Some(before) = self.followed.remove(&ends) {
                self.retire(before);
            }
        }
        if self.followed.peek(&ends).is_none() {
            let (_, evicted) = self.followed.push(ends, Conversation::new(ends));
            if let Some((_, evicted)) = evicted {
                self.counts.forgotten += u64::from(!evicted.is_over());
                self.retire(evicted);
            }
        }
        let Some(conversation) = self.followed.get_mut(&ends) else {
            return Seen::default();
        };
        let Some(lane) = conversation.lane(key, record.time.0) else {
            return Seen::default();
        };
        let seen = conversation.lanes[lane].see(socket, record);
        conversation.add(lane, record);
        if conversation.is_over() {
            // Kept while there is room: more records of its end may follow.
            self.followed.demote(&ends);
        }
        seen
    }

    /// Counts a connection that is not followed any more, and keeps it as an example if
    /// there are few of its kind.
    fn retire(&mut self, it: Conversation) {
        if !it.has_problem() {
            self.counts.healthy += 1;
            let is_better = |kept: &Conversation| kept.lanes.len() < it.lanes.len();
            if self.healthy.as_ref().is_none_or(is_better) {
                self.healthy = Some(it);
            }
            return;
        }
        self.counts.with_problem += 1;
        self.counts.one_ended += u64::from(it.is_one_ended());
        let kind = Kind {
            service: it.ends[1],
            verdicts: it.verdict_names(),
            lanes: it.lanes.len(),
        };
        if !self.kinds.contains_key(&kind) && self.kinds.len() == MAX_KINDS {
            return;
        }
        let alike = self.kinds.entry(kind).or_default();
        alike.count += 1;
        if alike.examples.len() < MAX_EXAMPLES {
            alike.examples.push(it);
        }
    }

    /// The best examples, at most so many: those with problems first, the most telling
    /// verdicts first, and of each verdicts the service with the most connections before the
    /// next service. Second examples of a kind come last. Also returns the counts of all.
    pub(super) fn finish(mut self, most: usize) -> (Vec<Example>, ConversationCounts) {
        let mut rest: Vec<_> = self.followed.iter().map(|(_, it)| it.clone()).collect();
        rest.sort_by_key(|it| (it.since_ns(), it.ends));
        rest.into_iter().for_each(|it| self.retire(it));
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|(_, alike)| std::cmp::Reverse(alike.count));
        let mut of_verdicts = BTreeMap::<_, usize>::new();
        let mut ranked = Vec::new();
        for (kind, Alike { count, examples }) in kinds {
            let place = rank(&kind.verdicts);
            let same = of_verdicts.entry(kind.verdicts).or_default();
            for (nth, conversation) in examples.into_iter().enumerate() {
                // Of several hosts, the whole story is told.
                let has_story = conversation.story.is_some();
                let key = (nth, *same, !has_story, place, conversation.since_ns());
                let example = Example {
                    conversation,
                    alike: count,
                };
                ranked.push((key, example));
            }
            *same += 1;
        }
        ranked.sort_by_key(|(key, _)| *key);
        let healthy = self.healthy.map(|conversation| Example {
            conversation,
            alike: self.counts.healthy,
        });
        let ranked = ranked.into_iter().map(|(_, it)| it);
        (ranked.chain(healthy).take(most).collect(), self.counts)
    }
}

/// Whether a record is of another connection than the one before between the same ends.
fn is_other(before: &Conversation, key: LaneKey, socket: Option<(u64, u64)>, at_ns: i64) -> bool {
    let known = before.find(key).and_then(|it| it.socket);
    match (known, socket) {
        (Some(known), Some(socket)) => known != socket,
        // Another host may have seen the end first.
        _ => before.is_over() && at_ns.saturating_sub(before.last_ns()) > MAX_GAP_NS,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::model::alive::Alive;
    use crate::model::socket::Endpoints;
    use crate::model::time::Instant;
    use crate::report::mark::Shape;

    /// A record of the connection of a client's port, so many seconds after the start.
    fn record(s: u32, port: u16, sock: u64, event: EventName) -> Record {
        let ns = u64::from(s) * 1_000_000_000;
        let at = Instant {
            mono_ns: ns,
            wall_ns: 0_i64.saturating_add_unsigned(ns),
        };
        let [client, server] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        Record {
            sock: Some(sock),
            endpoints: Some(Endpoints::new((client, port), (server, 5672), 7)),
            ..Record::new(at, event)
        }
    }

    fn verdict(s: u32, port: u16, sock: u64) -> Record {
        let mut verdict = record(s, port, sock, EventName::Verdict);
        verdict.verdict = Some(VerdictName::IdleEviction);
        verdict.ages.idle_ms = Some(12_000);
        verdict
    }

    fn all(records: &[Record]) -> Conversations {
        let mut all = Conversations::default();
        for it in records {
            all.push(0, 0, it);
        }
        all
    }

    #[test]
    fn ports_that_are_used_again_make_another_connection() {
        use EventName::{Closed, FinSent, RstReceived};
        let (examples, counts) = all(&[
            record(1, 40_000, 1, RstReceived),
            verdict(1, 40_000, 1),
            record(2, 40_000, 2, FinSent),
            // Reported late.
            record(3, 40_000, 1, Closed),
            record(4, 40_000, 2, Closed),
        ])
        .finish(9);
        assert_eq!((counts.with_problem, counts.healthy), (1, 1), "{counts:?}");
        let marks = examples
            .iter()
            .map(|it| it.conversation.lanes[0].marks.len());
        assert_eq!(marks.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_segment_without_a_socket_is_of_the_connection_of_its_time() {
        let stray = |s| Record {
            sock: None,
            ..record(s, 40_000, 0, EventName::RstSent)
        };
        for (s, connections) in [(5, 1), (100_000, 2)] {
            let (_, counts) = all(&[
                verdict(1, 40_000, 1),
                record(2, 40_000, 1, EventName::Closed),
                stray(s),
            ])
            .finish(9);
            assert_eq!(counts.with_problem + counts.healthy, connections, "{s}");
        }
    }

    /// Memory is bounded, and every connection is counted.
    #[test]
    fn many_connections_are_counted_and_few_are_kept() {
        let most = u64::try_from(MAX_FOLLOWED.get()).unwrap_or_default();
        let mut all = Conversations::default();
        for sock in 0..2 * most {
            let port = u16::try_from(20_000 + sock).unwrap_or_default();
            all.push(0, 0, &verdict(1, port, sock));
            assert!(all.followed.len() <= MAX_FOLLOWED.get());
        }
        let (examples, counts) = all.finish(2);
        assert_eq!(counts.with_problem, 2 * most);
        assert_eq!(counts.forgotten, most, "{counts:?}");
        assert_eq!((examples.len(), examples[0].alike), (2, 2 * most));
    }

    #[test]
    fn one_lane_keeps_few_marks_and_counts_all() {
        const PROBES: u32 = 1_000;
        let mut all = Conversations::default();
        let mut survived = 0;
        for nth in 0..PROBES {
            let mut probe = record(2 * nth, 40_000, 1, EventName::Probe);
            probe.probe = Some(1);
            (probe.ages.idle_ms, probe.ages.lastsnd_ms) = (Some(60_000), Some(50_000));
            all.push(0, 0, &probe);
            let answered = record(2 * nth + 1, 40_000, 1, EventName::Answered);
            let seen = all.push(0, 0, &answered);
            survived += u32::from(seen.survived_ms == Some(50_000));
        }
        // Other events can't share a mark.
        for nth in 0..100 {
            all.push(0, 0, &record(3_000 + nth, 40_000, 1, EventName::Stalled));
        }
        let (examples, _) = all.finish(9);
        let lane = &examples[0].conversation.lanes[0];
        assert_eq!(survived, PROBES);
        assert!(lane.marks.len() <= 40, "{}", lane.marks.len());
        let of = |shape| lane.marks.iter().filter(move |it| it.shape == shape);
        let answered: u64 = of(Shape::Answered).map(|it| it.count).sum();
        let stalled = of(Shape::Stalled).count() as u64;
        assert_eq!(answered + stalled + lane.more, u64::from(PROBES) + 100);
    }

    /// A recorder sums the probes that were answered: one mark stands for them, over the time
    /// that they took.
    #[test]
    fn summed_probes_are_one_mark() {
        let mut alive = record(100, 40_000, 1, EventName::Alive);
        alive.alive = Some(Box::new(Alive {
            probes_answered: 9,
            since_ns: 10_000_000_000,
            answered_ns: 90_000_000_000,
            ..Alive::default()
        }));
        let probe = record(200, 40_000, 1, EventName::Probe);
        let answered = record(200, 40_000, 1, EventName::Answered);
        let (examples, counts) = all(&[alive, probe, answered]).finish(9);
        assert_eq!((counts.with_problem, counts.healthy), (0, 1));
        let marks = examples[0].conversation.lanes[0].marks.iter();
        let marks = marks.map(|it| {
            let second = |ns: i64| ns / 1_000_000_000;
            (it.shape, it.count, second(it.at_ns), second(it.until_ns))
        });
        let answered = Shape::Answered;
        let expected = [(answered, 9, 10, 90), (answered, 1, 200, 200)];
        assert_eq!(marks.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_connection_dies_once() {
        let mut all = Conversations::default();
        let died: Vec<_> = (1..3)
            .map(|s| all.push(0, 0, &verdict(s, 40_000, 1)).died_ms)
            .collect();
        assert_eq!(died, [Some(12_000), None]);
    }
}
