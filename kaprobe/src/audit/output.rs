//! Writes the audit: text for people, or JSON lines or CSV with one line per connection.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::audit::assessment::{self, Assessment};
use crate::audit::group::{Group, GroupKey, Groups};
use crate::audit::observation::{MAX_CONNECTIONS, ObservationCounts};
use crate::audit::words::remedy;
use crate::model::fate::{Fate, Why};
use crate::model::host_timeout::HostTimeout;
use crate::model::named::Named as _;
use crate::sink::options::Format;
use crate::sink::{CsvLines, JsonLines};
use crate::text::cell::{NOTHING, UNSEEN};
use crate::text::columns::{Cells, Column, Hidden, Screen, Table};
use crate::text::histogram::{Bars, Histogram};
use crate::text::units::{Ms, span};
use crate::text::wrap::wrapped;
use crate::timeout::middlebox::Answer;
use crate::timeout::timeouts::Timeouts;

/// Width of histograms, columns.
const WIDTH: usize = 72;

/// Writes an audit in one of the formats.
pub(super) enum AuditWriter<W: Write> {
    Text { out: W, style: AuditStyle },
    Json(JsonLines<W>),
    Csv(CsvLines<W>),
}

/// How the text format is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuditStyle {
    /// Write a header line.
    pub heading: bool,
    /// The characters of histograms.
    pub bars: Bars,
    /// The screen that lines have to fit; `None` to write all columns.
    pub screen: Option<Screen>,
    /// The most groups to write.
    pub max_rows: usize,
}

/// What a screen, or a number of rows, left no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The hidden columns.
    pub columns: Hidden,
    /// The number of groups that were written, and of all.
    pub rows: (usize, usize),
}

/// The last line of the JSON format.
#[derive(Serialize)]
struct SummaryLine<'a> {
    version: &'static str,
    summary: AuditSummary<'a>,
}

#[derive(Serialize)]
struct AuditSummary<'a> {
    connections: u64,
    dying: u64,
    zombie: u64,
    unprotected: u64,
    at_risk: u64,
    unknown: u64,
    kept_by_peer: u64,
    kept_by_traffic: u64,
    safe: u64,
    /// Safe connections that can't lose a probe.
    no_spare: u64,
    /// Connections with keepalive options that do nothing while SO_KEEPALIVE is off.
    unused_options: u64,
    loopback_left_out: u64,
    /// Absent without `--observe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<ObservationCounts>,
    timeouts: Vec<TimeoutLine<'a>>,
    heard_ms: &'a Histogram,
    silence_ms: &'a Histogram,
}

#[derive(Serialize)]
struct TimeoutLine<'a> {
    of: &'a str,
    ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshed_by_keepalive: Option<bool>,
    about: Cow<'a, str>,
}

impl<W: Write> AuditWriter<W> {
    pub(super) fn new(out: W, format: Format, style: AuditStyle) -> Self {
        match format {
            Format::Text => Self::Text { out, style },
            Format::Json => Self::Json(JsonLines::versioned(out, assessment::VERSION)),
            Format::Csv => Self::Csv(CsvLines::new(out, style.heading)),
        }
    }

    /// Writes the lines before the connections.
    pub(super) fn head(&mut self) -> io::Result<()> {
        match self {
            Self::Text { .. } | Self::Json(_) => Ok(()),
            Self::Csv(lines) => lines.put_heading::<Assessment>(),
        }
    }

    /// Writes a connection, if the format has a line for each.
    pub(super) fn assessment(&mut self, it: &Assessment) -> io::Result<()> {
        match self {
            Self::Text { .. } => Ok(()),
            Self::Json(lines) => lines.put(it),
            Self::Csv(lines) => lines.put(it),
        }
    }

