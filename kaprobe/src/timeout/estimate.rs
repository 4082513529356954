//! Estimates the idle timeout towards a remote address from the connections to it.
//!
//! The timeout lies between the longest idle age that a connection survived and the
//! shortest idle age that killed one. A death after an idle age can have another cause: a
//! restarted server also answers with resets. One restart explains every death of a
//! connection that was idle at that moment. The upper bound is therefore not the shortest
//! fatal age, but the shortest age by which [`MIN_DEATHS`] independent deaths occurred:
//! deaths that no single moment explains.
//!
//! The estimate assumes one middlebox with one timeout, and the output says so. Two
//! middleboxes, or [`MIN_DEATHS`] restarts, can look like one timeout, and then nothing
//! reveals them. If the evidence does not fit one timeout, it is marked contradictory.
//!
//! Probes from the peer refresh the middlebox, but the kernel records no time for them.
//! If the peer probes, a connection can appear to survive an age that the middlebox never
//! saw. If other connections die at a lower age, the evidence is contradictory.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use ipnet::IpNet;

use crate::lru::LruMap;
use crate::model::time::ms_to_ns;
use crate::model::values::LearnedOf;
use crate::timeout::ages::LongestAges;

/// The capacity of each map: remote endpoints, and networks.
pub const MAX_REMOTES: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// The number of independent deaths that make a timeout credible.
pub const MIN_DEATHS: usize = 2;

/// The number of deaths kept per endpoint or network. Deaths at the shortest ages stay.
const MAX_DEATHS: usize = 16;

/// Idle ages this close count as the same, ms: a survived age lacks the time that an
/// acknowledgement may be delayed, and a fatal one includes the round trip.
pub const SAME_AGE_MS: u64 = 500;

/// Learns the idle timeout towards each remote endpoint and network.
#[derive(Debug)]
pub struct TimeoutEstimator {
    endpoints: LruMap<(IpAddr, u16), History>,
    networks: LruMap<IpNet, History>,
}

/// A connection that was reset when it was used after an idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// An upper bound for the time without a packet, ms.
    pub age_ms: u64,
    /// The time at which the peer was last heard, CLOCK_MONOTONIC ns.
    pub heard_ns: u64,
    /// The time at which the reset arrived, CLOCK_MONOTONIC ns.
    pub died_ns: u64,
}

impl Death {
    /// The death at this time of a connection that had been silent for `age_ms`.
    #[must_use]
    pub const fn after(age_ms: u64, died_ns: u64) -> Self {
        Self {
            age_ms,
            heard_ns: died_ns.saturating_sub(ms_to_ns(age_ms)),
            died_ns,
        }
    }
}

/// Bounds for the idle timeout towards an endpoint or network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutBounds {
    /// The evidence used: the endpoint's, or its network's.
    pub of: LearnedOf,
    /// The lower bound, ms: the longest idle age survived.
    pub survived_ms: Option<u64>,
    /// The upper bound, ms: the shortest credible idle age that killed.
    pub died_ms: Option<u64>,
    /// The shortest idle age that killed and that no connection survived, ms. It may be
    /// that of a restart: no upper bound, but advice must stay below it.
    pub shortest_ms: Option<u64>,
    /// The longest time without data, ms, after which the peer still answered a probe. Its
    /// program has not closed the connection by then.
    pub held_ms: Option<u64>,
    /// The number of independent deaths.
    pub deaths: usize,
    /// True if a connection survived an age at which another died. The bounds are then
    /// wide enough to span the contradiction.
    pub contradictory: bool,
}

impl TimeoutBounds {
    /// True if there are enough deaths to report the timeout.
    #[must_use]
    pub const fn is_believed(&self) -> bool {
        self.deaths >= MIN_DEATHS
    }
}

/// True if `age_ms` is no longer than the idle age that a connection survived.
#[must_use]
pub fn is_survived(survived_ms: Option<u64>, age_ms: u64) -> bool {
    survived_ms.is_some_and(|it| age_ms <= it.saturating_add(SAME_AGE_MS))
}

#[derive(Clone, Debug, Default)]
struct History {
    /// The survived ages.
    survived: LongestAges,
    /// The longest time without data after which the peer answered a probe, ms.
    held_ms: Option<u64>,
    /// When the peer was last heard, CLOCK_MONOTONIC ns.
    heard_ns: Option<u64>,
    /// The deaths at the shortest ages, ascending.
    deaths: Vec<Death>,
}

