//! What becomes of a connection that an idle timeout lies in wait for. Pure.
//!
//! What counts is the longest silence that keepalive lets pass. That is the keepalive
//! time, or the interval where that is longer: after an answered probe the timer is set
//! to the interval, and is not asked before it (`tcp_keepalive_timer`,
//! net/ipv4/tcp_timer.c). A timer that is set keeps its expiry until it fires, whatever
//! the sysctls say by then.

use crate::keepalive::forecast::Watch;
use crate::model::event::Origin;
use crate::model::named::words;
use crate::model::record::State;
use crate::model::row::Row;
use crate::timeout::middlebox::Answer;
use crate::timeout::timeouts::Timeout;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is dead, and its end does not know: silent for [`FAR`] times the timeout.
    Zombie,
    /// Nothing refreshes it while it is idle.
    Unprotected,
    /// Keepalive is on, and comes too late.
    AtRisk,
    /// Not enough is known.
    Unknown,
    /// A probe comes in time.
    Safe,
}

words!(Fate {
    Zombie => "zombie",
    Unprotected => "unprotected",
    AtRisk => "at_risk",
    Unknown => "unknown",
    Safe => "safe",
});

/// Why it is no better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Probes are out, unanswered.
    ProbesUnanswered,
    /// Keepalive is off, and the silence is long.
    NoProbes,
    /// Keepalive is off.
    KeepaliveOff,
    /// What has the timeout does not count probes.
    NotRefreshed,
    /// The keepalive time is too long.
    LateProbe,
    /// The interval is: it is the time from an answered probe to the next.
    LateInterval,
    /// The settings would do, but the timer was set before them.
    LateTimer,
    /// No idle timeout is known on the way to there.
    NoTimeout,
    /// The settings of this socket are not known.
    NoSettings,
}

words!(Why {
    ProbesUnanswered => "probes_unanswered",
    NoProbes => "no_probes",
    KeepaliveOff => "keepalive_off",
    NotRefreshed => "not_refreshed",
    LateProbe => "late_probe",
    LateInterval => "late_interval",
    LateTimer => "late_timer",
    NoTimeout => "no_timeout",
    NoSettings => "no_settings",
});

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

/// The coarsest tick, ms.
const TICK_MS: u64 = 10;

/// For how long a probe may be on its way without being called unanswered, ms.
const ON_ITS_WAY_MS: u64 = 1_000;

/// A setting and who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// ms.
    pub ms: u64,
    /// Who.
    pub from: Origin,
}

/// What the fate of a connection rests on, times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// SO_KEEPALIVE is on.
    pub keepalive: bool,
    /// Idle time before the first probe.
    pub time: Set,
    /// Time between probes.
    pub intvl: Set,
    /// Unanswered probes after which the kernel gives up.
    pub probes: u64,
    /// TCP_USER_TIMEOUT, 0 for none.
    pub user_timeout_ms: u64,
    /// Since anything came from the peer.
    pub idle_ms: u64,
    /// Since data went out.
    pub lastsnd_ms: u64,
    /// Until the keepalive timer fires.
    pub next_ms: Option<u64>,
    /// Unanswered probes.
    pub probes_out: u64,
    /// Data waits for an acknowledgement: retransmission is in charge.
    pub sending: bool,
}

