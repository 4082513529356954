//! The samples of a run, and the figures computed from them.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The subject name of BPF programs that do nothing.
pub const FLOOR: &str = "floor";
/// The subject name of the main alternative to kaprobe.
pub const PEER: &str = "bpftrace";
/// The subjects that others are compared with, if they were measured.
pub const REFERENCES: [&str; 5] = [FLOOR, PEER, "jq", "ss", "off"];

/// One measurement, as `benches/cost` prints it.
#[derive(Deserialize)]
pub struct Sample {
    /// The name of the measure.
    pub measure: String,
    /// The program or setup that was measured.
    pub subject: String,
    /// The unit of `value`.
    pub unit: String,
    /// The number; `None` if the subject can't do it.
    pub value: Option<f64>,
    /// Why there is no number.
    pub why: Option<String>,
}

/// All figures of one kernel.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// The kernel's full name.
    pub kernel: String,
    /// Connections of the load.
    pub connections: u32,
    /// The figures, in the order of measuring.
    pub figures: Vec<Figure>,
}

/// The samples of one measure and subject, summarized.
#[derive(Serialize, Deserialize)]
pub struct Figure {
    /// The name of the measure.
    pub measure: String,
    /// The program or setup that was measured.
    pub subject: String,
    /// The unit of the numbers.
    pub unit: String,
    /// The number of samples.
    pub samples: usize,
    /// Median, range and quartiles; `None` if the subject can't do it.
    pub spread: Option<Spread>,
    /// Why there is no number.
    pub why: Option<String>,
}

/// The median, range and quartiles of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median: the middle number, or the mean of the two in the middle.
    pub median: f64,
    /// The least number.
    pub min: f64,
    /// The greatest number.
    pub max: f64,
    /// The bounds of the middle half.
    pub quartiles: [f64; 2],
}

impl Spread {
    /// The spread of these numbers; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let last = values.len() - 1;
        // As many numbers lie below `low` as above `high`.
        let (low, high) = (last / 4, last - last / 4);
        Some(Self {
            median: f64::midpoint(values[last / 2], values[last - last / 2]),
            min,
            max,
            quartiles: [values[low], values[high]],
        })
    }
}

impl Run {
    /// Groups samples by measure and subject.
    pub fn new(kernel: String, connections: u32, samples: &[Sample]) -> Self {
        let mut figures: Vec<Figure> = Vec::new();
        for sample in samples {
            let known = figures
                .iter()
                .any(|f| f.measure == sample.measure && f.subject == sample.subject);
            if !known {
                figures.push(figure(sample, samples));
            }
        }
        Self {
            kernel,
            connections,
            figures,
        }
    }

    /// The median of a subject divided by the median of `to`, of the same measure.
    ///
    /// `None` if one is missing or the divisor is 0.
    pub fn ratio(&self, measure: &str, subject: &str, to: &str) -> Option<f64> {
        let ratio = self.median(measure, subject)? / self.median(measure, to)?;
        ratio.is_finite().then_some(ratio)
    }

    /// The median of a subject.
    pub fn median(&self, measure: &str, subject: &str) -> Option<f64> {
        Some(self.spread(measure, subject)?.median)
    }

    /// The range that covers the middle halves of the samples of two subjects.
    pub fn middle(&self, measure: &str, subjects: [&str; 2]) -> Option<RangeInclusive<f64>> {
        let [one, other] = subjects.map(|subject| self.spread(measure, subject));
        let ([low, high], [other_low, other_high]) = (one?.quartiles, other?.quartiles);
        Some(low.min(other_low)..=high.max(other_high))
    }

    fn spread(&self, measure: &str, subject: &str) -> Option<Spread> {
        let mut figures = self.figures.iter();
        figures
            .find(|f| f.measure == measure && f.subject == subject)?
            .spread
    }
}

fn figure(first: &Sample, samples: &[Sample]) -> Figure {
    let same = |s: &&Sample| s.measure == first.measure && s.subject == first.subject;
    let values: Vec<_> = samples
        .iter()
        .filter(same)
        .filter_map(|s| s.value)
        .collect();
    Figure {
        measure: first.measure.clone(),
        subject: first.subject.clone(),
        unit: first.unit.clone(),
        samples: values.len(),
        spread: Spread::of(values),
        why: samples.iter().filter(same).find_map(|s| s.why.clone()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn run(values: &[(&str, Option<f64>)]) -> Run {
        run_of("m", values)
    }

    pub fn run_of(measure: &str, values: &[(&str, Option<f64>)]) -> Run {
        let samples: Vec<_> = values
            .iter()
            .map(|&(subject, value)| Sample {
                measure: measure.into(),
                subject: subject.into(),
                unit: "ns".into(),
                value,
                why: value.is_none().then(|| "it can't".into()),
            })
            .collect();
        Run::new("Linux".into(), 8, &samples)
    }

    #[test]
    fn a_spread_has_median_range_and_quartiles() {
        for (values, spread) in [
            (vec![], None),
            (vec![3.0], Some((3.0, 3.0, 3.0, [3.0, 3.0]))),
            (vec![9.0, 1.0], Some((5.0, 1.0, 9.0, [1.0, 9.0]))),
            (vec![9.0, 1.0, 2.0], Some((2.0, 1.0, 9.0, [1.0, 9.0]))),
            (vec![4.0, 1.0, 2.0, 9.0], Some((3.0, 1.0, 9.0, [1.0, 9.0]))),
            (
                vec![5.0, 1.0, 9.0, 2.0, 4.0],
                Some((4.0, 1.0, 9.0, [2.0, 5.0])),
            ),
        ] {
            let found = Spread::of(values).map(|s| (s.median, s.min, s.max, s.quartiles));
            assert_eq!(found, spread);
        }
    }

    #[test]
    fn rounds_of_one_subject_are_one_figure() {
        let run = run(&[
            (FLOOR, Some(10.0)),
            ("kaprobe", Some(30.0)),
            (PEER, None),
            (FLOOR, Some(20.0)),
            ("kaprobe", Some(60.0)),
        ]);
        assert_eq!(run.figures.len(), 3);
        assert_eq!(run.ratio("m", "kaprobe", FLOOR), Some(3.0));
        assert_eq!(run.ratio("m", "kaprobe", PEER), None);
        assert_eq!(run.figures[2].why.as_deref(), Some("it can't"));
    }
}