    /// Writes the lines after the connections.
    pub(super) fn end(
        &mut self,
        groups: &Groups,
        timeouts: &Timeouts,
        observed: Option<ObservationCounts>,
    ) -> io::Result<LeftOut> {
        match self {
            Self::Text { out, style } => {
                let (text, left_out) = text(groups, timeouts, observed, *style);
                out.write_all(text.as_bytes())?;
                out.flush()?;
                return Ok(left_out);
            }
            Self::Json(lines) => {
                lines.put_value(&summary(groups, timeouts, observed))?;
                lines.flush()?;
            }
            Self::Csv(lines) => lines.flush()?,
        }
        Ok(LeftOut::default())
    }
}

fn summary<'a>(
    groups: &'a Groups,
    timeouts: &'a Timeouts,
    observed: Option<ObservationCounts>,
) -> SummaryLine<'a> {
    let everywhere = timeouts.everywhere().iter().map(|it| TimeoutLine {
        of: it.of.as_str(),
        ms: it.ms,
        refreshed_by_keepalive: match it.refreshed {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            Answer::Unknown => None,
        },
        about: (&*it.about).into(),
    });
    let host = timeouts.host().iter().map(|it| TimeoutLine {
        of: it.what.as_str(),
        ms: it.seconds.saturating_mul(1_000),
        refreshed_by_keepalive: Some(true),
        about: format!("this host's {}, for connections that pass there", it.name()).into(),
    });
    SummaryLine {
        version: assessment::VERSION,
        summary: AuditSummary {
            connections: groups.connections(),
            dying: groups.count(Fate::Dying),
            zombie: groups.count(Fate::Zombie),
            unprotected: groups.count(Fate::Unprotected),
            at_risk: groups.count(Fate::AtRisk),
            unknown: groups.count(Fate::Unknown),
            kept_by_peer: groups.count(Fate::KeptByPeer),
            kept_by_traffic: groups.count(Fate::KeptByTraffic),
            safe: groups.count(Fate::Safe),
            no_spare: groups.tight,
            unused_options: groups.unused_options,
            loopback_left_out: groups.loopback,
            observed,
            timeouts: everywhere.chain(host).collect(),
            heard_ms: &groups.quiet,
            silence_ms: &groups.silence,
        },
    }
}

/// Text in lines, wrapped where a screen limits them.
struct Lines {
    text: String,
    width: Option<usize>,
}

impl Lines {
    fn push(&mut self, line: &str) {
        self.push_below("", line);
    }

    /// Appends a line that begins with `indent`, as do those that it is wrapped into.
    fn push_below(&mut self, indent: &str, line: &str) {
        match self.width {
            Some(width) => self.text.push_str(&wrapped(indent, line, width)),
            None => self.text.extend([indent, line]),
        }
        self.text.push('\n');
    }
}

/// The report in the text format.
fn text(
    groups: &Groups,
    timeouts: &Timeouts,
    observed: Option<ObservationCounts>,
    style: AuditStyle,
) -> (String, LeftOut) {
    let mut lines = Lines {
        text: String::new(),
        width: style.screen.map(|it| it.width),
    };
    put_timeouts(&mut lines, timeouts);
    let left_out = put_groups(&mut lines, groups, timeouts, style);
    for (what, histogram) in [
        ("time since the peer was heard", &groups.quiet),
        ("longest silence that keepalive lets pass", &groups.silence),
    ] {
        put_histogram(&mut lines, what, histogram, style.bars);
    }
    lines.text.push('\n');
    if let Some(note) = observation_note(groups, observed) {
        lines.push(&note);
    }
    lines.push(&totals(groups));
    (lines.text, left_out)
}

/// What is said if connections can't be judged by a timeout.
const NO_TIMEOUT: &str = "no idle timeout is known: this host applies none itself (IPVS, conntrack); give \
     --idle-timeout, --behind or --log. Listed is what is dying anyway";

/// Appends the timeouts that the connections are judged by.
fn put_timeouts(lines: &mut Lines, timeouts: &Timeouts) {
    for it in timeouts.everywhere() {
        lines.push(&format!("idle timeout {}: {}", Ms(it.ms), it.about));
    }
    if timeouts.is_empty() {
        lines.push(NO_TIMEOUT);
    }
    if timeouts.is_learned() {
        lines.push("where the logs show an idle timeout, that is taken instead");
    }
    host_timeouts(lines, timeouts.host());
    if !timeouts.host().is_empty() {
        lines.push("each applies to the connections that are known to pass there");
    }
}

