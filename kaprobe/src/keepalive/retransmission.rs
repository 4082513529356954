//! Predicts when the kernel gives up on data that is never acknowledged. Pure.
//!
//! The arithmetic is that of `tcp_write_timeout`, `retransmits_timed_out` and
//! `tcp_model_timeout` (net/ipv4/tcp_timer.c). It does not know of streams that the kernel
//! calls thin: with `net.ipv4.tcp_thin_linear_timeouts`, their first timeouts do not grow, and
//! the kernel gives up at another of its timeouts.

use crate::keepalive::forecast::GiveUp;
use crate::model::values::Cause;

/// `TCP_RTO_MIN`, include/net/tcp.h, ms: what the kernel takes for the first timeout of each
/// connection.
const RTO_MIN_MS: u64 = 200;

/// `TCP_RTO_MAX`, include/net/tcp.h, ms.
pub const RTO_MAX_MS: u64 = 120_000;

/// Retries of an orphan that the kernel still takes for alive, if
/// `net.ipv4.tcp_orphan_retries` is 0 (`tcp_orphan_retries`).
const ORPHAN_RETRIES: u32 = 8;

/// The limits for a connection that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// `net.ipv4.tcp_retries2`.
    pub retries2: u32,
    /// `net.ipv4.tcp_orphan_retries`, for a socket that no process holds.
    pub orphan_retries: Option<u32>,
    /// ICMP has reported an error.
    pub has_icmp_error: bool,
    /// TCP_USER_TIMEOUT, ms; 0 if unset.
    pub user_timeout_ms: u64,
    /// The longest retransmission timeout, ms.
    pub rto_max_ms: u64,
}

impl RetryLimits {
    /// The retries that are allowed while the timeout is `rto_ms`.
    fn retries(&self, rto_ms: u64) -> u32 {
        let Some(orphan_retries) = self.orphan_retries else {
            return self.retries2;
        };
        let is_alive = rto_ms < self.rto_max_ms;
        match orphan_retries {
            _ if self.has_icmp_error && !is_alive => 0,
            0 if is_alive => ORPHAN_RETRIES,
            retries => retries,
        }
    }

    /// The time that so many retries take from a first timeout of [`RTO_MIN_MS`], ms: the
    /// kernel compares time, and does not count.
    fn modelled_ms(&self, retries: u32) -> u64 {
        let doublings = (self.rto_max_ms / RTO_MIN_MS).max(1).ilog2();
        let doubled = retries.min(doublings);
        let linear = u64::from(retries - doubled);
        ((2 << doubled) - 1) * RTO_MIN_MS + linear * self.rto_max_ms
    }
}

/// The timers of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerWheel {
    /// Timer ticks per second.
    pub hz: u32,
    /// The time now, ticks. `None` for timers that fire on time.
    pub jiffies: Option<u32>,
}

impl TimerWheel {
    fn ticks(self, ms: u64) -> u64 {
        (ms * u64::from(self.hz)).div_ceil(1_000).max(1)
    }

    fn ms(self, ticks: u64) -> u64 {
        ticks * 1_000 / u64::from(self.hz.max(1))
    }

    /// The ticks after which a timer fires that is set to `wait` ticks, `at` ticks from now.
    /// The wheel rounds up to the granularity of a level: 8^n ticks from 63 * 8^(n-1) on
    /// (`calc_wheel_index`, kernel/time/timer.c).
    fn fires_after(self, at: u64, wait: u64) -> u64 {
        let Some(jiffies) = self.jiffies else {
            return wait;
        };
        let level = (0..8_u32).find(|&level| wait < 63 << (3 * level));
        let shift = 3 * level.unwrap_or(8);
        let set_at = u64::from(jiffies).saturating_add(at);
        ((((set_at + wait) >> shift) + 1) << shift) - set_at
    }
}

/// Data in flight that was just sent again; times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmitted {
    /// The time since it was sent again for the first time.
    pub since_first_ms: u64,
    /// The timeout after which it was sent again now.
    pub rto_ms: u64,
    /// The limits that apply.
    pub limits: RetryLimits,
    /// The timers of the kernel.
    pub wheel: TimerWheel,
}

