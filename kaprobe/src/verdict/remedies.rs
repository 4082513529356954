//! Chooses the setting that would have kept a connection alive.
//!
//! A first probe at half of the timeout leaves time for one lost probe and for a timer
//! that fires late, by an eighth at most. A probe refreshes a middlebox that counts
//! packets, but not a proxy that counts bytes.
//!
//! An idle age that killed a connection is an upper bound for the timeout. So the advice
//! is never later than what survivors, known timeouts and the shortest common default
//! allow.

use crate::keepalive::connection::latest_firing_ms;
use crate::model::record::Record;
use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;
use crate::timeout::estimate::{SAME_AGE_MS, TimeoutBounds};
use crate::timeout::middlebox::{AfterExpiry, Fit, MiddleboxTable, shortest_refreshed_s};
use crate::verdict::finding::{Finding, IdleLimit};

/// The shortest TCP_USER_TIMEOUT that is advised, ms. A shorter outage ends no connection.
const SHORTEST_USER_TIMEOUT_MS: u64 = 30_000;

/// The default of TCP_KEEPINTVL, ms.
const DEFAULT_INTVL_MS: u64 = 75_000;

/// The idle ages from which an idle timeout on the path is concluded.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleDeath {
    /// The shortest idle age after which a connection was found dead, ms.
    pub(super) died_ms: u64,
    /// The longest idle age that a connection to the same place survived, ms, below those at
    /// which another died.
    pub(super) survived_ms: Option<u64>,
}

impl IdleDeath {
    /// The ages for a connection that was idle for `idle_ms`, had survived `survived_ms`, and
    /// whose endpoint has these learned bounds.
    pub(super) fn of(
        idle_ms: u64,
        survived_ms: Option<u64>,
        bounds: Option<TimeoutBounds>,
    ) -> Self {
        let shortest_ms = bounds.and_then(|it| it.shortest_ms);
        Self {
            died_ms: idle_ms.min(shortest_ms.unwrap_or(u64::MAX)),
            // Another connection may have died sooner than this one survived.
            survived_ms: bounds.map_or(survived_ms, |it| it.survived_ms),
        }
    }

    /// The known timeouts that explain it.
    pub(super) fn fits(
        self,
        record: &Record,
        middleboxes: &MiddleboxTable,
        after: AfterExpiry,
    ) -> Vec<Fit> {
        let connection = record.endpoints.as_ref();
        middleboxes.fits(connection, self.survived_ms, self.died_ms, after)
    }

    /// The change that sends the first probe in time for these timeouts, if one is needed, and
    /// what limits it.
    pub(super) fn first_probe(self, record: &Record, fits: &[Fit]) -> (Option<Remedy>, IdleLimit) {
        let (seconds, limit) = self.limit(fits);
        (first_probe(&record.settings, seconds), limit)
    }

    /// The latest first probe that is safe, s, and what limits it.
    fn limit(self, fits: &[Fit]) -> (u64, IdleLimit) {
        let fits = fits
            .iter()
            .map(|it| (it.seconds / 2, IdleLimit::Fit(it.clone())));
        let survived = self
            .survived_ms
            .map(|ms| ((ms + SAME_AGE_MS) / 1_000, IdleLimit::Survived(ms)));
        let death = (self.died_ms / 2_000, IdleLimit::Death(self.died_ms));
        let common = (shortest_refreshed_s() / 2, IdleLimit::Common);
        // Of equal limits, the first tells most.
        let (seconds, limit) = fits
            .chain(survived)
            .chain([death])
            .rev()
            .fold(common, |least, it| if it.0 <= least.0 { it } else { least });
        (seconds.max(1), limit)
    }
}

/// Keeps of the remedy of a finding what is safe to follow.
///
/// A sysctl changes every program of the namespace, so a guess does not advise one. No
/// program can set an option of a socket that it has closed.
pub(super) fn restrict(record: &Record, finding: &mut Finding) {
    let is_orphan = record.identity.orphan == Some(true);
    let is_settled = finding.is_settled();
    finding.remedy = finding.remedy.and_then(|it| match it.set_in {
        SetIn::Peer => Some(it),
        _ if is_orphan => None,
        SetIn::Sysctl if !is_settled => Some(Remedy {
            set_in: SetIn::Program,
            ..it
        }),
        _ => Some(it),
    });
}