/// What is known of the connections' own traffic.
fn observation_note(groups: &Groups, observed: Option<ObservationCounts>) -> Option<String> {
    let Some(ObservationCounts {
        samples,
        ended,
        left_out,
    }) = observed
    else {
        let is_open = groups.count(Fate::Unprotected) + groups.count(Fate::AtRisk) > 0;
        return is_open.then(|| {
            "judged by one moment; --observe TIME shows which connections their own traffic or \
             their peers' probes keep alive"
                .to_owned()
        });
    };
    let mut note = format!("observed in {samples} samples; {ended} connections ended meanwhile");
    if left_out > 0 {
        // Writing to a String cannot fail.
        let _ = write!(
            note,
            "; {left_out} not observed: more than {MAX_CONNECTIONS} at once"
        );
    }
    Some(note)
}

/// Maximum number of namespaces that are named for one timeout.
const MOST_NAMED: usize = 4;

/// Appends a line for each timeout of this host: many containers may have the same.
fn host_timeouts(lines: &mut Lines, all: &[HostTimeout]) {
    let mut netns = BTreeMap::<_, Vec<_>>::new();
    for it in all {
        let same = netns.entry((it.what.as_str(), it.seconds)).or_default();
        same.push(it.netns_label());
    }
    for ((what, seconds), netns) in netns {
        let ms = Ms(seconds.saturating_mul(1_000));
        let (named, more) = netns.split_at(netns.len().min(MOST_NAMED));
        let more = match more.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let named = named.join(", ");
        lines.push(&format!(
            "idle timeout {ms} of this host's {what} in netns {named}{more}"
        ));
    }
}

/// The columns. The fate and what names the connections are worth most, then what keepalive
/// does and how long the peer was silent.
const COLUMNS: [Column; 8] = [
    Column::of_worth("FATE", 8, Cells::Whole),
    Column::of_worth("COUNT", 4, Cells::Whole),
    Column::of_worth("PROGRAM", 3, Cells::Names(12)),
    Column::of_worth("RUNS-IN", 2, Cells::Names(10)),
    Column::of_worth("NETNS", 1, Cells::Names(10)),
    Column::of_worth("TO", 7, Cells::Endpoints),
    Column::of_worth("PROBES-AFTER", 6, Cells::Whole),
    Column::of_worth("HEARD", 5, Cells::Whole),
];

fn cells(key: &GroupKey, group: &Group) -> [String; 8] {
    let peer = &key.peer;
    let workload = peer.workload.name();
    let silence = match (group.silence_ms, key.why) {
        (Some(range), _) => span(range),
        (None, Some(Why::NoSettings)) => UNSEEN.to_owned(),
        (None, _) => "off".to_owned(),
    };
    [
        key.fate.name().to_owned(),
        group.count.to_string(),
        peer.program(&group.pids),
        workload.unwrap_or_else(|| NOTHING.to_owned()),
        peer.netns().into_owned(),
        peer.peers.to_string(),
        silence,
        group.quiet_ms.map_or(UNSEEN.to_owned(), span),
    ]
}

/// The lines below a group: its timeout, if it is not the same for all, and its remedy.
fn notes(key: &GroupKey, group: &Group, timeouts: &Timeouts) -> Vec<String> {
    let about = key.timeout_about.as_ref();
    let about = about.filter(|_| !timeouts.host().is_empty());
    let timeout = about
        .zip(key.timeout_ms)
        .map(|(about, ms)| format!("idle timeout {}: {about}", Ms(ms)));
    timeout.into_iter().chain(remedy(key, group)).collect()
}