impl Default for TimeoutEstimator {
    fn default() -> Self {
        Self {
            endpoints: LruMap::with_capacity(MAX_REMOTES),
            networks: LruMap::with_capacity(MAX_REMOTES),
        }
    }
}

/// What a connection has lived through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LivedThrough {
    /// It survived at least this time without a packet, ms.
    pub survived_ms: Option<u64>,
    /// The peer answered a probe after this time without data, ms.
    pub held_ms: Option<u64>,
    /// The peer was heard at this time, CLOCK_MONOTONIC ns.
    pub heard_ns: Option<u64>,
}

/// Whose bounds may differ after something was learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewBounds {
    /// Those of the endpoint.
    pub endpoint: bool,
    /// Those of its network.
    pub network: bool,
}

#[cfg(test)]
impl LivedThrough {
    /// It survived this time without a packet, ms.
    pub(crate) fn silence(ms: u64) -> Self {
        Self {
            survived_ms: Some(ms),
            ..Self::default()
        }
    }
}

impl TimeoutEstimator {
    /// Records what a connection to `remote` has lived through. Returns what may have other
    /// bounds now.
    pub fn lived(&mut self, remote: (IpAddr, u16), through: LivedThrough) -> NewBounds {
        if through == LivedThrough::default() {
            return NewBounds::default();
        }
        let [endpoint, network] = self.update(remote, |history| history.lived(through));
        NewBounds { endpoint, network }
    }

    /// When a connection to this endpoint was last heard, as far as records show,
    /// CLOCK_MONOTONIC ns.
    #[must_use]
    pub fn heard_ns(&self, remote: (IpAddr, u16)) -> Option<u64> {
        self.endpoints.peek(&endpoint(remote))?.heard_ns
    }

    /// Records that a connection to `remote` died.
    pub fn died(&mut self, remote: (IpAddr, u16), death: Death) {
        self.update(remote, |history| {
            let at = history
                .deaths
                .partition_point(|it| it.age_ms <= death.age_ms);
            history.deaths.insert(at, death);
            history.deaths.truncate(MAX_DEATHS);
        });
    }

    /// The bounds for the idle timeout towards `remote`. The evidence of its network
    /// replaces that of its endpoint if only the network has enough.
    #[must_use]
    pub fn bounds(&self, remote: (IpAddr, u16)) -> Option<TimeoutBounds> {
        let bounds = |history: &History, of| history.bounds(of);
        let endpoint = self
            .endpoints
            .peek(&endpoint(remote))
            .map(|it| bounds(it, LearnedOf::Endpoint));
        let network = self
            .networks
            .peek(&network(remote))
            .map(|it| bounds(it, LearnedOf::Network));
        match (endpoint, network) {
            (Some(endpoint), Some(network)) if !endpoint.is_believed() && network.is_believed() => {
                Some(network)
            }
            (endpoint, network) => endpoint.or(network),
        }
    }

    fn update<T>(&mut self, remote: (IpAddr, u16), learn: impl Fn(&mut History) -> T) -> [T; 2] {
        let endpoints = &mut self.endpoints;
        let networks = &mut self.networks;
        [
            learn(endpoints.get_or_insert_with(endpoint(remote), History::default)),
            learn(networks.get_or_insert_with(network(remote), History::default)),
        ]
    }
}

/// The endpoint as a map key. An IPv4-mapped IPv6 address counts as IPv4.
#[must_use]
pub fn endpoint((address, port): (IpAddr, u16)) -> (IpAddr, u16) {
    (address.to_canonical(), port)
}

/// The network of an endpoint: /24 for IPv4, /64 for IPv6.
#[must_use]
pub fn network((address, _): (IpAddr, u16)) -> IpNet {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length)
        .unwrap_or(address.into())
        .trunc()
}

impl History {
    /// Adds what a connection has lived through. Returns whether the bounds may differ.
    fn lived(&mut self, through: LivedThrough) -> bool {
        let held_ms = self.held_ms.max(through.held_ms);
        let is_held_longer = held_ms > self.held_ms;
        self.held_ms = held_ms;
        self.heard_ns = self.heard_ns.max(through.heard_ns);
        let survived = through.survived_ms;
        survived.is_some_and(|age_ms| self.survived.add(age_ms)) || is_held_longer
    }

