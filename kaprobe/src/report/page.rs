//! The page: what the template shows. The template escapes every text for HTML; text of
//! logs is escaped for terminals besides, so that it is one line of visible characters.

use std::collections::BTreeSet;

use askama::Template;

use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::remedy::SetIn;
use crate::model::values::VerdictName;
use crate::replay::Remarks;
use crate::replay::summary::{row_name, timeout_sentence};
use crate::report::chart::{AgesChart, chart};
use crate::report::collect::Collection;
use crate::report::conversation::End;
use crate::report::conversations::{ConversationCounts, Example};
use crate::report::facts::Facts;
use crate::report::mark::Shape;
use crate::report::programs::{ProgramKey, ProgramName};
use crate::report::recording::RecordedTrace;
use crate::report::remedies::CommonAdvice;
use crate::report::timeline::{TimelineView, timeline};
use crate::report::words::Hosts;
use crate::report::zone::Zone;
use crate::text::cell::{NOTHING, endpoint};
use crate::text::units::{Ms, plural};
use crate::timeout::timeouts::Timeout;
use crate::version;

/// Most timelines that are drawn.
const MAX_TIMELINES: usize = 24;
/// Most marks and verdicts in all timelines: each has a drawing and a row. Those with fewer come
/// far below that.
const MAX_MARKS: usize = 1_000;
/// Most rows of a table.
const MAX_ROWS: usize = 100;
/// Most advice that is shown.
const MAX_ADVICE: usize = 24;

/// What a report is about, besides what the logs show.
pub(super) struct Context<'a> {
    pub(super) zone: Zone,
    /// Timeouts from the command line.
    pub(super) timeouts: &'a [Timeout],
    pub(super) remarks: &'a Remarks,
    /// Why the rest of a log could not be read.
    pub(super) unread: Option<String>,
    /// The filters of this report, as flags.
    pub(super) filters: Vec<String>,
}

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    title: String,
    version: &'static str,
    sentences: [String; 5],
    advice: Vec<AdviceView>,
    more_advice: Option<String>,
    /// The shapes of the marks that are drawn.
    shapes: BTreeSet<Shape>,
    timelines: Vec<TimelineView>,
    more_timelines: Option<String>,
    ages: Option<AgesChart>,
    bounds: Vec<[String; 2]>,
    endpoints: Vec<EndpointView>,
    more_endpoints: Option<String>,
    programs: Vec<ProgramView>,
    more_programs: Option<String>,
    traces: Vec<TraceView>,
    more_traces: Option<String>,
    losses: Vec<[String; 5]>,
    remarks: Vec<String>,
    more_remarks: Option<String>,
    filters: Vec<String>,
}

/// Advice, and the commands to follow it.
struct AdviceView {
    verdict: &'static str,
    confidence: &'static str,
    count: String,
    service: String,
    host: String,
    /// What was seen, and what to do; either may be empty.
    seen: String,
    advised: String,
    /// Where the commands belong.
    place: Option<&'static str>,
    commands: Vec<String>,
    check: String,
}

/// A remote endpoint.
struct EndpointView {
    name: String,
    counts: [u64; 7],
    verdicts: String,
}

/// A program.
struct ProgramView {
    host: String,
    name: String,
    counts: [u64; 3],
    settings: String,
    verdicts: String,
}

/// A trace.
struct TraceView {
    host: String,
    kernel: String,
    kaprobe: String,
    started: String,
    hooks: String,
    without: String,
    filters: String,
    /// Over which time answered probes are summed.
    summed: Option<String>,
    timeouts: String,
}

