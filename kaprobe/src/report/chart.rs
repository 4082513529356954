//! Lays out the histograms of idle ages: at the end of connections above, survived below,
//! on one axis, with the known timeouts. The template draws it as SVG.

use crate::report::ages::{IdleAges, KnownTimeout, TimeoutOrigin};
use crate::report::axis::{Tick, tenth};
use crate::text::histogram::{Class, Histogram};
use crate::text::units::{Ms, plural};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 14.0;
/// Height of each of the two histograms.
const PANEL: f64 = 120.0;
/// Room for the letters of the timeouts, in rows.
const LETTERS: f64 = 50.0;
const LETTER_ROW: f64 = 15.0;
/// Height of the axis between the two.
const AXIS: f64 = 26.0;
/// The shortest age of the axis, ms.
const SHORTEST_MS: u64 = 10;
/// Letters that are nearer than this stand in different rows.
const NEAR: f64 = 15.0;
const ROWS: usize = 3;

/// The labels of the axis, ms.
const LABELS: [(u64, &str); 36] = [
    (10, "10 ms"),
    (20, "20 ms"),
    (50, "50 ms"),
    (100, "100 ms"),
    (200, "200 ms"),
    (500, "500 ms"),
    (1_000, "1 s"),
    (2_000, "2 s"),
    (5_000, "5 s"),
    (10_000, "10 s"),
    (20_000, "20 s"),
    (30_000, "30 s"),
    (MINUTE_MS, "1 min"),
    (2 * MINUTE_MS, "2 min"),
    (5 * MINUTE_MS, "5 min"),
    (10 * MINUTE_MS, "10 min"),
    (15 * MINUTE_MS, "15 min"),
    (30 * MINUTE_MS, "30 min"),
    (HOUR_MS, "1 h"),
    (2 * HOUR_MS, "2 h"),
    (5 * HOUR_MS, "5 h"),
    (12 * HOUR_MS, "12 h"),
    (DAY_MS, "1 day"),
    (2 * DAY_MS, "2 days"),
    (5 * DAY_MS, "5 days"),
    (10 * DAY_MS, "10 days"),
    (20 * DAY_MS, "20 days"),
    (50 * DAY_MS, "50 days"),
    (100 * DAY_MS, "100 days"),
    (200 * DAY_MS, "200 days"),
    (500 * DAY_MS, "500 days"),
    (1_000 * DAY_MS, "1000 days"),
    (2_000 * DAY_MS, "2000 days"),
    (5_000 * DAY_MS, "5000 days"),
    (10_000 * DAY_MS, "10000 days"),
    (20_000 * DAY_MS, "20000 days"),
];

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The histograms, laid out.
#[derive(Debug)]
pub(super) struct AgesChart {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    /// Where the bars of the ends begin, and go up.
    pub(super) ends_y: f64,
    /// Where the bars of the survived ages begin, and go down.
    pub(super) survived_y: f64,
    pub(super) bottom: f64,
    pub(super) axis_y: f64,
    pub(super) bars: Vec<AgeBar>,
    pub(super) ticks: Vec<Tick>,
    pub(super) timeouts: Vec<TimeoutMark>,
    pub(super) description: String,
    pub(super) most_ends: u64,
    pub(super) most_survived: u64,
}

/// A bar of a histogram.
#[derive(Debug)]
pub(super) struct AgeBar {
    pub(super) class: &'static str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
}

/// A known timeout on the axis.
#[derive(Debug)]
pub(super) struct TimeoutMark {
    pub(super) letter: String,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) class: &'static str,
    pub(super) time: String,
    pub(super) names: String,
    pub(super) origin: &'static str,
}

/// Maps ages to places: a decade has the same width everywhere.
struct AgeAxis {
    from: f64,
    to: f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a tenth of a pixel is precise enough"
)]
impl AgeAxis {
    fn new(from_ms: u64, to_ms: u64) -> Self {
        let log = |ms: u64| (ms.max(SHORTEST_MS) as f64).log10();
        let (from, to) = (log(from_ms), log(to_ms));
        Self {
            from: from - 0.05,
            to: to.max(from + 1.0) + 0.05,
        }
    }

    fn x(&self, ms: u64) -> f64 {
        let log = (ms.max(SHORTEST_MS) as f64).log10();
        let part = (log - self.from) / (self.to - self.from);
        tenth(part.clamp(0.0, 1.0).mul_add(WIDTH - LEFT - RIGHT, LEFT))
    }

    fn contains(&self, ms: u64) -> bool {
        let log = (ms.max(1) as f64).log10();
        (self.from..=self.to).contains(&log)
    }
}

