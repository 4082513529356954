//! Predicts when the kernel gives up on data that is never acknowledged, or that waits for a
//! window that stays shut. Pure.
//!
//! The arithmetic is that of `tcp_write_timeout`, `retransmits_timed_out` and
//! `tcp_model_timeout` for data in flight, and of `tcp_probe_timer` for a shut window
//! (net/ipv4/tcp_timer.c). It does not know of streams that the kernel calls thin: with
//! `net.ipv4.tcp_thin_linear_timeouts`, their first timeouts do not grow, and the kernel gives
//! up at another of its timeouts.

use crate::keepalive::forecast::GiveUp;
use crate::model::values::Cause;

/// `TCP_RTO_MIN`, include/net/tcp.h, ms: what the kernel takes for the first timeout of each
/// connection.
const RTO_MIN_MS: u64 = 200;

/// `TCP_RTO_MAX`, include/net/tcp.h, ms.
pub const RTO_MAX_MS: u64 = 120_000;

/// `TCP_TIMEOUT_MIN`, include/net/tcp.h, ticks: the shortest timeout of a window probe.
const TIMEOUT_MIN: u64 = 2;

/// Data that was sent again so often has stalled: a second and a half after it was sent, if
/// the round trip is short. Ordinary loss is repaired by the first retransmission. As many
/// window probes without an answer mean the same.
pub const STALLED_AFTER: u8 = 3;

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

    /// The timeout after one of `rto_ms`.
    fn next_rto_ms(&self, rto_ms: u64) -> u64 {
        rto_ms.max(1).saturating_mul(2).min(self.rto_max_ms.max(1))
    }

    /// The time that the retransmission timer is set to, `elapsed_ms` after the first
    /// retransmission: `tcp_clamp_rto_to_user_timeout`.
    fn wait_ms(&self, rto_ms: u64, elapsed_ms: u64) -> u64 {
        match self.user_timeout_ms {
            0 => rto_ms,
            timeout_ms => rto_ms.min(timeout_ms.saturating_sub(elapsed_ms)),
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

    /// The ticks until a timer fires that expires in `expires_in` ticks, and was set to `wait`
    /// ticks. The wheel rounds up to the granularity of a level: 8^n ticks from 63 * 8^(n-1)
    /// on (`calc_wheel_index`, kernel/time/timer.c).
    fn fires_in(self, PendingTimer { expires_in, wait }: PendingTimer) -> u64 {
        let fires_in = self.jiffies.map_or(expires_in, |jiffies| {
            let level = (0..8_u32).find(|&level| wait < 63 << (3 * level));
            let shift = 3 * level.unwrap_or(8);
            let now = i64::from(jiffies);
            ((((now.saturating_add(expires_in)) >> shift) + 1) << shift) - now
        });
        // It is due.
        fires_in.max(0).cast_unsigned()
    }

    /// The ticks from now until a timer fires that is set to `wait` ticks, `at` ticks from now.
    fn fires_after(self, at: u64, wait: u64) -> u64 {
        self.fires_in(PendingTimer {
            expires_in: ticks_ahead(at.saturating_add(wait)),
            wait,
        })
    }
}

/// Ticks from now, as a difference.
fn ticks_ahead(ticks: u64) -> i64 {
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// A timer that is set, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingTimer {
    /// The ticks until it expires. Less than 0 if it has expired and not fired yet.
    pub expires_in: i64,
    /// The ticks that it was set to.
    pub wait: u64,
}

/// Data in flight that was sent again; times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmitting {
    /// The time since it was sent again for the first time.
    pub since_first_ms: u64,
    /// The retransmission timer.
    pub timer: PendingTimer,
    /// The timeout at which the timer fires.
    pub rto_ms: u64,
    /// The limits that apply.
    pub limits: RetryLimits,
    /// The timers of the kernel.
    pub wheel: TimerWheel,
}

impl Retransmitting {
    /// Data that was just sent again after a timeout of `rto_ms`. The kernel sets the timer
    /// after that.
    #[must_use]
    pub fn just_now(
        since_first_ms: u64,
        rto_ms: u64,
        limits: RetryLimits,
        wheel: TimerWheel,
    ) -> Self {
        let rto_ms = limits.next_rto_ms(rto_ms);
        let wait = wheel.ticks(limits.wait_ms(rto_ms, since_first_ms));
        let expires_in = ticks_ahead(wait);
        Self {
            since_first_ms,
            timer: PendingTimer { expires_in, wait },
            rto_ms,
            limits,
            wheel,
        }
    }

