//! How long keepalive lets a connection stay silent.
//!
//! The longest silence is the keepalive time or the interval, whichever is longer: after
//! an answered probe, the kernel sets the timer to the interval (`tcp_keepalive_timer`,
//! net/ipv4/tcp_timer.c). A timer that is set keeps its expiry until it fires, even if
//! the sysctls change.

use crate::keepalive::forecast::TimerState;
use crate::keepalive::retransmission::STALLED_AFTER;
use crate::model::fate::Why;
use crate::model::row::{Row, Timer};
use crate::model::time::TICK_MS;
use crate::model::values::{Origin, State};

/// The shortest TCP_KEEPIDLE, ms, less a tick of either host.
const SHORTEST_KEEPIDLE_MS: u64 = 1_000 - 2 * TICK_MS;

/// A keepalive time or interval, and where its value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value, ms.
    pub ms: u64,
    /// The origin: the socket or a sysctl.
    pub from: Origin,
}

/// The keepalive settings and state that decide a connection's fate; times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// True if SO_KEEPALIVE is on.
    pub keepalive: bool,
    /// The idle time before the first probe.
    pub time: Setting,
    /// The time between probes.
    pub intvl: Setting,
    /// The number of unanswered probes after which the kernel gives up.
    pub probes: u64,
    /// TCP_USER_TIMEOUT; 0 if unset.
    pub user_timeout_ms: u64,
    /// The time since data or an acknowledgement of the peer was received: the time that the
    /// kernel's timer counts.
    pub idle_ms: u64,
    /// The time since any segment of the peer was received, its probes included. `None` if it
    /// is not known.
    pub heard_ms: Option<u64>,
    /// The time since data was last sent.
    pub lastsnd_ms: u64,
    /// The time until the keepalive timer fires.
    pub next_ms: Option<u64>,
    /// The number of unanswered probes.
    pub probes_out: u64,
    /// True if data is queued or unacknowledged. Retransmission then replaces keepalive.
    pub sending: bool,
    /// What is sent again and again without an answer.
    pub stalled: Option<Why>,
}

