//! Known idle timeouts: the defaults of common middleboxes, and the timeouts of this
//! host.
//!
//! A default is a hint because operators change it, and it does not show that a
//! connection passes there. A timeout of the host is read from it. It is a fact for the
//! connections that are known to pass there, and a hint for those that may.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::model::host_timeout::{HostTimeout, HostTimeouts, NetnsTimeouts};
use crate::model::socket::Endpoints;
use crate::model::timeouts_change;
use crate::timeout::on_path::{OnPath, PathEvidence, on_path};

/// The table of defaults and their sources.
const TABLE: &str = include_str!("../../data/idle-timeouts.csv");

/// A row of the table: a middlebox and its idle timeout.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Middlebox {
    /// The name that `kaprobe audit --behind` accepts.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// What it does with a connection.
    pub role: Role,
    /// The names of its processes, separated by spaces. Empty if they are not known, or if it
    /// runs elsewhere.
    pub comm: String,
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
    /// Whether segments after expiry may be dropped without a word.
    pub drops: Answer,
    /// Whether a keepalive probe counts as traffic. Layer-7 proxies count bytes.
    pub refreshed_by_keepalive: Answer,
    /// Whether it reads on, and answers nothing, for a while after it closed.
    pub lingers: Answer,
    /// The document that says so.
    pub source: String,
}

/// What the owner of an idle timeout does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It forwards packets.
    Box,
    /// It ends connections, and makes others for them.
    Proxy,
    /// It is an end of the connection.
    Program,
}

/// A yes-or-no property of a middlebox; `Unknown` if the source does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Yes,
    No,
    Unknown,
}

/// The table of middleboxes. It is parsed once.
#[must_use]
pub fn middleboxes() -> &'static [Middlebox] {
    static PARSED: LazyLock<Vec<Middlebox>> = LazyLock::new(|| {
        let mut table = csv::Reader::from_reader(TABLE.as_bytes());
        // A test checks that every row can be read.
        table.deserialize().filter_map(Result::ok).collect()
    });
    &PARSED
}

/// The shortest default of a middlebox that a probe refreshes, s.
#[must_use]
pub fn shortest_refreshed_s() -> u64 {
    let all = middleboxes().iter();
    let refreshed = all.filter(|it| it.refreshed_by_keepalive == Answer::Yes);
    refreshed.map(|it| it.default_s).min().unwrap_or(240)
}

/// All known idle timeouts: the table and this host's own.
#[derive(Clone, Debug)]
pub struct MiddleboxTable {
    middleboxes: &'static [Middlebox],
    host: HostTimeouts,
}

/// How a middlebox treats a segment of a connection that it has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExpiry {
    /// It, or the host that gets the segment, answers with a reset.
    Reset,
    /// It drops the segment without a word.
    Silence,
}

impl Middlebox {
    /// Whether a process with these names, separated by spaces, is one of it.
    fn is(&self, names: &str) -> bool {
        let mut own = self.comm.split_ascii_whitespace();
        own.any(|own| names.split_ascii_whitespace().any(|it| it == own))
    }

    /// False if the source says that it does not treat segments so.
    fn may(&self, after: AfterExpiry) -> bool {
        let answer = match after {
            AfterExpiry::Reset => self.draws_reset,
            AfterExpiry::Silence => self.drops,
        };
        answer != Answer::No
    }
}

/// A known idle timeout that explains an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The names of those who apply the timeout, separated by ", ".
    pub names: String,
    /// The timeout, s.
    pub seconds: u64,
    /// Where the timeout comes from.
    pub source: FitSource,
}

/// Where a known timeout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitSource {
    /// This host applies it, and it is known to be on the path.
    Host(PathEvidence),
    /// This host applies it, and it may be on the path.
    PossibleHost,
    /// The default of a middlebox that may be on the path.
    Default,
}

impl Fit {
    /// True if this host applies the timeout to the connection.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        matches!(self.source, FitSource::Host(_))
    }

    /// The first name.
    #[must_use]
    pub fn first_name(&self) -> &str {
        self.names.split(", ").next().unwrap_or(&self.names)
    }
}

