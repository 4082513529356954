//! Known idle timeouts: the defaults of common middleboxes, and the timeouts of this
//! host.
//!
//! A default is a hint because operators change it. The timeouts of the host are read
//! from it and are facts. Neither shows that a connection passes there.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::model::header::HostTimeout;

/// The table of defaults and their sources.
const TABLE: &str = include_str!("../../data/idle-timeouts.csv");

/// A row of the table: a middlebox and its idle timeout.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Middlebox {
    /// The name that `kaprobe audit --behind` accepts.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// The default idle timeout, s.
    pub default_s: u64,
    /// The minimum idle timeout, s.
    pub min_s: Option<u64>,
    /// The maximum idle timeout, s.
    pub max_s: Option<u64>,
    /// What the middlebox does when the timeout expires.
    pub on_expiry: String,
    /// Whether the first segment after expiry may draw a reset.
    pub draws_reset: Answer,
    /// Whether a keepalive probe counts as traffic. Layer-7 proxies count bytes.
    pub refreshed_by_keepalive: Answer,
    /// The document that says so.
    pub source: String,
}

/// A yes-or-no property of a middlebox; `Unknown` if the source does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Yes,
    No,
    Unknown,
}

/// Reads the table of middleboxes.
#[must_use]
pub fn middleboxes() -> Vec<Middlebox> {
    let mut table = csv::Reader::from_reader(TABLE.as_bytes());
    // A test checks that every row can be read.
    table.deserialize().filter_map(Result::ok).collect()
}

/// All known idle timeouts: the table and this host's own.
#[derive(Clone, Debug)]
pub struct MiddleboxTable {
    middleboxes: Vec<Middlebox>,
    host: Vec<HostTimeout>,
}

/// A known idle timeout that explains an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The names of those who apply the timeout, separated by ", ".
    pub names: String,
    /// The timeout, s.
    pub seconds: u64,
    /// True if this host applies the timeout.
    pub is_host: bool,
}

impl Fit {
    /// The first name.
    #[must_use]
    pub fn first_name(&self) -> &str {
        self.names.split(", ").next().unwrap_or(&self.names)
    }
}

impl MiddleboxTable {
    /// Joins the table with the timeouts that this host applies.
    #[must_use]
    pub fn new(host: &[HostTimeout]) -> Self {
        Self {
            middleboxes: middleboxes(),
            host: host.to_vec(),
        }
    }

    /// The timeouts that explain a reset after `died_ms` of idle time, the host's first.
    ///
    /// Other connections survived `survived_ms`. The timeout must lie between the two,
    /// within [`slack_ms`]. A default must also be close: every shorter timeout would
    /// fit, and a name that always fits is no information. A timeout of the host need not
    /// be close.
    #[must_use]
    pub fn fits(&self, survived_ms: Option<u64>, died_ms: u64) -> Vec<Fit> {
        let lies_between = |seconds: u64| {
            let ms = seconds.saturating_mul(1000);
            ms <= died_ms.saturating_add(slack_ms(died_ms))
                && survived_ms.is_none_or(|it| it <= ms.saturating_add(slack_ms(ms)))
        };
        let host = self.host.iter().filter(|it| lies_between(it.seconds));
        let mut fits: Vec<_> = host
            .map(|it| Fit {
                names: format!("this host's {} in netns {}", it.what, it.netns),
                seconds: it.seconds,
                is_host: true,
            })
            .collect();
        // Of two that fit, the longer one is closer to the idle time, so more likely.
        fits.sort_by_key(|it| std::cmp::Reverse(it.seconds));
        let near = |it: &&Middlebox| {
            let ms = it.default_s.saturating_mul(1000);
            it.draws_reset != Answer::No
                && lies_between(it.default_s)
                && (died_ms <= ms + ms / 10 + SLACK_MS
                    || survived_ms.is_some_and(|low| low >= ms / 5 * 4))
        };
        fits.extend(grouped(self.middleboxes.iter().filter(near)));
        fits
    }

    /// The timeouts that this host applies.
    pub fn host(&self) -> impl Iterator<Item = &HostTimeout> {
        self.host.iter()
    }

    /// The shortest default of a middlebox that a probe refreshes, s.
    #[must_use]
    pub fn shortest_refreshed_s(&self) -> u64 {
        let refreshed = self.middleboxes.iter();
        let refreshed = refreshed.filter(|it| it.refreshed_by_keepalive == Answer::Yes);
        refreshed.map(|it| it.default_s).min().unwrap_or(240)
    }

