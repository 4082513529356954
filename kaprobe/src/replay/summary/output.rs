//! Writes a summary as text, at most 80 columns wide, or as JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::values::{LearnedOf, VerdictName};
use crate::replay::summary::counts::{
    AdviceCounts, EndpointCounts, LearnedTimeout, ProbeCounts, ReplaySummary, RowPort, SummaryRow,
    Totals, VerdictCount,
};
use crate::sink::JsonLines;
use crate::text::cell::endpoint;
use crate::text::columns::{Column, end_line};
use crate::text::digits;
use crate::text::escape::Escaped;
use crate::text::histogram::{Bars, Histogram};
use crate::text::units::{Ms, plural};
use crate::text::wrap::wrapped;

/// Version of the JSON format, which each line bears. The major number changes when a reader
/// of the old format would misread the new one.
const VERSION: &str = "1.3";

/// Width of the text, columns.
const WIDTH: usize = 80;
/// The columns: endpoint, connections, and the events of [`COUNTED`].
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

/// The format of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SummaryFormat {
    /// Text for people.
    Text {
        /// With a heading.
        heading: bool,
        /// The characters that draw histograms.
        bars: Bars,
    },
    /// JSON lines: a row each, then the totals.
    Json,
}

/// Writes the summary.
///
/// # Errors
/// If writing fails.
pub(crate) fn write(
    out: &mut impl Write,
    summary: &ReplaySummary,
    format: SummaryFormat,
) -> io::Result<()> {
    match format {
        SummaryFormat::Text { heading, bars } => {
            out.write_all(text(summary, heading, bars).as_bytes())?
        }
        SummaryFormat::Json => {
            let mut lines = JsonLines::new(&mut *out);
            for row in summary.rows() {
                lines.put_value(&JsonRow::from(row))?;
            }
            lines.put_value(&JsonTotals {
                version: VERSION,
                total: summary.totals(),
            })?;
        }
    }
    out.flush()
}

fn text(summary: &ReplaySummary, heading: bool, bars: Bars) -> String {
    let mut text = String::new();
    if heading {
        for mut column in COLUMNS {
            column.put_heading(&mut text);
        }
        end_line(&mut text);
    }
    for row in summary.rows() {
        let counts = row.counts;
        let counted = COUNTED.map(|event| counts.event_count(event));
        put_row(&mut text, &row_name(&row), counts.connections, counted);
        details(&mut text, counts, bars);
    }
    let Totals {
        lost,
        silenced,
        forgotten,
        probes,
        ..
    } = summary.totals();
    if let Some(ProbeCounts {
        sent,
        answered,
        unanswered,
    }) = probes.filter(|it| it.unanswered > 0)
    {
        let sent = plural(sent, "probe", "probes");
        let _ = writeln!(text, "{sent}: {answered} answered, {unanswered} not");
    }
    if lost > 0 {
        let _ = writeln!(
            text,
            "{lost} events were lost: counts and verdicts may lack them"
        );
    }
    if silenced {
        text.push_str(
            "a hook was switched off for some time: counts and verdicts may lack events\n",
        );
    }
    if forgotten > 0 {
        let _ = writeln!(
            text,
            "{forgotten} sockets were forgotten for lack of room: connections may count twice"
        );
    }
    text
}

/// Appends the line of an endpoint. A long name gets its own line.
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

/// The endpoint of a row for people.
pub(crate) fn row_name(row: &SummaryRow<'_>) -> String {
    let remote = match (row.raddr, row.port) {
        (None, _) => "all others".to_owned(),
        (Some(address), None) => format!("{address} (any port)"),
        (Some(address), Some(RowPort::Remote(port))) => endpoint((address, port)),
        (Some(address), Some(RowPort::Local(port))) => format!("{address} to port {port}"),
    };
    match row.host {
        Some(host) => format!("{host} > {remote}"),
        None => remote,
    }
}

fn details(text: &mut String, counts: &EndpointCounts, bars: Bars) {
    for (name, verdict) in verdicts(counts) {
        let count = verdict.count;
        let advice = verdict
            .advice
            .as_ref()
            .map_or("other advice", |it| it.as_str());
        let sentence = match verdict.confidence {
            Some(it) => format!("{count} {name} ({}): {advice}", it.name()),
            None => format!("{count} {name}: {advice}"),
        };
        let _ = writeln!(text, "{}", wrapped(INDENT, &sentence, WIDTH));
    }
    if !counts.idle.is_empty() {
        let _ = writeln!(text, "{INDENT}idle age at death:");
        for line in counts.idle.lines(WIDTH - 2 * INDENT.len(), bars) {
            let _ = writeln!(text, "{INDENT}{INDENT}{line}");
        }
    }
    if let Some(sentence) = counts.timeout.and_then(timeout_sentence) {
        let _ = writeln!(text, "{}", wrapped(INDENT, &sentence, WIDTH));
    }
}

/// The verdicts of a row, each advice on its own.
fn verdicts(counts: &EndpointCounts) -> impl Iterator<Item = (&'static str, &VerdictCount)> {
    let each = |(name, all): (&VerdictName, _)| {
        let name = name.name();
        AdviceCounts::sorted(all)
            .into_iter()
            .map(move |it| (name, it))
    };
    counts.verdicts.iter().flat_map(each)
}

/// Describes the bounds of an idle timeout in a sentence.
pub(crate) fn timeout_sentence(it: LearnedTimeout) -> Option<String> {
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
struct JsonTotals {
    version: &'static str,
    total: Totals,
}

/// A row in JSON.
#[derive(Serialize)]
struct JsonRow<'a> {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a Escaped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raddr: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lport: Option<u16>,
    connections: u64,
    events: Events<'a>,
    verdicts: Vec<VerdictLine<'a>>,
    idle_at_death: &'a Histogram,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<TimeoutLine>,
}

struct Events<'a>(&'a EndpointCounts);

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

impl<'a> From<SummaryRow<'a>> for JsonRow<'a> {
    fn from(
        SummaryRow {
            host,
            raddr,
            port,
            counts,
        }: SummaryRow<'a>,
    ) -> Self {
        let (rport, lport) = match port {
            Some(RowPort::Remote(port)) => (Some(port), None),
            Some(RowPort::Local(port)) => (None, Some(port)),
            None => (None, None),
        };
        let verdict = |(verdict, it): (&'static str, &'a VerdictCount)| VerdictLine {
            verdict,
            count: it.count,
            confidence: it.confidence.map(|it| it.name()),
            advice: it.advice.as_ref(),
        };
        Self {
            version: VERSION,
            host,
            raddr,
            rport,
            lport,
            connections: counts.connections,
            events: Events(counts),
            verdicts: verdicts(counts).map(verdict).collect(),
            idle_at_death: &counts.idle,
            idle_timeout: counts.timeout.map(|it| TimeoutLine {
                learned_of: it.of.name(),
                survived_ms: it.survived_ms,
                died_ms: it.died_ms,
                contradictory: it.contradictory,
                believed: it.is_believed,
            }),
        }
    }
}
