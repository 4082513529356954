//! Renders figures as a Markdown table.

use std::fmt::Write;

use crate::bench::bars;
use crate::bench::samples::{Figure, REFERENCES, Run};

/// The figures of a run, with the ratios of an earlier run if there is one.
pub fn render(run: &Run, earlier: Option<&Run>) -> String {
    let mut text = format!("{}, {} connections\n\n", run.kernel, run.connections);
    text += "| measured | subject | median | range | beside | should be |\n";
    text += "|---|---|---|---|---|---|\n";
    for figure in &run.figures {
        let Figure {
            measure,
            subject,
            unit,
            ..
        } = figure;
        let (median, range) = match figure.spread {
            Some(s) => (
                format!("{} {unit}", short(s.median)),
                format!("{}–{}", short(s.min), short(s.max)),
            ),
            None => (figure.why.clone().unwrap_or_default(), "-".into()),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {measure} | {subject} | {median} | {range} | {} | {} |",
            ratios(run, earlier, measure, subject),
            bars::describe(run, measure, subject)
        );
    }
    text
}

/// The ratios of the subject to the reference subjects.
fn ratios(run: &Run, earlier: Option<&Run>, measure: &str, subject: &str) -> String {
    let others = REFERENCES.into_iter().filter(|&other| other != subject);
    let ratios = others.filter_map(|other| {
        let now = run.ratio(measure, subject, other)?;
        let before = earlier.and_then(|run| run.ratio(measure, subject, other));
        let before = before.map(|r| format!(" (was {r:.2})")).unwrap_or_default();
        Some(format!("{now:.2} of {other}{before}"))
    });
    ratios.collect::<Vec<_>>().join(", ")
}

/// Rounds to three digits; more would not be reliable.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::tests::run;
    use crate::bench::samples::{FLOOR, PEER};

    #[test]
    fn a_row_shows_its_ratios_and_the_earlier_ones() {
        let now = run(&[(FLOOR, Some(10.0)), ("kaprobe", Some(2.5)), (PEER, None)]);
        let before = run(&[(FLOOR, Some(10.0)), ("kaprobe", Some(50.0))]);
        let table = render(&now, Some(&before));
        for row in [
            "| m | kaprobe | 2.50 ns | 2.50–2.50 | 0.25 of floor (was 5.00) |  |",
            "| m | bpftrace | it can't | - |  |  |",
        ] {
            assert!(table.lines().any(|line| line == row), "{table}");
        }
    }
}