impl Retransmitted {
    /// The time until the kernel gives up, and why. It does so when its timer fires after the
    /// limit: timers that are late may pass it one timeout earlier.
    #[must_use]
    pub fn give_up(&self) -> GiveUp {
        let (limits, wheel) = (&self.limits, self.wheel);
        let max_ms = limits.rto_max_ms.max(1);
        let (mut in_ticks, mut rto_ms) = (0, self.rto_ms.max(1));
        loop {
            rto_ms = rto_ms.saturating_mul(2).min(max_ms);
            let elapsed_ms = self.since_first_ms + wheel.ms(in_ticks);
            // `tcp_clamp_rto_to_user_timeout`
            let wait_ms = match limits.user_timeout_ms {
                0 => rto_ms,
                timeout_ms => rto_ms.min(timeout_ms.saturating_sub(elapsed_ms)),
            };
            in_ticks += wheel.fires_after(in_ticks, wheel.ticks(wait_ms));
            let in_ms = wheel.ms(in_ticks);
            let (limit_ms, cause) = match limits.user_timeout_ms {
                0 => (
                    limits.modelled_ms(limits.retries(rto_ms)),
                    Cause::Retransmission,
                ),
                timeout_ms => (timeout_ms, Cause::UserTimeout),
            };
            if self.since_first_ms + in_ms >= limit_ms {
                return GiveUp { in_ms, cause };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RetryLimits = RetryLimits {
        retries2: 15,
        orphan_retries: None,
        has_icmp_error: false,
        user_timeout_ms: 0,
        rto_max_ms: RTO_MAX_MS,
    };

    /// The third retransmission of data, after the shortest timeouts.
    const THIRD: Retransmitted = Retransmitted {
        since_first_ms: 1_200,
        rto_ms: 800,
        limits: LIMITS,
        wheel: ON_TIME,
    };

    const ON_TIME: TimerWheel = TimerWheel {
        hz: 1_000,
        jiffies: None,
    };

    fn retries2(retries2: u32) -> RetryLimits {
        RetryLimits { retries2, ..LIMITS }
    }

    fn orphan(retries: u32) -> RetryLimits {
        RetryLimits {
            orphan_retries: Some(retries),
            ..LIMITS
        }
    }

    fn user_timeout(ms: u64) -> RetryLimits {
        RetryLimits {
            user_timeout_ms: ms,
            ..LIMITS
        }
    }

    #[test]
    fn data_is_given_up_when_the_kernel_gives_up() {
        // With timeouts of 200 ms, 400 ms and so on, the n-th retransmission is
        // (2^n - 1) * 200 ms after the data, and (2^n - 2) * 200 ms after the first one.
        let after = |ms: u64| ms - 200;
        #[rustfmt::skip]
        let rows = [
            ("3", retries2(3), after((31) * 200), Cause::Retransmission),
            ("4", retries2(4), after(63 * 200), Cause::Retransmission),
            ("5", retries2(5), after(127 * 200), Cause::Retransmission),
            ("6", retries2(6), after(255 * 200), Cause::Retransmission),
            ("7", retries2(7), after(511 * 200), Cause::Retransmission),
            ("8", retries2(8), after(1_023 * 200), Cause::Retransmission),
            ("9", retries2(9), after(1_023 * 200 + 120_000), Cause::Retransmission),
            ("10", retries2(10), after(1_023 * 200 + 2 * 120_000), Cause::Retransmission),
            ("11", retries2(11), after(1_023 * 200 + 3 * 120_000), Cause::Retransmission),
            ("12", retries2(12), after(1_023 * 200 + 4 * 120_000), Cause::Retransmission),
            ("13", retries2(13), after(1_023 * 200 + 5 * 120_000), Cause::Retransmission),
            ("14", retries2(14), after(1_023 * 200 + 6 * 120_000), Cause::Retransmission),
            ("15", retries2(15), after(1_023 * 200 + 7 * 120_000), Cause::Retransmission),
            ("orphan", orphan(0), after(1_023 * 200), Cause::Retransmission),
            ("orphan with few retries", orphan(3), after(31 * 200), Cause::Retransmission),
            ("user timeout", user_timeout(5_000), 5_000, Cause::UserTimeout),
            ("user timeout in an hour", user_timeout(3_600_000), 3_600_000, Cause::UserTimeout),
        ];
        for (name, limits, at_ms, cause) in rows {
            let give_up = Retransmitted { limits, ..THIRD }.give_up();
            let expected = GiveUp {
                in_ms: at_ms - THIRD.since_first_ms,
                cause,
            };
            assert_eq!(give_up, expected, "{name}");
        }
    }

    #[test]
    fn an_unreachable_orphan_is_given_up_at_the_longest_timeout() {
        let limits = RetryLimits {
            has_icmp_error: true,
            ..orphan(100)
        };
        let last = Retransmitted {
            since_first_ms: 102_000,
            rto_ms: 102_400,
            limits,
            wheel: ON_TIME,
        };
        assert_eq!(last.give_up().in_ms, 120_000);
    }

    #[test]
    fn late_timers_may_pass_the_limit_earlier() {
        // Seen on 6.18: 30 timeouts of 208 ms are 6,240 ms, and the limit is 6,200 ms; 30 of
        // 204 ms are 6,120 ms, and the wheel makes more than 6,200 ms of them.
        let late = |jiffies| Retransmitted {
            since_first_ms: 1_224,
            rto_ms: 816,
            limits: retries2(4),
            wheel: TimerWheel { hz: 250, jiffies },
        };
        let on_time_ms = 1_632 + 3_264 + 6_528;
        assert_eq!(late(None).give_up().in_ms, on_time_ms);
        for jiffies in [0, 1_000, 77_777, u32::MAX] {
            let in_ms = late(Some(jiffies)).give_up().in_ms;
            let early = 6_200 - 1_224..=(1_632 + 3_264) * 9 / 8 + 8;
            let usual = on_time_ms..=on_time_ms * 9 / 8 + 8;
            assert!(early.contains(&in_ms) || usual.contains(&in_ms), "{in_ms}");
        }
    }

    #[test]
    fn a_timer_fires_at_the_granularity_of_its_level() {
        let wheel = TimerWheel {
            hz: 250,
            jiffies: Some(1_003),
        };
        for (wait, expected) in [(1, 2), (62, 63), (63, 69), (408, 413), (504, 533)] {
            assert_eq!(wheel.fires_after(0, wait), expected, "{wait}");
        }
    }

    #[test]
    fn a_socket_may_have_a_shorter_maximum() {
        let limits = RetryLimits {
            rto_max_ms: 1_000,
            ..retries2(5)
        };
        // 200 + 400 + 800 for two retries, then a second for each: 4,400 ms. The timeouts after
        // the third retransmission take a second each.
        let give_up = Retransmitted { limits, ..THIRD }.give_up();
        assert_eq!(give_up.in_ms, 4_000);
    }
}