    /// The longest known timeout, ms.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        let defaults = self.middleboxes.iter().map(|it| it.default_s);
        let all = defaults.chain(self.host.iter().map(|it| it.seconds));
        all.max().unwrap_or(0).saturating_mul(1_000)
    }

    /// Layer-7 proxies that close a connection after about `idle_ms`. Probes do not
    /// prevent that.
    #[must_use]
    pub fn proxies(&self, idle_ms: u64) -> Vec<Fit> {
        grouped(self.middleboxes.iter().filter(|it| {
            let ms = it.default_s.saturating_mul(1000);
            it.refreshed_by_keepalive == Answer::No && ms.abs_diff(idle_ms) <= slack_ms(ms)
        }))
    }
}

/// The maximum error of an idle age, ms: two ticks and a round trip.
const SLACK_MS: u64 = 1_000;

/// The tolerance when an idle age is compared with a timeout, ms. Middleboxes scan their
/// tables at intervals, so they expire entries late.
#[must_use]
pub const fn slack_ms(ms: u64) -> u64 {
    SLACK_MS + ms / 50
}

/// Merges the middleboxes that have one timeout, in the order of the table.
fn grouped<'a>(middleboxes: impl Iterator<Item = &'a Middlebox>) -> Vec<Fit> {
    let mut fits: Vec<Fit> = Vec::new();
    for it in middleboxes {
        match fits.iter_mut().find(|fit| fit.seconds == it.default_s) {
            Some(fit) => {
                // Writing to a String cannot fail.
                let _ = write!(fit.names, ", {}", it.name);
            }
            None => fits.push(Fit {
                names: it.name.clone(),
                seconds: it.default_s,
                is_host: false,
            }),
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::escape::Escaped;

    fn host(what: &str, seconds: u64) -> HostTimeout {
        HostTimeout {
            what: Escaped::from(what),
            netns: 7,
            seconds,
        }
    }

    #[test]
    fn every_row_of_the_table_is_read_and_has_a_source() {
        let all = middleboxes();
        assert_eq!(all.len(), TABLE.lines().count() - 1);
        for it in &all {
            assert!(!it.source.is_empty() && it.default_s > 0, "{it:?}");
            assert_eq!(all.iter().filter(|other| other.id == it.id).count(), 1);
            let in_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(it.id.chars().all(in_id), "{it:?}");
            let (min, max) = (it.min_s.unwrap_or(0), it.max_s.unwrap_or(u64::MAX));
            assert!((min..=max).contains(&it.default_s), "{it:?}");
            // A proxy that counts only bytes closes the connection itself: no later
            // segment draws a reset.
            if it.refreshed_by_keepalive == Answer::No {
                assert_eq!(it.draws_reset, Answer::No, "{it:?}");
            }
        }
    }

    #[test]
    fn matching_timeouts_are_named() {
        let own = [host("ipvs", 4), host("conntrack", 432_000)];
        let nlb = "350 AWS NLB, AWS GWLB, AWS NAT gateway, EC2 connection tracking (Nitro v6)";
        for (own, survived_s, died_ms, expected) in [
            (&[][..], None, 903_000, &["900 Linux IPVS"][..]),
            (&[], None, 352_000, &[nlb]),
            // Within the tolerance, and outside it.
            (&[], None, 343_000, &[nlb]),
            (&[], None, 340_000, &[]),
            // Every shorter timeout fits: none is named unless the bounds are tight.
            (&[], None, 500_000, &[]),
            (&[], Some(301), 500_000, &[nlb]),
            (&[], Some(358), 500_000, &[nlb]),
            (&[], Some(359), 500_000, &[]),
            // A middlebox that never draws a reset is not named.
            (&[], None, 601_000, &[]),
            (&[], None, 60_500, &[]),
            // A timeout of the host need not be close, but must fit.
            (&own, None, 12_000, &["4 this host's ipvs in netns 7"]),
            (&own, Some(6), 12_000, &[]),
            (&own, None, 2_000, &[]),
            (
                &own,
                None,
                241_000,
                &["4 this host's ipvs in netns 7", "240 Azure Load Balancer"],
            ),
        ] {
            let survived_ms = survived_s.map(|s: u64| s * 1000);
            let fits = MiddleboxTable::new(own).fits(survived_ms, died_ms);
            let names: Vec<_> = fits
                .iter()
                .map(|fit| format!("{} {}", fit.seconds, fit.names))
                .collect();
            assert_eq!(names, expected, "{survived_s:?} {died_ms}");
        }
    }

    #[test]
    fn proxies_with_about_this_timeout_are_found() {
        let table = MiddleboxTable::new(&[]);
        let names = |ms| {
            table
                .proxies(ms)
                .into_iter()
                .map(|fit| fit.names)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(60_400), ["AWS ALB, AWS CLB"]);
        assert!(names(350_000).is_empty());
    }
}
