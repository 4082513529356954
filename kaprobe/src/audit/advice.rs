//! Advice: the fewest settings that save a connection, and where to change them. Pure.

use crate::audit::judge::Judgement;
use crate::keepalive::connection::{Connection, Setting, latest_firing_ms};
use crate::model::fate::{Fate, Why};
use crate::model::remedy::{Remedy, SetIn};
use crate::model::values::Origin;
use crate::timeout::timeouts::Timeout;

/// The kernel's default keepalive time, s. Advice never exceeds it.
const LONGEST_S: u64 = 7_200;

/// The settings that save a connection. `None` if it is safe, or if no keepalive setting
/// can save it.
#[must_use]
pub(super) fn advise(it: &Connection, judgement: &Judgement, timeout: &Timeout) -> Option<Remedy> {
    if !matches!(judgement.fate, Fate::Unprotected | Fate::AtRisk)
        || judgement.why == Some(Why::NotRefreshed)
    {
        return None;
    }
    if judgement.why == Some(Why::LateTimer) {
        // The value is right, but setting it again arms the timer anew.
        let time_s = (it.time.ms / 1_000).max(1);
        return Some(Remedy::first_probe(SetIn::Program, time_s));
    }
    let (intvl_s, time_s) = shorter_settings(it, timeout.ms)?;
    let is_own = |set: Setting, change: Option<u64>| change.is_some() && set.from == Origin::Socket;
    let in_program = !it.keepalive || is_own(it.time, time_s) || is_own(it.intvl, intvl_s);
    Some(Remedy {
        set_in: if in_program {
            SetIn::Program
        } else {
            SetIn::Sysctl
        },
        keepalive: !it.keepalive,
        intvl_s,
        time_s,
        user_timeout_ms: None,
    })
}

