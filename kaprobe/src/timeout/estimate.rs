//! What idle timeout the connections to one place show: the longest idle time that
//! was survived, and the shortest that was not.
//!
//! An age that was survived is a lower bound of what the middlebox saw, one that
//! killed an upper bound, so that the timeout lies between the two. Not everything
//! that dies after an idle time died of it: a server that was restarted answers with
//! resets as well. One restart explains all deaths of connections that were quiet at
//! one moment; so what is believed is not the shortest age but the shortest by which
//! [`ENOUGH`] deaths came about that no single moment explains.
//!
//! That one box with one timeout is on the way is assumed, and said. Two boxes, or
//! [`ENOUGH`] restarts, whose effects would all fit one timeout between them leave no
//! trace by which to tell: only where they don't fit does it show, as a contradiction.
//!
//! What the peer's own probes refresh is not seen: the kernel does not stamp them. A
//! peer that probes makes ages look survived that were none; where others die of
//! less, that shows as a contradiction.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use ipnet::IpNet;

use crate::lru::LruMap;
use crate::model::values::LearnedOf;

/// How many remote addresses and ports are remembered, and how many networks.
const PLACES: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// How many deaths that no single moment explains are needed to believe in a timeout.
pub const ENOUGH: usize = 2;

/// How many deaths of a place are remembered: those of the shortest ages.
const DEATHS: usize = 16;

/// Survived ages are remembered by classes, eight to the octave: the longest of each,
/// up to 49 days. So many classes there are.
#[cfg(test)]
const CLASSES: usize = 8 * 32;

/// What has been learned of all places.
#[derive(Debug)]
pub struct TimeoutEstimator {
    endpoints: LruMap<(IpAddr, u16), History>,
    networks: LruMap<IpNet, History>,
}

/// A connection that died by a reset when it was used after an idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// No packet can have passed for longer than this, ms.
    pub age_ms: u64,
    /// When the peer was last heard, CLOCK_MONOTONIC ns.
    pub heard_ns: u64,
    /// When the reset came.
    pub died_ns: u64,
}

/// What is known of the idle timeout towards a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutBounds {
    /// What it was learned of.
    pub of: LearnedOf,
    /// It is longer than this, ms.
    pub survived_ms: Option<u64>,
    /// It is no longer than this, ms.
    pub died_ms: Option<u64>,
    /// How many deaths were seen that no single moment explains.
    pub deaths: usize,
    /// A longer age was survived than one that was not; the two bounds above are
    /// then as wide as what contradicts itself.
    pub contradictory: bool,
}

impl TimeoutBounds {
    /// Whether there is enough to tell people of it.
    #[must_use]
    pub const fn is_believed(&self) -> bool {
        self.deaths >= ENOUGH
    }
}

#[derive(Clone, Debug, Default)]
struct History {
    /// The longest age of each class, ms, ascending.
    survived: Vec<u32>,
    /// The shortest, ascending.
    deaths: Vec<Death>,
}

impl Default for TimeoutEstimator {
    fn default() -> Self {
        Self {
            endpoints: LruMap::with_capacity(PLACES),
            networks: LruMap::with_capacity(PLACES),
        }
    }
}

impl TimeoutEstimator {
    /// A connection to there carried on after no packet had passed for at least
    /// this long.
    pub fn survived(&mut self, remote: (IpAddr, u16), age_ms: u64) {
        self.each(remote, |history| {
            let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
            let found = history
                .survived
                .binary_search_by_key(&class(age_ms), |&it| class(it));
            match found {
                Ok(at) => history.survived[at] = age_ms.max(history.survived[at]),
                Err(at) => history.survived.insert(at, age_ms),
            }
        });
    }

    /// A connection to there died.
    pub fn died(&mut self, remote: (IpAddr, u16), death: Death) {
        self.each(remote, |history| {
            let place = history
                .deaths
                .partition_point(|it| it.age_ms <= death.age_ms);
            history.deaths.insert(place, death);
            history.deaths.truncate(DEATHS);
        });
    }

    /// What is known of the way to there: by its address and port, or by its network
    /// where that is too little.
    #[must_use]
    pub fn bounds(&self, remote: (IpAddr, u16)) -> Option<TimeoutBounds> {
        let of = |history: &History, of| history.bounds(of);
        let endpoint = self
            .endpoints
            .peek(&endpoint(remote))
            .map(|it| of(it, LearnedOf::Endpoint));
        let network = self
            .networks
            .peek(&network(remote))
            .map(|it| of(it, LearnedOf::Network));
        match (endpoint, network) {
            (Some(endpoint), Some(network)) if !endpoint.is_believed() && network.is_believed() => {
                Some(network)
            }
            (endpoint, network) => endpoint.or(network),
        }
    }