impl Connection {
    /// What a row tells, where it tells enough.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        if row.state != State::Established {
            return None;
        }
        let set = |ms: Option<u64>, from: Option<Origin>| {
            Some(Set {
                ms: ms?,
                from: from?,
            })
        };
        Some(Self {
            keepalive: row.keepalive?,
            time: set(row.keepalive_time_ms, row.keepalive_time_from)?,
            intvl: set(row.keepalive_intvl_ms, row.keepalive_intvl_from)?,
            probes: row.keepalive_probes?,
            user_timeout_ms: row.user_timeout_ms.unwrap_or(0).into(),
            idle_ms: row.idle_ms?,
            lastsnd_ms: row.lastsnd_ms?,
            next_ms: row.keepalive_next_ms,
            probes_out: row.probes_out?.into(),
            sending: row.unacked? > 0 || row.sendq > 0,
        })
    }

    /// The longest silence that the settings let pass while the peer answers.
    #[must_use]
    pub fn silence_ms(&self) -> u64 {
        self.time.ms.max(self.intvl.ms)
    }

    /// How long the silence at hand lasts until a probe, by the timer as it is set.
    fn silence_now_ms(&self) -> Option<u64> {
        let watch = Watch {
            next_ms: self.next_ms?,
            idle_ms: self.idle_ms,
            probes_out: self.probes_out,
            time_ms: self.time.ms,
            intvl_ms: self.intvl.ms,
            probes: self.probes,
            user_timeout_ms: self.user_timeout_ms,
        };
        let quiet_ms = self.idle_ms.min(self.lastsnd_ms);
        Some(quiet_ms.saturating_add(watch.next_probe_ms()))
    }

    /// For how long the first unanswered probe has been out, where one is.
    fn unanswered_ms(&self) -> Option<u64> {
        let more = self.probes_out.checked_sub(1)?;
        let since_last_ms = self.intvl.ms.saturating_sub(self.next_ms.unwrap_or(0));
        Some(
            more.saturating_mul(self.intvl.ms)
                .saturating_add(since_last_ms),
        )
    }

    /// How many probes in a row may be lost until keepalive itself gives up.
    fn may_lose(&self) -> u64 {
        if self.user_timeout_ms == 0 {
            return self.probes.saturating_sub(1);
        }
        // The count is not asked then: the end comes at the first firing past that time.
        let room = self.user_timeout_ms.saturating_sub(self.silence_ms());
        room.saturating_sub(1) / self.intvl.ms.max(1)
    }
}

/// The latest at which a timer set to so many ms fires: the wheel rounds up to the
/// granularity of a level, 8^n ticks from 63 * 8^(n-1) on (`calc_index` and `LVL_START`,
/// kernel/time/timer.c).
#[must_use]
pub fn latest(ms: u64) -> u64 {
    ms.saturating_add(ms / 63 * 8 + ms % 63 * 8 / 63)
        .saturating_add(TICK_MS)
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What.
    pub fate: Fate,
    /// Why it is no better.
    pub why: Option<Why>,
    /// How many probes are sent before the timeout, however late timers fire.
    pub in_time: Option<u64>,
    /// How many of them may be lost without an end to the connection.
    pub spare: Option<u64>,
}

impl Judgement {
    const fn bad(fate: Fate, why: Why) -> Self {
        Self {
            fate,
            why: Some(why),
            in_time: None,
            spare: None,
        }
    }
}

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

/// Judges a connection by the timeout on its way, as far as both are known.
#[must_use]
pub fn judge(connection: Option<&Connection>, timeout: Option<&Timeout>) -> Judgement {
    let Some(it) = connection else {
        return Judgement::bad(Fate::Unknown, Why::NoSettings);
    };
    let Some(timeout) = timeout else {
        return Judgement::bad(Fate::Unknown, Why::NoTimeout);
    };
    if timeout.refreshed == Answer::No {
        return Judgement::bad(Fate::Unprotected, Why::NotRefreshed);
    }
    match zombie(it, OnTheWay::Timeout(timeout.ms)) {
        Some(why) => Judgement::bad(Fate::Zombie, why),
        None if it.keepalive => probed(it, timeout),
        None => Judgement::bad(Fate::Unprotected, Why::KeepaliveOff),
    }
}

/// Judges a connection whose keepalive is on.
fn probed(it: &Connection, timeout: &Timeout) -> Judgement {
    let armed = it.silence_now_ms().filter(|_| it.probes_out == 0);
    let silence_ms = it.silence_ms().max(armed.unwrap_or(0));
    let in_time = probes_in_time(silence_ms, it.intvl.ms, timeout.ms);
    let why = if latest(it.time.ms) >= timeout.ms {
        Some(Why::LateProbe)
    } else if latest(it.intvl.ms) >= timeout.ms {
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
        in_time: Some(in_time),
        spare: Some(in_time.saturating_sub(1).min(it.may_lose())),
    }
}

/// How many probes are sent in a silence before the timeout, however late timers fire.
pub(super) fn probes_in_time(silence_ms: u64, intvl_ms: u64, timeout_ms: u64) -> u64 {
    let mut sent = 0;
    let mut at = silence_ms;
    // No more than the eight bits that the kernel counts in.
    while sent < 255 && latest(at) < timeout_ms {
        sent += 1;
        at = at.saturating_add(intvl_ms);
    }
    sent
}