    fn bounds(&self, of: LearnedOf) -> TimeoutBounds {
        let longest = self.longest_survived(u64::MAX);
        let at = self
            .deaths
            .partition_point(|it| is_survived(longest, it.age_ms));
        let (survived, others) = self.deaths.split_at(at);
        let shortest = |deaths: &[Death]| deaths.first().map(|it| it.age_ms);
        if !survived.is_empty() {
            return TimeoutBounds {
                of,
                survived_ms: shortest(survived).and_then(|age| self.longest_survived(age)),
                died_ms: shortest(others),
                shortest_ms: shortest(survived),
                held_ms: self.held_ms,
                deaths: independent(&self.deaths),
                contradictory: true,
            };
        }
        let believed = (1..=others.len()).find(|&n| independent(&others[..n]) >= MIN_DEATHS);
        let believed = believed.map(|n| others[n - 1].age_ms);
        TimeoutBounds {
            of,
            survived_ms: longest,
            died_ms: believed.or(shortest(others)),
            shortest_ms: shortest(others),
            held_ms: self.held_ms,
            deaths: independent(others),
            contradictory: false,
        }
    }

    /// The longest survived age below `limit_ms`, to the precision of the buckets.
    fn longest_survived(&self, limit_ms: u64) -> Option<u64> {
        self.survived.iter().rev().find(|&age| age < limit_ms)
    }
}

