//! Chooses the setting that would have kept a connection alive.
//!
//! A first probe at half of the timeout leaves time for one lost probe and for a timer
//! that fires late, by an eighth at most. A probe refreshes a middlebox that counts
//! packets, but not a proxy that counts bytes.

use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;

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