/// Appends a row for each group, the worst first, with its notes below.
fn put_groups(
    lines: &mut Lines,
    groups: &Groups,
    timeouts: &Timeouts,
    style: AuditStyle,
) -> LeftOut {
    let mut sorted = groups.sorted();
    if timeouts.is_empty() {
        // The first line and the last one say so of all of these.
        sorted.retain(|(key, _)| key.why != Some(Why::NoTimeout));
    }
    let count = sorted.len();
    if count == 0 {
        return LeftOut::default();
    }
    let rows = sorted.into_iter().take(style.max_rows);
    let rows: Vec<_> = rows
        .map(|(key, group)| (cells(key, group), notes(key, group, timeouts)))
        .collect();
    let all_cells = rows.iter().map(|(cells, _)| cells.as_slice());
    let mut table = Table::new(COLUMNS.into(), style.heading, all_cells, style.screen);
    lines.text.push('\n');
    if style.heading {
        table.put_heading(&mut lines.text);
    }
    for (cells, notes) in &rows {
        table.put(&mut lines.text, cells);
        for note in notes {
            lines.push_below("    ", note);
        }
    }
    LeftOut {
        columns: table.hidden,
        rows: (rows.len(), count),
    }
}

fn put_histogram(lines: &mut Lines, what: &str, histogram: &Histogram, bars: Bars) {
    if histogram.is_empty() {
        return;
    }
    lines.text.push('\n');
    lines.push(what);
    let width = lines.width.map_or(WIDTH, |it| it.min(WIDTH));
    for line in histogram.lines(width, bars) {
        lines.text.extend([&line, "\n"]);
    }
}

