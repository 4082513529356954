//! Renders figures as a Markdown table.

use std::fmt::Write;

use crate::bench::bars;
use crate::bench::samples::{Figure, REFERENCES, Run};

/// The figures of a run, with the ratios of an earlier run if there is one. Those that have a
/// limit come first, in a table of their own.
pub fn render(run: &Run, earlier: Option<&Run>) -> String {
    let rows = run.figures.iter().map(|it| Row::new(run, earlier, it));
    let rows: Vec<_> = rows.collect();
    let limited = rows.iter().filter(|it| !it.limits.is_empty());
    let (limited, all) = (table(limited), table(&rows));
    let heading = format!("{}, {} connections", run.kernel, run.connections);
    [heading, limited, all].join("\n\n")
}

/// A row of a table.
struct Row<'a> {
    figure: &'a Figure,
    ratios: String,
    limits: String,
}

impl<'a> Row<'a> {
    fn new(run: &Run, earlier: Option<&Run>, figure: &'a Figure) -> Self {
        let Figure {
            measure, subject, ..
        } = figure;
        Self {
            figure,
            ratios: ratios(run, earlier, measure, subject),
            limits: bars::describe(run, measure, subject),
        }
    }
}

fn table<'a>(rows: impl IntoIterator<Item = &'a Row<'a>>) -> String {
    let mut text = "| measured | subject | median | range | beside | should be |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for Row {
        figure,
        ratios,
        limits,
    } in rows
    {
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
            "| {measure} | {subject} | {median} | {range} | {ratios} | {limits} |"
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
