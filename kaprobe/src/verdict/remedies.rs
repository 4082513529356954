//! Which setting would have kept a connection.
//!
//! A first probe at half of the timeout leaves room for one that is lost, and for a
//! timer that fires late (by an eighth at most). A probe refreshes what counts
//! packets; a proxy that counts bytes it does not.

use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;

/// The setting that makes the first probe go out after so many seconds; `None` where it
/// does by then already.
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

/// The TCP_USER_TIMEOUT that lets keepalive send all its probes.
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