impl Page {
    /// Makes the page.
    pub(super) fn new(mut all: Collection, context: &Context<'_>) -> Self {
        let conversations = std::mem::take(&mut all.conversations);
        let (examples, counts) = conversations.finish(MAX_TIMELINES);
        let examples = within_room(examples);
        let (hosts, zone) = (Hosts(&all), &context.zone);
        let remarks = context.remarks;
        let facts = Facts {
            all: &all,
            counts,
            best: examples.first(),
            zone,
            remarks: remarks.kept.len() as u64 + remarks.more,
            unread: context.unread.as_deref(),
            is_filtered: !context.filters.is_empty(),
        };
        let known = all.ages.known(context.timeouts);
        let advice = all.remedies.sorted();
        let rows = all.summary.rows();
        let programs = all.programs.rows();
        let traces = &all.recording.traces;
        Self {
            title: title(&all),
            version: version::NUMBER,
            sentences: facts.sentences(),
            more_advice: more(
                advice.len(),
                MAX_ADVICE,
                all.remedies.more,
                "more kind of advice",
                "more kinds of advice",
            ),
            advice: first(&advice, MAX_ADVICE, |it| advice_view(it, &hosts)),
            shapes: examples.iter().flat_map(shapes).collect(),
            more_timelines: more_timelines(&examples, counts),
            timelines: (1..)
                .zip(&examples)
                .map(|(number, it)| timeline(number, it, &hosts, zone))
                .collect(),
            ages: chart(&all.ages, &known),
            bounds: rows
                .iter()
                .filter_map(|row| {
                    let sentence = timeout_sentence(row.counts.timeout?)?;
                    Some([row_name(row), sentence])
                })
                .take(MAX_ROWS)
                .collect(),
            more_endpoints: more(rows.len(), MAX_ROWS, 0, "more endpoint", "more endpoints"),
            endpoints: first(&rows, MAX_ROWS, |row| EndpointView {
                name: row_name(row),
                counts: [
                    row.counts.connections,
                    row.counts.event_count(EventName::Probe),
                    row.counts.event_count(EventName::Answered),
                    row.counts.event_count(EventName::Stalled),
                    row.counts.event_count(EventName::Timeout),
                    row.counts.event_count(EventName::RstSent),
                    row.counts.event_count(EventName::RstReceived),
                ],
                verdicts: listed(row.counts.verdict_counts()),
            }),
            more_programs: more(programs.len(), MAX_ROWS, 0, "more program", "more programs"),
            programs: first(&programs, MAX_ROWS, |(key, counts)| {
                let (host, name) = program_name(*key, &hosts);
                let mut settings: Vec<_> = counts.settings.iter().cloned().collect();
                if counts.has_more_settings {
                    settings.push("and others".to_owned());
                }
                ProgramView {
                    host,
                    name,
                    counts: [counts.sockets, counts.probes, counts.answered],
                    settings: or_nothing(settings.join("; ")),
                    verdicts: listed(counts.verdicts.iter().map(|(a, b)| (*a, *b))),
                }
            }),
            more_traces: more(
                traces.len(),
                traces.len(),
                all.recording.more_traces,
                "more trace",
                "more traces",
            ),
            traces: traces.iter().map(|it| trace_view(it, zone)).collect(),
            losses: losses(&all, &hosts),
            remarks: remarks.kept.clone(),
            more_remarks: more(0, 0, remarks.more, "more remark", "more remarks"),
            filters: context.filters.clone(),
        }
    }
}

/// The first examples whose marks have room on the page: one at least.
fn within_room(mut examples: Vec<Example>) -> Vec<Example> {
    let mut marks = 0;
    let has_room = |it: &Example| {
        let lanes = it.conversation.lanes.iter();
        marks += lanes.map(|it| it.marks.len()).sum::<usize>();
        marks += it.conversation.verdicts.len();
        marks <= MAX_MARKS
    };
    let fit = examples.iter().map(has_room).take_while(|it| *it).count();
    examples.truncate(fit.max(1));
    examples
}

/// The shapes of the marks of an example.
fn shapes(example: &Example) -> impl Iterator<Item = Shape> {
    let lanes = example.conversation.lanes.iter();
    lanes.flat_map(|it| it.marks.iter().map(|mark| mark.shape))
}

/// The title: the hosts of the logs.
fn title(all: &Collection) -> String {
    let names = all.host_names();
    let mut first: Vec<_> = names.iter().take(3).map(ToString::to_string).collect();
    if names.len() > first.len() {
        first.push(format!("{} more", names.len() - first.len()));
    }
    if first.is_empty() {
        first.push("host not known".to_owned());
    }
    format!("TCP keepalive: {}", first.join(", "))
}

/// Views of the first items.
fn first<T, V>(all: &[T], most: usize, view: impl Fn(&T) -> V) -> Vec<V> {
    all.iter().take(most).map(view).collect()
}

