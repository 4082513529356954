//! What the figures should be, as ratios to others of the same run.

use super::samples::{FLOOR, PEER, Run};

/// What a subject's median should be.
pub struct Bar {
    /// What is measured: a name, or where it ends in a dot all names that begin so.
    measure: &'static str,
    subject: &'static str,
    limit: Limit,
}

/// See [`Bar`].
enum Limit {
    /// At most so many times the median of another subject.
    Of(f64, &'static str),
    /// At least so many times it.
    AtLeast(f64, &'static str),
    /// At most this.
    AtMost(f64),
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

const fn of(measure: &'static str, subject: &'static str, times: f64, other: &'static str) -> Bar {
    Bar::new(measure, subject, Limit::Of(times, other))
}

const fn at_least(
    measure: &'static str,
    subject: &'static str,
    times: f64,
    other: &'static str,
) -> Bar {
    Bar::new(measure, subject, Limit::AtLeast(times, other))
}

const fn at_most(measure: &'static str, subject: &'static str, most: f64) -> Bar {
    Bar::new(measure, subject, Limit::AtMost(most))
}

const BARS: &[Bar] = &[
    of("in_kernel.", "kaprobe", 0.5, PEER),
    of("in_kernel.", "kaprobe", 3.0, FLOOR),
    of("in_kernel.", "kaprobe, filtered out", 1.5, FLOOR),
    of("user_space.cpu.text", "kaprobe", 0.1, PEER),
    of("user_space.cpu.json", "kaprobe", 1.0 / 7.0, PEER),
    of("start.elapsed", "kaprobe", 0.25, PEER),
    at_least("replay.bytes", "kaprobe to text", 3.0, "jq"),
    at_least("replay.bytes", "kaprobe to json", 3.0, "jq"),
    at_least("replay.bytes", "kaprobe to csv", 3.0, "jq"),
    at_most("memory.50000", "kaprobe", 24.0),
    at_most("memory.50000", "kaprobe --json", 24.0),
    at_most("loss.54000.lost", "kaprobe", 0.0),
];

impl Bar {
    fn is_of(&self, measure: &str, subject: &str) -> bool {
        let measured = match self.measure.strip_suffix('.') {
            Some(_) => measure.starts_with(self.measure),
            None => measure == self.measure,
        };
        measured && subject == self.subject
    }
}

/// What was to be reached by a subject in this run, and whether it was.
pub fn told(run: &Run, measure: &str, subject: &str) -> String {
    let bars = BARS.iter().filter(|bar| bar.is_of(measure, subject));
    let told = bars.map(|bar| {
        let (value, limit) = match bar.limit {
            Limit::Of(limit, other) | Limit::AtLeast(limit, other) => {
                (run.ratio(measure, subject, other), limit)
            }
            Limit::AtMost(limit) => (run.median(measure, subject), limit),
        };
        let is_met = value.map(|value| match bar.limit {
            Limit::AtLeast(..) => value >= limit,
            Limit::Of(..) | Limit::AtMost(_) => value <= limit,
        });
        let what = match bar.limit {
            Limit::Of(_, other) => format!("≤ {limit:.2} of {other}"),
            Limit::AtLeast(_, other) => format!("≥ {limit:.2} of {other}"),
            Limit::AtMost(_) => format!("≤ {limit}"),
        };
        let so = match is_met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "unknown",
        };
        format!("{what}: {so}")
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::run_of;
    use super::*;

    #[test]
    fn a_bar_is_met_or_missed() {
        let run = run_of(
            "in_kernel.fentry",
            &[
                (FLOOR, Some(100.0)),
                ("kaprobe", Some(290.0)),
                (PEER, Some(400.0)),
                ("kaprobe, filtered out", Some(151.0)),
            ],
        );
        for (measure, subject, expected) in [
            (
                "in_kernel.fentry",
                "kaprobe",
                "≤ 0.50 of bpftrace: missed; ≤ 3.00 of floor: met",
            ),
            (
                "in_kernel.fentry",
                "kaprobe, filtered out",
                "≤ 1.50 of floor: missed",
            ),
            (
                "in_kernel.kprobe",
                "kaprobe, filtered out",
                "≤ 1.50 of floor: unknown",
            ),
            ("in_kernel.fentry", FLOOR, ""),
            ("in_kernel_too", "kaprobe", ""),
        ] {
            assert_eq!(told(&run, measure, subject), expected);
        }
    }
}
