//! The longest silence of a connection, as far as samples show it. Pure.
//!
//! A sample has the age of the last traffic. Traffic between two samples is not seen, only
//! its last moment. So the silence before it is known within bounds: it lasted at least
//! until the sample before, and at most until that moment.

use crate::model::field::group;
use crate::model::socket::Ages;
use crate::model::time::TICK_MS;

/// The error of a difference of two ages, ms.
const SLACK_MS: u64 = 3 * TICK_MS;

/// A connection must be observed for this many of its longest silences, so that several
/// are seen to end.
const SILENCES: u64 = 3;

/// A connection must be observed for this time or, if that is shorter, for its timeout, ms.
/// Many a connection is busy for seconds after it was opened, and then silent.
const SHORTEST_MS: u64 = 60_000;

group! {
    /// The longest silence of a connection that was observed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ObservedSilence {
        /// Time from its first sample to its last, ms.
        observed_ms: Option<u64>,
        /// The longest silence lasted this long at least, ms.
        observed_silence_min_ms: Option<u64>,
        /// The longest silence lasted this long at most, ms.
        observed_silence_max_ms: Option<u64>,
        /// The connection was silent for at least this time in both directions, ms, and
        /// then the peer was heard. An assessment has it only if it is longer than the
        /// timeout.
        outlived_silence_ms: Option<u64>,
    }
}

impl ObservedSilence {
    /// How long the connection would have to be observed to tell whether its own traffic
    /// keeps it alive, ms. `None` without observation, or if a silence was too long for
    /// that already: longer than half of the timeout.
    #[must_use]
    pub fn needed_ms(&self, timeout_ms: u64) -> Option<u64> {
        let longest_ms = self.observed_silence_max_ms?;
        let is_short = longest_ms <= timeout_ms / 2;
        let least_ms = SHORTEST_MS.min(timeout_ms);
        is_short.then(|| longest_ms.saturating_mul(SILENCES).max(least_ms))
    }

    /// Whether the connection's own traffic kept it alive: several silences ended, each
    /// well before the timeout.
    #[must_use]
    pub fn kept_alive(&self, timeout_ms: u64) -> bool {
        let needed_ms = self.needed_ms(timeout_ms);
        needed_ms.is_some_and(|needed| self.observed_ms.is_some_and(|it| needed <= it))
    }
}

/// The longest silences of a connection that was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ObservedSilences {
    /// Between all that restarts the timeout.
    pub that_count: ObservedSilence,
    /// Between that of it which is the connection's own traffic, and no probe of the peer.
    pub of_traffic: ObservedSilence,
}

/// The silences of a connection: between segments from the peer, between those that are not
/// its probes, and between data in each direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionSilences {
    /// Times of the first and the last sample, ms.
    first_ms: u64,
    last_ms: u64,
    heard: Silences,
    /// Between data and acknowledgements from the peer.
    traffic: Silences,
    received: Silences,
    sent: Silences,
    /// See [`ObservedSilence::outlived_silence_ms`].
    outlived_ms: Option<u64>,
}

impl ConnectionSilences {
    /// Starts with a first sample, taken at `now_ms`. `None` if it lacks an age.
    pub(super) fn new(now_ms: u64, ages: &Ages) -> Option<Self> {
        Some(Self {
            first_ms: now_ms,
            last_ms: now_ms,
            heard: Silences::new(ages.quiet_ms()?),
            traffic: Silences::new(ages.idle_ms?),
            received: Silences::new(ages.lastrcv_ms?),
            sent: Silences::new(ages.lastsnd_ms?),
            outlived_ms: None,
        })
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, now_ms: u64, ages: &Ages) {
        let elapsed_ms = now_ms.saturating_sub(self.last_ms);
        self.last_ms = now_ms;
        let quiet_ms = self.heard.age_ms.min(self.sent.age_ms);
        if self.heard.add(elapsed_ms, ages.quiet_ms()) {
            let outlived_ms = quiet_ms.saturating_sub(SLACK_MS);
            self.outlived_ms = self.outlived_ms.max(Some(outlived_ms));
        }
        self.traffic.add(elapsed_ms, ages.idle_ms);
        self.received.add(elapsed_ms, ages.lastrcv_ms);
        self.sent.add(elapsed_ms, ages.lastsnd_ms);
    }

    /// The longest silence for a timeout that every segment restarts. What the peer sent
    /// proves more than what this host sent: it shows that both directions work.
    pub(super) fn between_segments(&self) -> ObservedSilence {
        self.observed(&self.heard)
    }

