//! The idle timeouts that connections are judged by. Pure.

use std::net::IpAddr;

use crate::model::header::HostTimeout;
use crate::text::escape::Escaped;
use crate::timeout::estimate::{TimeoutBounds, TimeoutEstimator};
use crate::timeout::middlebox::{Answer, Middlebox};

/// An idle timeout on the way of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// After how long without a packet, ms.
    pub ms: u64,
    /// Who has it.
    pub of: Escaped,
    /// Whether a keepalive probe counts as traffic.
    pub refreshed: Answer,
    /// What else there is to know of it, for people.
    pub about: String,
}

impl Timeout {
    /// A timeout that was given, and nothing else.
    #[must_use]
    pub fn given(ms: u64) -> Self {
        Self {
            ms,
            of: Escaped::from("idle-timeout"),
            refreshed: Answer::Yes,
            about: "as given".to_owned(),
        }
    }

    /// That of a middlebox of the table, set to `ms` where the default was changed.
    #[must_use]
    pub fn of_middlebox(it: &Middlebox, ms: Option<u64>) -> Self {
        let mut about = format!(
            "{}, {}",
            it.name,
            if ms.is_some() {
                "as given"
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
            Answer::No => "; keepalive can't help, it does not count probes",
            Answer::Unknown => "; its source does not say whether probes count: taken to",
        });
        if it.id == "ipvs" {
            about.push_str(DIRECT_ROUTING);
        }
        Self {
            ms: ms.unwrap_or(it.default_s.saturating_mul(1000)),
            of: Escaped::from(it.id.as_str()),
            refreshed: it.refreshed_by_keepalive,
            about,
        }
    }

    /// One that this host applies itself.
    #[must_use]
    pub fn of_host(it: &HostTimeout) -> Self {
        let note = if it.what.as_str() == "ipvs" {
            DIRECT_ROUTING
        } else {
            ""
        };
        Self {
            ms: it.seconds.saturating_mul(1000),
            of: it.what.clone(),
            refreshed: Answer::Yes,
            about: format!("this host's own, in netns {}{note}", it.netns),
        }
    }

    /// What a log shows: the longest age that was survived is known to be safe. Where
    /// that is less than half of the shortest that killed, half of that is taken, as
    /// `verdict` advises.
    fn of_bracket(it: TimeoutBounds) -> Option<Self> {
        let died_ms = it.died_ms.filter(|_| it.is_believed())?;
        Some(Self {
            ms: it.survived_ms.unwrap_or(0).max(died_ms / 2),
            of: Escaped::from("log"),
            refreshed: Answer::Yes,
            about: "learned".to_owned(),
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

/// With direct routing the balancer does not see what servers send.
const DIRECT_ROUTING: &str =
    "; in direct routing a server's probe bypasses it, and the client's answer refreshes it";

/// What is known of the way to each place.
pub struct Timeouts {
    /// Those on every way, the one that counts first.
    everywhere: Vec<Timeout>,
    /// What logs show of a remote address and port.
    learned: Vec<TimeoutEstimator>,
}

impl Timeouts {
    /// Timeouts on every way, and what logs show of some.
    #[must_use]
    pub fn new(mut everywhere: Vec<Timeout>, learned: Vec<TimeoutEstimator>) -> Self {
        // A box that counts no probes can't be helped by the others.
        everywhere.sort_by_key(|it| (it.refreshed != Answer::No, it.ms));
        Self {
            everywhere,
            learned,
        }
    }

    /// Those on every way, the one that counts first.
    #[must_use]
    pub fn everywhere(&self) -> &[Timeout] {
        &self.everywhere
    }

    /// Whether logs were read.
    #[must_use]
    pub fn is_learned(&self) -> bool {
        !self.learned.is_empty()
    }

    /// The one that a connection to there is judged by.
    #[must_use]
    pub fn towards(&self, remote: (IpAddr, u16)) -> Option<Timeout> {
        let learned = self.learned.iter().filter_map(|it| it.bounds(remote));
        let learned = learned
            .filter_map(Timeout::of_bracket)
            .min_by_key(|it| it.ms);
        learned.or_else(|| self.everywhere.first().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeout::estimate::Death;
    use crate::timeout::middlebox::middleboxes;

    #[test]
    fn the_shortest_counts_and_a_proxy_before_all() {
        let of = |id: &str| middleboxes().into_iter().find(|it| it.id == id);
        let of = |id: &str| of(id).map(|it| Timeout::of_middlebox(&it, None));
        let both = |a, b| of(a).into_iter().chain(of(b)).collect::<Vec<_>>();
        let there = (IpAddr::from([10, 0, 0, 1]), 2);
        for (a, b, ms) in [
            ("aws-nlb", "ipvs", 350_000),
            ("ipvs", "aws-nlb", 350_000),
            ("azure-lb", "envoy-tcp-proxy", 3_600_000),
        ] {
            let timeouts = Timeouts::new(both(a, b), Vec::new());
            assert_eq!(timeouts.towards(there).map(|it| it.ms), Some(ms), "{a} {b}");
        }
    }

    #[test]
    fn what_a_log_shows_comes_first_where_it_shows_anything() {
        let there = (IpAddr::from([10, 0, 0, 1]), 1);
        let learned = |survived_ms: Option<u64>, died_ms: u64, deaths: u64| {
            let mut estimator = TimeoutEstimator::default();
            if let Some(ms) = survived_ms {
                estimator.survived(there, ms);
            }
            for n in 1..=deaths {
                let died_ns = n * 2 * died_ms * 1_000_000;
                let death = Death {
                    age_ms: died_ms,
                    heard_ns: died_ns - died_ms * 1_000_000,
                    died_ns,
                };
                estimator.died(there, death);
            }
            estimator
        };
        let elsewhere = (IpAddr::from([10, 0, 1, 1]), 1);
        for (learned, to, ms) in [
            (learned(Some(301_000), 352_000, 2), there, 301_000),
            (learned(Some(10_000), 352_000, 2), there, 176_000),
            (learned(None, 352_000, 2), there, 176_000),
            (learned(Some(301_000), 352_000, 1), there, 900_000),
            (learned(Some(301_000), 352_000, 2), elsewhere, 900_000),
        ] {
            let timeouts = Timeouts::new(vec![Timeout::given(900_000)], vec![learned]);
            assert_eq!(timeouts.towards(to).map(|it| it.ms), Some(ms), "{to:?}");
        }
    }
}
