//! Finds zombies: dead connections whose local socket is still open.

use crate::keepalive::connection::Connection;
use crate::model::fate::Why;
use crate::model::time::TICK_MS;

/// The idle timeout on the path of a connection, ms, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathTimeout {
    /// A timeout that is on the path.
    Known(u64),
    /// No timeout is known; this is the longest of any known middlebox or host.
    NoneLongerThan(u64),
}

/// A connection counts as dead after a silence of this many idle timeouts.
pub const DEAD_AFTER_TIMEOUTS: u64 = 2;

/// The time that an answer to a probe may take, ms. After that, it is unanswered.
const ANSWER_WAIT_MS: u64 = 1_000;

/// The least time for which probes are unanswered on a dead connection, ms: a shorter silence may
/// be an outage that passes.
const LEAST_SILENCE_MS: u64 = 5_000;

/// Why a connection is a zombie; `None` if it is not.
///
/// With keepalive off, it is one after a silence of [`DEAD_AFTER_TIMEOUTS`] timeouts; if
/// no timeout is known, after as many times the longest one. With keepalive on, two probes must
/// be unanswered, for [`LEAST_SILENCE_MS`] or longer: that no answer came to one of them does not
/// tell that the connection is dead (RFC 9293, 3.8.4). With a known timeout, the silence must be
/// as long as with keepalive off, too.
///
/// A connection that is sending is never a zombie, and a peer whose probes come in is there:
/// they end a silence. If it is not known whether they do, only a probe of this host tells.
#[must_use]
pub fn zombie(it: &Connection, path: PathTimeout) -> Option<Why> {
    zombie_before(it, path, 0)
}

/// Why a connection was a zombie already so long before, ms, as far as it shows that now:
/// nothing of its peer was received since. `None` if it was not.
#[must_use]
pub fn zombie_before(it: &Connection, path: PathTimeout, before_ms: u64) -> Option<Why> {
    let (PathTimeout::Known(timeout_ms) | PathTimeout::NoneLongerThan(timeout_ms)) = path;
    let quiet_ms = it.quiet_ms().saturating_sub(before_ms);
    let is_long_silent = quiet_ms >= timeout_ms.saturating_mul(DEAD_AFTER_TIMEOUTS);
    // Nothing was heard since that probe.
    let is_silent_for = |ms| ms <= quiet_ms.saturating_add(TICK_MS);
    // The second probe follows the first after an interval.
    let two_ms = it.intvl.ms.saturating_add(ANSWER_WAIT_MS.min(it.intvl.ms));
    let unanswered_ms = it.unanswered_ms().and_then(|ms| ms.checked_sub(before_ms));
    let is_unanswered =
        unanswered_ms.is_some_and(|ms| ms >= two_ms.max(LEAST_SILENCE_MS) && is_silent_for(ms));
    let is_dead = match path {
        _ if it.sending => false,
        _ if !it.keepalive => is_long_silent && it.heard_ms.is_some(),
        PathTimeout::Known(_) => is_long_silent && is_unanswered,
        PathTimeout::NoneLongerThan(_) => is_unanswered,
    };
    is_dead.then_some(if it.keepalive {
        Why::ProbesUnanswered
    } else {
        Why::NoProbes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keepalive::connection::{HEARD, Setting};
    use crate::model::values::Origin;

    #[test]
    fn without_a_known_timeout_unanswered_probes_or_long_silence_mean_zombie() {
        let day_ms = 86_400_000;
        let out = |n, next_ms| Connection {
            probes_out: n,
            next_ms: Some(next_ms),
            ..HEARD.silent_for(7_200_000)
        };
        let sysctl = |ms| Setting {
            ms,
            from: Origin::Sysctl,
        };
        let each_second = |n, next_ms| Connection {
            intvl: sysctl(1_000),
            ..out(n, next_ms)
        };
        let off = |ms| Connection {
            keepalive: false,
            ..HEARD.silent_for(ms)
        };
        let heard = |it, ms| Connection {
            heard_ms: Some(ms),
            ..it
        };
        let unknown = |it| Connection {
            heard_ms: None,
            ..it
        };
        #[rustfmt::skip]
        let rows = [
            ("peer just heard", HEARD, None),
            ("first probe just sent", out(1, 75_000), None),
            ("first probe may still be answered", out(1, 1), None),
            ("first probe unanswered, timer due", out(1, 0), None),
            ("first probe unanswered, second just sent", out(2, 75_000), None),
            ("second probe may still be answered", out(2, 74_001), None),
            ("two probes unanswered", out(2, 74_000), Some(Why::ProbesUnanswered)),
            ("four probes of a second each", each_second(4, 0), None),
            ("five probes of a second each", each_second(5, 0), Some(Why::ProbesUnanswered)),
            ("five probes, and the last second has not passed", each_second(5, 1), None),
            ("probes that never end", Connection { intvl: sysctl(u64::MAX), ..out(2, 0) }, None),
            ("data is queued: window probes, not keepalive", Connection { sending: true, ..out(3, 0) }, None),
            ("keepalive off, silent", off(9 * day_ms), None),
            ("keepalive off, silent for longer than any timeout", off(10 * day_ms), Some(Why::NoProbes)),
            ("keepalive on, no probe sent yet", HEARD.silent_for(10 * day_ms), None),
            ("keepalive off, probed by the peer", heard(off(10 * day_ms), 9_000), None),
            ("keepalive off, no longer probed by the peer", heard(off(20 * day_ms), 10 * day_ms), Some(Why::NoProbes)),
            ("keepalive off, not known whether probed", unknown(off(10 * day_ms)), None),
            ("probes unanswered, but the peer's come", heard(out(3, 75_000), 60_000), None),
            ("probes unanswered, the peer's came before", heard(out(3, 75_000), 200_000), Some(Why::ProbesUnanswered)),
            ("probes unanswered, not known whether probed", unknown(out(2, 74_000)), Some(Why::ProbesUnanswered)),
        ];
        for (name, connection, why) in rows {
            let found = zombie(&connection, PathTimeout::NoneLongerThan(5 * day_ms));
            assert_eq!(found, why, "{name}");
        }
    }

    #[test]
    fn what_went_since_was_alive_before() {
        let day_ms = 86_400_000;
        // The first probe is unanswered for 225 s, the second for 150 s.
        let probed = Connection {
            probes_out: 3,
            next_ms: Some(0),
            ..HEARD.silent_for(7_425_000)
        };
        let off = Connection {
            keepalive: false,
            ..HEARD.silent_for(10 * day_ms)
        };
        for (connection, before_ms, why) in [
            (probed, 0, Some(Why::ProbesUnanswered)),
            (probed, 149_000, Some(Why::ProbesUnanswered)),
            // The second may still have been answered then.
            (probed, 149_001, None),
            // It was not sent yet.
            (probed, 150_001, None),
            (probed, 225_001, None),
            (off, 0, Some(Why::NoProbes)),
            (off, 1, None),
        ] {
            let path = PathTimeout::NoneLongerThan(5 * day_ms);
            let found = zombie_before(&connection, path, before_ms);
            assert_eq!(found, why, "{connection:?} {before_ms}");
        }
    }
}
