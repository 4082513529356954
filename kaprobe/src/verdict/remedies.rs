//! Chooses the setting that would have kept a connection alive.
//!
//! A first probe at half of the timeout leaves time for one lost probe and for a timer
//! that fires late, by an eighth at most. A probe refreshes a middlebox that counts
//! packets, but not a proxy that counts bytes.
//!
//! An idle age that killed a connection is an upper bound for the timeout. So the advice
//! is never later than what survivors, known timeouts and the shortest common default
//! allow.

use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;
use crate::timeout::estimate::SAME_AGE_MS;
use crate::timeout::middlebox::Fit;
use crate::verdict::finding::IdleLimit;

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

/// The setting that sends the first probe after `seconds`. `None` if the first probe is
/// already that early.
pub(super) fn first_probe(settings: &Settings, seconds: u64) -> Option<Remedy> {
    let time_s = settings.keepalive_time_ms.unwrap_or_default() / 1000;
    match (settings.keepalive, settings.keepalive_time_from) {
        (Some(true), _) if time_s <= seconds => None,
        (Some(true), Some(Origin::Socket)) => Some(Remedy::first_probe(SetIn::Program, seconds)),
        (Some(true), _) => Some(Remedy::first_probe(SetIn::Sysctl, seconds)),
        _ => Some(Remedy {
            keepalive: true,
            ..Remedy::first_probe(SetIn::Program, seconds)
        }),
    }
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
