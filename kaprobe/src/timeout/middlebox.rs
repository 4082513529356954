//! Idle timeouts that are known: the defaults of common middleboxes, and what this
//! host itself applies.
//!
//! A default is a hint: operators change it. What the host applies is read, and is a
//! fact; whether a connection passes there is not.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::model::header::HostTimeout;

/// The defaults, with their sources.
const TABLE: &str = include_str!("../../data/idle-timeouts.csv");

/// A middlebox of the table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Middlebox {
    /// What `kaprobe audit --behind` calls it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its idle timeout, unless someone changed it, s.
    pub default_s: u64,
    /// The least it can be set to, s.
    pub min_s: Option<u64>,
    /// The most it can be set to, s.
    pub max_s: Option<u64>,
    /// What it does then.
    pub on_expiry: String,
    /// Whether the first segment after that may draw a reset.
    pub draws_reset: Answer,
    /// Whether a keepalive probe counts as traffic. Layer-7 proxies count bytes.
    pub refreshed_by_keepalive: Answer,
    /// Where all this is said.
    pub source: String,
}

/// Yes, no, or not said by the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is what it says")]
pub enum Answer {
    Yes,
    No,
    Unknown,
}

/// The table.
#[must_use]
pub fn middleboxes() -> Vec<Middlebox> {
    let mut table = csv::Reader::from_reader(TABLE.as_bytes());
    // That every row can be read is a test's business.
    table.deserialize().filter_map(Result::ok).collect()
}

/// What is known.
#[derive(Clone, Debug)]
pub struct MiddleboxTable {
    middleboxes: Vec<Middlebox>,
    host: Vec<HostTimeout>,
}

/// Idle timeouts that fit what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Who has such a timeout, for people.
    pub names: String,
    /// The timeout, s.
    pub seconds: u64,
    /// This host applies it.
    pub is_host: bool,
}

impl Fit {
    /// The first of its names.
    #[must_use]
    pub fn first_name(&self) -> &str {
        self.names.split(", ").next().unwrap_or(&self.names)
    }
}

impl MiddleboxTable {
    /// The table, and what the host applies.
    #[must_use]
    pub fn new(host: &[HostTimeout]) -> Self {
        Self {
            middleboxes: middleboxes(),
            host: host.to_vec(),
        }
    }

    /// The timeouts that fit a connection's death by a reset after so long, where
    /// others are known to have survived `survived_ms`; the host's own first.
    ///
    /// The timeout must lie between the two, give or take [`slack_ms`]. A default
    /// must besides be near: the same idle time fits every shorter timeout, and a
    /// name that fits anything says nothing. What the host applies is there, near or
    /// not.
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
        // Of two that fit, the longer needs less of a coincidence.
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

    /// What the host itself applies.
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

    /// The longest timeout there is, ms.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        let defaults = self.middleboxes.iter().map(|it| it.default_s);
        let all = defaults.chain(self.host.iter().map(|it| it.seconds));
        all.max().unwrap_or(0).saturating_mul(1_000)
    }

    /// Layer-7 proxies that close a connection after about this idle time, which no
    /// probe keeps from it.
    #[must_use]
    pub fn proxies(&self, idle_ms: u64) -> Vec<Fit> {
        grouped(self.middleboxes.iter().filter(|it| {
            let ms = it.default_s.saturating_mul(1000);
            it.refreshed_by_keepalive == Answer::No && ms.abs_diff(idle_ms) <= slack_ms(ms)
        }))
    }
}

/// An idle age is off by less than this, ms: two ticks and a way through the network
/// and back.
const SLACK_MS: u64 = 1_000;

/// How far an idle age may be off a timeout that it shows, ms: middleboxes look at
/// their tables now and then, not at the moment.
#[must_use]
pub const fn slack_ms(ms: u64) -> u64 {
    SLACK_MS + ms / 50
}

/// Those of one timeout in one, in the order of the table.
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
            // What only counts bytes closes by itself: it leaves no one to send a reset.
            if it.refreshed_by_keepalive == Answer::No {
                assert_eq!(it.draws_reset, Answer::No, "{it:?}");
            }
        }
    }

    #[test]
    fn what_fits_is_named() {
        let own = [host("ipvs", 4), host("conntrack", 432_000)];
        let nlb = "350 AWS NLB, AWS GWLB, AWS NAT gateway, EC2 connection tracking (Nitro v6)";
        for (own, survived_s, died_ms, expected) in [
            (&[][..], None, 903_000, &["900 Linux IPVS"][..]),
            (&[], None, 352_000, &[nlb]),
            // Off by less than the slack, and by more.
            (&[], None, 343_000, &[nlb]),
            (&[], None, 340_000, &[]),
            // It fits every shorter one: none is named, unless the bounds is tight.
            (&[], None, 500_000, &[]),
            (&[], Some(301), 500_000, &[nlb]),
            (&[], Some(358), 500_000, &[nlb]),
            (&[], Some(359), 500_000, &[]),
            // What never draws a reset is not named.
            (&[], None, 601_000, &[]),
            (&[], None, 60_500, &[]),
            // The host's own need not be near, but must fit.
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
            let told: Vec<_> = fits
                .iter()
                .map(|fit| format!("{} {}", fit.seconds, fit.names))
                .collect();
            assert_eq!(told, expected, "{survived_s:?} {died_ms}");
        }
    }

    #[test]
    fn proxies_are_told_apart() {
        let known = MiddleboxTable::new(&[]);
        let names = |ms| {
            known
                .proxies(ms)
                .into_iter()
                .map(|fit| fit.names)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(60_400), ["AWS ALB, AWS CLB"]);
        assert!(names(350_000).is_empty());
    }
}