/// The settings that send the first probe after `seconds`, and the next ones in time. `None`
/// if they already do.
pub(super) fn first_probe(settings: &Settings, seconds: u64) -> Option<Remedy> {
    let is_on = settings.keepalive == Some(true);
    let now_s = settings.keepalive_time_ms.unwrap_or_default() / 1_000;
    let time_s = (!is_on || now_s > seconds).then_some(seconds);
    let intvl_s = shorter_interval(settings.keepalive_intvl_ms.unwrap_or_default(), seconds);
    let is_own = |change: Option<u64>, from| change.is_some() && from == Some(Origin::Socket);
    let in_program = !is_on
        || is_own(time_s, settings.keepalive_time_from)
        || is_own(intvl_s, settings.keepalive_intvl_from);
    (time_s.is_some() || intvl_s.is_some()).then_some(Remedy {
        set_in: if in_program {
            SetIn::Program
        } else {
            SetIn::Sysctl
        },
        keepalive: !is_on,
        intvl_s,
        time_s,
        user_timeout_ms: None,
    })
}

/// The settings of the peer that send its first probe after `seconds`, and the next ones in
/// time. Its own are not known.
pub(super) fn first_probe_of_peer(seconds: u64) -> Remedy {
    Remedy {
        intvl_s: shorter_interval(DEFAULT_INTVL_MS, seconds),
        ..Remedy::first_probe(SetIn::Peer, seconds)
    }
}

/// The interval that leaves room for one lost probe before twice the time of the first, s.
/// `None` if the interval in force does.
///
/// The kernel waits for the interval after each probe, even if it was answered
/// (`tcp_keepalive_timer`, net/ipv4/tcp_timer.c): one that is longer than the idle timeout
/// lets the connection die after the first probe.
fn shorter_interval(intvl_ms: u64, first_s: u64) -> Option<u64> {
    let first_ms = first_s.saturating_mul(1_000);
    let second_ms = first_ms.max(intvl_ms).saturating_add(intvl_ms);
    let fits = latest_firing_ms(second_ms) < first_ms.saturating_mul(2);
    let shorter_s = (first_s / 2).max(1);
    (!fits && shorter_s * 1_000 < intvl_ms).then_some(shorter_s)
}

/// The TCP_USER_TIMEOUT that allows keepalive to send all its probes.
pub(super) fn all_probes(settings: &Settings) -> Remedy {
    Remedy {
        set_in: SetIn::Program,
        keepalive: false,
        intvl_s: None,
        time_s: None,
        user_timeout_ms: Some(all_probes_ms(settings, None)),
    }
}

/// The silence after which keepalive gives up by the number of its probes, ms, once a remedy is
/// applied.
fn all_probes_ms(settings: &Settings, remedy: Option<Remedy>) -> u64 {
    let ms = |advised_s: Option<u64>, now_ms: Option<u64>| {
        advised_s.map_or(now_ms.unwrap_or_default(), |it| it.saturating_mul(1_000))
    };
    let time_ms = ms(remedy.and_then(|it| it.time_s), settings.keepalive_time_ms);
    let intvl_ms = ms(
        remedy.and_then(|it| it.intvl_s),
        settings.keepalive_intvl_ms,
    );
    let probes = settings.keepalive_probes.unwrap_or_default();
    time_ms.saturating_add(intvl_ms.saturating_mul(probes))
}