    /// The time until the kernel gives up, and why. It does so when its timer fires after the
    /// limit: timers that are late may pass it one timeout earlier.
    #[must_use]
    pub fn give_up(&self) -> GiveUp {
        let (limits, wheel) = (&self.limits, self.wheel);
        let (mut in_ticks, mut rto_ms) = (wheel.fires_in(self.timer), self.rto_ms);
        loop {
            let in_ms = wheel.ms(in_ticks);
            let elapsed_ms = self.since_first_ms.saturating_add(in_ms);
            let (limit_ms, cause) = match limits.user_timeout_ms {
                0 => (
                    limits.modelled_ms(limits.retries(rto_ms)),
                    Cause::Retransmission,
                ),
                timeout_ms => (timeout_ms, Cause::UserTimeout),
            };
            if elapsed_ms >= limit_ms {
                return GiveUp { in_ms, cause };
            }
            rto_ms = limits.next_rto_ms(rto_ms);
            let wait = wheel.ticks(limits.wait_ms(rto_ms, elapsed_ms));
            in_ticks = wheel.fires_after(in_ticks, wait);
        }
    }
}

/// A socket that probes the peer's shut window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowProbing {
    /// The ticks until the window probe timer expires. Less than 0 if it has expired and not
    /// fired yet.
    pub expires_in: i64,
    /// The ticks since the first probe was due; `None` if none was yet.
    pub since_first: Option<u64>,
    /// The number of unanswered probes.
    pub probes_out: u32,
    /// `icsk_backoff`.
    pub backoff: u32,
    /// The retransmission timeout without backoff, ms.
    pub rto_ms: u64,
    /// The limits that apply.
    pub limits: RetryLimits,
    /// The timers of the kernel.
    pub wheel: TimerWheel,
}

impl WindowProbing {
    /// The time until the kernel gives up if no probe is answered, and why. TCP_USER_TIMEOUT
    /// counts from the first probe, also while the peer answers that its window is shut.
    #[must_use]
    pub fn give_up(&self) -> GiveUp {
        let (limits, wheel) = (&self.limits, self.wheel);
        let user_timeout = match limits.user_timeout_ms {
            0 => u64::MAX,
            ms => wheel.ticks(ms),
        };
        let (mut probes_out, mut backoff) = (self.probes_out, self.backoff);
        let mut at = wheel.fires_in(PendingTimer {
            expires_in: self.expires_in,
            wait: self.wait(backoff).min(user_timeout),
        });
        let first_at = at;
        let give_up = |at, cause| GiveUp {
            in_ms: wheel.ms(at),
            cause,
        };
        loop {
            let since = match self.since_first {
                Some(since) => since.saturating_add(at),
                None => at - first_at,
            };
            if since >= user_timeout {
                return give_up(at, Cause::UserTimeout);
            }
            let rto_ms = backed_off(self.rto_ms, backoff, limits.rto_max_ms);
            let retries = limits.retries(rto_ms);
            let is_dead_orphan = limits.orphan_retries.is_some() && rto_ms >= limits.rto_max_ms;
            if probes_out >= retries || is_dead_orphan && backoff >= retries {
                return give_up(at, Cause::ZeroWindow);
            }
            probes_out += 1;
            // `tcp_send_probe0`, net/ipv4/tcp_output.c.
            backoff += u32::from(backoff < limits.retries2);
            let rest = (user_timeout - since).max(TIMEOUT_MIN);
            at = wheel.fires_after(at, self.wait(backoff).min(rest));
        }
    }

    /// The ticks between two probes: `tcp_probe0_when`, include/net/tcp.h.
    fn wait(&self, backoff: u32) -> u64 {
        let most = (RTO_MAX_MS / RTO_MIN_MS).ilog2() + 1;
        let base_ms = self.rto_ms.max(RTO_MIN_MS);
        let wait_ms = backed_off(base_ms, backoff.min(most), self.limits.rto_max_ms);
        self.wheel.ticks(wait_ms)
    }
}