impl Connection {
    /// Reads a connection from a row. `None` if the row lacks a setting.
    #[must_use]
    pub fn from_row(row: &Row) -> Option<Self> {
        if row.state != State::Established {
            return None;
        }
        let set = |ms: Option<u64>, from: Option<Origin>| {
            Some(Setting {
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
            heard_ms: row.ages.heard_ms,
            lastsnd_ms: row.ages.lastsnd_ms?,
            next_ms: row.keepalive_next_ms,
            probes_out: row.probes_out?.into(),
            sending: row.unacked? > 0 || row.sendq > 0,
            stalled: stalled(row),
        })
    }

    /// The time for which nothing of the peer was received, as far as it is known.
    #[must_use]
    pub fn quiet_ms(&self) -> u64 {
        self.heard_ms.unwrap_or(self.idle_ms)
    }

    /// The time without anything from the peer that its last probe ended, if such a probe is
    /// the last that was heard of it. Between probes of the peer there is no more than this.
    ///
    /// TCP_KEEPIDLE is at least a second. A segment that comes from outside the window sooner
    /// is an old one that was overtaken.
    #[must_use]
    pub fn peer_probes_after_ms(&self) -> Option<u64> {
        let after_ms = self.idle_ms.checked_sub(self.heard_ms?)?;
        (after_ms >= SHORTEST_KEEPIDLE_MS).then_some(after_ms)
    }

    /// The longest silence that the settings allow while the peer answers.
    #[must_use]
    pub fn silence_ms(&self) -> u64 {
        self.time.ms.max(self.intvl.ms)
    }

    /// The length of the current silence when the timer sends the next probe.
    #[must_use]
    pub fn current_silence_ms(&self) -> Option<u64> {
        let timer = TimerState {
            next_ms: self.next_ms?,
            idle_ms: self.idle_ms,
            probes_out: self.probes_out,
            time_ms: self.time.ms,
            intvl_ms: self.intvl.ms,
            probes: self.probes,
            user_timeout_ms: self.user_timeout_ms,
        };
        let quiet_ms = self.idle_ms.min(self.lastsnd_ms);
        Some(quiet_ms.saturating_add(timer.next_probe_ms()))
    }

    /// The time since the first unanswered probe. `None` if all probes are answered.
    #[must_use]
    pub fn unanswered_ms(&self) -> Option<u64> {
        let more = self.probes_out.checked_sub(1)?;
        let since_last_ms = self.intvl.ms.saturating_sub(self.next_ms.unwrap_or(0));
        Some(
            more.saturating_mul(self.intvl.ms)
                .saturating_add(since_last_ms),
        )
    }

    /// The number of successive probes that can be lost before keepalive gives up.
    #[must_use]
    pub fn spare_probes(&self) -> u64 {
        if self.user_timeout_ms == 0 {
            return self.probes.saturating_sub(1);
        }
        // A user timeout replaces the count: the first firing after it gives up.
        let room = self.user_timeout_ms.saturating_sub(self.silence_ms());
        room.saturating_sub(1) / self.intvl.ms.max(1)
    }
}

/// What a row shows to be sent again and again without an answer.
fn stalled(row: &Row) -> Option<Why> {
    let is_repeated = |times: Option<u8>| times >= Some(STALLED_AFTER);
    if row.unacked > Some(0) && is_repeated(row.retransmits) {
        return Some(Why::Unacknowledged);
    }
    let is_shut = row.timer == Timer::Probe && is_repeated(row.probes_out);
    is_shut.then_some(Why::ZeroWindow)
}

/// The latest time, ms, at which a timer set to `ms` fires.
///
/// The timer wheel rounds up to the granularity of a level: 8^n ticks from 63 * 8^(n-1)
/// ticks on (`calc_index` and `LVL_START`, kernel/time/timer.c).
#[must_use]
pub fn latest_firing_ms(ms: u64) -> u64 {
    ms.saturating_add(ms / 63 * 8 + ms % 63 * 8 / 63)
        .saturating_add(TICK_MS)
}

/// A connection with the kernel's default settings whose peer was heard just now.
#[cfg(test)]
pub(crate) const HEARD: Connection = Connection {
    keepalive: true,
    time: Setting {
        ms: 7_200_000,
        from: Origin::Sysctl,
    },
    intvl: Setting {
        ms: 75_000,
        from: Origin::Sysctl,
    },
    probes: 9,
    user_timeout_ms: 0,
    idle_ms: 0,
    heard_ms: Some(0),
    lastsnd_ms: 0,
    next_ms: None,
    probes_out: 0,
    sending: false,
    stalled: None,
};

#[cfg(test)]
impl Connection {
    /// The connection after nothing was received for so long.
    pub(crate) const fn silent_for(self, ms: u64) -> Self {
        Self {
            idle_ms: ms,
            heard_ms: Some(ms),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_of_the_peer_ends_a_silence() {
        let of = |idle_ms, heard_ms| {
            let it = Connection {
                idle_ms,
                heard_ms,
                ..HEARD
            };
            it.peer_probes_after_ms()
        };
        for (idle_ms, heard_ms, expected) in [
            (51_000, Some(1_000), Some(50_000)),
            (51_000, Some(51_000), None),
            (51_000, Some(50_500), None),
            (51_000, None, None),
            (1_500, Some(500), Some(1_000)),
        ] {
            assert_eq!(of(idle_ms, heard_ms), expected, "{idle_ms} {heard_ms:?}");
        }
    }

    #[test]
    fn timer_fires_at_most_an_eighth_late() {
        for (ms, latest_ms) in [
            (0, 10),
            (63_000, 71_010),
            (350_000, 394_454),
            (7_200_000, 8_114_295),
        ] {
            assert_eq!(latest_firing_ms(ms), latest_ms, "{ms}");
        }
        assert_eq!(latest_firing_ms(u64::MAX), u64::MAX);
    }
}
