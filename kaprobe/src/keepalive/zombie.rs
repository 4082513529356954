//! Which connections are zombies: dead, and their end does not know.

use crate::keepalive::connection::Connection;
use crate::model::fate::Why;

/// What is known of the idle timeouts that a connection may meet, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTheWay {
    /// This one is on its way.
    Timeout(u64),
    /// None is known to be. The longest that there is anywhere.
    NoneLongerThan(u64),
}

/// After how many times the timeout a silent connection is held for dead.
pub const FAR: u64 = 2;

/// For how long a probe may be on its way without being called unanswered, ms.
const ON_ITS_WAY_MS: u64 = 1_000;

/// Why a connection is a zombie, where it is one: dead, and its end does not know.
/// Silent for [`FAR`] times the timeout on its way, it is, with probes unanswered or none
/// to come. Where no timeout is known to be there, silence shows no more than that
/// nobody had anything to say, until it is longer than any timeout; but probes that were
/// not answered for an interval show it at once.
#[must_use]
pub fn zombie(it: &Connection, on_the_way: OnTheWay) -> Option<Why> {
    let (OnTheWay::Timeout(timeout_ms) | OnTheWay::NoneLongerThan(timeout_ms)) = on_the_way;
    let is_far = it.idle_ms >= timeout_ms.saturating_mul(FAR);
    let unanswered = |for_ms| it.unanswered_ms().is_some_and(|ms| ms >= for_ms);
    let is_dead = match on_the_way {
        _ if it.sending => false,
        _ if !it.keepalive => is_far,
        OnTheWay::Timeout(_) => is_far && unanswered(ON_ITS_WAY_MS),
        OnTheWay::NoneLongerThan(_) => unanswered(it.intvl.ms),
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
    use crate::keepalive::connection::HEARD;

    #[test]
    fn with_no_timeout_known_unanswered_probes_or_the_longest_silence_show_a_zombie() {
        let day_ms = 86_400_000;
        let out = |n, next_ms| Connection {
            idle_ms: 7_200_000,
            probes_out: n,
            next_ms: Some(next_ms),
            ..HEARD
        };
        let off = |idle_ms| Connection {
            keepalive: false,
            idle_ms,
            ..HEARD
        };
        #[rustfmt::skip]
        let rows = [
            ("just heard", HEARD, None),
            ("a first probe", out(1, 75_000), None),
            ("it may still be answered", out(1, 1), None),
            ("it was not", out(2, 75_000), Some(Why::ProbesUnanswered)),
            ("the timer is late to find out", out(1, 0), Some(Why::ProbesUnanswered)),
            ("data is out: probes of a closed window", Connection { sending: true, ..out(3, 0) }, None),
            ("off, and silent", off(9 * day_ms), None),
            ("off, for longer than any timeout", off(10 * day_ms), Some(Why::NoProbes)),
            ("on, and probes to come", Connection { idle_ms: 10 * day_ms, ..HEARD }, None),
        ];
        for (what, connection, why) in rows {
            let found = zombie(&connection, OnTheWay::NoneLongerThan(5 * day_ms));
            assert_eq!(found, why, "{what}");
        }
    }
}
