//! Chooses the idle timeout that a connection is judged by. Pure.

use crate::model::host_timeout::{HostTimeout, HostTimeouts};
use crate::model::socket::Endpoints;
use crate::text::escape::Escaped;
use crate::timeout::estimate::{TimeoutBounds, TimeoutEstimator};
use crate::timeout::middlebox::{Answer, Middlebox, shortest_refreshed_s};
use crate::timeout::on_path::{OnPath, PathEvidence, on_path};

/// An idle timeout on the path of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The time without a packet after which it may expire, ms.
    pub ms: u64,
    /// The time without a packet after which it has expired for certain, ms.
    pub expired_ms: u64,
    /// Its origin: a middlebox id, a host component, a flag or a log.
    pub of: Escaped,
    /// Whether a keepalive probe counts as traffic.
    pub refreshed: Answer,
    /// Further details for people.
    pub about: String,
}

impl Timeout {
    /// A timeout from `--idle-timeout`, with no middlebox named.
    #[must_use]
    pub fn given(ms: u64) -> Self {
        Self {
            ms,
            expired_ms: ms,
            of: Escaped::from("idle-timeout"),
            refreshed: Answer::Yes,
            about: "given by --idle-timeout".to_owned(),
        }
    }

    /// The timeout of a middlebox from the table. `ms` replaces the default.
    #[must_use]
    pub fn of_middlebox(it: &Middlebox, ms: Option<u64>) -> Self {
        let mut about = format!(
            "{}, {}",
            it.name,
            if ms.is_some() {
                "given by --idle-timeout"
            } else {
                "by default"
            }
        );
        if !it.on_expiry.is_empty() {
            about.push_str("; on expiry: ");
            about.push_str(&it.on_expiry);
        }
        about.push_str(match it.refreshed_by_keepalive {
            Answer::Yes => "",
            Answer::No => "; keepalive can't help: probes do not count",
            Answer::Unknown => "; its source does not say whether probes count: assumed to",
        });
        if it.id == "ipvs" {
            about.push_str(DIRECT_ROUTING);
        }
        let ms = ms.unwrap_or(it.default_s.saturating_mul(1000));
        Self {
            ms,
            expired_ms: ms,
            of: Escaped::from(it.id.as_str()),
            refreshed: it.refreshed_by_keepalive,
            about,
        }
    }

    /// A timeout that this host applies to a connection, and how that is known.
    #[must_use]
    pub fn of_host(it: &HostTimeout, evidence: PathEvidence) -> Self {
        let note = if it.what.as_str() == "ipvs" {
            DIRECT_ROUTING
        } else {
            ""
        };
        let ms = it.seconds.saturating_mul(1000);
        Self {
            ms,
            expired_ms: ms,
            of: it.what.clone(),
            refreshed: Answer::Yes,
            about: format!("this host's {}, {evidence}{note}", it.name()),
        }
    }

    /// The timeout learned from a log. `None` if it is not credible or has no upper bound.
    ///
    /// Only the longest survived age is known to be safe. If there is none, half of the
    /// shortest fatal age or of the shortest common default is assumed to be, as in the
    /// advice of `verdict`: a fatal age is an upper bound.
    fn of_bounds(it: TimeoutBounds, common_s: u64) -> Option<Self> {
        let died_ms = it.died_ms.filter(|_| it.is_believed())?;
        let assumed_ms = it.shortest_ms.unwrap_or(died_ms).min(common_s * 1_000) / 2;
        Some(Self {
            ms: it.survived_ms.unwrap_or(assumed_ms),
            expired_ms: died_ms,
            of: Escaped::from("log"),
            refreshed: Answer::Yes,
            about: "learned from a log".to_owned(),
        })
    }

    #[cfg(test)]
    pub(crate) fn sample(ms: u64, refreshed: Answer) -> Self {
        Self {
            refreshed,
            ..Self::given(ms)
        }
    }
}

/// With direct routing, the load balancer does not see the segments of the servers.
const DIRECT_ROUTING: &str =
    "; in direct routing a server's probe bypasses it, and the client's answer refreshes it";

/// The known idle timeouts, for all connections and for some.
pub struct Timeouts {
    /// The timeouts on every path. The first one applies.
    everywhere: Vec<Timeout>,
    /// The timeouts learned from logs, per remote address and port.
    learned: Vec<TimeoutEstimator>,
    /// The timeouts that this host applies to the connections that pass there.
    host: HostTimeouts,
}

impl Timeouts {
    /// Joins timeouts on every path with timeouts learned from logs.
    #[must_use]
    pub fn new(mut everywhere: Vec<Timeout>, learned: Vec<TimeoutEstimator>) -> Self {
        // If a middlebox ignores probes, no other timeout matters.
        everywhere.sort_by_key(|it| (it.refreshed != Answer::No, it.ms));
        Self {
            everywhere,
            learned,
            host: HostTimeouts::default(),
        }
    }

    /// The timeouts that this host applies.
    #[must_use]
    pub fn of_host(host: HostTimeouts) -> Self {
        Self {
            host,
            ..Self::new(Vec::new(), Vec::new())
        }
    }

    /// The timeouts on every path. The first one applies.
    #[must_use]
    pub fn everywhere(&self) -> &[Timeout] {
        &self.everywhere
    }