/// The classes of a histogram that have a count.
fn used(it: &Histogram) -> impl Iterator<Item = Class> {
    it.classes().filter(|it| it.count > 0)
}

/// The length of a class's longest age, ms. The last class has no end: it is drawn as long
/// as it starts.
fn end_ms(it: &Class) -> u64 {
    it.to_ms.unwrap_or(it.from_ms.saturating_mul(2))
}

/// Lays out the histograms. `None` if there are no ages.
pub(super) fn chart(ages: &IdleAges, known: &[KnownTimeout]) -> Option<AgesChart> {
    let all = [&ages.idle_ends, &ages.other_ends, &ages.survived];
    let classes: Vec<_> = all.into_iter().flat_map(used).collect();
    let from_ms = classes.iter().map(|it| it.from_ms).min()?;
    let to_ms = classes.iter().map(end_ms).max()?;
    // What these hosts apply and what was given is shown in any case.
    let told = known
        .iter()
        .filter(|it| it.origin != TimeoutOrigin::Default);
    let told: Vec<_> = told.map(|it| it.seconds.saturating_mul(1_000)).collect();
    let from_ms = told.iter().copied().fold(from_ms, u64::min);
    let to_ms = told.iter().copied().fold(to_ms, u64::max);
    let axis = AgeAxis::new(from_ms, to_ms);

    let (ends_y, survived_y) = (LETTERS + PANEL, LETTERS + PANEL + AXIS);
    let bottom = survived_y + PANEL;
    let mut both = ages.idle_ends.clone();
    both.merge(&ages.other_ends);
    let most = |it: &Histogram| it.classes().map(|it| it.count).max().unwrap_or_default();
    let (most_ends, most_survived) = (most(&both), most(&ages.survived));
    let mut bars = Vec::new();
    for class in used(&both) {
        let other = count_at(&ages.other_ends, class.from_ms);
        let (idle, name) = (class.count - other, class_name(&class));
        let high = height(idle, most_ends);
        let title = format!("{name}: {idle} ends that an idle timeout explains");
        bars.extend((idle > 0).then(|| bar(&axis, &class, "idle-end", ends_y - high, high, title)));
        let more = height(other, most_ends);
        let title = format!("{name}: {other} other ends");
        let y = ends_y - high - more;
        bars.extend((other > 0).then(|| bar(&axis, &class, "other-end", y, more, title)));
    }
    for class in used(&ages.survived) {
        let silences = plural(class.count, "silence", "silences");
        let title = format!("{}: {silences} survived", class_name(&class));
        let high = height(class.count, most_survived);
        bars.push(bar(&axis, &class, "survived", survived_y, high, title));
    }
    let mut last_x = f64::MIN;
    let ticks = LABELS.into_iter().filter(|(ms, _)| axis.contains(*ms));
    let ticks = ticks.map(|(ms, label)| Tick {
        x: axis.x(ms),
        label: label.to_owned(),
    });
    let ticks = ticks.filter(|it| {
        let is_free = it.x - last_x > 60.0;
        last_x = if is_free { it.x } else { last_x };
        is_free
    });
    Some(AgesChart {
        width: WIDTH,
        height: bottom + 4.0,
        left: LEFT,
        right: WIDTH - RIGHT,
        ends_y,
        survived_y,
        bottom,
        axis_y: ends_y + AXIS / 2.0,
        bars,
        ticks: ticks.collect(),
        timeouts: timeout_marks(&axis, known),
        description: format!(
            "{} from {} to {}; {} from {} to {}.",
            plural(both.count(), "connection ended", "connections ended"),
            first(&both),
            last(&both),
            plural(
                ages.survived.count(),
                "silence was survived",
                "silences were survived"
            ),
            first(&ages.survived),
            last(&ages.survived),
        ),
        most_ends,
        most_survived,
    })
}

/// The count of the class that starts there.
fn count_at(it: &Histogram, from_ms: u64) -> u64 {
    let class = used(it).find(|it| it.from_ms == from_ms);
    class.map_or(0, |it| it.count)
}

fn first(it: &Histogram) -> String {
    used(it)
        .next()
        .map_or_else(nothing, |it| Ms(it.from_ms).to_string())
}

fn last(it: &Histogram) -> String {
    let last = used(it).last();
    last.map_or_else(nothing, |it| Ms(end_ms(&it)).to_string())
}

fn nothing() -> String {
    "-".to_owned()
}

fn class_name(it: &Class) -> String {
    match it.to_ms {
        Some(to_ms) => format!("{} to {}", Ms(it.from_ms), Ms(to_ms)),
        None => format!("{} and more", Ms(it.from_ms)),
    }
}

