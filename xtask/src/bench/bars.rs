//! Limits for the figures, most of them ratios to other figures of the same run.

use crate::bench::samples::{PEER, Run};

/// A limit for the median of a subject.
pub struct Bar {
    /// The name of a measure. If it ends in a dot, a prefix of names.
    measure: &'static str,
    subject: &'static str,
    limit: Limit,
}

/// The limit of a [`Bar`].
enum Limit {
    /// At most this many times the median of another subject.
    AtMostTimes(f64, &'static str),
    /// At least this many times the median of another subject.
    AtLeastTimes(f64, &'static str),
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
    /// Within the middle half of the samples of two other subjects, which are identical.
    /// A smaller difference than theirs is noise.
    Like([&'static str; 2]),
}

impl Bar {
    const fn new(measure: &'static str, subject: &'static str, limit: Limit) -> Self {
        Self {
            measure,
            subject,
            limit,
        }
    }
}

const fn at_most_times(
    measure: &'static str,
    subject: &'static str,
    times: f64,
    other: &'static str,
) -> Bar {
    Bar::new(measure, subject, Limit::AtMostTimes(times, other))
}

const fn at_least_times(
    measure: &'static str,
    subject: &'static str,
    times: f64,
    other: &'static str,
) -> Bar {
    Bar::new(measure, subject, Limit::AtLeastTimes(times, other))
}

const fn at_most(measure: &'static str, subject: &'static str, most: f64) -> Bar {
    Bar::new(measure, subject, Limit::AtMost(most))
}

const fn at_least(measure: &'static str, subject: &'static str, least: f64) -> Bar {
    Bar::new(measure, subject, Limit::AtLeast(least))
}

const fn like_off(measure: &'static str, subject: &'static str) -> Bar {
    Bar::new(measure, subject, Limit::Like(["off", "off again"]))
}

const BARS: &[Bar] = &[
    at_most_times("in_kernel.", "kaprobe", 0.28, PEER),
    at_most_times("firing.", "kaprobe", 1.25, "off"),
    at_most_times("firing.", "kaprobe, filtered out", 1.03, "off"),
    at_most_times("user_space.cpu.text", "kaprobe", 0.15, PEER),
    at_most_times("user_space.cpu.text", "kaprobe, probes only", 0.10, PEER),
    at_most_times("user_space.cpu.text", "kaprobe agent", 0.10, PEER),
    at_most_times("user_space.cpu.json", "kaprobe", 0.14, PEER),
    at_most_times("user_space.cpu.text+json", "kaprobe", 0.25, PEER),
    at_most_times("start.elapsed", "kaprobe", 0.15, PEER),
    at_most_times("sockets.cpu", "kaprobe", 0.15, "ss"),
    at_least_times("replay.bytes", "kaprobe to text", 8.0, "jq"),
    at_least_times("replay.bytes", "kaprobe to json", 8.0, "jq"),
    at_least_times("replay.bytes", "kaprobe to csv", 8.0, "jq"),
    at_most_times("top.cpu", "kaprobe top, a refresh", 1.0, "kaprobe sockets"),
    at_most("top.key.longest", "kaprobe top", 100.0),
    at_most("memory.50000", "kaprobe", 20.0),
    at_most("memory.50000", "kaprobe --json", 20.0),
    at_least("burst.told", "kaprobe", 80_000.0),
    at_most("loss.54000.lost", "kaprobe", 0.0),
    like_off("response.", "kaprobe"),
    like_off("response.p99", "kaprobe, starting"),
    like_off("connections.", "kaprobe"),
    like_off("lossy.", "kaprobe"),
];

impl Bar {
    fn applies_to(&self, measure: &str, subject: &str) -> bool {
        let is_measure = match self.measure.strip_suffix('.') {
            Some(_) => measure.starts_with(self.measure),
            None => measure == self.measure,
        };
        is_measure && subject == self.subject
    }
}

/// The limits of a subject in this run, each with met, missed or unknown.
pub fn describe(run: &Run, measure: &str, subject: &str) -> String {
    let bars = BARS.iter().filter(|bar| bar.applies_to(measure, subject));
    let texts = bars.map(|bar| {
        let median = run.median(measure, subject);
        let ratio = |other| run.ratio(measure, subject, other);
        let (is_met, text) = match bar.limit {
            Limit::AtMostTimes(limit, other) => (
                ratio(other).map(|ratio| ratio <= limit),
                format!("≤ {limit:.2} of {other}"),
            ),
            Limit::AtLeastTimes(limit, other) => (
                ratio(other).map(|ratio| ratio >= limit),
                format!("≥ {limit:.2} of {other}"),
            ),
            Limit::AtMost(limit) => (median.map(|it| it <= limit), format!("≤ {limit}")),
            Limit::AtLeast(limit) => (median.map(|it| it >= limit), format!("≥ {limit}")),
            Limit::Like(others) => {
                let middle = run.middle(measure, others);
                let is_met = middle.zip(median).map(|(middle, it)| middle.contains(&it));
                (is_met, format!("as {}", others.join(", ")))
            }
        };
        let result = match is_met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "unknown",
        };
        format!("{text}: {result}")
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::FLOOR;
    use crate::bench::samples::tests::run_of;

    #[test]
    fn a_bar_is_met_or_missed() {
        let run = run_of(
            "in_kernel.fentry",
            &[
                (FLOOR, Some(100.0)),
                ("kaprobe", Some(290.0)),
                (PEER, Some(400.0)),
            ],
        );
        for (measure, subject, expected) in [
            ("in_kernel.fentry", "kaprobe", "≤ 0.28 of bpftrace: missed"),
            ("in_kernel.kprobe", "kaprobe", "≤ 0.28 of bpftrace: unknown"),
            ("in_kernel.fentry", FLOOR, ""),
            ("in_kernel_too", "kaprobe", ""),
        ] {
            assert_eq!(describe(&run, measure, subject), expected);
        }
    }

    #[test]
    fn noise_is_not_a_difference() {
        let off = [15.0, 14.0, 13.0, 16.0, 40.0];
        let again = [14.5, 15.5, 17.0, 16.5, 41.0];
        for (value, expected) in [
            (13.5, "as off, off again: missed"),
            (14.0, "as off, off again: met"),
            (17.0, "as off, off again: met"),
            (17.5, "as off, off again: missed"),
        ] {
            let samples = off.map(|it| ("off", Some(it))).into_iter();
            let samples = samples.chain(again.map(|it| ("off again", Some(it))));
            let samples: Vec<_> = samples.chain([("kaprobe", Some(value))]).collect();
            let run = run_of("response.p99", &samples);
            let found = describe(&run, "response.p99", "kaprobe");
            assert_eq!(found, expected, "{value}");
        }
    }
}