    /// The longest silence of the connection's own traffic: probes of the peer don't end it.
    pub(super) fn between_traffic(&self) -> ObservedSilence {
        self.observed(&self.traffic)
    }

    /// The longest silence for a timeout that only data restarts. Proxies time each
    /// direction, so the direction with the longer silence counts.
    pub(super) fn between_data(&self) -> ObservedSilence {
        let [received, sent] = [&self.received, &self.sent].map(|it| self.observed(it));
        let received_is_longer = received.observed_silence_max_ms > sent.observed_silence_max_ms;
        if received_is_longer { received } else { sent }
    }

    fn observed(&self, silences: &Silences) -> ObservedSilence {
        ObservedSilence {
            observed_ms: Some(self.last_ms.saturating_sub(self.first_ms)),
            observed_silence_min_ms: Some(silences.min_ms),
            observed_silence_max_ms: Some(silences.max_ms()),
            outlived_silence_ms: self.outlived_ms,
        }
    }
}

/// The silences between traffic of one kind.
#[derive(Clone, Copy, Debug)]
struct Silences {
    /// The age of the last traffic at the last sample, ms.
    age_ms: u64,
    /// The longest silence lasted this long at least, ms.
    min_ms: u64,
    /// The longest silence that has ended lasted this long at most, ms.
    ended_max_ms: u64,
}

impl Silences {
    fn new(age_ms: u64) -> Self {
        Self {
            age_ms,
            min_ms: age_ms.saturating_sub(SLACK_MS),
            ended_max_ms: 0,
        }
    }

    /// Adds a sample, so long after the one before. Without an age, it shows no traffic.
    /// Returns whether there was traffic.
    fn add(&mut self, elapsed_ms: u64, age_ms: Option<u64>) -> bool {
        let without_traffic_ms = self.age_ms.saturating_add(elapsed_ms);
        // Only successive samples are compared: over a long time, the kernel's ticks and
        // its clock drift apart.
        self.age_ms = age_ms.unwrap_or(without_traffic_ms);
        let has_traffic = self.age_ms.saturating_add(SLACK_MS) < without_traffic_ms;
        if has_traffic {
            let ended_ms = without_traffic_ms - self.age_ms;
            self.ended_max_ms = self.ended_max_ms.max(ended_ms);
        }
        self.min_ms = self.min_ms.max(self.age_ms.saturating_sub(SLACK_MS));
        has_traffic
    }