/// The TCP_USER_TIMEOUT that ends a connection sooner than `now_ms`, if one does so safely, ms.
///
/// It replaces the number of keepalive probes (`tcp_keepalive_timer`, net/ipv4/tcp_timer.c):
/// a shorter one than all of them take gives up after fewer, a longer one later. So only the
/// time that all take is neither, once the remedy is applied.
pub(super) fn sooner_user_timeout(
    settings: &Settings,
    remedy: Option<Remedy>,
    now_ms: u64,
) -> Option<u64> {
    let is_on = settings.keepalive == Some(true) || remedy.is_some_and(|it| it.keepalive);
    let ms = match is_on {
        true => all_probes_ms(settings, remedy),
        false => SHORTEST_USER_TIMEOUT_MS,
    };
    (SHORTEST_USER_TIMEOUT_MS..now_ms)
        .contains(&ms)
        .then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user timeout takes the place of the number of probes: neither fewer nor later ones.
    #[test]
    fn a_user_timeout_is_as_long_as_all_probes() {
        let lower = Some(Remedy {
            intvl_s: Some(5),
            ..Remedy::first_probe(SetIn::Program, 10)
        });
        let on = Some(Remedy {
            time_s: Some(120),
            ..Remedy::SWITCH
        });
        let all_ms = 924_000;
        for (is_on, (time_s, intvl_s, probes), remedy, now_ms, expected) in [
            (false, (7_200, 75, 9), None, all_ms, Some(30_000)),
            (false, (7_200, 75, 9), None, 20_000, None),
            (true, (60, 10, 6), None, all_ms, Some(120_000)),
            // Keepalive ends it in 8 s: a longer user timeout would be slower, and one of 8 s
            // would end it by any short outage.
            (true, (5, 1, 3), None, all_ms, None),
            // All probes take longer than the kernel sends data: a shorter one allows fewer.
            (true, (7_200, 75, 9), None, all_ms, None),
            (true, (7_200, 75, 9), lower, all_ms, Some(55_000)),
            (false, (7_200, 75, 9), on, all_ms, Some(795_000)),
            (false, (7_200, 75, 9), on, 700_000, None),
        ] {
            let settings = Settings {
                keepalive: Some(is_on),
                keepalive_time_ms: Some(time_s * 1_000),
                keepalive_intvl_ms: Some(intvl_s * 1_000),
                keepalive_probes: Some(probes),
                ..Settings::default()
            };
            let found = sooner_user_timeout(&settings, remedy, now_ms);
            assert_eq!(found, expected, "{settings:?} {remedy:?} {now_ms}");
        }
    }

    #[test]
    fn later_probes_come_in_time_too() {
        use Origin::{Socket, Sysctl};
        let default = (7_200, Sysctl, 75, Sysctl);
        for (is_on, (time_s, time_from, intvl_s, intvl_from), seconds, expected) in [
            (true, default, 175, "net.ipv4.tcp_keepalive_time=175"),
            (
                true,
                default,
                30,
                "net.ipv4.tcp_keepalive_intvl=15 net.ipv4.tcp_keepalive_time=30",
            ),
            (
                false,
                default,
                30,
                "SO_KEEPALIVE=1 TCP_KEEPINTVL=15 TCP_KEEPIDLE=30",
            ),
            (false, default, 120, "SO_KEEPALIVE=1 TCP_KEEPIDLE=120"),
            // The first probe is early enough, and the next is not.
            (
                true,
                (1, Socket, 75, Sysctl),
                2,
                "net.ipv4.tcp_keepalive_intvl=1",
            ),
            (true, (1, Sysctl, 75, Socket), 2, "TCP_KEEPINTVL=1"),
            (true, (60, Socket, 10, Sysctl), 60, ""),
            // None is shorter.
            (true, (1, Socket, 1, Socket), 1, ""),
        ] {
            let settings = Settings {
                keepalive: Some(is_on),
                keepalive_time_ms: Some(time_s * 1_000),
                keepalive_time_from: Some(time_from),
                keepalive_intvl_ms: Some(intvl_s * 1_000),
                keepalive_intvl_from: Some(intvl_from),
                ..Settings::default()
            };
            let remedy = first_probe(&settings, seconds);
            let text = remedy.map_or(String::new(), |it| it.to_string());
            assert_eq!(text, expected, "{seconds} {settings:?}");
        }
        let of_peer = first_probe_of_peer(2).to_string();
        assert_eq!(of_peer, "TCP_KEEPINTVL=1 TCP_KEEPIDLE=2");
    }
}
