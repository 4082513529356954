//! When keepalive would give up, if the peer were gone from now on: the arithmetic of
//! `tcp_keepalive_timer` (net/ipv4/tcp_timer.c), the same since 5.10. Pure.

use crate::model::row::Row;
use crate::model::values::Cause;
use crate::model::values::State;

/// What the prediction rests on, times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Until the keepalive timer fires.
    pub next_ms: u64,
    /// Since anything came from the peer.
    pub idle_ms: u64,
    /// Unanswered probes.
    pub probes_out: u64,
    /// Idle time before the first probe.
    pub time_ms: u64,
    /// Time between probes.
    pub intvl_ms: u64,
    /// Probes after which it gives up.
    pub probes: u64,
    /// TCP_USER_TIMEOUT; 0 where there is none.
    pub user_timeout_ms: u64,
}

/// The end that keepalive would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// In how long, ms.
    pub in_ms: u64,
    /// By which rule.
    pub cause: Cause,
}

impl Watch {
    /// What keepalive does on a socket; `None` where it does nothing: it is off, or data
    /// is out and retransmission is in charge, or the state has none.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let stands_back = row.unacked? > 0 || row.sendq > 0;
        // An orphan's timer in FIN_WAIT2 is not keepalive's.
        let other = row.state == State::FinWait2 && row.identity.orphan == Some(true);
        if row.settings.keepalive != Some(true) || stands_back || other {
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

    /// In how long the next probe is sent, ms: the timer may fire before, find that
    /// the peer was heard, and sleep on. No such probe is sent where the timer gives up
    /// instead.
    #[must_use]
    pub fn next_probe_ms(&self) -> u64 {
        let idle_then = self.idle_ms.saturating_add(self.next_ms);
        let rest = self.time_ms.saturating_sub(idle_then);
        self.next_ms.saturating_add(rest)
    }

    /// In how long it gives up, and why. The timer wheel may be late: not before that.
    ///
    /// With a user timeout the count is not asked: the end comes at the first firing
    /// with that time passed and at least one probe out.
    #[must_use]
    pub fn end(&self) -> End {
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
            // An interval of 0 is a timer that fires at the next tick.
            let more = rest.div_ceil(self.intvl_ms.max(1)).max(unprobed);
            (more, Cause::UserTimeout)
        };
        End {
            in_ms: first_ms.saturating_add(more.saturating_mul(self.intvl_ms)),
            cause,
        }
    }
}

/// Adds to a row when keepalive would give up.
#[must_use]
pub fn with_end(mut row: Row) -> Row {
    let end = Watch::of(&row).map(|watch| watch.end());
    row.dead_in_ms = end.map(|end| end.in_ms);
    row.dead_by = end.map(|end| end.cause);
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Watch = Watch {
        next_ms: 7_200_000,
        idle_ms: 0,
        probes_out: 0,
        time_ms: 7_200_000,
        intvl_ms: 75_000,
        probes: 9,
        user_timeout_ms: 0,
    };

    #[test]
    fn the_end_is_where_the_kernel_makes_it() {
        let by_count = |in_ms| End {
            in_ms,
            cause: Cause::ProbeCount,
        };
        let by_time = |in_ms| End {
            in_ms,
            cause: Cause::UserTimeout,
        };
        #[rustfmt::skip]
        let rows = [
            ("the defaults", IDLE, by_count(7_200_000 + 9 * 75_000)),
            ("heard since the timer was set", Watch { next_ms: 5_000, idle_ms: 1_000, ..IDLE }, by_count(7_199_000 + 9 * 75_000)),
            ("probes are out", Watch { next_ms: 10_000, idle_ms: 7_300_000, probes_out: 8, ..IDLE }, by_count(85_000)),
            ("all are out", Watch { next_ms: 10_000, idle_ms: 9_000_000, probes_out: 9, ..IDLE }, by_count(10_000)),
            ("a user timeout in between", Watch { user_timeout_ms: 7_300_000, ..IDLE }, by_time(7_200_000 + 150_000)),
            ("a short one waits for a probe", Watch { user_timeout_ms: 1_000, ..IDLE }, by_time(7_275_000)),
            ("a long one outlasts the count", Watch { user_timeout_ms: 10_000_000, ..IDLE }, by_time(7_200_000 + 38 * 75_000)),
            ("one that has passed", Watch { next_ms: 10_000, idle_ms: 7_300_000, probes_out: 2, user_timeout_ms: 1, ..IDLE }, by_time(10_000)),
        ];
        for (what, watch, expected) in rows {
            assert_eq!(watch.end(), expected, "{what}");
        }
    }

    /// The kernel's own steps, one firing after the other.
    fn stepped(watch: Watch) -> End {
        let Watch {
            mut next_ms,
            mut probes_out,
            ..
        } = watch;
        loop {
            let elapsed = watch.idle_ms + next_ms;
            if elapsed < watch.time_ms {
                next_ms += watch.time_ms - elapsed;
                continue;
            }
            let cause = match watch.user_timeout_ms {
                0 if probes_out >= watch.probes => Some(Cause::ProbeCount),
                ut if ut != 0 && elapsed >= ut && probes_out > 0 => Some(Cause::UserTimeout),
                _ => None,
            };
            if let Some(cause) = cause {
                return End {
                    in_ms: next_ms,
                    cause,
                };
            }
            probes_out += 1;
            next_ms += watch.intvl_ms;
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_kernels_steps_lead_to(
            next_ms in 0..20_000_u64,
            idle_ms in 0..20_000_u64,
            probes_out in 0..12_u64,
            time_ms in 1..20_000_u64,
            intvl_ms in 1..5_000_u64,
            probes in 1..12_u64,
            user_timeout_ms in prop_oneof![Just(0), 1..40_000_u64],
        ) {
            let watch = Watch {
                next_ms, idle_ms, probes_out, time_ms, intvl_ms, probes, user_timeout_ms,
            };
            prop_assert_eq!(watch.end(), stepped(watch));
        }
    }
}