/// How many items are not shown: those after the first `most`, and `besides`.
fn more(all: usize, most: usize, besides: u64, one: &str, many: &str) -> Option<String> {
    let count = all.saturating_sub(most) as u64 + besides;
    (count > 0).then(|| plural(count, one, many))
}

/// How many connections have no timeline.
fn more_timelines(shown: &[Example], counts: ConversationCounts) -> Option<String> {
    let shown_problems = shown.iter().filter(|it| it.conversation.has_problem());
    let problems = counts.with_problem - shown_problems.count() as u64;
    let healthy = shown.iter().filter(|it| !it.conversation.has_problem());
    let healthy = counts.healthy - healthy.count() as u64;
    let parts = [(problems, "with a problem"), (healthy, "without a problem")];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", plural(count, "connection", "connections")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn or_nothing(text: String) -> String {
    if text.is_empty() {
        NOTHING.to_owned()
    } else {
        text
    }
}

fn listed(verdicts: impl Iterator<Item = (VerdictName, u64)>) -> String {
    let verdicts = verdicts.map(|(verdict, count)| format!("{count} {verdict}"));
    or_nothing(verdicts.collect::<Vec<_>>().join(", "))
}

fn program_name(key: Option<&ProgramKey>, hosts: &Hosts<'_>) -> (String, String) {
    match key {
        Some((host, program)) => (
            hosts.name(*host),
            program
                .as_ref()
                .map_or_else(|| "not known".to_owned(), ProgramName::text),
        ),
        None => (NOTHING.to_owned(), "all others".to_owned()),
    }
}

fn advice_view(it: &CommonAdvice, hosts: &Hosts<'_>) -> AdviceView {
    let (seen, advised) = it.text.as_ref().map_or(("", ""), |it| it.parts());
    AdviceView {
        verdict: it.verdict.name(),
        confidence: it.confidence.map_or(NOTHING, |it| it.name()),
        count: plural(it.count, "time", "times"),
        service: endpoint(it.service),
        host: hosts.name(it.host),
        seen: seen.to_owned(),
        advised: advised.to_owned(),
        place: it.remedy.as_ref().map(|it| place(it.set_in)),
        commands: it
            .remedy
            .as_ref()
            .map(|it| it.commands())
            .unwrap_or_default(),
        check: check(it.service),
    }
}

/// Where the commands of a remedy belong.
const fn place(set_in: SetIn) -> &'static str {
    match set_in {
        SetIn::Program => "In the program, on the socket of each connection:",
        SetIn::Peer => "In the program at the remote end, on the socket of each connection:",
        SetIn::Sysctl => {
            "On that host, for all programs in the network namespace that do not set it \
             themselves; until the next boot:"
        }
    }
}

/// The command that shows the settings in force.
fn check((address, port): End) -> String {
    format!("sudo kaprobe sockets --all-netns --addr {address} -P {port} -w")
}

fn trace_view(it: &RecordedTrace, zone: &Zone) -> TraceView {
    let hooks = it
        .hooks
        .iter()
        .map(|(hook, mode)| format!("{hook} by {mode}"));
    TraceView {
        host: it.host.to_string(),
        kernel: it.kernel.to_string(),
        kaprobe: it.kaprobe.to_string(),
        started: format!("{} {}", zone.full(it.started.0), zone.offset(it.started.0)),
        hooks: or_nothing(hooks.collect::<Vec<_>>().join(", ")),
        without: it.without.join(", "),
        filters: or_nothing(
            it.filters
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        summed: it.summed_ms.map(|ms| Ms(ms).to_string()),
        timeouts: or_nothing(it.timeouts.join(", ")),
    }
}

fn losses(all: &Collection, hosts: &Hosts<'_>) -> Vec<[String; 5]> {
    let losses = all.recording.losses.iter().map(|(key, count)| {
        [
            hosts.name(key.host),
            key.hook.map_or(NOTHING, |it| it.name()).to_owned(),
            key.kind.map_or("any event", |it| it.name()).to_owned(),
            key.why.map_or(NOTHING, |it| it.name()).to_owned(),
            count.map_or_else(|| "not known".to_owned(), |it| it.to_string()),
        ]
    });
    losses.collect()
}