    fn each(&mut self, remote: (IpAddr, u16), learn: impl Fn(&mut History)) {
        learn(
            self.endpoints
                .get_or_insert_with(endpoint(remote), History::default),
        );
        learn(
            self.networks
                .get_or_insert_with(network(remote), History::default),
        );
    }
}

/// IPv4 is itself, over whichever socket it comes.
fn endpoint((address, port): (IpAddr, u16)) -> (IpAddr, u16) {
    (address.to_canonical(), port)
}

fn network((address, _): (IpAddr, u16)) -> IpNet {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length)
        .unwrap_or(address.into())
        .trunc()
}

/// Which class an age is of: its octave, and the three bits below its highest.
fn class(age_ms: u32) -> usize {
    let octave = age_ms.max(1).ilog2();
    let eighth = (u64::from(age_ms) << 3 >> octave) & 7;
    octave as usize * 8 + eighth as usize
}

impl History {
    fn bounds(&self, of: LearnedOf) -> TimeoutBounds {
        let longest = self.longest_survived(u64::MAX);
        let shortest = self.deaths.first().map(|it| it.age_ms);
        let contradictory = longest
            .zip(shortest)
            .is_some_and(|(longest, shortest)| longest >= shortest);
        let (survived_ms, died_ms) = if contradictory {
            let above = self.deaths.iter().find(|it| Some(it.age_ms) > longest);
            (
                shortest.and_then(|shortest| self.longest_survived(shortest)),
                above.map(|it| it.age_ms),
            )
        } else {
            let believed = (1..=self.deaths.len()).find(|&n| apart(&self.deaths[..n]) >= ENOUGH);
            let believed = believed.map(|n| self.deaths[n - 1].age_ms);
            (longest, believed.or(shortest))
        };
        TimeoutBounds {
            of,
            survived_ms,
            died_ms,
            deaths: apart(&self.deaths),
            contradictory,
        }
    }

    /// The longest survived age below `limit_ms`, as far as remembered.
    fn longest_survived(&self, limit_ms: u64) -> Option<u64> {
        let mut ages = self.survived.iter().map(|&age| u64::from(age)).rev();
        ages.find(|&age| age < limit_ms)
    }
}

