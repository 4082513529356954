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
//! What the peer's own probes refresh is not seen: the kernel does not stamp them. A
//! peer that probes makes ages look survived that were none; where others die of
//! less, that shows as a contradiction.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use ipnet::IpNet;
use lru::LruCache;

use crate::record::LearnedOf;

/// How many remote addresses and ports are remembered, and how many networks.
const PLACES: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// How many deaths that no single moment explains are needed to believe in a timeout.
pub const ENOUGH: usize = 2;

/// How many deaths of a place are remembered: those of the shortest ages.
const DEATHS: usize = 16;

/// Survived ages are remembered by classes that grow by half an octave: the longest
/// of each.
const CLASSES: usize = 2 * 40;

/// What has been learned of all places.
#[derive(Debug)]
pub struct Learned {
    endpoints: LruCache<(IpAddr, u16), History>,
    networks: LruCache<IpNet, History>,
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
pub struct Bracket {
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

impl Bracket {
    /// Whether there is enough to tell people of it.
    #[must_use]
    pub const fn is_believed(&self) -> bool {
        self.deaths >= ENOUGH
    }
}

#[derive(Clone, Debug)]
struct History {
    /// The longest age of each class, ms; 0 for none.
    survived: [u64; CLASSES],
    /// The shortest, ascending.
    deaths: Vec<Death>,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            endpoints: LruCache::new(PLACES),
            networks: LruCache::new(PLACES),
        }
    }
}

impl Learned {
    /// A connection to there carried on after no packet had passed for at least
    /// this long.
    pub fn survived(&mut self, remote: (IpAddr, u16), age_ms: u64) {
        self.each(remote, |history| {
            let class = &mut history.survived[class(age_ms)];
            *class = age_ms.max(*class);
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
    pub fn bracket(&self, remote: (IpAddr, u16)) -> Option<Bracket> {
        let of = |history: &History, of| history.bracket(of);
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
                .get_or_insert_mut(endpoint(remote), History::default),
        );
        learn(
            self.networks
                .get_or_insert_mut(network(remote), History::default),
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

/// Which class an age is of: twice the logarithm of its ms.
fn class(age_ms: u64) -> usize {
    let octave = age_ms.max(1).ilog2();
    let is_upper = age_ms >> octave.saturating_sub(1) & 1 != 0 && octave > 0;
    (2 * octave as usize + usize::from(is_upper)).min(CLASSES - 1)
}

impl Default for History {
    fn default() -> Self {
        Self {
            survived: [0; CLASSES],
            deaths: Vec::new(),
        }
    }
}

impl History {
    fn bracket(&self, of: LearnedOf) -> Bracket {
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
        Bracket {
            of,
            survived_ms,
            died_ms,
            deaths: apart(&self.deaths),
            contradictory,
        }
    }

    /// The longest survived age below `limit_ms`, as far as remembered.
    fn longest_survived(&self, limit_ms: u64) -> Option<u64> {
        let ages = self.survived.iter().copied();
        ages.filter(|&age| age > 0 && age < limit_ms).max()
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