/// The new interval and time, each `None` if it need not change. With them a probe is
/// sent at half of the timeout and, if it is lost, one more in time, even if timers fire
/// late. Both are whole seconds. `None` if no setting is short enough.
fn shorter_settings(it: &Connection, timeout_ms: u64) -> Option<(Option<u64>, Option<u64>)> {
    let half_s = (timeout_ms / 2_000).clamp(1, LONGEST_S);
    let has_room = |time_ms: u64, intvl_ms: u64| {
        latest_firing_ms(time_ms.max(intvl_ms).saturating_add(intvl_ms)) < timeout_ms
    };
    let intvl_fits = has_room(half_s * 1_000, it.intvl.ms);
    let intvl_s = (!intvl_fits).then_some((timeout_ms / 4_000).clamp(1, LONGEST_S));
    let intvl_ms = intvl_s.map_or(it.intvl.ms, |s| s * 1_000);
    let time_s = (!has_room(it.time.ms, intvl_ms)).then_some(half_s);
    let time_ms = time_s.map_or(it.time.ms, |s| s * 1_000);
    (latest_firing_ms(time_ms.max(intvl_ms)) < timeout_ms).then_some((intvl_s, time_s))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::judge::judge;
    use crate::audit::silence::ObservedSilences;
    use crate::keepalive::connection::HEARD;
    use crate::timeout::middlebox::Answer;

    /// The connection after the advice is applied, as in the kernel.
    fn apply(mut it: Connection, advice: &Remedy) -> Connection {
        let from = match advice.set_in {
            SetIn::Sysctl => Origin::Sysctl,
            SetIn::Program | SetIn::Peer => Origin::Socket,
        };
        if advice.keepalive {
            it.keepalive = true;
            it.next_ms = Some(it.time.ms);
        }
        if let Some(s) = advice.intvl_s {
            it.intvl = Setting {
                ms: s * 1_000,
                from,
            };
        }
        if let Some(s) = advice.time_s {
            it.time = Setting {
                ms: s * 1_000,
                from,
            };
            if advice.set_in == SetIn::Program {
                it.next_ms = Some(it.time.ms.saturating_sub(it.idle_ms));
            }
        }
        it
    }

    /// The connection after the timer has fired and the peer has answered.
    fn answered(it: Connection) -> Connection {
        Connection {
            lastsnd_ms: 0,
            probes_out: 0,
            next_ms: Some(it.time.ms),
            ..it.silent_for(0)
        }
    }

    fn origin() -> impl Strategy<Value = Origin> {
        prop_oneof![Just(Origin::Socket), Just(Origin::Sysctl)]
    }

    fn connection() -> impl Strategy<Value = Connection> {
        let seconds = || prop_oneof![1..400_u64, 1..40_000_u64];
        let settings = (any::<bool>(), seconds(), origin(), seconds(), origin());
        (
            settings,
            1..10_u64,
            0..400_000_u64,
            0..400_000_u64,
            0..8_000_000_u64,
        )
            .prop_map(
                |(
                    (keepalive, time, time_from, intvl, intvl_from),
                    probes,
                    idle_ms,
                    lastsnd_ms,
                    next,
                )| {
                    Connection {
                        keepalive,
                        time: Setting {
                            ms: time * 1_000,
                            from: time_from,
                        },
                        intvl: Setting {
                            ms: intvl * 1_000,
                            from: intvl_from,
                        },
                        probes,
                        user_timeout_ms: 0,
                        idle_ms,
                        heard_ms: Some(idle_ms),
                        lastsnd_ms,
                        next_ms: keepalive.then_some(next),
                        probes_out: 0,
                        sending: false,
                        stalled: None,
                    }
                },
            )
    }

    proptest! {
        /// Applying the advice makes the connection safe. A sysctl does not change armed
        /// timers, so there it is safe after the next firing.
        #[test]
        fn applied_advice_saves_the_connection(it in connection(), timeout_ms in prop_oneof![1_500..10_000_u64, 1_500..1_000_000_u64]) {
            let timeout = Timeout::sample(timeout_ms, Answer::Yes);
            let before = judge(Some(&it), Some(&timeout), &ObservedSilences::default());
            let Some(advice) = advise(&it, &before, &timeout) else {
                prop_assert!(matches!(before.fate, Fate::Safe | Fate::Zombie), "{before:?}");
                return Ok(());
            };
            let after = apply(it, &advice);
            let now = judge(Some(&after), Some(&timeout), &ObservedSilences::default());
            // A connection that is already idle for too long can't be saved.
            let in_time = it.idle_ms <= timeout_ms / 2;
            if advice.set_in == SetIn::Program && advice.time_s.is_some() && in_time {
                prop_assert_eq!(now.fate, Fate::Safe, "{} {:?}", advice, now);
            }
            prop_assert!(now.fate == Fate::Safe || now.why == Some(Why::LateTimer), "{} {:?}", advice, now);
            let then = judge(Some(&answered(after)), Some(&timeout), &ObservedSilences::default());
            prop_assert_eq!(then.fate, Fate::Safe, "{} {:?}", advice, then);
            if before.why != Some(Why::LateTimer) && timeout_ms >= 3_000 {
                prop_assert!(then.probes_in_time >= Some(2), "{} {:?}", advice, then);
            }
        }
    }

    #[test]
    fn advice_has_the_fewest_settings() {
        let set = |s: u64, from| Setting {
            ms: s * 1_000,
            from,
        };
        let own = |s| set(s, Origin::Socket);
        let sysctl = |s| set(s, Origin::Sysctl);
        for (timeout_s, keepalive, time, intvl, expected) in [
            (
                350,
                true,
                sysctl(7_200),
                sysctl(75),
                "sysctl net.ipv4.tcp_keepalive_time=175",
            ),
            (
                350,
                true,
                own(7_200),
                sysctl(75),
                "program TCP_KEEPIDLE=175",
            ),
            (
                350,
                true,
                sysctl(7_200),
                own(75),
                "sysctl net.ipv4.tcp_keepalive_time=175",
            ),
            (
                350,
                false,
                sysctl(7_200),
                sysctl(75),
                "program SO_KEEPALIVE=1 TCP_KEEPIDLE=175",
            ),
            (
                350,
                false,
                sysctl(120),
                sysctl(75),
                "program SO_KEEPALIVE=1",
            ),
            (
                60,
                true,
                sysctl(30),
                sysctl(75),
                "sysctl net.ipv4.tcp_keepalive_intvl=15",
            ),
            (
                60,
                true,
                own(7_200),
                sysctl(75),
                "program TCP_KEEPINTVL=15 TCP_KEEPIDLE=30",
            ),
            (
                60,
                true,
                sysctl(7_200),
                own(75),
                "program TCP_KEEPINTVL=15 TCP_KEEPIDLE=30",
            ),
            (
                432_000,
                false,
                sysctl(7_200),
                sysctl(75),
                "program SO_KEEPALIVE=1",
            ),
            (
                4,
                true,
                sysctl(7_200),
                sysctl(75),
                "sysctl net.ipv4.tcp_keepalive_intvl=1 net.ipv4.tcp_keepalive_time=2",
            ),
            (1, true, sysctl(7_200), sysctl(75), "nothing"),
        ] {
            let it = Connection {
                keepalive,
                time,
                intvl,
                ..HEARD
            };
            let timeout = Timeout::sample(timeout_s * 1_000, Answer::Yes);
            let judgement = judge(Some(&it), Some(&timeout), &ObservedSilences::default());
            let advice = advise(&it, &judgement, &timeout);
            let text = advice.map_or("nothing".to_owned(), |it| {
                use crate::model::named::Named as _;
                format!("{} {it}", it.set_in.name())
            });
            assert_eq!(text, expected, "{timeout_s} {keepalive} {time:?} {intvl:?}");
        }
    }
}