fn bar(
    axis: &AgeAxis,
    class: &Class,
    name: &'static str,
    y: f64,
    height: f64,
    title: String,
) -> AgeBar {
    let x = axis.x(class.from_ms);
    AgeBar {
        class: name,
        x,
        y: tenth(y),
        width: tenth((axis.x(end_ms(class)) - x - 1.0).max(1.0)),
        height,
        title,
    }
}

/// The height of a bar. What was counted is visible.
#[expect(
    clippy::cast_precision_loss,
    reason = "a tenth of a pixel is precise enough"
)]
fn height(count: u64, most: u64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    tenth((count as f64 / most.max(1) as f64 * (PANEL - 6.0)).max(2.0))
}

/// The known timeouts on the axis, each with a letter.
fn timeout_marks(axis: &AgeAxis, known: &[KnownTimeout]) -> Vec<TimeoutMark> {
    let shown = known
        .iter()
        .filter(|it| axis.contains(it.seconds.saturating_mul(1_000)));
    let mut last = [f64::MIN; ROWS];
    let mut marks = Vec::new();
    for (nth, it) in shown.enumerate() {
        let x = axis.x(it.seconds.saturating_mul(1_000));
        let row = (0..ROWS).find(|row| x - last[*row] >= NEAR).unwrap_or(0);
        last[row] = x;
        let up: f64 = (0..row).map(|_| LETTER_ROW).sum();
        marks.push(TimeoutMark {
            letter: letter(nth),
            x,
            y: LETTERS - 8.0 - up,
            class: match it.origin {
                TimeoutOrigin::Default => "default",
                TimeoutOrigin::Given | TimeoutOrigin::Host => "certain",
            },
            time: Ms(it.seconds.saturating_mul(1_000)).to_string(),
            names: it.names.join(", "),
            origin: it.origin.name(),
        });
    }
    marks
}

/// The letter of a timeout: a to z, then a2, b2 and so on.
fn letter(nth: usize) -> String {
    let letter = ('a'..='z').nth(nth % 26).unwrap_or('?');
    match nth / 26 {
        0 => letter.to_string(),
        more => format!("{letter}{}", more + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(ends: &[u64], survived: &[u64]) -> IdleAges {
        let mut ages = IdleAges::default();
        ends.iter().for_each(|ms| ages.idle_ends.add(*ms));
        survived.iter().for_each(|ms| ages.survived.add(*ms));
        ages
    }

    #[test]
    fn known_timeouts_are_marked_where_the_ages_are() {
        let ages = ages(&[351_000, 352_000], &[100_000, 200_000]);
        let given = KnownTimeout {
            seconds: 7,
            names: vec!["given".to_owned()],
            origin: TimeoutOrigin::Given,
        };
        let known = [&[given], ages.known(&[]).as_slice()].concat();
        let Some(chart) = chart(&ages, &known) else {
            unreachable!("there are ages");
        };
        assert_eq!((chart.most_ends, chart.most_survived), (2, 1));
        let times: Vec<_> = chart.timeouts.iter().map(|it| it.time.as_str()).collect();
        assert!(
            times.starts_with(&["7s"]) && times.contains(&"350s"),
            "{times:?}"
        );
        assert!(!times.contains(&"432000s"), "{times:?}");
        let find = |time: &str| chart.timeouts.iter().find(|it| it.time == time);
        let aws = find("350s").map(|it| it.names.as_str()).unwrap_or_default();
        assert!(
            aws.contains("AWS NLB") && aws.contains("AWS NAT gateway"),
            "{aws}"
        );
        let ends: Vec<_> = chart
            .bars
            .iter()
            .filter(|it| it.class == "idle-end")
            .collect();
        let x = find("350s").map(|it| it.x).unwrap_or_default();
        assert!(
            ends[0].x < x && x < ends[0].x + ends[0].width,
            "{ends:?} {x}"
        );
    }

    #[test]
    fn any_age_is_drawn_within_the_chart() {
        assert!(chart(&ages(&[], &[]), &ages(&[], &[]).known(&[])).is_none());
        for all in [&[0_u64][..], &[u64::MAX], &[0, 1, 10, 1 << 40, u64::MAX]] {
            for ages in [ages(all, &[]), ages(&[], all), ages(all, all)] {
                let Some(chart) = chart(&ages, &ages.known(&[])) else {
                    unreachable!("there are ages");
                };
                for bar in &chart.bars {
                    let is_in = bar.x >= chart.left && bar.x + bar.width <= chart.width;
                    assert!(
                        is_in && bar.y >= 0.0 && bar.y + bar.height <= chart.height,
                        "{bar:?}"
                    );
                }
                assert!(!chart.ticks.is_empty(), "{all:?}");
            }
        }
    }
}