fn totals(groups: &Groups) -> String {
    let mut text = match groups.connections() {
        0 => "no established connection".to_owned(),
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    let mut before = ": ";
    for &fate in Fate::ALL {
        let count = groups.count(fate);
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{before}{count} {}", fate.name());
            before = ", ";
        }
    }
    if groups.tight > 0 {
        let _ = write!(text, ", {} of which can't lose a probe", groups.tight);
    }
    if groups.unused_options > 0 {
        let _ = write!(
            text,
            "; {} with keepalive options set and SO_KEEPALIVE off",
            groups.unused_options
        );
    }
    if groups.loopback > 0 {
        let _ = write!(
            text,
            "; {} of this host with itself left out",
            groups.loopback
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use insta::assert_snapshot;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::audit::observation::Observation;
    use crate::model::host_timeout::{HostRoute, HostTimeouts, NetnsRoutes};
    use crate::model::remedy::{ProgramAdvice, Reach, SetIn};
    use crate::model::row::Row;
    use crate::model::socket::{Ages, Endpoints};
    use crate::model::values::State;
    use crate::sample::{golden, with};
    use crate::text::cut::Ellipsis;
    use crate::text::escape::Escaped;
    use crate::timeout::timeouts::Timeout;

    const STYLE: AuditStyle = AuditStyle {
        heading: true,
        bars: Bars::Ascii,
        screen: None,
        max_rows: usize::MAX,
    };

    fn assessment(fate: Fate, why: Option<Why>, comm: &[u8]) -> Assessment {
        let [here, there] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        let sample = Assessment {
            fate,
            endpoints: Endpoints::new((here, 40_000), (there, 5672), 7),
            ..Assessment::default()
        };
        with(sample, |it| {
            it.why = why;
            it.timeout_ms = Some(350_000);
            it.process.pid = Some(42);
            it.process.comm = Some(Escaped::from_bytes(comm));
            it.ages.idle_ms = Some(400_000);
        })
    }

    /// Observes these connections for 120 s until they are as in the rows. Every other one
    /// has a heartbeat of 10 s; one had been silent for 400 s before it was heard again.
    fn observe(rows: &[Row]) -> Observation {
        let mut observation = Observation::new(MAX_CONNECTIONS);
        for before_s in (0..=120_u64).rev().step_by(10) {
            observation.begin_sample();
            let rows = rows.iter().filter(|it| it.state == State::Established);
            for (n, row) in rows.enumerate() {
                let mut row = row.clone();
                row.mono_ns -= before_s * 1_000_000_000;
                let age_ms = row.ages.idle_ms.unwrap_or_default();
                row.ages = if n == 4 && before_s > 60 {
                    Ages::new(400_000, 400_000, 400_000)
                } else if before_s == 0 {
                    row.ages
                } else if n % 2 == 0 {
                    Ages::new(100, 100, 100)
                } else {
                    Ages::new(age_ms.saturating_sub(before_s * 1_000), age_ms, age_ms)
                };
                observation.add(&row);
            }
        }
        observation
    }

    #[test]
    fn output_matches_the_golden_files() -> Result<(), String> {
        let rows = crate::sample::golden_rows()?;
        let middleboxes = crate::timeout::middlebox::middleboxes();
        let behind = |id: &str| {
            let it = middleboxes.iter().find(|it| it.id == id);
            it.map(|it| Timeout::of_middlebox(it, None))
        };
        let conntrack = HostTimeout {
            what: Escaped::from("conntrack"),
            netns: 4_026_532_999,
            netns_name: Some(Escaped::from("other")),
            seconds: 350,
            ..HostTimeout::default()
        };
        let ipvs = HostTimeout {
            what: Escaped::from("ipvs"),
            netns: 7,
            netns_name: None,
            seconds: 900,
            services: vec![([10, 0, 0, 1], 5672).into()],
            ..HostTimeout::default()
        };
        let route = HostRoute {
            to: "2001:db8::/32".parse().map_err(|why| format!("{why}"))?,
            through: vec![conntrack.netns],
        };
        let host = HostTimeouts {
            timeouts: vec![conntrack, ipvs],
            routes: vec![NetnsRoutes {
                netns: 4_026_531_840,
                routes: vec![route],
            }],
        };
        let everywhere = |it| Timeouts::new(it, Vec::new());
        let sets = [
            ("given", everywhere(vec![Timeout::given(350_000)])),
            ("observed", everywhere(vec![Timeout::given(350_000)])),
            (
                "behind",
                everywhere(
                    behind("azure-lb")
                        .into_iter()
                        .chain(behind("aws-nlb"))
                        .collect(),
                ),
            ),
            ("proxy", everywhere(behind("aws-alb").into_iter().collect())),
            ("host", Timeouts::of_host(host)),
        ];
        let screen = Screen {
            width: 80,
            ellipsis: Ellipsis::Unicode,
        };
        for (set, timeouts) in sets {
            for (extension, format, screen) in [
                ("txt", Format::Text, None),
                ("80.txt", Format::Text, Some(screen)),
                ("json", Format::Json, None),
                ("csv", Format::Csv, None),
            ] {
                let style = AuditStyle {
                    bars: Bars::Unicode,
                    screen,
                    ..STYLE
                };
                let mut out = Vec::new();
                let mut output = AuditWriter::new(&mut out, format, style);
                let mut groups = Groups::default();
                let mut observation = (set == "observed").then(|| observe(&rows));
                let mut write = || {
                    output.head()?;
                    for row in rows.iter().filter(|it| it.state == State::Established) {
                        let accepted = row.endpoints.lport == 5672;
                        let silences = observation.as_ref().and_then(|it| it.of(row));
                        let assessment = Assessment::of(row, accepted, &timeouts, silences);
                        groups.add(&assessment);
                        output.assessment(&assessment)?;
                    }
                    let observed = observation.as_mut().map(Observation::end);
                    output.end(&groups, &timeouts, observed)
                };
                let done = write();
                assert!(done.is_ok(), "{done:?}");
                if let Some(Screen { width, .. }) = screen {
                    let text = String::from_utf8_lossy(&out);
                    let fits = |line: &str| line.width() <= width || !line.trim().contains(' ');
                    assert!(text.lines().all(fits), "{text}");
                }
                let name = format!("audit-{set}.{extension}");
                golden::check(&name, &String::from_utf8_lossy(&out))?;
            }
        }
        Ok(())
    }

    #[test]
    fn timeouts_of_many_containers_are_one_line() {
        let container = |netns, seconds| HostTimeout {
            what: Escaped::from("conntrack"),
            netns,
            seconds,
            ..HostTimeout::default()
        };
        let mut all: Vec<_> = (1..=500).map(|netns| container(netns, 432_000)).collect();
        all.push(HostTimeout {
            netns_name: Some(Escaped::from("router")),
            ..container(501, 8)
        });
        let mut lines = Lines {
            text: String::new(),
            width: None,
        };
        host_timeouts(&mut lines, &all);
        assert_snapshot!(lines.text, @"
        idle timeout 8s of this host's conntrack in netns router
        idle timeout 432000s of this host's conntrack in netns 1, 2, 3, 4 and 496 more
        ");
    }

    /// What is dying is told without a timeout too, and what is not known is counted.
    #[test]
    fn without_a_timeout_the_dying_are_listed() {
        let mut groups = Groups::default();
        groups.add(&with(
            assessment(Fate::Dying, Some(Why::Unacknowledged), b"psql"),
            |it| {
                it.retransmits = Some(5);
                it.transfer.stalled_ms = Some(12_000);
                it.dead_in_ms = Some(900_000);
            },
        ));
        groups.add(&assessment(Fate::Unknown, Some(Why::NoTimeout), b"java"));
        let none = Timeouts::of_host(HostTimeouts::default());
        let (text, left_out) = text(&groups, &none, None, STYLE);
        assert_eq!(left_out.rows, (1, 1));
        let (table, _) = text.split_once("\ntime since").unwrap_or_default();
        assert_snapshot!(table, @r"
        no idle timeout is known: this host applies none itself (IPVS, conntrack); give --idle-timeout, --behind or --log. Listed is what is dying anyway

        FATE  COUNT PROGRAM  RUNS-IN NETNS TO            PROBES-AFTER HEARD
        dying 1     psql[42] -       7     10.0.0.2:5672 off          400s
            its data was retransmitted 5 times without an answer for 12s; unless the peer answers, the kernel gives up in 900s: the peer or the path to it is down, or a box between forgot the connection
        ");
        let last = text.lines().last();
        assert_eq!(last, Some("2 connections: 1 dying, 1 unknown"));
    }

    #[test]
    fn an_unseen_owner_differs_from_no_owner() {
        let mut groups = Groups::default();
        let ownerless = with(
            assessment(Fate::Unprotected, Some(Why::NotRefreshed), b""),
            |it| {
                it.process.pid = None;
                it.process.comm = None;
            },
        );
        let unseen = with(ownerless.clone(), |it| {
            it.identity.inode = Some(1);
        });
        let no_settings = with(
            assessment(Fate::Unknown, Some(Why::NoSettings), b"java"),
            |it| {
                it.ages.idle_ms = None;
            },
        );
        for it in [ownerless, unseen, no_settings] {
            groups.add(&it);
        }
        let timeouts = Timeouts::new(vec![Timeout::given(350_000)], Vec::new());
        let (text, _) = text(&groups, &timeouts, None, STYLE);
        let (table, _) = text.split_once("\ntime since").unwrap_or_default();
        assert_snapshot!(table, @r"
        idle timeout 350s: given by --idle-timeout

        FATE        COUNT PROGRAM  RUNS-IN NETNS TO            PROBES-AFTER HEARD
        unprotected 1     -        -       7     10.0.0.2:5672 off          400s
            keepalive can't help: raise the timeout of 350s, or let the program send data sooner
        unprotected 1     ?        -       7     10.0.0.2:5672 off          400s
            keepalive can't help: raise the timeout of 350s, or let the program send data sooner
        unknown     1     java[42] -       7     10.0.0.2:5672 ?            ?
            its settings can't be read
        ");
    }

    #[test]
    fn text_is_escaped_and_many_connections_are_one_row() {
        let mut groups = Groups::default();
        let set = |set_in, set| (Some(set_in), Some(Escaped::from(set)));
        let hostile = b"=\x1b[2J\n\" ,\xff\xe2\x80\xae";
        for client in 1..=4_000_u16 {
            let (set_in, set) = set(SetIn::Program, "SO_KEEPALIVE=1 TCP_KEEPIDLE=175");
            groups.add(&with(
                assessment(Fate::Unprotected, Some(Why::KeepaliveOff), hostile),
                |it| {
                    it.accepted = Some(true);
                    it.endpoints.lport = 5672;
                    it.endpoints.rport = 10_000 + client;
                    it.ages.idle_ms = Some(u64::from(client) * 100);
                    it.set_in = set_in;
                    it.set = set;
                    it.process.pid = Some(u32::from(client % 8));
                },
            ));
        }
        let (set_in, set) = set(SetIn::Sysctl, "net.ipv4.tcp_keepalive_time=175");
        groups.add(&Assessment {
            set_in,
            set,
            netns_name: Some(Escaped::from("a\tb c")),
            keepalive_next_ms: Some(6_800_000),
            silence_ms: Some(7_200_000),
            socket_set: Some(Escaped::from("TCP_KEEPIDLE=175")),
            own: ProgramAdvice {
                program: Some(Escaped::from("libpq")),
                program_set: Some(Escaped::from("keepalives_idle=175")),
                program_apply: Some(Escaped::from("in its connection string")),
                program_reaches: Some(Reach::New),
                ..ProgramAdvice::default()
            },
            ..with(
                assessment(Fate::AtRisk, Some(Why::LateProbe), b"psql"),
                |it| it.process.unit = Some(Escaped::from("backup.service")),
            )
        });
        groups.add(&assessment(Fate::Zombie, Some(Why::NoProbes), b"java"));
        groups.add(&Assessment {
            probes_spare: Some(0),
            silence_ms: Some(300_000),
            ..assessment(Fate::Safe, None, b"nginx")
        });
        groups.loopback = 3;
        let timeouts = Timeouts::new(vec![Timeout::given(350_000)], Vec::new());
        let (text, _) = text(&groups, &timeouts, None, STYLE);
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\t']));
        let (table, histograms) = text.split_once("\ntime since").unwrap_or_default();
        assert_snapshot!(table, @r#"
        idle timeout 350s: given by --idle-timeout

        FATE        COUNT PROGRAM                                      RUNS-IN        NETNS     TO               PROBES-AFTER HEARD
        zombie      1     java[42]                                     -              7         10.0.0.2:5672    off          400s
            silent for more than twice its idle timeout: it is dead, unless the peer sends probes of its own; end it in java[42], or by `ss -K` with its addresses and ports, and turn on SO_KEEPALIVE there
        unprotected 4000  =\u{1b}[2J\n"\x20,\xff\u{202e} (8 processes) -              7         clients of :5672 off          100ms..400s
            in =\u{1b}[2J\n"\x20,\xff\u{202e} (8 processes): SO_KEEPALIVE=1 TCP_KEEPIDLE=175 by setsockopt: reaches the sockets it is set on
            no sysctl turns it on
        at_risk     1     psql[42]                                     backup.service a\tb\x20c 10.0.0.2:5672    7200s        400s
            in psql of backup.service: keepalives_idle=175 (TCP_KEEPIDLE=175) in its connection string: reaches new connections only
            or in netns a\tb\x20c (7): net.ipv4.tcp_keepalive_time=175: reaches every program there that sets none of its own: new connections at once, open ones when their timers next fire, within 6800s
            1 silent for longer than 350s already
        safe        1     nginx[42]                                    -              7         10.0.0.2:5672    300s         400s
        "#);
        let lines: Vec<_> = histograms.lines().collect();
        assert!(
            lines.contains(
                &"[200s, 300s)    1000  ##################################################"
            )
        );
        assert!(lines.contains(&"longest silence that keepalive lets pass"));
        assert_eq!(
            lines.last(),
            Some(
                &"4003 connections: 1 zombie, 4000 unprotected, 1 at_risk, 1 safe, 1 of which can't lose a probe; 3 of this host with itself left out"
            )
        );
    }
}
