//! What keepalive makes of a connection's silence.
//!
//! What counts is the longest silence that keepalive lets pass. That is the keepalive
//! time, or the interval where that is longer: after an answered probe the timer is set
//! to the interval, and is not asked before it (`tcp_keepalive_timer`,
//! net/ipv4/tcp_timer.c). A timer that is set keeps its expiry until it fires, whatever
//! the sysctls say by then.

use crate::keepalive::forecast::Watch;
use crate::model::row::Row;
use crate::model::time::TICK_MS;
use crate::model::values::Origin;
use crate::model::values::State;

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
            keepalive: row.settings.keepalive?,
            time: set(
                row.settings.keepalive_time_ms,
                row.settings.keepalive_time_from,
            )?,
            intvl: set(
                row.settings.keepalive_intvl_ms,
                row.settings.keepalive_intvl_from,
            )?,
            probes: row.settings.keepalive_probes?,
            user_timeout_ms: row.settings.user_timeout_ms.unwrap_or(0).into(),
            idle_ms: row.ages.idle_ms?,
            lastsnd_ms: row.ages.lastsnd_ms?,
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
    #[must_use]
    pub fn silence_now_ms(&self) -> Option<u64> {
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
    #[must_use]
    pub fn unanswered_ms(&self) -> Option<u64> {
        let more = self.probes_out.checked_sub(1)?;
        let since_last_ms = self.intvl.ms.saturating_sub(self.next_ms.unwrap_or(0));
        Some(
            more.saturating_mul(self.intvl.ms)
                .saturating_add(since_last_ms),
        )
    }

    /// How many probes in a row may be lost until keepalive itself gives up.
    #[must_use]
    pub fn may_lose(&self) -> u64 {
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

/// Just heard, by the kernel's defaults.
#[cfg(test)]
pub(crate) const HEARD: Connection = Connection {
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
