//! Figures as a table in Markdown.

use std::fmt::Write;

use super::samples::{FLOOR, Figure, PEER, Run};

/// The figures of a run; with an earlier run, what its ratios were.
pub fn render(run: &Run, earlier: Option<&Run>) -> String {
    let mut text = format!("{}, {} connections\n\n", run.kernel, run.connections);
    text += "| measured | subject | median | range | of the floor | of bpftrace |\n";
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
                format!("{:.0} {unit}", s.median),
                format!("{:.0}–{:.0}", s.min, s.max),
            ),
            None => (figure.why.clone().unwrap_or_default(), "-".into()),
        };
        let ratio = |to| match run.ratio(measure, subject, to) {
            Some(now) => {
                let before = earlier.and_then(|run| run.ratio(measure, subject, to));
                let before = before.map(|r| format!(" (was {r:.2})")).unwrap_or_default();
                format!("{now:.2}{before}")
            }
            None => "-".into(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {measure} | {subject} | {median} | {range} | {} | {} |",
            ratio(FLOOR),
            ratio(PEER)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::run;
    use super::*;

    #[test]
    fn a_row_shows_its_ratios_and_what_they_were() {
        let now = run(&[(FLOOR, Some(10.0)), ("kaprobe", Some(25.0)), (PEER, None)]);
        let before = run(&[(FLOOR, Some(10.0)), ("kaprobe", Some(50.0))]);
        let table = render(&now, Some(&before));
        for row in [
            "| m | kaprobe | 25 ns | 25–25 | 2.50 (was 5.00) | - |",
            "| m | bpftrace | it can't | - | - | - |",
        ] {
            assert!(table.lines().any(|line| line == row), "{table}");
        }
    }
}