/// The number of independent deaths: the largest subset whose intervals, from the last
/// segment heard to the reset, do not overlap. One restart explains at most one of them.
fn independent(deaths: &[Death]) -> usize {
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
    use crate::timeout::ages::BUCKETS;

    fn remote(host: u8, port: u16) -> (IpAddr, u16) {
        (IpAddr::from([10, 9, 0, host]), port)
    }

    /// A death `s` seconds after the start, with the peer last heard `age` seconds before.
    fn death(s: u64, age: u64) -> Death {
        Death {
            age_ms: age * 1000,
            heard_ns: (s - age) * 1_000_000_000,
            died_ns: s * 1_000_000_000,
        }
    }

    #[test]
    fn bounds_follow_from_survived_ages_and_deaths() {
        /// The bounds in seconds, the independent deaths, contradictory.
        type Expected = (Option<u64>, Option<u64>, usize, bool);
        /// The name, the ages survived, the time and age of each death, the bounds.
        type Row = (
            &'static str,
            &'static [u64],
            &'static [(u64, u64)],
            Expected,
        );
        let rows: &[Row] = &[
            ("one death", &[], &[(500, 352)], (None, Some(352), 1, false)),
            (
                "two deaths that one restart explains",
                &[301],
                &[(500, 352), (600, 400)],
                (Some(301), Some(352), 1, false),
            ),
            (
                "two independent deaths",
                &[301, 200],
                &[(500, 352), (1_000, 400)],
                (Some(301), Some(400), 2, false),
            ),
            (
                "three independent deaths: the shortest two count",
                &[301],
                &[(500, 352), (510, 360), (1_000, 370), (2_000, 380)],
                (Some(301), Some(370), 3, false),
            ),
            (
                "a death at a survived age",
                &[301],
                &[(500, 200), (1_000, 352), (2_000, 360)],
                (None, Some(352), 3, true),
            ),
            (
                "a contradiction with bounds on both sides",
                &[100, 400],
                &[(500, 200), (1_000, 350), (2_000, 500)],
                (Some(100), Some(500), 3, true),
            ),
            (
                "a contradiction without bounds",
                &[400],
                &[(500, 200), (1_000, 350)],
                (None, None, 2, true),
            ),
        ];
        for (name, survived, deaths, expected) in rows {
            let mut learned = TimeoutEstimator::default();
            for age in *survived {
                learned.lived(remote(1, 80), LivedThrough::silence(age * 1000));
            }
            for &(s, age) in *deaths {
                learned.died(remote(1, 80), death(s, age));
            }
            let bounds = learned.bounds(remote(1, 80)).map(|it| {
                let seconds = |ms: Option<u64>| ms.map(|ms| ms / 1000);
                let (low, high) = (seconds(it.survived_ms), seconds(it.died_ms));
                (low, high, it.deaths, it.contradictory)
            });
            assert_eq!(bounds, Some(*expected), "{name}");
        }
    }

    #[test]
    fn network_is_used_when_the_endpoint_has_too_few_deaths() {
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
    fn memory_is_bounded() {
        let mut learned = TimeoutEstimator::default();
        for n in 0..10_000_u32 {
            let remote = (IpAddr::from(n.to_be_bytes()), 80);
            learned.lived(remote, LivedThrough::silence(1_000));
            (0..20).for_each(|s| learned.died(remote, death(100 + s, 50)));
        }
        assert_eq!(learned.endpoints.len(), MAX_REMOTES.get());
        assert!(
            learned
                .endpoints
                .iter()
                .all(|(_, it)| it.deaths.len() <= MAX_DEATHS && it.survived.len() <= BUCKETS)
        );
    }

    /// Traffic through middleboxes behind one address, in ms.
    #[derive(Clone, Debug)]
    struct World {
        /// The true timeout of each middlebox.
        timeouts: Vec<u64>,
        /// The maximum delay of an expiry, thousandths of the timeout.
        jitter: u64,
        /// The times at which all servers restart.
        restarts: Vec<u64>,
        /// Each connection: its middlebox, its idle ages, and the part of the jitter,
        /// in thousandths, that applies to each age.
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
        /// The observations in order of time: a use after an idle age, and whether the
        /// connection died of it.
        fn seen(&self) -> Vec<(Death, bool)> {
            let mut seen = BTreeMap::new();
            for (number, (middlebox, quiets)) in self.connections.iter().enumerate() {
                let timeout = *middlebox.get(&self.timeouts);
                let mut now = 1_000 * number as u64;
                for &(age, part) in quiets {
                    let (heard, used) = (now, now + age);
                    let expiry = timeout + timeout * self.jitter * part / 1_000_000;
                    let restarted = self.restarts.iter().any(|at| (heard..used).contains(at));
                    let died = age > expiry || restarted;
                    seen.insert((used, number), (heard, age, died));
                    // A dead connection is opened again.
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
                    learned.lived(remote(100, 5672), LivedThrough::silence(it.age_ms));
                }
            }
            learned
        }

        /// True if one middlebox with a timeout within the bounds, and fewer restarts than
        /// [`MIN_DEATHS`], explains the same observations.
        fn fits_one_middlebox(&self, bounds: &TimeoutBounds) -> bool {
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
            independent(&below) < MIN_DEATHS && bounds.died_ms.is_none_or(|high| timeout_ms <= high)
        }

        /// True if the timeout of a middlebox lies within the bounds.
        fn is_within(&self, bounds: &TimeoutBounds) -> bool {
            self.timeouts.iter().any(|&timeout| {
                let latest = timeout + timeout * self.jitter / 1_000;
                bounds.survived_ms.is_none_or(|low| low <= latest)
                    && bounds.died_ms.is_none_or(|high| high >= timeout)
            })
        }
    }

    /// With one middlebox and fewer than [`MIN_DEATHS`] restarts, the true timeout lies
    /// within the reported bounds, or the evidence is contradictory. With more, the bounds
    /// may be wrong, but only if one middlebox explains the same observations.
    #[test]
    fn the_true_timeout_lies_within_the_bounds() {
        const WORLDS: u32 = 1_000;
        let shares = RefCell::new(BTreeMap::<_, u32>::new());
        let mut runner = TestRunner::new(Config {
            cases: WORLDS,
            failure_persistence: None,
            ..Config::default()
        });
        let outcome = runner.run(&any_world(), |world| {
            let bounds = world.observe().bounds(remote(100, 5672));
            let believed = bounds.filter(TimeoutBounds::is_believed);
            let share = match believed {
                None => "not enough deaths",
                Some(bounds) if bounds.contradictory => "contradictory",
                Some(bounds) if world.is_within(&bounds) => "within the bounds",
                Some(_) => "wrong",
            };
            let (boxes, restarts) = (world.timeouts.len(), world.restarts.len());
            let mut shares = shares.borrow_mut();
            *shares.entry((boxes, restarts, share)).or_default() += 1;
            let is_ambiguous = boxes > 1 || restarts >= MIN_DEATHS;
            let is_undecidable = |it: &TimeoutBounds| is_ambiguous && world.fits_one_middlebox(it);
            let is_accepted = share != "wrong" || believed.as_ref().is_some_and(is_undecidable);
            prop_assert!(is_accepted, "{:?}", believed);
            Ok(())
        });
        let shares = shares.into_inner();
        for ((boxes, restarts, share), count) in &shares {
            println!("{boxes} middleboxes, {restarts} restarts: {share}: {count} of {WORLDS}");
        }
        assert!(outcome.is_ok(), "{outcome:?}");
        let wrong = shares.iter().filter(|((.., share), _)| *share == "wrong");
        let wrong: u32 = wrong.map(|(_, count)| count).sum();
        assert!(wrong * 50 < WORLDS, "{wrong} of {WORLDS} wrong");
    }
}
