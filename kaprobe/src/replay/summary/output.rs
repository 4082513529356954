//! A summary as text, at most 80 columns wide, and as JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::values::{LearnedOf, VerdictName};
use crate::replay::summary::{Place, Row, Summary, Timeout, Totals, Verdict};
use crate::text::cell::endpoint;
use crate::text::columns::{Column, end_line};
use crate::text::digits;
use crate::text::escape::Escaped;
use crate::text::histogram::{Bars, Histogram};
use crate::text::units::Ms;
use crate::text::wrap::wrapped;

/// How wide the text is.
const WIDTH: usize = 80;
/// The columns: of the endpoint, of its connections, of each event of [`COUNTED`].
const COLUMNS: [Column; 7] = [
    Column::new("REMOTE", 26),
    Column::new("CONNS", 8).right(),
    Column::new("PROBES", 8).right(),
    Column::new("ANSWERED", 8).right(),
    Column::new("TIMEOUTS", 8).right(),
    Column::new("RST-SENT", 8).right(),
    Column::new("RST-RCVD", 8).right(),
];
/// The events that have a column.
const COUNTED: [EventName; 5] = [
    EventName::Probe,
    EventName::Answered,
    EventName::Timeout,
    EventName::RstSent,
    EventName::RstReceived,
];
const INDENT: &str = "    ";

/// How a summary looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Look {
    /// For people.
    Text {
        /// With a heading.
        heading: bool,
        /// What histograms are drawn with.
        bars: Bars,
    },
    /// JSON lines: a row each, then the totals.
    Json,
}