impl MiddleboxTable {
    /// Joins the table with the timeouts that this host applies.
    #[must_use]
    pub fn new(host: &HostTimeouts) -> Self {
        Self {
            middleboxes: middleboxes(),
            host: host.clone(),
        }
    }

    /// Applies a change of the timeouts that this host applies.
    pub fn apply(&mut self, change: &[NetnsTimeouts]) {
        timeouts_change::apply(&mut self.host, change);
    }

    /// The timeouts that explain the end of a connection after `died_ms` of idle time, those
    /// that this host is known to apply to it first. `after` is what became of its segments.
    ///
    /// Other connections survived `survived_ms`. The timeout must lie between the two,
    /// within [`slack_ms`]. A timeout that is not known to be on the path must also be
    /// close: every shorter timeout would fit, and a name that always fits is no
    /// information.
    #[must_use]
    pub fn fits(
        &self,
        connection: Option<&Endpoints>,
        survived_ms: Option<u64>,
        died_ms: u64,
        after: AfterExpiry,
    ) -> Vec<Fit> {
        let lies_between = |seconds: u64| {
            let ms = seconds.saturating_mul(1000);
            ms <= died_ms.saturating_add(slack_ms(died_ms))
                && survived_ms.is_none_or(|it| it <= ms.saturating_add(slack_ms(ms)))
        };
        let is_near = |seconds: u64| {
            let ms = seconds.saturating_mul(1000);
            lies_between(seconds)
                && (died_ms <= ms.saturating_add(ms / 10 + SLACK_MS)
                    || survived_ms.is_some_and(|low| low >= ms / 5 * 4))
        };
        let host = self.host.timeouts.iter().filter_map(|it| {
            let (source, fits) = match on_path(it, &self.host.routes, connection?) {
                OnPath::Yes(evidence) => (FitSource::Host(evidence), lies_between(it.seconds)),
                OnPath::Unknown => (FitSource::PossibleHost, is_near(it.seconds)),
                OnPath::No => return None,
            };
            fits.then(|| Fit {
                names: format!("this host's {}", it.name()),
                seconds: it.seconds,
                source,
            })
        });
        let mut fits: Vec<_> = host.collect();
        // Of two that fit, the longer one is closer to the idle time, so more likely.
        fits.sort_by_key(|it| (!it.is_host(), std::cmp::Reverse(it.seconds)));
        fits.extend(grouped(
            self.middleboxes
                .iter()
                .filter(|it| it.may(after) && is_near(it.default_s)),
        ));
        fits
    }

    /// The timeout that this host applies to a half-closed connection and that has passed
    /// after `idle_ms`, the longest if there are several.
    #[must_use]
    pub fn half_closed(&self, connection: &Endpoints, idle_ms: u64) -> Option<Fit> {
        let known = self.host.timeouts.iter().filter_map(|it| {
            let seconds = it.half_closed_s?;
            let has_passed = seconds.saturating_mul(1000) <= idle_ms.saturating_add(SLACK_MS);
            match on_path(it, &self.host.routes, connection) {
                OnPath::Yes(evidence) if has_passed => Some(Fit {
                    names: format!("this host's {}", it.name()),
                    seconds,
                    source: FitSource::Host(evidence),
                }),
                _ => None,
            }
        });
        known.max_by_key(|it| it.seconds)
    }

    /// The timeouts that this host is known to apply to a connection.
    pub fn on_path_of(&self, connection: &Endpoints) -> impl Iterator<Item = &HostTimeout> {
        self.host.timeouts.iter().filter(|it| {
            let path = on_path(it, &self.host.routes, connection);
            matches!(path, OnPath::Yes(_))
        })
    }

    /// Whether conntrack of this host tracks the connections of a network namespace.
    #[must_use]
    pub fn tracks(&self, netns: u32) -> bool {
        let timeouts = self.host.timeouts.iter();
        timeouts
            .filter(|it| it.netns == netns)
            .any(|it| it.what.as_str() == "conntrack")
    }

