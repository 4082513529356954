//! Decides the fate of a connection whose path has an idle timeout. Pure.
//!
//! The fate depends on the longest silence that keepalive allows. That is the keepalive
//! time or, if longer, the interval: after an answered probe the kernel arms the timer
//! with the interval (`tcp_keepalive_timer`, net/ipv4/tcp_timer.c). An armed timer keeps
//! its expiry until it fires, even if the sysctls change.

use crate::audit::silence::ObservedSilences;
use crate::keepalive::connection::{Connection, latest_firing_ms};
use crate::keepalive::zombie::{PathTimeout, zombie};
use crate::model::fate::{Fate, Why};
use crate::timeout::middlebox::Answer;
use crate::timeout::timeouts::Timeout;

/// The fate of a connection, and its reserve of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The fate of the connection.
    pub fate: Fate,
    /// The reason for a fate that is not `Safe`.
    pub why: Option<Why>,
    /// Number of probes sent before the timeout, even if timers fire late.
    pub probes_in_time: Option<u64>,
    /// Number of these probes that may be lost without losing the connection.
    pub probes_spare: Option<u64>,
}

impl Judgement {
    const fn bad(fate: Fate, why: Why) -> Self {
        Self {
            fate,
            why: Some(why),
            probes_in_time: None,
            probes_spare: None,
        }
    }
}

/// Judges a connection by the timeout on its path and by the silence that was observed. The
/// fate is `Unknown` if the connection or the timeout is not known.
#[must_use]
pub(super) fn judge(
    connection: Option<&Connection>,
    timeout: Option<&Timeout>,
    observed: &ObservedSilences,
) -> Judgement {
    let judgement = judge_settings(connection, timeout);
    let kept = match (connection, timeout) {
        (Some(connection), Some(timeout)) => kept_alive(connection, timeout, observed),
        _ => None,
    };
    match (judgement.fate, kept) {
        (Fate::Unprotected | Fate::AtRisk, Some(fate)) => Judgement { fate, ..judgement },
        _ => judgement,
    }
}

/// What keeps a connection alive that its own keepalive does not protect, as far as was seen.
fn kept_alive(it: &Connection, timeout: &Timeout, observed: &ObservedSilences) -> Option<Fate> {
    if observed.of_traffic.kept_alive(timeout.ms) {
        return Some(Fate::KeptByTraffic);
    }
    let is_refreshed = timeout.refreshed != Answer::No;
    let is_kept = observed.that_count.kept_alive(timeout.ms) || is_probed_in_time(it, timeout.ms);
    (is_refreshed && is_kept).then_some(Fate::KeptByPeer)
}

/// Whether the peer has probed the connection well before the timeout, and its next probe is
/// not overdue.
fn is_probed_in_time(it: &Connection, timeout_ms: u64) -> bool {
    it.peer_probes_after_ms()
        .is_some_and(|ms| ms <= timeout_ms / 2 && it.quiet_ms() <= latest_firing_ms(ms))
}

/// Judges a connection by its settings and its present state.
fn judge_settings(connection: Option<&Connection>, timeout: Option<&Timeout>) -> Judgement {
    let Some(it) = connection else {
        return Judgement::bad(Fate::Unknown, Why::NoSettings);
    };
    if let Some(why) = it.stalled {
        return Judgement::bad(Fate::Dying, why);
    }
    let Some(timeout) = timeout else {
        return Judgement::bad(Fate::Unknown, Why::NoTimeout);
    };
    if timeout.refreshed == Answer::No {
        return Judgement::bad(Fate::Unprotected, Why::NotRefreshed);
    }
    match zombie(it, PathTimeout::Known(timeout.expired_ms)) {
        Some(why) => Judgement::bad(Fate::Zombie, why),
        None if it.keepalive => judge_with_keepalive(it, timeout),
        None => Judgement::bad(Fate::Unprotected, Why::KeepaliveOff),
    }
}

/// Judges a connection whose keepalive is on.
fn judge_with_keepalive(it: &Connection, timeout: &Timeout) -> Judgement {
    let armed = it.current_silence_ms().filter(|_| it.probes_out == 0);
    let silence_ms = it.silence_ms().max(armed.unwrap_or(0));
    let in_time = probes_in_time(silence_ms, it.intvl.ms, timeout.ms);
    let why = if latest_firing_ms(it.time.ms) >= timeout.ms {
        Some(Why::LateProbe)
    } else if latest_firing_ms(it.intvl.ms) >= timeout.ms {
        Some(Why::LateInterval)
    } else if in_time == 0 {
        Some(Why::LateTimer)
    } else {
        None
    };
    Judgement {
        fate: if why.is_some() {
            Fate::AtRisk
        } else {
            Fate::Safe
        },
        why,
        probes_in_time: Some(in_time),
        probes_spare: Some(in_time.saturating_sub(1).min(it.spare_probes())),
    }
}