    /// The longest silence, including the present one, lasted this long at most, ms.
    fn max_ms(&self) -> u64 {
        let longest_ms = self.ended_max_ms.max(self.age_ms);
        longest_ms.saturating_add(SLACK_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The kernel's age of the last of these times, in ticks of `tick_ms`, at `now_ms`.
    fn age_ms(traffic: &[u64], now_ms: u64, tick_ms: u64) -> u64 {
        let last = traffic.iter().rfind(|&&at| at <= now_ms).copied();
        (now_ms / tick_ms - last.unwrap_or_default() / tick_ms) * tick_ms
    }

    /// Times that are increasing, with these pauses between them.
    fn times(first: u64, pauses: &[u64]) -> Vec<u64> {
        let mut at = first;
        let mut all = vec![at];
        for pause in pauses {
            at += pause;
            all.push(at);
        }
        all
    }

    fn pauses() -> impl Strategy<Value = Vec<u64>> {
        let pause = prop_oneof![1..50_u64, 1..2_000_u64, 1..100_000_u64];
        prop::collection::vec(pause, 0..60)
    }

    proptest! {
        /// The longest silence, from the last traffic before the first sample to the last
        /// sample, always lies within the bounds.
        #[test]
        fn the_longest_silence_lies_within_the_bounds(
            traffic in pauses(),
            samples in pauses(),
            first_sample in 0..200_000_u64,
            tick_ms in prop_oneof![Just(1_u64), Just(4), Just(TICK_MS)],
        ) {
            let traffic = times(0, &traffic);
            let samples = times(first_sample, &samples);
            let at = |now| {
                let age_ms = age_ms(&traffic, now, tick_ms);
                Ages::new(age_ms, age_ms, age_ms)
            };
            let mut silences = ConnectionSilences::new(first_sample, &at(first_sample));
            for &now in &samples[1..] {
                if let Some(it) = &mut silences {
                    it.add(now, &at(now));
                }
            }
            let last = samples.last().copied().unwrap_or_default();
            let began = traffic.iter().rfind(|&&at| at <= first_sample).copied();
            let mut all: Vec<_> = traffic.into_iter().filter(|&at| Some(at) >= began && at <= last).collect();
            all.push(last);
            let silences_of = |all: &[u64]| all.windows(2).map(|it| it[1] - it[0]).max();
            let longest = silences_of(&all).unwrap_or_default();
            let outlived = silences_of(&all[..all.len() - 1]);

            let seen = silences.map(|it| it.between_segments()).unwrap_or_default();
            let (min, max) = (seen.observed_silence_min_ms, seen.observed_silence_max_ms);
            prop_assert!(min <= Some(longest) && Some(longest) <= max, "{longest} {seen:?}");
            prop_assert!(seen.outlived_silence_ms <= outlived, "{outlived:?} {seen:?}");
            prop_assert_eq!(seen.observed_ms, Some(last - first_sample));
        }
    }

    /// What a connection that was heard every `period_ms` shows when it is sampled every
    /// second for `observed_ms`.
    fn heartbeat(period_ms: u64, observed_ms: u64) -> ObservedSilence {
        let ages = |now: u64| Ages::new(now % period_ms, now % period_ms, now);
        let mut silences = ConnectionSilences::new(0, &ages(0));
        for now in (1_000..=observed_ms).step_by(1_000) {
            if let Some(it) = &mut silences {
                it.add(now, &ages(now));
            }
        }
        silences.map(|it| it.between_segments()).unwrap_or_default()
    }

    #[test]
    fn several_short_silences_keep_a_connection_alive() {
        #[rustfmt::skip]
        let rows = [
            ("a heartbeat", heartbeat(10_000, 120_000), 350_000, true, Some(60_000)),
            ("not half of the timeout left", heartbeat(10_000, 120_000), 20_000, false, None),
            ("too few heartbeats", heartbeat(60_000, 120_000), 350_000, false, Some(180_090)),
            ("silent all the time", heartbeat(1_000_000, 120_000), 350_000, false, Some(360_090)),
            ("busy", heartbeat(50, 3_600_000), 350_000, true, Some(60_000)),
            ("busy, for seconds only", heartbeat(50, 50_000), 350_000, false, Some(60_000)),
            ("busy, for longer than a short timeout", heartbeat(50, 50_000), 40_000, true, Some(40_000)),
            ("one sample", heartbeat(10_000, 0), 350_000, false, Some(60_000)),
            ("no sample", ObservedSilence::default(), 350_000, false, None),
        ];
        for (what, seen, timeout_ms, kept, needed_ms) in rows {
            assert_eq!(seen.kept_alive(timeout_ms), kept, "{what}: {seen:?}");
            assert_eq!(seen.needed_ms(timeout_ms), needed_ms, "{what}: {seen:?}");
        }
    }

    #[test]
    fn what_a_connection_outlived_is_a_silence_of_both_directions() {
        let outlived = |samples: &[(u64, u64)]| {
            let mut silences = ConnectionSilences::new(0, &Ages::new(0, 0, 0));
            for (n, (heard, sent)) in samples.iter().enumerate() {
                if let Some(it) = &mut silences {
                    it.add((n as u64 + 1) * 10_000, &Ages::new(*heard, *heard, *sent));
                }
            }
            silences.and_then(|it| it.between_segments().outlived_silence_ms)
        };
        let long = [(10_000, 10_000), (20_000, 20_000)];
        assert_eq!(outlived(&long), None, "it has not ended");
        let ended = [&long[..], &[(100, 100), (10_100, 10_100)]].concat();
        assert_eq!(outlived(&ended), Some(20_000 - SLACK_MS));
        let sends = [(10_000, 10_000), (20_000, 5_000), (100, 100)];
        assert_eq!(outlived(&sends), Some(5_000 - SLACK_MS));
    }

    #[test]
    fn a_proxy_counts_the_silence_of_each_direction() {
        let ages = |received, sent| Ages::new(received, 0, sent);
        let mut silences = ConnectionSilences::new(0, &ages(0, 0));
        for now in [1_000, 2_000, 3_000] {
            if let Some(it) = &mut silences {
                // The peer acknowledges what this host sends, and sends nothing.
                it.add(now, &ages(now, 0));
            }
        }
        let [segments, data] = [
            silences.map(|it| it.between_segments()),
            silences.map(|it| it.between_data()),
        ];
        let max = |it: Option<ObservedSilence>| it.and_then(|it| it.observed_silence_max_ms);
        assert_eq!(
            (max(segments), max(data)),
            (Some(1_000 + SLACK_MS), Some(3_000 + SLACK_MS))
        );
    }
}