/// How many of these deaths no single moment explains: the most of them whose times,
/// from the last sign of life to the reset, don't meet.
fn apart(deaths: &[Death]) -> usize {
    let mut by_end: Vec<_> = deaths.iter().collect();
    by_end.sort_by_key(|it| it.died_ns);
    let mut count = 0;
    let mut end = None;
    for death in by_end {
        if end.is_none_or(|end| death.heard_ns > end) {
            count += 1;
            end = Some(death.died_ns);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    fn remote(host: u8, port: u16) -> (IpAddr, u16) {
        (IpAddr::from([10, 9, 0, host]), port)
    }

    /// A death `s` seconds after the start, the peer having been heard `age` before.
    fn death(s: u64, age: u64) -> Death {
        Death {
            age_ms: age * 1000,
            heard_ns: (s - age) * 1_000_000_000,
            died_ns: s * 1_000_000_000,
        }
    }

    #[test]
    fn rows() {
        /// The bounds in seconds, deaths apart, contradictory.
        type Told = (Option<u64>, Option<u64>, usize, bool);
        /// What it shows, ages survived, when and at which age something died.
        type Row = (&'static str, &'static [u64], &'static [(u64, u64)], Told);
        let rows: &[Row] = &[
            ("one death", &[], &[(500, 352)], (None, Some(352), 1, false)),
            (
                "two that one restart explains",
                &[301],
                &[(500, 352), (600, 400)],
                (Some(301), Some(352), 1, false),
            ),
            (
                "two that none explains",
                &[301, 200],
                &[(500, 352), (1_000, 400)],
                (Some(301), Some(400), 2, false),
            ),
            (
                "the shortest two that none explains",
                &[301],
                &[(500, 352), (510, 360), (1_000, 370), (2_000, 380)],
                (Some(301), Some(370), 3, false),
            ),
            (
                "a contradiction: as wide as what it spans",
                &[100, 400],
                &[(500, 200), (1_000, 350), (2_000, 500)],
                (Some(100), Some(500), 3, true),
            ),
            (
                "a contradiction without end",
                &[400],
                &[(500, 200), (1_000, 350)],
                (None, None, 2, true),
            ),
        ];
        for (what, survived, deaths, expected) in rows {
            let mut learned = TimeoutEstimator::default();
            for age in *survived {
                learned.survived(remote(1, 80), age * 1000);
            }
            for &(s, age) in *deaths {
                learned.died(remote(1, 80), death(s, age));
            }
            let told = learned.bounds(remote(1, 80)).map(|it| {
                let seconds = |ms: Option<u64>| ms.map(|ms| ms / 1000);
                let (low, high) = (seconds(it.survived_ms), seconds(it.died_ms));
                (low, high, it.deaths, it.contradictory)
            });
            assert_eq!(told, Some(*expected), "{what}");
        }
    }

    #[test]
    fn where_an_endpoint_tells_too_little_its_network_does() {
        let mut learned = TimeoutEstimator::default();
        assert_eq!(learned.bounds(remote(1, 80)), None);
        learned.died(remote(1, 80), death(500, 352));
        learned.died(
            (Ipv4Addr::new(10, 9, 0, 2).to_ipv6_mapped().into(), 99),
            death(1_000, 351),
        );
        learned.died(remote(3, 80), death(1_000, 352));
        let of = |host, port| {
            learned
                .bounds(remote(host, port))
                .map(|it| (it.of, it.deaths))
        };
        assert_eq!(of(1, 80), Some((LearnedOf::Network, 2)));
        assert_eq!(of(77, 1), Some((LearnedOf::Network, 2)));
        let elsewhere = (IpAddr::from([10, 9, 1, 1]), 80);
        assert_eq!(learned.bounds(elsewhere), None);
    }

    #[test]
    fn classes_grow_and_never_end() {
        let ages = (3..32).flat_map(|bit| (8..16).map(move |eighths| eighths << (bit - 3)));
        let classes: Vec<_> = ages.map(class).collect();
        assert!(classes.is_sorted_by(|a, b| a < b), "{classes:?}");
        assert_eq!(classes.last(), Some(&(CLASSES - 1)));
        assert_eq!((class(0), class(u32::MAX)), (0, CLASSES - 1));
    }

    #[test]
    fn memory_is_bounded() {
        let mut learned = TimeoutEstimator::default();
        for n in 0..10_000_u32 {
            let there = (IpAddr::from(n.to_be_bytes()), 80);
            learned.survived(there, 1_000);
            (0..20).for_each(|s| learned.died(there, death(100 + s, 50)));
        }
        assert_eq!(learned.endpoints.len(), PLACES.get());
        assert!(
            learned
                .endpoints
                .iter()
                .all(|(_, it)| it.deaths.len() <= DEATHS && it.survived.len() <= CLASSES)
        );
    }

    /// Traffic through middleboxes behind one address, in ms.
    #[derive(Clone, Debug)]
    struct World {
        /// The true timeouts, each of a box.
        timeouts: Vec<u64>,
        /// How much later than that a box forgets at most, parts of a thousand.
        jitter: u64,
        /// When all servers were restarted.
        restarts: Vec<u64>,
        /// Of each connection: its box, and how long it is quiet each time, with what
        /// part of the jitter its box had.
        connections: Vec<(prop::sample::Index, Vec<(u64, u64)>)>,
    }

    fn any_world() -> impl Strategy<Value = World> {
        let timeout = prop_oneof![
            Just(350_000_u64),
            Just(240_000),
            Just(900_000),
            4_000..1_000_000_u64
        ];
        let timeouts = prop_oneof![
            3 => prop::collection::vec(timeout.clone(), 1),
            1 => prop::collection::vec(timeout, 2),
        ];
        let quiet = prop_oneof![1_000..2_000_000_u64, 1_000..100_000_u64];
        let quiets = prop::collection::vec((quiet, 0..=1_000_u64), 1..12);
        let connections = prop::collection::vec((any::<prop::sample::Index>(), quiets), 1..30);
        let restarts = prop::collection::vec(0..5_000_000_u64, 0..3);
        (timeouts, 0..20_u64, restarts, connections).prop_map(
            |(timeouts, jitter, restarts, connections)| World {
                timeouts,
                jitter,
                restarts,
                connections,
            },
        )
    }

    impl World {
        /// What is seen of it, in the order in which it is: when the peer was last
        /// heard and when it was spoken to, how long after, and whether that killed.
        fn seen(&self) -> Vec<(Death, bool)> {
            let mut seen = BTreeMap::new();
            for (number, (place, quiets)) in self.connections.iter().enumerate() {
                let timeout = *place.get(&self.timeouts);
                let mut now = 1_000 * number as u64;
                for &(age, part) in quiets {
                    let (heard, used) = (now, now + age);
                    let forgets = timeout + timeout * self.jitter * part / 1_000_000;
                    let restarted = self.restarts.iter().any(|at| (heard..used).contains(at));
                    let died = age > forgets || restarted;
                    seen.insert((used, number), (heard, age, died));
                    // What died connects anew.
                    now = used + u64::from(died);
                }
            }
            let seen = seen.into_iter().map(|((used, _), (heard, age_ms, died))| {
                let death = Death {
                    age_ms,
                    heard_ns: heard * 1_000_000,
                    died_ns: used * 1_000_000,
                };
                (death, died)
            });
            seen.collect()
        }

        fn observe(&self) -> TimeoutEstimator {
            let mut learned = TimeoutEstimator::default();
            for (it, died) in self.seen() {
                if died {
                    learned.died(remote(100, 5672), it);
                } else {
                    learned.survived(remote(100, 5672), it.age_ms);
                }
            }
            learned
        }

        /// Whether one box with a timeout within this bounds, and fewer restarts than
        /// [`ENOUGH`], would have shown the very same.
        fn is_as_of_one_box(&self, bounds: &TimeoutBounds) -> bool {
            let seen = self.seen();
            let longest = seen
                .iter()
                .filter(|(_, died)| !died)
                .map(|(it, _)| it.age_ms);
            let timeout_ms = longest.max().unwrap_or_default();
            let below = seen
                .iter()
                .filter(|(it, died)| *died && it.age_ms <= timeout_ms);
            let below: Vec<_> = below.map(|(it, _)| *it).collect();
            apart(&below) < ENOUGH && bounds.died_ms.is_none_or(|high| timeout_ms <= high)
        }

        /// Whether this bounds holds what one of the boxes does.
        fn lies_in(&self, bounds: &TimeoutBounds) -> bool {
            self.timeouts.iter().any(|&timeout| {
                let latest = timeout + timeout * self.jitter / 1_000;
                bounds.survived_ms.is_none_or(|low| low <= latest)
                    && bounds.died_ms.is_none_or(|high| high >= timeout)
            })
        }
    }

    /// The true timeout lies in the bounds that is told, or the evidence is said to
    /// contradict itself: always where one box and fewer restarts than deaths asked
    /// for are behind it. With more of either it can be told wrong, and then only where
    /// one box within the bounds would have shown the very same: nobody could tell.
    #[test]
    fn the_true_timeout_lies_in_the_bracket() {
        const WORLDS: u32 = 1_000;
        let shares = RefCell::new(BTreeMap::<_, u32>::new());
        let mut runner = TestRunner::new(Config {
            cases: WORLDS,
            failure_persistence: None,
            ..Config::default()
        });
        let outcome = runner.run(&any_world(), |world| {
            let told = world.observe().bounds(remote(100, 5672));
            let believed = told.filter(TimeoutBounds::is_believed);
            let share = match believed {
                None => "too little to tell",
                Some(bounds) if bounds.contradictory => "contradicts itself",
                Some(bounds) if world.lies_in(&bounds) => "in the bounds",
                Some(_) => "wrong",
            };
            let (boxes, restarts) = (world.timeouts.len(), world.restarts.len());
            let mut shares = shares.borrow_mut();
            *shares.entry((boxes, restarts, share)).or_default() += 1;
            let can_deceive = boxes > 1 || restarts >= ENOUGH;
            let is_undecidable = |it: &TimeoutBounds| can_deceive && world.is_as_of_one_box(it);
            let is_told_right = share != "wrong" || believed.as_ref().is_some_and(is_undecidable);
            prop_assert!(is_told_right, "{:?}", believed);
            Ok(())
        });
        let shares = shares.into_inner();
        for ((boxes, restarts, share), count) in &shares {
            println!("{boxes} boxes, {restarts} restarts: {share}: {count} of {WORLDS}");
        }
        assert!(outcome.is_ok(), "{outcome:?}");
        let wrong = shares.iter().filter(|((.., share), _)| *share == "wrong");
        let wrong: u32 = wrong.map(|(_, count)| count).sum();
        assert!(wrong * 50 < WORLDS, "{wrong} of {WORLDS} deceived");
    }
}