    /// The longest known timeout, ms.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        let defaults = self.middleboxes.iter().map(|it| it.default_s);
        let all = defaults.chain(self.host.timeouts.iter().map(|it| it.seconds));
        all.max().unwrap_or(0).saturating_mul(1_000)
    }

    /// Layer-7 proxies that close a connection after about `idle_ms` without data. Probes do
    /// not prevent that.
    #[must_use]
    pub fn proxies(&self, idle_ms: u64) -> Vec<Fit> {
        self.closers(idle_ms, SLACK_MS, |it| it.role == Role::Proxy)
    }

    /// Proxies and programs that close a connection after about `idle_ms` without data: those
    /// with the timeout that fits best. If the names of the one that closed are known, no
    /// other is named.
    #[must_use]
    pub fn programs(&self, idle_ms: u64, names: Option<&str>) -> Vec<Fit> {
        let is_listed = names.is_some_and(|names| self.is_listed(names));
        // Some look at their connections only once a second. Any time is near one of so many
        // defaults, so a program that is not known must fit better.
        let slack_ms = if is_listed { SLACK_MS } else { NEAR_MS };
        let mut fits = self.closers(idle_ms, slack_ms, |it| match names {
            Some(names) if is_listed => it.is(names),
            Some(_) => it.role == Role::Program && it.comm.is_empty(),
            None => it.role != Role::Box,
        });
        fits.truncate(1);
        fits
    }

    /// Whether a program is known to close idle connections.
    #[must_use]
    pub fn is_listed(&self, names: &str) -> bool {
        self.middleboxes.iter().any(|it| it.is(names))
    }

    /// Whether a program reads on for a while after it closed a connection for idleness.
    #[must_use]
    pub fn lingers(&self, names: &str) -> bool {
        let mut named = self.middleboxes.iter().filter(|it| it.is(names));
        named.any(|it| it.lingers == Answer::Yes)
    }

    fn closers(
        &self,
        idle_ms: u64,
        slack_ms: u64,
        is_asked: impl Fn(&Middlebox) -> bool,
    ) -> Vec<Fit> {
        let distance_ms = |seconds: u64| seconds.saturating_mul(1000).abs_diff(idle_ms);
        let mut fits = grouped(self.middleboxes.iter().filter(|it| {
            let ms = it.default_s.saturating_mul(1000);
            // A timer fires late, never early; only the way takes more or less time.
            let is_near = ms <= idle_ms.saturating_add(JITTER_MS)
                && idle_ms <= ms.saturating_add(slack_ms + ms / 50);
            is_asked(it) && is_near
        }));
        fits.sort_by_key(|it| distance_ms(it.seconds));
        fits
    }
}

/// The maximum error of an idle age, ms: two ticks and a round trip.
const SLACK_MS: u64 = 1_000;

/// How much later a program that is not known may close after its timeout, ms.
const NEAR_MS: u64 = 500;