/// Number of probes sent in a silence before the timeout, even if timers fire late.
pub(super) fn probes_in_time(silence_ms: u64, intvl_ms: u64, timeout_ms: u64) -> u64 {
    let mut sent = 0;
    let mut at = silence_ms;
    // The kernel's probe counter has eight bits.
    while sent < 255 && latest_firing_ms(at) < timeout_ms {
        sent += 1;
        at = at.saturating_add(intvl_ms);
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::silence::ObservedSilence;
    use crate::keepalive::connection::{HEARD, Setting};
    use crate::model::values::Origin;

    fn sysctl(ms: u64) -> Setting {
        Setting {
            ms,
            from: Origin::Sysctl,
        }
    }

    #[test]
    fn fates_of_connections() {
        let good = Connection {
            time: sysctl(175_000),
            next_ms: Some(175_000),
            ..HEARD
        };
        let off = Connection {
            keepalive: false,
            ..HEARD
        };
        let idle = |it: Connection, s: u64| Connection {
            lastsnd_ms: s * 1000,
            ..it.silent_for(s * 1000)
        };
        let out = |it: Connection, n| Connection {
            probes_out: n,
            next_ms: Some(75_000),
            ..it
        };
        #[rustfmt::skip]
        let rows = [
            ("the defaults", HEARD, "at_risk late_probe in_time 0 spare 0"),
            ("in time, with one probe to spare", good, "safe in_time 2 spare 1"),
            ("in time with the maximum timer delay", Connection { time: sysctl(310_000), ..good }, "safe in_time 1 spare 0"),
            ("too late with the maximum timer delay", Connection { time: sysctl(311_000), ..good }, "at_risk late_probe in_time 0 spare 0"),
            ("an interval longer than the timeout", Connection { time: sysctl(30_000), intvl: sysctl(400_000), ..good }, "at_risk late_interval in_time 0 spare 0"),
            ("armed before the sysctl changed", Connection { next_ms: Some(6_000_000), ..good }, "at_risk late_timer in_time 0 spare 0"),
            ("a short user timeout", Connection { user_timeout_ms: 200_000, ..good }, "safe in_time 2 spare 0"),
            ("a probe count of one", Connection { probes: 1, ..good }, "safe in_time 2 spare 0"),
            ("off", off, "unprotected keepalive_off"),
            ("off, idle for almost twice the timeout", idle(off, 699), "unprotected keepalive_off"),
            ("off, idle for twice the timeout", idle(off, 700), "zombie no_probes"),
            ("off, but sending", Connection { sending: true, ..idle(off, 700) }, "unprotected keepalive_off"),
            ("stalled", Connection { stalled: Some(Why::Unacknowledged), sending: true, ..good }, "dying unacknowledged"),
            ("the window stays shut", Connection { stalled: Some(Why::ZeroWindow), sending: true, ..off }, "dying zero_window"),
            ("late, not yet probed", idle(Connection { next_ms: Some(6_000_000), ..HEARD }, 1_200), "at_risk late_probe in_time 0 spare 0"),
            ("probed just now", out(idle(HEARD, 7_200), 1), "at_risk late_probe in_time 0 spare 0"),
            ("two probes unanswered", Connection { next_ms: Some(70_000), ..out(idle(HEARD, 7_300), 2) }, "zombie probes_unanswered"),
            ("one probe unanswered for a minute", Connection { next_ms: Some(15_000), ..out(idle(HEARD, 7_260), 1) }, "at_risk late_probe in_time 0 spare 0"),
            ("good settings, three probes unanswered", out(idle(good, 400), 3), "safe in_time 2 spare 1"),
        ];
        let timeout = Timeout::sample(350_000, Answer::Yes);
        let unobserved = ObservedSilences::default();
        for (what, connection, expected) in rows {
            assert_eq!(
                describe(judge(Some(&connection), Some(&timeout), &unobserved)),
                expected,
                "{what}"
            );
        }
        let proxy = Timeout::sample(60_000, Answer::No);
        assert_eq!(
            describe(judge(Some(&good), Some(&proxy), &unobserved)),
            "unprotected not_refreshed"
        );
        assert_eq!(
            describe(judge(Some(&good), None, &unobserved)),
            "unknown no_timeout"
        );
        assert_eq!(
            describe(judge(None, Some(&timeout), &unobserved)),
            "unknown no_settings"
        );
    }

    #[test]
    fn traffic_keeps_alive_what_keepalive_does_not_protect() {
        let off = Connection {
            keepalive: false,
            ..HEARD
        };
        let dead = Connection {
            lastsnd_ms: 700_000,
            ..off.silent_for(700_000)
        };
        let good = Connection {
            time: sysctl(175_000),
            ..HEARD
        };
        let [known, proxy] = [Answer::Yes, Answer::No].map(|it| Timeout::sample(350_000, it));
        let of = |connection, timeout, silence_ms| {
            let observed = ObservedSilence {
                observed_ms: Some(1_000_000),
                observed_silence_min_ms: Some(0),
                observed_silence_max_ms: Some(silence_ms),
                ..ObservedSilence::default()
            };
            let observed = ObservedSilences {
                that_count: observed,
                of_traffic: observed,
            };
            describe(judge(connection, timeout, &observed))
        };
        #[rustfmt::skip]
        let rows = [
            (Some(&off), Some(&known), 10_200, "kept_by_traffic keepalive_off"),
            (Some(&off), Some(&known), 175_000, "kept_by_traffic keepalive_off"),
            (Some(&off), Some(&known), 175_001, "unprotected keepalive_off"),
            (Some(&good), Some(&proxy), 10_200, "kept_by_traffic not_refreshed"),
            (Some(&HEARD), Some(&known), 10_200, "kept_by_traffic late_probe in_time 0 spare 0"),
            (Some(&good), Some(&known), 10_200, "safe in_time 2 spare 1"),
            (Some(&dead), Some(&known), 10_200, "zombie no_probes"),
            (Some(&off), None, 10_200, "unknown no_timeout"),
            (None, Some(&known), 10_200, "unknown no_settings"),
        ];
        for (connection, timeout, silence_ms, expected) in rows {
            assert_eq!(of(connection, timeout, silence_ms), expected);
        }
    }

    #[test]
    fn probes_of_the_peer_keep_alive_what_keepalive_does_not_protect() {
        let off = Connection {
            keepalive: false,
            ..HEARD
        };
        let [known, proxy] = [Answer::Yes, Answer::No].map(|it| Timeout::sample(350_000, it));
        let of = |it: Connection, idle_s: u64, heard_s: Option<u64>, timeout| {
            let it = Connection {
                idle_ms: idle_s * 1_000,
                heard_ms: heard_s.map(|s| s * 1_000),
                ..it
            };
            describe(judge(
                Some(&it),
                Some(timeout),
                &ObservedSilences::default(),
            ))
        };
        #[rustfmt::skip]
        let rows = [
            ("probed every ten seconds", off, 51, Some(1), &known, "kept_by_peer keepalive_off"),
            ("after ten seconds, and then no more", off, 900, Some(890), &known, "zombie no_probes"),
            ("once, after half of the timeout", off, 180, Some(5), &known, "kept_by_peer keepalive_off"),
            ("once, too late to be sure", off, 181, Some(5), &known, "unprotected keepalive_off"),
            ("the next probe is overdue", off, 51, Some(29), &known, "unprotected keepalive_off"),
            ("an old segment came late", off, 51, Some(51), &known, "unprotected keepalive_off"),
            ("long ago", off, 1_000, Some(900), &known, "zombie no_probes"),
            ("not known", off, 1_000, None, &known, "unprotected keepalive_off"),
            ("its own first probe is late", HEARD, 51, Some(1), &known, "kept_by_peer late_probe in_time 0 spare 0"),
            ("probes do not count", off, 51, Some(1), &proxy, "unprotected not_refreshed"),
        ];
        for (what, it, idle_s, heard_s, timeout, expected) in rows {
            assert_eq!(of(it, idle_s, heard_s, timeout), expected, "{what}");
        }
    }

    #[test]
    fn probes_of_the_peer_are_observed() {
        let off = Connection {
            keepalive: false,
            ..HEARD
        };
        let short = |ms| ObservedSilence {
            observed_ms: Some(1_000_000),
            observed_silence_max_ms: Some(ms),
            ..ObservedSilence::default()
        };
        let observed = ObservedSilences {
            that_count: short(10_200),
            of_traffic: short(1_000_000),
        };
        let known = Timeout::sample(350_000, Answer::Yes);
        let judgement = judge(Some(&off), Some(&known), &observed);
        assert_eq!(judgement.fate, Fate::KeptByPeer);
    }

    fn describe(it: Judgement) -> String {
        use crate::model::named::Named as _;
        let mut words = vec![it.fate.name().to_owned()];
        words.extend(it.why.map(|why| why.name().to_owned()));
        words.extend(it.probes_in_time.map(|n| format!("in_time {n}")));
        words.extend(it.probes_spare.map(|n| format!("spare {n}")));
        words.join(" ")
    }
}
