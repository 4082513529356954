//! Problems that were told: the same one again is only counted.

use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::peers::Peers;
use crate::model::time::Instant;
use crate::sink::digest::problem::Problem;

/// The most different problems that are kept apart. One that is forgotten is told again.
const MOST: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");

/// The shortest time between the first two lines on the same problem, ns: one dead host ends many
/// connections at once.
const FIRST_PAUSE_NS: u64 = 5_000_000_000;

/// The shortest time between later lines, ns.
const PAUSE_NS: u64 = 60_000_000_000;

/// After this time a count is told that has grown, however little, ns.
const LONG_NS: u64 = 3_600_000_000_000;

/// The shortest time between two looks for counts to tell, ns.
const LOOK_NS: u64 = 1_000_000_000;

/// The problems that were told.
#[derive(Debug)]
pub(super) struct ToldProblems {
    told: LruMap<Key, ToldProblem>,
    /// When counts were last looked through, ns.
    looked_ns: u64,
}

/// What makes two problems the same: it is told of the same program and service alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    name: &'static str,
    /// A verdict that becomes surer, or advises something else, is told again.
    confidence: Option<&'static str>,
    detail: String,
    program: String,
    service: Option<Peers>,
    /// A verdict has several explanations. The numbers in one are of its first connection.
    words: String,
}

/// A problem that was told, and how often it was seen.
#[derive(Clone, Debug)]
pub(super) struct ToldProblem {
    /// The first one.
    pub(super) problem: Problem,
    pub(super) count: u64,
    /// The time of the last one.
    pub(super) last: Instant,
    /// The count that was last told.
    told: u64,
    told_ns: u64,
}

impl ToldProblem {
    /// Whether its count is to be told at this time: if it has doubled, or after a long time.
    fn is_due(&self, now_ns: u64) -> bool {
        let since_ns = now_ns.saturating_sub(self.told_ns);
        let has_doubled = self.count >= self.told.saturating_mul(2);
        let is_first = self.told == self.problem.count;
        let pause_ns = if is_first { FIRST_PAUSE_NS } else { PAUSE_NS };
        self.count > self.told && since_ns >= pause_ns && (has_doubled || since_ns >= LONG_NS)
    }
}

impl ToldProblems {
    pub(super) fn new() -> Self {
        Self {
            told: LruMap::with_capacity(MOST),
            looked_ns: 0,
        }
    }

    /// Counts a problem. Returns whether it is to be told: it is the first of its kind.
    pub(super) fn count(&mut self, problem: &Problem, at: Instant) -> bool {
        let key = Key {
            words: without_numbers(&format!("{} {}", problem.seen, problem.advised)),
            name: problem.name,
            confidence: problem.confidence,
            detail: problem.detail.clone(),
            program: problem.program.clone(),
            service: problem.service,
        };
        if let Some(group) = self.told.get_mut(&key) {
            group.count = group.count.saturating_add(problem.count);
            group.last = at;
            return false;
        }
        let group = ToldProblem {
            problem: problem.clone(),
            count: problem.count,
            last: at,
            told: problem.count,
            told_ns: at.mono_ns,
        };
        self.told.push(key, group);
        true
    }

    /// The groups whose counts are to be told at this time, in the order of their last problems.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ToldProblem> {
        if now.mono_ns.saturating_sub(self.looked_ns) < LOOK_NS {
            return Vec::new();
        }
        self.looked_ns = now.mono_ns;
        self.take(now, |group| group.is_due(now.mono_ns))
    }

    /// The groups whose counts have grown since they were last told.
    pub(super) fn untold(&mut self, now: Instant) -> Vec<ToldProblem> {
        self.take(now, |group| group.count > group.told)
    }

    fn take(&mut self, now: Instant, is_wanted: impl Fn(&ToldProblem) -> bool) -> Vec<ToldProblem> {
        let mut taken = Vec::new();
        let all = self.told.iter_mut().map(|(_, group)| group);
        for group in all.filter(|group| is_wanted(group)) {
            (group.told, group.told_ns) = (group.count, now.mono_ns);
            taken.push(group.clone());
        }
        taken.sort_by_key(|group| group.last);
        taken
    }
}

/// A text without the words that have a digit: numbers, addresses, processes, settings.
fn without_numbers(text: &str) -> String {
    let has_digit = |word: &&str| word.contains(|it: char| it.is_ascii_digit());
    let words = text.split(' ').filter(|word| !has_digit(word));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant {
            mono_ns: seconds * 1_000_000_000,
            wall_ns: seconds.cast_signed() * 1_000_000_000,
        }
    }

    fn problem(program: &str, port: u16) -> Problem {
        Problem {
            name: "timeout",
            program: program.to_owned(),
            count: 1,
            service: Some(Peers::Server(IpAddr::from([10, 0, 0, 2]), port)),
            ..Problem::default()
        }
    }

    /// What is told of problems that come at these times, one each.
    fn told(times: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
        let mut groups = ToldProblems::new();
        let mut told = Vec::new();
        let mut last = 0;
        for time in times {
            if groups.count(&problem("java", 1), at(time)) {
                told.push((time, 1));
            }
            let due = groups.due(at(time)).into_iter();
            told.extend(due.map(|it| (time, it.count)));
            last = time;
        }
        let rest = groups.untold(at(last)).into_iter();
        told.extend(rest.map(|it| (last, it.count)));
        told
    }

    #[test]
    fn a_problem_is_told_once_then_counted_at_growing_pauses() {
        // One a second for an hour.
        let all = told(0..3_600);
        assert_eq!(all[..4], [(0, 1), (5, 6), (65, 66), (131, 132)]);
        assert!(all.len() <= 10, "{all:?}");
        assert_eq!(all.last(), Some(&(3_599, 3_600)));
        // A third one in between is told only at the end, or much later.
        assert_eq!(
            told([0, 100, 200].into_iter()),
            [(0, 1), (100, 2), (200, 3)]
        );
        assert_eq!(
            told([0, 100, 3_800].into_iter()),
            [(0, 1), (100, 2), (3_800, 3)]
        );
    }

    #[test]
    fn other_programs_services_and_advice_are_told_apart() {
        let mut groups = ToldProblems::new();
        let other_advice = Problem {
            detail: "TCP_KEEPIDLE=10".to_owned(),
            ..problem("java", 1)
        };
        let other_words = Problem {
            seen: "closed it".to_owned(),
            ..problem("java", 1)
        };
        let other_number = Problem {
            seen: "java[7] sent it to [fd00::1]:80 after 1.5s".to_owned(),
            ..problem("java", 1)
        };
        let same_words = Problem {
            seen: "java[8] sent it to 10.0.0.1:80 after 7s".to_owned(),
            ..problem("java", 1)
        };
        for (problem, is_first) in [
            (other_words, true),
            (other_number, true),
            (same_words, false),
            (problem("java", 1), true),
            (problem("java", 1), false),
            (problem("java", 2), true),
            (problem("beam", 1), true),
            (other_advice, true),
        ] {
            assert_eq!(groups.count(&problem, at(1)), is_first, "{problem:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_told_again() {
        let mut groups = ToldProblems::new();
        let all: Vec<_> = (0..2_000).map(|port| problem("java", port)).collect();
        assert!(all.iter().all(|it| groups.count(it, at(1))));
        assert_eq!(groups.told.len(), MOST.get());
        assert!(groups.count(&all[0], at(2)));
    }
}