/// How much less than the timeout an idle age may be, ms: the last data may take longer on
/// its way than the end.
const JITTER_MS: u64 = 200;

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
                source: FitSource::Default,
            }),
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::text::escape::Escaped;

    fn host(what: &str, seconds: u64) -> HostTimeout {
        HostTimeout {
            what: Escaped::from(what),
            netns: 7,
            seconds,
            services: vec![([10, 0, 0, 2], 80).into()],
            ..HostTimeout::default()
        }
    }

    #[test]
    fn every_row_of_the_table_is_read_and_has_a_source() {
        let all = middleboxes();
        assert_eq!(all.len(), TABLE.lines().count() - 1);
        for it in all {
            assert!(!it.source.is_empty() && it.default_s > 0, "{it:?}");
            // Who ends a connection counts bytes, and probes are none.
            let is_end = it.role != Role::Box;
            assert_eq!(is_end, it.refreshed_by_keepalive == Answer::No, "{it:?}");
            assert_eq!(all.iter().filter(|other| other.id == it.id).count(), 1);
            let in_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(it.id.chars().all(in_id), "{it:?}");
            let (min, max) = (it.min_s.unwrap_or(0), it.max_s.unwrap_or(u64::MAX));
            assert!((min..=max).contains(&it.default_s), "{it:?}");
            // A proxy that counts only bytes closes the connection itself: no later
            // segment draws a reset.
            if it.refreshed_by_keepalive == Answer::No {
                assert_eq!(
                    (it.draws_reset, it.drops),
                    (Answer::No, Answer::No),
                    "{it:?}"
                );
            }
        }
    }

    #[test]
    fn matching_timeouts_are_named() {
        let own = vec![host("ipvs", 4), host("conntrack", 432_000)];
        let nlb = "350 AWS NLB, AWS GWLB, AWS NAT gateway, EC2 connection tracking (Nitro v6)";
        for (own, survived_s, died_ms, expected) in [
            (&vec![], None, 903_000, &["900 Linux IPVS"][..]),
            (&vec![], None, 352_000, &[nlb]),
            // Within the tolerance, and outside it.
            (&vec![], None, 343_000, &[nlb]),
            (&vec![], None, 340_000, &[]),
            // Every shorter timeout fits: none is named unless the bounds are tight.
            (&vec![], None, 500_000, &[]),
            (&vec![], Some(301), 500_000, &[nlb]),
            (&vec![], Some(358), 500_000, &[nlb]),
            (&vec![], Some(359), 500_000, &[]),
            // A middlebox that never draws a reset is not named.
            (&vec![], None, 601_000, &[]),
            (&vec![], None, 60_500, &[]),
            // A timeout of the host on the path need not be close, but must fit.
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
            let ends = [1, 2].map(|host| (IpAddr::from([10, 0, 0, host]), 80));
            let connection = Endpoints::new(ends[0], ends[1], 7);
            let table = MiddleboxTable::new(&HostTimeouts {
                timeouts: own.clone(),
                routes: vec![],
            });
            let fits = table.fits(Some(&connection), survived_ms, died_ms, AfterExpiry::Reset);
            let names: Vec<_> = fits
                .iter()
                .map(|fit| format!("{} {}", fit.seconds, fit.names))
                .collect();
            assert_eq!(names, expected, "{survived_s:?} {died_ms}");
        }
    }

    #[test]
    fn a_timeout_that_may_be_elsewhere_is_no_more_than_a_hint() {
        let ends = [1, 2].map(|host| (IpAddr::from([10, 0, 0, host]), 81));
        let connection = Endpoints::new(ends[0], ends[1], 9);
        let table = MiddleboxTable::new(&HostTimeouts {
            timeouts: vec![host("ipvs", 8), host("conntrack", 8)],
            routes: vec![],
        });
        for (died_ms, expected) in [
            (8_500, vec![FitSource::PossibleHost]),
            // Every longer idle time would fit.
            (20_400, vec![]),
            (352_000, vec![FitSource::Default]),
        ] {
            let fits = table.fits(Some(&connection), None, died_ms, AfterExpiry::Reset);
            let sources: Vec<_> = fits.iter().map(|it| it.source).collect();
            assert_eq!(sources, expected, "{died_ms}: {fits:?}");
        }
        assert_eq!(table.on_path_of(&connection).count(), 0);
    }

    #[test]
    fn proxies_with_about_this_timeout_are_found() {
        let table = MiddleboxTable::new(&HostTimeouts::default());
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

    #[test]
    fn programs_with_about_this_timeout_are_found() {
        let table = MiddleboxTable::new(&HostTimeouts::default());
        for (ms, names, expected) in [
            (2_400, None, Some("gunicorn")),
            // It looks only once a second; another program does not.
            (2_900, None, None),
            (2_900, Some("gunicorn"), Some("gunicorn")),
            (2_900, Some("python3.13 gunicorn"), Some("gunicorn")),
            // Where the program is known, no other is named.
            (2_000, Some("nginx"), None),
            (2_000, Some("httpd"), None),
            (5_000, Some("httpd"), Some("Apache httpd")),
            (5_000, Some("node"), Some("Node.js HTTP")),
            (6_004, Some("node"), Some("Node.js HTTP with its buffer")),
            (66_004, Some("node server.js"), Some("Node.js HTTP from 26")),
            (65_100, None, Some("Puma")),
            (75_000, Some("nginx"), Some("nginx HTTP keepalive")),
            // It may be a program in Go.
            (90_000, Some("api"), Some("Go net/http client")),
            (2_000, Some("api"), None),
        ] {
            let fits = table.programs(ms, names);
            let found = fits.first().map(|it| it.names.as_str());
            assert_eq!(found, expected, "{ms} {names:?}");
        }
        assert!(table.lingers("apache2") && !table.lingers("nginx"));
    }
}