/// Writes the summary.
///
/// # Errors
/// When it cannot be written.
pub(in crate::replay) fn write(
    out: &mut impl Write,
    summary: &Summary,
    look: Look,
) -> io::Result<()> {
    match look {
        Look::Text { heading, bars } => out.write_all(text(summary, heading, bars).as_bytes())?,
        Look::Json => {
            for place in summary.places() {
                serde_json::to_writer(&mut *out, &Line::from(place))?;
                out.write_all(b"\n")?;
            }
            let total = Total {
                total: summary.totals,
            };
            serde_json::to_writer(&mut *out, &total)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

fn text(summary: &Summary, heading: bool, bars: Bars) -> String {
    let mut text = String::new();
    if heading {
        for mut column in COLUMNS {
            column.put_heading(&mut text);
        }
        end_line(&mut text);
    }
    for place in summary.places() {
        let row = place.row;
        let counted = COUNTED.map(|event| row.of(event));
        put_row(&mut text, &name(&place), row.connections, counted);
        details(&mut text, row, bars);
    }
    let Totals {
        lost, forgotten, ..
    } = summary.totals;
    if lost > 0 {
        let _ = writeln!(
            text,
            "{lost} events were lost: counts and verdicts may lack them"
        );
    }
    if forgotten > 0 {
        let _ = writeln!(
            text,
            "{forgotten} sockets were forgotten for want of room: connections may count twice"
        );
    }
    text
}

/// A line of an endpoint and numbers; a long name has a line of its own.
fn put_row(text: &mut String, name: &str, connections: u64, counted: [u64; COUNTED.len()]) {
    let [mut first, mut second, rest @ ..] = COLUMNS;
    if first.fit(name) > first.width() {
        text.push_str(name);
        text.push('\n');
        first.put(text, |_| ());
    } else {
        first.put(text, |text| text.push_str(name));
    }
    second.put(text, |text| digits::number(text, connections));
    for (mut column, count) in rest.into_iter().zip(counted) {
        column.put(text, |text| digits::number(text, count));
    }
    end_line(text);
}

fn name(place: &Place<'_>) -> String {
    let remote = match (place.raddr, place.rport) {
        (None, _) => "all others".to_owned(),
        (Some(address), None) => format!("{address} (any port)"),
        (Some(address), Some(port)) => endpoint((address, port)),
    };
    match place.host {
        Some(host) => format!("{host} > {remote}"),
        None => remote,
    }
}

fn details(text: &mut String, row: &Row, bars: Bars) {
    for (name, verdict) in &row.verdicts {
        let (count, name) = (verdict.count, name.name());
        let advice = verdict.advice.as_ref().map_or("", |it| it.as_str());
        let told = match verdict.confidence {
            Some(it) => format!("{count} {name} ({}): {advice}", it.name()),
            None => format!("{count} {name}: {advice}"),
        };
        let _ = writeln!(text, "{}", wrapped(INDENT, &told, WIDTH));
    }
    if !row.idle.is_empty() {
        let _ = writeln!(text, "{INDENT}idle age at death:");
        for line in row.idle.lines(WIDTH - 2 * INDENT.len(), bars) {
            let _ = writeln!(text, "{INDENT}{INDENT}{line}");
        }
    }
    if let Some(told) = row.timeout.and_then(timeout) {
        let _ = writeln!(text, "{}", wrapped(INDENT, &told, WIDTH));
    }
}

/// What is known of an idle timeout, as a sentence.
fn timeout(it: Timeout) -> Option<String> {
    let what = match (it.survived_ms.map(Ms), it.died_ms.map(Ms)) {
        (Some(low), Some(high)) if it.is_believed => format!("lies between {low} and {high}"),
        (None, Some(high)) if it.is_believed => format!("is at most {high}"),
        (Some(low), Some(high)) => {
            format!("is not known: {low} was survived, {high} was not, once")
        }
        (None, Some(high)) => format!("is not known: {high} was not survived, once"),
        (Some(low), None) => format!("is more than {low}, if there is one"),
        (None, None) if it.contradictory => "is not known".to_owned(),
        (None, None) => return None,
    };
    let of = match it.of {
        LearnedOf::Endpoint => "",
        LearnedOf::Network => " of its network",
    };
    let doubt = if it.contradictory {
        ": the evidence contradicts itself: more than one timeout, or restarts"
    } else if it.is_believed {
        ", if one box is on the way"
    } else {
        ""
    };
    Some(format!("idle timeout{of} {what}{doubt}"))
}

#[derive(Serialize)]
struct Total {
    total: Totals,
}

/// A row, as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a Escaped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raddr: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rport: Option<u16>,
    connections: u64,
    events: Events<'a>,
    verdicts: Vec<VerdictLine<'a>>,
    idle_at_death: &'a Histogram,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<TimeoutLine>,
}

struct Events<'a>(&'a Row);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(
            self.0
                .events
                .iter()
                .map(|(event, count)| (event.name(), count)),
        )
    }
}

#[derive(Serialize)]
struct VerdictLine<'a> {
    verdict: &'static str,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a Escaped>,
}

#[derive(Serialize)]
struct TimeoutLine {
    learned_of: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    survived_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    died_ms: Option<u64>,
    contradictory: bool,
    believed: bool,
}

impl<'a> From<Place<'a>> for Line<'a> {
    fn from(
        Place {
            host,
            raddr,
            rport,
            row,
        }: Place<'a>,
    ) -> Self {
        let verdict = |(name, it): (&VerdictName, &'a Verdict)| VerdictLine {
            verdict: name.name(),
            count: it.count,
            confidence: it.confidence.map(|it| it.name()),
            advice: it.advice.as_ref(),
        };
        Self {
            host,
            raddr,
            rport,
            connections: row.connections,
            events: Events(row),
            verdicts: row.verdicts.iter().map(verdict).collect(),
            idle_at_death: &row.idle,
            idle_timeout: row.timeout.map(|it| TimeoutLine {
                learned_of: it.of.name(),
                survived_ms: it.survived_ms,
                died_ms: it.died_ms,
                contradictory: it.contradictory,
                believed: it.is_believed,
            }),
        }
    }
}
