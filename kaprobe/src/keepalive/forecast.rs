//! Predicts when keepalive gives up on a peer that never answers again. Pure.
//!
//! The arithmetic is that of `tcp_keepalive_timer` (net/ipv4/tcp_timer.c), unchanged
//! since 5.10.

use crate::model::row::Row;
use crate::model::values::{Cause, State};

/// The state of a keepalive timer and its settings; times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimerState {
    /// The time until the keepalive timer fires.
    pub next_ms: u64,
    /// The time since the last segment from the peer.
    pub idle_ms: u64,
    /// The number of unanswered probes.
    pub probes_out: u64,
    /// The idle time before the first probe.
    pub time_ms: u64,
    /// The time between probes.
    pub intvl_ms: u64,
    /// The number of unanswered probes after which the kernel gives up.
    pub probes: u64,
    /// TCP_USER_TIMEOUT; 0 if unset.
    pub user_timeout_ms: u64,
}

/// The time until keepalive gives up, and the rule that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// The time from now, ms.
    pub in_ms: u64,
    /// The rule: the probe count or the user timeout.
    pub cause: Cause,
}

impl TimerState {
    /// Reads the timer from a row. `None` if a value is missing or keepalive is inactive:
    /// it is off, retransmission has replaced it, or the socket is a FIN_WAIT2 orphan.
    #[must_use]
    pub fn from_row(row: &Row) -> Option<Self> {
        let retransmits = row.unacked? > 0 || row.sendq > 0;
        // In FIN_WAIT2, an orphan's timer is not a keepalive timer.
        let orphan_timer = row.state == State::FinWait2 && row.identity.orphan == Some(true);
        if row.settings.keepalive != Some(true) || retransmits || orphan_timer {
            return None;
        }
        Some(Self {
            next_ms: row.keepalive_next_ms?,
            idle_ms: row.ages.idle_ms?,
            probes_out: row.probes_out?.into(),
            time_ms: row.settings.keepalive_time_ms?,
            intvl_ms: row.settings.keepalive_intvl_ms?,
            probes: row.settings.keepalive_probes?,
            user_timeout_ms: row.settings.user_timeout_ms.unwrap_or(0).into(),
        })
    }

    /// The time until the next probe, ms. The timer may fire earlier, see that the peer
    /// was heard, and be set again. If the timer gives up first, no probe is sent.
    #[must_use]
    pub fn next_probe_ms(&self) -> u64 {
        let idle_then = self.idle_ms.saturating_add(self.next_ms);
        let rest = self.time_ms.saturating_sub(idle_then);
        self.next_ms.saturating_add(rest)
    }

    /// The time until keepalive gives up, and why. The timer wheel may be late, so the
    /// time is a lower bound.
    ///
    /// A user timeout replaces the count: the kernel gives up at the first firing after
    /// that time, if at least one probe is out.
    #[must_use]
    pub fn give_up(&self) -> GiveUp {
        let first_ms = self.next_probe_ms();
        let (more, cause) = if self.user_timeout_ms == 0 {
            (
                self.probes.saturating_sub(self.probes_out),
                Cause::ProbeCount,
            )
        } else {
            let idle_then = self.idle_ms.saturating_add(first_ms);
            let rest = self.user_timeout_ms.saturating_sub(idle_then);
            let unprobed = u64::from(self.probes_out == 0);
            // With an interval of 0, the timer fires at the next tick.
            let more = rest.div_ceil(self.intvl_ms.max(1)).max(unprobed);
            (more, Cause::UserTimeout)
        };
        GiveUp {
            in_ms: first_ms.saturating_add(more.saturating_mul(self.intvl_ms)),
            cause,
        }
    }
}

/// Returns the row with the time and cause of keepalive giving up.
#[must_use]
pub fn with_give_up(mut row: Row) -> Row {
    let give_up = TimerState::from_row(&row).map(|timer| timer.give_up());
    row.dead_in_ms = give_up.map(|it| it.in_ms);
    row.dead_by = give_up.map(|it| it.cause);
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: TimerState = TimerState {
        next_ms: 7_200_000,
        idle_ms: 0,
        probes_out: 0,
        time_ms: 7_200_000,
        intvl_ms: 75_000,
        probes: 9,
        user_timeout_ms: 0,
    };

    #[test]
    fn prediction_matches_the_kernel() {
        let by_count = |in_ms| GiveUp {
            in_ms,
            cause: Cause::ProbeCount,
        };
        let by_time = |in_ms| GiveUp {
            in_ms,
            cause: Cause::UserTimeout,
        };
        #[rustfmt::skip]
        let rows = [
            ("kernel defaults", IDLE, by_count(7_200_000 + 9 * 75_000)),
            ("heard since the timer was set", TimerState { next_ms: 5_000, idle_ms: 1_000, ..IDLE }, by_count(7_199_000 + 9 * 75_000)),
            ("eight of nine probes out", TimerState { next_ms: 10_000, idle_ms: 7_300_000, probes_out: 8, ..IDLE }, by_count(85_000)),
            ("all probes out", TimerState { next_ms: 10_000, idle_ms: 9_000_000, probes_out: 9, ..IDLE }, by_count(10_000)),
            ("user timeout passes between probes", TimerState { user_timeout_ms: 7_300_000, ..IDLE }, by_time(7_200_000 + 150_000)),
            ("short user timeout waits for a probe", TimerState { user_timeout_ms: 1_000, ..IDLE }, by_time(7_275_000)),
            ("long user timeout outlasts the count", TimerState { user_timeout_ms: 10_000_000, ..IDLE }, by_time(7_200_000 + 38 * 75_000)),
            ("user timeout already passed", TimerState { next_ms: 10_000, idle_ms: 7_300_000, probes_out: 2, user_timeout_ms: 1, ..IDLE }, by_time(10_000)),
        ];
        for (name, timer, expected) in rows {
            assert_eq!(timer.give_up(), expected, "{name}");
        }
    }

    /// Simulates the kernel firing by firing.
    fn simulate(timer: TimerState) -> GiveUp {
        let TimerState {
            mut next_ms,
            mut probes_out,
            ..
        } = timer;
        loop {
            let elapsed = timer.idle_ms + next_ms;
            if elapsed < timer.time_ms {
                next_ms += timer.time_ms - elapsed;
                continue;
            }
            let cause = match timer.user_timeout_ms {
                0 if probes_out >= timer.probes => Some(Cause::ProbeCount),
                ut if ut != 0 && elapsed >= ut && probes_out > 0 => Some(Cause::UserTimeout),
                _ => None,
            };
            if let Some(cause) = cause {
                return GiveUp {
                    in_ms: next_ms,
                    cause,
                };
            }
            probes_out += 1;
            next_ms += timer.intvl_ms;
        }
    }

    proptest! {
        #[test]
        fn prediction_matches_a_simulated_kernel(
            next_ms in 0..20_000_u64,
            idle_ms in 0..20_000_u64,
            probes_out in 0..12_u64,
            time_ms in 1..20_000_u64,
            intvl_ms in 1..5_000_u64,
            probes in 1..12_u64,
            user_timeout_ms in prop_oneof![Just(0), 1..40_000_u64],
        ) {
            let timer = TimerState {
                next_ms, idle_ms, probes_out, time_ms, intvl_ms, probes, user_timeout_ms,
            };
            prop_assert_eq!(timer.give_up(), simulate(timer));
        }
    }
}
