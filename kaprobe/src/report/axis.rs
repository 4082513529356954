//! The time axis of a timeline.

use crate::report::zone::Zone;

/// The steps between ticks, ms.
const STEPS_MS: [i64; 30] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    DAY_MS,
    2 * DAY_MS,
    7 * DAY_MS,
    28 * DAY_MS,
];

const DAY_MS: i64 = 86_400_000;

/// Most ticks of an axis; of one whose ticks bear dates, fewer.
const MAX_TICKS: i128 = 9;
const MAX_DATED_TICKS: i128 = 5;

/// Maps times to places.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeAxis {
    from_ns: i64,
    to_ns: i64,
    left: f64,
    width: f64,
}

/// A tick of an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) label: String,
}

impl Tick {
    /// About half of the label's width.
    #[expect(clippy::cast_precision_loss, reason = "a label is short")]
    fn half_width(&self) -> f64 {
        self.label.len() as f64 * 3.2
    }
}

impl TimeAxis {
    /// An axis over these times, with a little room at both ends.
    pub(super) fn new(from_ns: i64, to_ns: i64, left: f64, width: f64) -> Self {
        // A single point in time has an axis of some ms.
        let span = i128::from(to_ns) - i128::from(from_ns);
        let room = i64::try_from((span / 50).max(5_000_000)).unwrap_or(i64::MAX);
        Self {
            from_ns: from_ns.saturating_sub(room),
            to_ns: to_ns.saturating_add(room),
            left,
            width,
        }
    }

    fn span_ns(&self) -> i128 {
        (i128::from(self.to_ns) - i128::from(self.from_ns)).max(1)
    }

    /// The place of a time.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a tenth of a pixel is precise enough"
    )]
    pub(super) fn x(&self, at_ns: i64) -> f64 {
        let part = (i128::from(at_ns) - i128::from(self.from_ns)) as f64 / self.span_ns() as f64;
        tenth(part.clamp(0.0, 1.0).mul_add(self.width, self.left))
    }

    /// Ticks at round local times.
    pub(super) fn ticks(&self, zone: &Zone) -> Vec<Tick> {
        let is_dated = zone.crosses_midnight(self.from_ns, self.to_ns);
        let most = if is_dated { MAX_DATED_TICKS } else { MAX_TICKS };
        let span_ms = self.span_ns() / 1_000_000;
        let steps = STEPS_MS.into_iter().map(i128::from);
        let fits = |step: &i128| span_ms / step < most;
        let widest = i128::from(STEPS_MS[STEPS_MS.len() - 1]);
        let step_ms = steps
            .into_iter()
            .find(fits)
            .unwrap_or_else(|| widest * (span_ms / widest / most + 1));
        let step_ns = step_ms * 1_000_000;
        // Counted from a local midnight.
        let from_ns = i128::from(self.from_ns);
        let of_second = from_ns.rem_euclid(1_000_000_000);
        let local_ns = i128::from(zone.local_s(self.from_ns)) * 1_000_000_000 + of_second;
        let first_ns = from_ns + (step_ns - local_ns.rem_euclid(step_ns)) % step_ns;
        let times = (0..).map(|nth: i128| first_ns + nth * step_ns);
        let times = times.take_while(|it| *it <= i128::from(self.to_ns));
        times
            .filter_map(|it| i64::try_from(it).ok())
            .map(|at_ns| {
                let clock = zone.clock(at_ns, step_ms < 1_000);
                let label = if is_dated {
                    format!("{} {clock}", zone.date(at_ns))
                } else {
                    clock
                };
                Tick {
                    x: self.x(at_ns),
                    label,
                }
            })
            // A label at the very end would be cut off.
            .filter(|it| it.x + it.half_width() <= self.left + self.width)
            .collect()
    }
}

/// A number with one digit after the point.
pub(super) fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};
    use proptest::prelude::*;

    use super::*;

    /// 2024-05-06T07:08:09Z.
    const AT: i64 = 1_714_979_289_000_000_000;
    const S: i64 = 1_000_000_000;

    fn labels(span_ns: i64, hours: i8) -> Vec<String> {
        let zone = Zone::new(TimeZone::fixed(Offset::constant(hours)));
        let axis = TimeAxis::new(AT, AT + span_ns, 0.0, 1_000.0);
        axis.ticks(&zone).into_iter().map(|it| it.label).collect()
    }

    #[test]
    fn ticks_are_at_round_local_times() {
        for (span_ns, hours, expected) in [
            (40_000_000, 0, "07:08:09.000 07:08:09.010 07:08:09.020"),
            (12 * S, 0, "07:08:10 07:08:12 07:08:14"),
            (7_200 * S, 0, "07:15:00 07:30:00 07:45:00"),
            (7_200 * S, 2, "09:15:00 09:30:00 09:45:00"),
            (
                86_400 * S,
                0,
                "2024-05-06 12:00:00 2024-05-06 18:00:00 2024-05-07 00:00:00",
            ),
        ] {
            let labels = labels(span_ns, hours).join(" ");
            assert!(labels.starts_with(expected), "{span_ns}: {labels}");
        }
    }

    proptest! {
        /// A log may have any times.
        #[test]
        fn every_time_is_on_the_axis(from in any::<i64>(), to in any::<i64>(), hours in -25_i8..=25) {
            let (from, to) = (from.min(to), from.max(to));
            let axis = TimeAxis::new(from, to, 100.0, 800.0);
            for at in [from, to, i64::MIN, i64::MAX] {
                prop_assert!((100.0..=900.0).contains(&axis.x(at)));
            }
            let zone = Zone::new(TimeZone::fixed(Offset::constant(hours)));
            let ticks = axis.ticks(&zone);
            prop_assert!(ticks.len() <= 11, "{}", ticks.len());
            prop_assert!(ticks.is_sorted_by(|a, b| a.x <= b.x));
        }
    }
}