    /// True if no timeout is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.learned.is_empty() && self.host.timeouts.is_empty()
    }

    /// True if logs were read.
    #[must_use]
    pub fn is_learned(&self) -> bool {
        !self.learned.is_empty()
    }

    /// The timeouts that this host applies, each to some connections.
    #[must_use]
    pub fn host(&self) -> &[HostTimeout] {
        &self.host.timeouts
    }

    /// The timeout that a connection is judged by. A timeout of this host is used only if
    /// it is known to be on the path.
    #[must_use]
    pub fn of(&self, connection: &Endpoints) -> Option<Timeout> {
        let remote = connection.remote();
        let learned = self.learned.iter().filter_map(|it| it.bounds(remote));
        let learned = learned
            .filter_map(|it| Timeout::of_bounds(it, shortest_refreshed_s()))
            .min_by_key(|it| it.ms);
        let host = self.host.timeouts.iter().filter_map(|it| {
            match on_path(it, &self.host.routes, connection) {
                OnPath::Yes(evidence) => Some(Timeout::of_host(it, evidence)),
                OnPath::Unknown | OnPath::No => None,
            }
        });
        learned
            .or_else(|| self.everywhere.first().cloned())
            .or_else(|| host.min_by_key(|it| it.ms))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::timeout::estimate::{Death, LivedThrough};
    use crate::timeout::middlebox::middleboxes;

    #[test]
    fn the_shortest_timeout_applies_unless_a_proxy_ignores_probes() {
        let of = |id: &str| middleboxes().iter().find(|it| it.id == id);
        let of = |id: &str| of(id).map(|it| Timeout::of_middlebox(it, None));
        let both = |a, b| of(a).into_iter().chain(of(b)).collect::<Vec<_>>();
        for (a, b, ms) in [
            ("aws-nlb", "ipvs", 350_000),
            ("ipvs", "aws-nlb", 350_000),
            ("azure-lb", "envoy-tcp-proxy", 3_600_000),
        ] {
            let timeouts = Timeouts::new(both(a, b), Vec::new());
            assert_eq!(
                timeouts.of(&Endpoints::default()).map(|it| it.ms),
                Some(ms),
                "{a} {b}"
            );
        }
    }

    #[test]
    fn a_timeout_of_this_host_applies_where_it_is_known_to_be_on_the_path() {
        let conntrack = |netns, seconds| HostTimeout {
            what: "conntrack".into(),
            netns,
            seconds,
            ..HostTimeout::default()
        };
        let ipvs = HostTimeout {
            what: "ipvs".into(),
            services: vec![([10, 0, 0, 9], 80).into()],
            ..conntrack(9, 4)
        };
        let timeouts = Timeouts::of_host(HostTimeouts {
            timeouts: vec![conntrack(7, 350), conntrack(8, 8), ipvs],
            routes: vec![],
        });
        for (netns, to, expected) in [
            (
                7,
                1,
                Some((
                    350_000,
                    "this host's conntrack in netns 7, the connection's own",
                )),
            ),
            (
                8,
                1,
                Some((
                    8_000,
                    "this host's conntrack in netns 8, the connection's own",
                )),
            ),
            (9, 1, None),
            // The shortest of those on the path.
            (
                7,
                9,
                Some((
                    4_000,
                    "this host's ipvs in netns 9, which has the service 10.0.0.9:80",
                )),
            ),
        ] {
            let end = |host| (IpAddr::from([10, 0, 0, host]), 80);
            let found = timeouts.of(&Endpoints::new((end(1).0, 1), end(to), netns));
            let found = found.map(|it| (it.ms, it.about));
            let found = found
                .as_ref()
                .map(|(ms, about)| (*ms, about.split(';').next().unwrap_or_default()));
            assert_eq!(found, expected, "netns {netns} to {to}");
        }
    }

    #[test]
    fn a_learned_timeout_replaces_a_given_one() {
        let remote = (IpAddr::from([10, 0, 0, 1]), 1);
        let learned = |survived_ms: Option<u64>, died_ms: u64, deaths: u64| {
            let mut estimator = TimeoutEstimator::default();
            if let Some(ms) = survived_ms {
                estimator.lived(remote, LivedThrough::silence(ms));
            }
            for n in 1..=deaths {
                let died_ns = n * 2 * died_ms * 1_000_000;
                let death = Death {
                    age_ms: died_ms,
                    heard_ns: died_ns - died_ms * 1_000_000,
                    died_ns,
                };
                estimator.died(remote, death);
            }
            estimator
        };
        let elsewhere = (IpAddr::from([10, 0, 1, 1]), 1);
        for (learned, to, ms) in [
            (learned(Some(301_000), 352_000, 2), remote, 301_000),
            (learned(Some(10_000), 352_000, 2), remote, 10_000),
            (learned(None, 352_000, 2), remote, 120_000),
            (learned(None, 20_000, 2), remote, 10_000),
            (learned(Some(301_000), 352_000, 1), remote, 900_000),
            (learned(Some(301_000), 352_000, 2), elsewhere, 900_000),
        ] {
            let timeouts = Timeouts::new(vec![Timeout::given(900_000)], vec![learned]);
            let connection = Endpoints::new((to.0, 9), to, 7);
            let found = timeouts.of(&connection).map(|it| it.ms);
            assert_eq!(found, Some(ms), "{to:?}");
        }
    }
}
