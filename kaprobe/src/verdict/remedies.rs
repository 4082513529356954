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
use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;
use crate::timeout::estimate::SAME_AGE_MS;
use crate::timeout::middlebox::Fit;
use crate::verdict::finding::IdleLimit;

/// The default of TCP_KEEPINTVL, ms.
const DEFAULT_INTVL_MS: u64 = 75_000;

/// The latest first probe that is safe, s, and what limits it. `died_ms` is the shortest
/// idle age that killed a connection; `survived_ms` the longest that one survived.
pub(super) fn idle_limit(
    died_ms: u64,
    survived_ms: Option<u64>,
    fits: &[Fit],
    common_s: u64,
) -> (u64, IdleLimit) {
    let fits = fits
        .iter()
        .map(|it| (it.seconds / 2, IdleLimit::Fit(it.clone())));
    let survived = survived_ms.map(|ms| ((ms + SAME_AGE_MS) / 1_000, IdleLimit::Survived(ms)));
    let death = (died_ms / 2_000, IdleLimit::Death(died_ms));
    let common = (common_s / 2, IdleLimit::Common);
    // Of equal limits, the first tells most.
    let (seconds, limit) = fits
        .chain(survived)
        .chain([death])
        .rev()
        .fold(common, |least, it| if it.0 <= least.0 { it } else { least });
    (seconds.max(1), limit)
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
    let time = settings.keepalive_time_ms.unwrap_or_default();
    let intvl = settings.keepalive_intvl_ms.unwrap_or_default();
    let probes = settings.keepalive_probes.unwrap_or_default();
    Remedy {
        set_in: SetIn::Program,
        keepalive: false,
        intvl_s: None,
        time_s: None,
        user_timeout_ms: Some(time.saturating_add(intvl.saturating_mul(probes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