/// Just heard, by the kernel's defaults.
#[cfg(test)]
pub(super) const HEARD: Connection = Connection {
    keepalive: true,
    time: Set {
        ms: 7_200_000,
        from: Origin::Sysctl,
    },
    intvl: Set {
        ms: 75_000,
        from: Origin::Sysctl,
    },
    probes: 9,
    user_timeout_ms: 0,
    idle_ms: 0,
    lastsnd_ms: 0,
    next_ms: None,
    probes_out: 0,
    sending: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(ms: u64) -> Set {
        Set {
            ms,
            from: Origin::Sysctl,
        }
    }

    #[test]
    fn each_connection_has_its_fate() {
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
            idle_ms: s * 1000,
            lastsnd_ms: s * 1000,
            ..it
        };
        let out = |it: Connection, n| Connection {
            probes_out: n,
            next_ms: Some(75_000),
            ..it
        };
        #[rustfmt::skip]
        let rows = [
            ("the defaults", HEARD, "at_risk late_probe in_time 0 spare 0"),
            ("early, and one to spare", good, "safe in_time 2 spare 1"),
            ("late by an eighth and no more", Connection { time: sysctl(310_000), ..good }, "safe in_time 1 spare 0"),
            ("the wheel makes it late", Connection { time: sysctl(311_000), ..good }, "at_risk late_probe in_time 0 spare 0"),
            ("the interval follows an answer", Connection { time: sysctl(30_000), intvl: sysctl(400_000), ..good }, "at_risk late_interval in_time 0 spare 0"),
            ("set before the sysctl was", Connection { next_ms: Some(6_000_000), ..good }, "at_risk late_timer in_time 0 spare 0"),
            ("a short user timeout", Connection { user_timeout_ms: 200_000, ..good }, "safe in_time 2 spare 0"),
            ("a count of one", Connection { probes: 1, ..good }, "safe in_time 2 spare 0"),
            ("off", off, "unprotected keepalive_off"),
            ("off, idle for long", idle(off, 699), "unprotected keepalive_off"),
            ("off, idle for too long", idle(off, 700), "zombie no_probes"),
            ("off, but sending", Connection { sending: true, ..idle(off, 700) }, "unprotected keepalive_off"),
            ("late, not yet probed", idle(Connection { next_ms: Some(6_000_000), ..HEARD }, 1_200), "at_risk late_probe in_time 0 spare 0"),
            ("probed at last, the answer on its way", out(idle(HEARD, 7_200), 1), "at_risk late_probe in_time 0 spare 0"),
            ("probed in vain", out(idle(HEARD, 7_300), 2), "zombie probes_unanswered"),
            ("one probe, a minute ago", Connection { next_ms: Some(15_000), ..out(idle(HEARD, 7_260), 1) }, "zombie probes_unanswered"),
            ("keepalive is finding out", out(idle(good, 400), 3), "safe in_time 2 spare 1"),
        ];
        let timeout = Timeout::sample(350_000, Answer::Yes);
        for (what, connection, expected) in rows {
            assert_eq!(
                told(judge(Some(&connection), Some(&timeout))),
                expected,
                "{what}"
            );
        }
        let proxy = Timeout::sample(60_000, Answer::No);
        assert_eq!(
            told(judge(Some(&good), Some(&proxy))),
            "unprotected not_refreshed"
        );
        assert_eq!(told(judge(Some(&good), None)), "unknown no_timeout");
        assert_eq!(told(judge(None, Some(&timeout))), "unknown no_settings");
    }

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

    fn told(it: Judgement) -> String {
        use crate::model::named::Word as _;
        let mut words = vec![it.fate.word().to_owned()];
        words.extend(it.why.map(|why| why.word().to_owned()));
        words.extend(it.in_time.map(|n| format!("in_time {n}")));
        words.extend(it.spare.map(|n| format!("spare {n}")));
        words.join(" ")
    }

    #[test]
    fn the_wheel_is_late_by_an_eighth() {
        for (ms, latest_ms) in [
            (0, 10),
            (63_000, 71_010),
            (350_000, 394_454),
            (7_200_000, 8_114_295),
        ] {
            assert_eq!(latest(ms), latest_ms, "{ms}");
        }
        assert_eq!(latest(u64::MAX), u64::MAX);
    }
}