/// A timeout after so many doublings: `inet_csk_rto_backoff`,
/// include/net/inet_connection_sock.h.
fn backed_off(rto_ms: u64, backoff: u32, max_ms: u64) -> u64 {
    let doubled = 1_u64.checked_shl(backoff).unwrap_or(u64::MAX);
    rto_ms.saturating_mul(doubled).min(max_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits = RetryLimits {
        retries2: 15,
        orphan_retries: None,
        has_icmp_error: false,
        user_timeout_ms: 0,
        rto_max_ms: RTO_MAX_MS,
    };

    /// The time from the first retransmission to the third, with the shortest timeouts, ms.
    const SINCE_FIRST_MS: u64 = 1_200;

    /// Data that was just sent again for the third time, after the shortest timeouts.
    fn third(limits: RetryLimits) -> Retransmitting {
        Retransmitting::just_now(SINCE_FIRST_MS, 800, limits, ON_TIME)
    }

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
            let give_up = third(limits).give_up();
            let expected = GiveUp {
                in_ms: at_ms - SINCE_FIRST_MS,
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
        let last = Retransmitting::just_now(102_000, 102_400, limits, ON_TIME);
        assert_eq!(last.give_up().in_ms, 120_000);
    }

    #[test]
    fn late_timers_may_pass_the_limit_earlier() {
        // Seen on 6.18: 30 timeouts of 208 ms are 6,240 ms, and the limit is 6,200 ms; 30 of
        // 204 ms are 6,120 ms, and the wheel makes more than 6,200 ms of them.
        let late = |jiffies| {
            let wheel = TimerWheel { hz: 250, jiffies };
            Retransmitting::just_now(1_224, 816, retries2(4), wheel)
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
    fn a_timer_that_is_due_fires_when_its_slot_does() {
        let wheel = |jiffies| TimerWheel {
            hz: 250,
            jiffies: Some(jiffies),
        };
        // Set to 504 ticks, it fires at a multiple of 64. It expired at 1,003.
        for (jiffies, expected) in [
            (1_000, 24),
            (1_003, 21),
            (1_010, 14),
            (1_024, 0),
            (1_030, 0),
        ] {
            let timer = PendingTimer {
                expires_in: 1_003 - i64::from(jiffies),
                wait: 504,
            };
            assert_eq!(wheel(jiffies).fires_in(timer), expected, "{jiffies}");
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
        assert_eq!(third(limits).give_up().in_ms, 4_000);
    }

    #[test]
    fn a_socket_that_is_looked_at_later_gives_up_at_the_same_time() {
        for limits in [retries2(5), retries2(15), user_timeout(9_000), orphan(0)] {
            let then = third(limits);
            for passed_ms in [0, 1, 700, 1_599] {
                let now = Retransmitting {
                    since_first_ms: then.since_first_ms + passed_ms,
                    timer: PendingTimer {
                        expires_in: then.timer.expires_in - ticks_ahead(passed_ms),
                        ..then.timer
                    },
                    ..then
                };
                let expected = GiveUp {
                    in_ms: then.give_up().in_ms - passed_ms,
                    ..then.give_up()
                };
                assert_eq!(now.give_up(), expected, "{limits:?} {passed_ms}");
            }
        }
    }

    /// A window that was shut just now.
    const SHUT: WindowProbing = WindowProbing {
        expires_in: 200,
        since_first: None,
        probes_out: 0,
        backoff: 0,
        rto_ms: 200,
        limits: LIMITS,
        wheel: ON_TIME,
    };

    #[test]
    fn a_shut_window_is_given_up_when_the_kernel_gives_up() {
        // The n-th probe is (2^n - 1) * 200 ms after the window was shut, and the kernel gives
        // up when one more is due. After 102.4 s the timeout is two minutes.
        let doubled = |n: u32| ((1 << n) - 1) * 200;
        let minutes = |n: u64| n * 120_000;
        #[rustfmt::skip]
        let rows = [
            ("3", retries2(3), doubled(4), Cause::ZeroWindow),
            ("4", retries2(4), doubled(5), Cause::ZeroWindow),
            ("5", retries2(5), doubled(6), Cause::ZeroWindow),
            ("6", retries2(6), doubled(7), Cause::ZeroWindow),
            ("7", retries2(7), doubled(8), Cause::ZeroWindow),
            ("8", retries2(8), doubled(9), Cause::ZeroWindow),
            ("9", retries2(9), doubled(10), Cause::ZeroWindow),
            ("10", retries2(10), doubled(10) + minutes(1), Cause::ZeroWindow),
            ("11", retries2(11), doubled(10) + minutes(2), Cause::ZeroWindow),
            ("12", retries2(12), doubled(10) + minutes(3), Cause::ZeroWindow),
            ("13", retries2(13), doubled(10) + minutes(4), Cause::ZeroWindow),
            ("14", retries2(14), doubled(10) + minutes(5), Cause::ZeroWindow),
            ("15", retries2(15), doubled(10) + minutes(6), Cause::ZeroWindow),
            ("user timeout", user_timeout(2_000), 200 + 2_000, Cause::UserTimeout),
            ("orphan", orphan(2), doubled(3), Cause::ZeroWindow),
            ("orphan by default", orphan(0), doubled(9), Cause::ZeroWindow),
            ("orphan that outlives the kernel's patience", orphan(100), doubled(10) + minutes(91), Cause::ZeroWindow),
        ];
        for (name, limits, in_ms, cause) in rows {
            let give_up = WindowProbing { limits, ..SHUT }.give_up();
            assert_eq!(give_up, GiveUp { in_ms, cause }, "{name}");
        }
    }

    #[test]
    fn a_window_that_the_peer_keeps_shut_has_only_a_user_timeout() {
        // Each answer sets the number of probes to 0, and neither the backoff nor the time.
        let answered = WindowProbing {
            since_first: Some(1_400),
            backoff: 4,
            expires_in: 1_600,
            limits: user_timeout(3_000),
            ..SHUT
        };
        let by_time = GiveUp {
            in_ms: 1_600,
            cause: Cause::UserTimeout,
        };
        assert_eq!(answered.give_up(), by_time);
    }

    /// Limits of any kind, for timers that fire on time.
    fn any_limits() -> impl Strategy<Value = RetryLimits> {
        let orphan = prop_oneof![Just(None), (0..20_u32).prop_map(Some)];
        let user_timeout = prop_oneof![Just(0), 1..2_000_000_u64];
        let rto_max = prop_oneof![Just(RTO_MAX_MS), 1_000..RTO_MAX_MS];
        (3..=15_u32, orphan, any::<bool>(), user_timeout, rto_max).prop_map(
            |(retries2, orphan_retries, has_icmp_error, user_timeout_ms, rto_max_ms)| RetryLimits {
                retries2,
                orphan_retries,
                has_icmp_error,
                user_timeout_ms,
                rto_max_ms,
            },
        )
    }

    /// `tcp_probe_timer` and `tcp_send_probe0`, firing by firing, from the first expiry on, ms.
    /// The peer answers the first `answered` probes. Returns the state after each firing
    /// with its time, and the end.
    fn simulate_probes(
        limits: RetryLimits,
        rto_ms: u64,
        answered: u64,
    ) -> (Vec<(u64, WindowProbing)>, u64, Cause) {
        let (mut now, mut sent) = (rto_ms.max(200), 0);
        let (mut probes_out, mut backoff, mut first) = (0, 0, None);
        let mut states = Vec::new();
        loop {
            let since = now - *first.get_or_insert(now);
            if limits.user_timeout_ms != 0 && since >= limits.user_timeout_ms {
                return (states, now, Cause::UserTimeout);
            }
            let rto = (rto_ms << backoff).min(limits.rto_max_ms);
            let is_alive = rto < limits.rto_max_ms;
            let most = match limits.orphan_retries {
                None => limits.retries2,
                Some(_) if limits.has_icmp_error && !is_alive => 0,
                Some(0) if is_alive => 8,
                Some(retries) => retries,
            };
            let is_given_up = limits.orphan_retries.is_some() && !is_alive && backoff >= most;
            if is_given_up || probes_out >= most {
                return (states, now, Cause::ZeroWindow);
            }
            (probes_out, sent) = (probes_out + 1, sent + 1);
            if backoff < limits.retries2 {
                backoff += 1;
            }
            if sent <= answered {
                probes_out = 0;
            }
            let mut wait = (rto_ms.max(200) << backoff.min(10)).min(limits.rto_max_ms);
            if limits.user_timeout_ms != 0 {
                wait = wait.min((limits.user_timeout_ms - since).max(2));
            }
            let state = WindowProbing {
                expires_in: ticks_ahead(wait),
                since_first: Some(since),
                probes_out,
                backoff,
                rto_ms,
                limits,
                wheel: ON_TIME,
            };
            if sent >= answered {
                states.push((now, state));
            }
            now += wait;
        }
    }

    /// `tcp_retransmit_timer`, firing by firing, from when the data was sent on, ms. Returns
    /// the state after each firing with its time, and the end.
    fn simulate_data(
        limits: RetryLimits,
        first_rto_ms: u64,
    ) -> (Vec<(u64, Retransmitting)>, u64, Cause) {
        let (mut now, mut rto_ms, mut first) = (first_rto_ms, first_rto_ms, None);
        let mut states = Vec::new();
        loop {
            let is_alive = rto_ms < limits.rto_max_ms;
            let retries = match limits.orphan_retries {
                None => limits.retries2,
                Some(_) if limits.has_icmp_error && !is_alive => 0,
                Some(0) if is_alive => 8,
                Some(retries) => retries,
            };
            // `tcp_model_timeout`
            let doublings = (limits.rto_max_ms / 200).ilog2();
            let modelled = if retries <= doublings {
                ((2 << retries) - 1) * 200
            } else {
                ((2 << doublings) - 1) * 200 + u64::from(retries - doublings) * limits.rto_max_ms
            };
            let (limit, cause) = match limits.user_timeout_ms {
                0 => (modelled, Cause::Retransmission),
                ms => (ms, Cause::UserTimeout),
            };
            if first.is_some_and(|first| now - first >= limit) {
                return (states, now, cause);
            }
            let since_first_ms = now - *first.get_or_insert(now);
            rto_ms = (rto_ms * 2).min(limits.rto_max_ms);
            let wait = match limits.user_timeout_ms {
                0 => rto_ms,
                ms => rto_ms.min(ms.saturating_sub(since_first_ms)).max(1),
            };
            let state = Retransmitting {
                since_first_ms,
                timer: PendingTimer {
                    expires_in: ticks_ahead(wait),
                    wait,
                },
                rto_ms,
                limits,
                wheel: ON_TIME,
            };
            states.push((now, state));
            now += wait;
        }
    }

    proptest! {
        /// After any firing, and between two, the end is foretold to the millisecond.
        #[test]
        fn the_end_of_a_shut_window_is_foretold_at_any_time(
            limits in any_limits(),
            rto_ms in 1..3_000_u64,
            answered in 0..12_u64,
            part in 0..100_u64,
        ) {
            let rto_ms = rto_ms.min(limits.rto_max_ms);
            let (states, end, cause) = simulate_probes(limits, rto_ms, answered);
            for (at, state) in states {
                let passed = state.expires_in.unsigned_abs() * part / 100;
                let now = WindowProbing {
                    expires_in: state.expires_in - ticks_ahead(passed),
                    since_first: state.since_first.map(|it| it + passed),
                    ..state
                };
                let expected = GiveUp { in_ms: end - at - passed, cause };
                prop_assert_eq!(now.give_up(), expected, "{:?}", now);
            }
        }

        /// The same for data in flight.
        #[test]
        fn the_end_of_unacknowledged_data_is_foretold_at_any_time(
            limits in any_limits(),
            rto_ms in 200..3_000_u64,
            part in 0..100_u64,
        ) {
            let rto_ms = rto_ms.min(limits.rto_max_ms);
            let (states, end, cause) = simulate_data(limits, rto_ms);
            for (at, state) in states {
                let passed = state.timer.expires_in.unsigned_abs() * part / 100;
                let now = Retransmitting {
                    since_first_ms: state.since_first_ms + passed,
                    timer: PendingTimer {
                        expires_in: state.timer.expires_in - ticks_ahead(passed),
                        ..state.timer
                    },
                    ..state
                };
                let expected = GiveUp { in_ms: end - at - passed, cause };
                prop_assert_eq!(now.give_up(), expected, "{:?}", now);
            }
        }
    }
}
