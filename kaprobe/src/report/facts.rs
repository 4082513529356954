//! What happened, in five sentences, from counts and verdicts. What is not known is said.

use std::collections::BTreeSet;

use crate::model::record::EventName;
use crate::model::values::VerdictName;
use crate::replay::summary::{row_name, timeout_sentence};
use crate::report::collect::Collection;
use crate::report::conversations::{ConversationCounts, Example};
use crate::report::rank::rank;
use crate::report::words::{arrow, verdict_text};
use crate::report::zone::Zone;
use crate::text::units::{Tenths, plural};

/// Most names in a sentence.
const MAX_NAMES: usize = 4;

/// Most bounds of idle timeouts in a sentence.
const MAX_BOUNDS: usize = 2;

/// What the sentences are made from.
pub(super) struct Facts<'a> {
    pub(super) all: &'a Collection,
    pub(super) counts: ConversationCounts,
    pub(super) best: Option<&'a Example>,
    pub(super) zone: &'a Zone,
    /// Lines of the logs that readers should know of.
    pub(super) remarks: u64,
    /// Why the rest of a log could not be read.
    pub(super) unread: Option<&'a str>,
    /// The logs were filtered when they were read.
    pub(super) is_filtered: bool,
}

impl Facts<'_> {
    /// The five sentences.
    pub(super) fn sentences(&self) -> [String; 5] {
        [
            self.what_was_read(),
            self.what_ended(),
            self.most_telling(),
            self.timeouts(),
            self.unknown(),
        ]
    }

    fn what_was_read(&self) -> String {
        let all = self.all;
        let records = all.summary.totals.records;
        let names: Vec<_> = all
            .host_names()
            .into_iter()
            .map(ToString::to_string)
            .collect();
        let hosts = match names.as_slice() {
            [] => "a host that is not known".to_owned(),
            [one] => format!("the host {one}"),
            _ => format!("{} hosts ({})", names.len(), listed(&names)),
        };
        let seen = self.counts.with_problem + self.counts.healthy;
        let connections = plural(seen, "connection", "connections");
        let records = plural(records, "record", "records");
        match all.span_ns() {
            None => format!("These logs of {hosts} have no record."),
            Some((from_ns, to_ns)) => {
                let ms = to_ns.abs_diff(from_ns) / 1_000_000;
                format!(
                    "From {} to {} ({}, {}), {hosts} recorded {records} on {connections}.",
                    self.zone.full(from_ns),
                    self.zone.full(to_ns),
                    self.zone.offsets(from_ns, to_ns),
                    span(ms),
                )
            }
        }
    }

    fn what_ended(&self) -> String {
        let ConversationCounts {
            with_problem,
            healthy,
            ..
        } = self.counts;
        let events = &self.all.events;
        let event = |it| {
            let events = events.get(&it).copied().unwrap_or_default();
            events.saturating_add(self.all.summed_probes)
        };
        let probes = plural(
            event(EventName::Probe),
            "probe was sent",
            "probes were sent",
        );
        let answers = match event(EventName::Answered) {
            0 => "no answer is known".to_owned(),
            it => plural(it, "answer is known", "answers are known"),
        };
        if with_problem == 0 {
            return format!("No connection had a problem in these records: {probes}, {answers}.");
        }
        let of = with_problem + healthy;
        let verdicts = self.verdicts();
        let verdicts = if verdicts.is_empty() {
            "no verdict was possible".to_owned()
        } else {
            format!("the verdicts are {verdicts}")
        };
        let had = if with_problem == 1 {
            "had a problem"
        } else {
            "had problems"
        };
        format!("{with_problem} of {of} connections {had}: {verdicts}; {probes}, {answers}.")
    }

    /// The verdicts with their counts, the most telling first.
    fn verdicts(&self) -> String {
        let mut all: Vec<(VerdictName, u64)> =
            self.all.verdicts.iter().map(|(a, b)| (*a, *b)).collect();
        all.sort_by_key(|(verdict, _)| rank(&BTreeSet::from([*verdict])));
        let all: Vec<_> = all
            .iter()
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        listed(&all)
    }

    fn most_telling(&self) -> String {
        let best = self.best.filter(|it| it.conversation.has_problem());
        let Some(Example { conversation, .. }) = best else {
            return "There is no end of a connection to explain.".to_owned();
        };
        let ends = arrow(conversation.ends);
        if let Some(story) = &conversation.story {
            return format!("The most telling connection is {ends}: {story}.");
        }
        let first = conversation
            .verdicts
            .iter()
            .min_by_key(|it| rank(&BTreeSet::from([it.verdict])));
        match first {
            Some(it) => {
                let text = verdict_text(it.verdict, it.confidence, it.idle_ms, it.advice.as_ref());
                format!("The most telling connection is {ends}: {text}.")
            }
            None => format!("On {ends}, for one, something went wrong that has no verdict yet."),
        }
    }

    fn timeouts(&self) -> String {
        let rows = self.all.summary.rows();
        let believed = rows.iter().filter_map(|row| {
            let timeout = row.counts.timeout.filter(|it| it.is_believed)?;
            let to = row_name(row);
            Some(format!("towards {to}, the {}", timeout_sentence(timeout)?))
        });
        let believed: Vec<_> = believed.collect();
        let fits: Vec<_> = self.all.fits.iter().map(ToString::to_string).collect();
        let learned = if believed.is_empty() {
            "These logs alone do not show where an idle timeout lies: that takes two deaths \
             after a silence which no single restart explains"
                .to_owned()
        } else {
            let more = match believed.len().saturating_sub(MAX_BOUNDS) {
                0 => String::new(),
                more => format!("; for {more} more endpoints, see below"),
            };
            let first = &believed[..believed.len().min(MAX_BOUNDS)];
            capitalized(&format!("{}{more}", first.join("; ")))
        };
        if fits.is_empty() {
            return format!("{learned}; no known timeout explains an end.");
        }
        format!(
            "{learned}; known timeouts that explain ends: {}.",
            listed(&fits)
        )
    }

    fn unknown(&self) -> String {
        let recording = &self.all.recording;
        let mut gaps = Vec::new();
        let lost = recording.lost_count();
        if lost > 0 {
            gaps.push(plural(lost, "event was lost", "events were lost"));
        }
        if recording.has_unknown_losses() {
            gaps.push("a hook missed events of which the number is not known".to_owned());
        }
        if let Some(why) = self.unread {
            gaps.push(format!("the rest of a log could not be read ({why})"));
        }
        if self.remarks > 0 {
            let remarks = plural(
                self.remarks,
                "remark on their lines",
                "remarks on their lines",
            );
            gaps.push(format!("the logs are not perfect ({remarks}, see below)"));
        }
        let blind = recording.traces.iter().filter(|it| !it.without.is_empty());
        let blind = blind.count();
        if blind > 0 {
            gaps.push(format!(
                "{} lacked hooks",
                plural(blind as u64, "trace", "traces")
            ));
        }
        if self.counts.forgotten > 0 {
            let forgotten = plural(self.counts.forgotten, "connection", "connections");
            gaps.push(format!("{forgotten} may count twice, for lack of room"));
        }
        if self.counts.one_ended > 0 {
            let one = plural(self.counts.one_ended, "problem was", "problems were");
            gaps.push(format!(
                "{one} recorded at one end only, so what the other end did is inferred"
            ));
        }
        if self.is_filtered {
            gaps.push("filters left records out when the logs were read".to_owned());
        }
        if gaps.is_empty() {
            return "Nothing is known to be missing: the logs report no lost event, and none breaks off."
                .to_owned();
        }
        format!("Not known: {}.", gaps.join("; "))
    }
}

/// A span of time: below two minutes in seconds, else in its two largest units.
fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0..=1, _) => Tenths(ms).to_string(),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{} {hours} h", plural(days, "day", "days")),
    }
}

/// The first names of a list, and how many more there are.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>();
    let first = first.join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|it| it.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
