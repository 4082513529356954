//! Explains records in plain words. The same records give the same text: there is no clock
//! and no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::demo::connections::DemoConnection;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::model::values::{Cause, Direction, Errno};
use crate::sink::{Layout, Problem};
use crate::text::units::{Tenths, plural};
use crate::text::wrap::wrapped;

/// How wide the text is at most.
const WIDTH: usize = 80;

/// Explains the records of the demo's connections.
#[derive(Debug)]
pub(super) struct Explainer {
    /// Each connection by its local port.
    connections: Vec<(u16, DemoConnection)>,
    started: WallTime,
    /// The reasons that were given: each is given once.
    given: BTreeSet<String>,
    seen: BTreeMap<char, BTreeMap<EventName, u32>>,
    /// How a verdict is laid out.
    layout: Layout,
}

impl Explainer {
    /// An explainer of these connections, each by its local port.
    #[must_use]
    pub fn new(connections: Vec<(u16, DemoConnection)>, layout: Layout) -> Self {
        Self {
            connections,
            started: WallTime::default(),
            given: BTreeSet::new(),
            seen: BTreeMap::new(),
            layout: Layout {
                columns: layout.columns.min(WIDTH),
                ..layout
            },
        }
    }

    /// Sets the time that seconds are counted from.
    pub fn start(&mut self, at: WallTime) {
        self.started = at;
    }

    /// Names the connections and what will happen to each.
    #[must_use]
    pub fn introduction(&self) -> String {
        let mut text = String::new();
        for (port, it) in &self.connections {
            let head = format!("  {}  port {port:<5}  ", it.letter);
            let _ = writeln!(text, "{}", self.wrapped(&head, it.summary));
        }
        text
    }

    /// Explains a record, in a line or more. `None` when it is not of these connections.
    pub fn explain(&mut self, record: &Record) -> Option<String> {
        if record.event == EventName::Lost {
            return Some(self.paragraph(record, ' ', &lost(record)));
        }
        // What the far side does belongs to the same connection.
        let ends = [
            record.endpoints.map(|it| it.lport),
            record.endpoints.map(|it| it.rport),
        ];
        let (_, connection) = *self
            .connections
            .iter()
            .find(|(port, _)| ends.contains(&Some(*port)))?;
        let letter = connection.letter;
        *self
            .seen
            .entry(letter)
            .or_default()
            .entry(record.event)
            .or_default() += 1;
        if record.event == EventName::Verdict {
            let problem = Problem::of(record)?;
            let text = self.layout.problem(&self.head(record, letter), &problem);
            return Some(text.trim_end().to_owned());
        }
        let (what, why) = what_and_why(record);
        let text = if why.is_empty() || !self.given.insert(why.clone()) {
            what
        } else {
            format!("{what}. {why}")
        };
        Some(self.paragraph(record, letter, &text))
    }

    /// Counts what was seen of each connection, and says what it means in production.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let mut text = String::new();
        for (_, it) in &self.connections {
            let seen = self.seen.get(&it.letter);
            let seen = seen.map_or_else(|| "no events".to_owned(), counts);
            let seen = self.wrapped(&format!("  {}  ", it.letter), &seen);
            let _ = writeln!(text, "{seen}\n{}", self.wrapped("     ", it.explanation));
        }
        text
    }

    fn paragraph(&self, record: &Record, letter: char, words: &str) -> String {
        self.wrapped(&self.head(record, letter), words)
    }

    /// Lines that the screen has room for.
    pub fn wrapped(&self, head: &str, words: &str) -> String {
        wrapped(head, words, self.layout.columns)
    }

    /// The time of a record, and its connection.
    fn head(&self, record: &Record, letter: char) -> String {
        let ms = record.time.0.saturating_sub(self.started.0) / 1_000_000;
        let at = Tenths(ms.unsigned_abs()).to_string();
        format!("{at:>6}  {letter}  ")
    }
}

/// What happened, and why.
fn what_and_why(record: &Record) -> (String, String) {
    match record.event {
        EventName::Probe => probe(record),
        EventName::Answered => answered(record),
        EventName::Timeout => timeout(record),
        EventName::RstSent if record.firing_ns.is_some() => (
            "sends a reset, in case the peer can still receive it".into(),
            String::new(),
        ),
        EventName::RstSent if record.direction == Some(Direction::Passive) => (
            "the far side answers with a reset: it does not know this connection".into(),
            "When a load balancer has forgotten the connection, the far side is another \
             server, which it sends this segment to."
                .into(),
        ),
        EventName::RstReceived => (
            "receives a reset: the connection is over".into(),
            String::new(),
        ),
        EventName::Stalled => stalled(record),
        EventName::Resumed => (
            "is heard again: the data is acknowledged".into(),
            "Whatever dropped the packets let one pass.".into(),
        ),
        EventName::FinReceived => (
            format!(
                "is closed by the program at the other side, after {} without data",
                Tenths(quiet_ms(record))
            ),
            "Keepalive probes are no data: the program there never sees them.".into(),
        ),
        EventName::FinSent => ("is closed by its program".into(), String::new()),
        EventName::Aborted => (
            "ends at one side without a FIN or a reset: the other is not told".into(),
            String::new(),
        ),
        EventName::Closed => closed(record),
        EventName::DataPending => (
            format!("sends no probe: {} unacknowledged", segments(record)),
            "The kernel retransmits the data, and does not probe meanwhile.".into(),
        ),
        EventName::Early => (
            format!(
                "sends no probe: it heard the peer {} ago, and checks again in {}",
                Tenths(record.ages.idle_ms.unwrap_or_default()),
                Tenths(record.next_ms.unwrap_or_default())
            ),
            "Traffic counts as an answer.".into(),
        ),
        other => (other.name().into(), String::new()),
    }
}

fn probe(record: &Record) -> (String, String) {
    let n = record.probe.unwrap_or_default();
    let of = record.settings.keepalive_probes.unwrap_or_default();
    let idle = Tenths(record.ages.idle_ms.unwrap_or_default());
    if n > 1 {
        return (
            format!("sends probe {n} of {of}: no answer, nothing heard for {idle}"),
            String::new(),
        );
    }
    (
        format!("sends probe {n} of {of}: nothing heard for {idle}"),
        "A probe is an empty segment that the peer's kernel has to acknowledge.".into(),
    )
}

fn answered(record: &Record) -> (String, String) {
    let what = match record.answered_after_ms {
        None | Some(0) => "answered at once".into(),
        Some(ms) => format!("answered within {}", Tenths(ms)),
    };
    let why = "The peer's kernel replied; no application noticed. (Shown late: kaprobe sees \
               it when the timer fires again.)";
    (what, why.into())
}

fn segments(record: &Record) -> String {
    match record.unacked {
        Some(1) => "1 segment is".into(),
        Some(n) => format!("{n} segments are"),
        None => "data is".into(),
    }
}

fn stalled(record: &Record) -> (String, String) {
    let what = format!(
        "has retransmitted {} {} times in {}, without an answer, after {} of silence",
        plural(
            record.transfer.unacked_bytes.unwrap_or_default().into(),
            "byte",
            "bytes"
        ),
        record.retransmits.unwrap_or_default(),
        Tenths(record.transfer.stalled_ms.unwrap_or_default()),
        Tenths(record.transfer.silent_ms.unwrap_or_default()),
    );
    let until = record.dead_in_ms.map_or(String::new(), |ms| {
        format!(
            "The kernel goes on for {} more, then it gives up.",
            Tenths(ms)
        )
    });
    (what, until)
}

/// The time without data, ms.
fn quiet_ms(record: &Record) -> u64 {
    let (lastrcv, lastsnd) = (record.ages.lastrcv_ms, record.ages.lastsnd_ms);
    lastrcv.unwrap_or_default().min(lastsnd.unwrap_or_default())
}

fn timeout(record: &Record) -> (String, String) {
    let idle = Tenths(record.ages.idle_ms.unwrap_or_default());
    let why = match record.cause {
        Some(Cause::UserTimeout) => format!(
            "gives up after {idle}: TCP_USER_TIMEOUT of {} has passed",
            Tenths(record.settings.user_timeout_ms.unwrap_or_default().into())
        ),
        Some(Cause::Retransmission) => format!(
            "gives up after {}: data was retransmitted {} times, without an answer",
            Tenths(record.transfer.stalled_ms.unwrap_or_default()),
            record.retransmits.unwrap_or_default()
        ),
        Some(Cause::ZeroWindow) => format!(
            "gives up after {idle}: {} probes of its closed window without an answer",
            record.probes_out.unwrap_or_default()
        ),
        Some(Cause::ProbeCount) | None => format!(
            "gives up after {idle}: {} probes without an answer",
            record.probes_out.unwrap_or_default()
        ),
    };
    (why, error_of(record))
}

fn closed(record: &Record) -> (String, String) {
    const ECONNRESET: Errno = Errno(libc::ECONNRESET.cast_unsigned());
    match record.err {
        Some(ECONNRESET) => (
            "is closed: its probe was answered with a reset".into(),
            format!(
                "The other side had forgotten the connection. {}",
                error_of(record)
            ),
        ),
        _ => (
            "is closed: the application closed its socket".into(),
            String::new(),
        ),
    }
}

fn error_of(record: &Record) -> String {
    let err = record.err.map(|err| err.to_string());
    let err = err.as_deref().unwrap_or("an error");
    format!("The application gets {err} from its next call.")
}

fn lost(record: &Record) -> String {
    match record.lost {
        Some(lost) => format!("kaprobe could not keep up: {lost} events are missing"),
        None => "a hook was switched off: events are missing".to_owned(),
    }
}

/// `3× probe, 2× answered, 1× closed`.
fn counts(seen: &BTreeMap<EventName, u32>) -> String {
    let each = seen
        .iter()
        .map(|(event, n)| format!("{n}× {}", event.name()));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::demo::connections::CONNECTIONS;
    use crate::sample::with;

    fn record(event: EventName) -> Record {
        with(Record::default(), |it| {
            (it.time, it.event) = (WallTime(1_500_000_000), event);
            it.endpoints.get_or_insert_default().lport = 7;
            it.probe = Some(1);
            it.settings.keepalive_probes = Some(3);
            it.ages.idle_ms = Some(1004);
        })
    }

    fn explainer() -> Explainer {
        let connections = CONNECTIONS.iter().take(1).map(|it| (7, *it)).collect();
        let layout = Layout {
            columns: 200,
            colored: false,
            unicode: false,
        };
        let mut explainer = Explainer::new(connections, layout);
        explainer.start(WallTime(500_000_000));
        explainer
    }

    #[test]
    fn gives_each_reason_once() {
        let mut explainer = explainer();
        let nothing = "  A  no events\n     A healthy idle connection.";
        assert!(explainer.conclusion().starts_with(nothing));
        let first = "  1.0s  A  sends probe 1 of 3: nothing heard for 1.0s. A probe is an empty\n           \
                     segment that the peer's kernel has to acknowledge.";
        let again = "  1.0s  A  sends probe 1 of 3: nothing heard for 1.0s";
        assert_eq!(
            explainer.explain(&record(EventName::Probe)).as_deref(),
            Some(first)
        );
        assert_eq!(
            explainer.explain(&record(EventName::Probe)).as_deref(),
            Some(again)
        );
        assert!(explainer.conclusion().starts_with("  A  2× probe\n"));
    }

    /// What was seen of a connection is broken between words, on a narrow screen too.
    #[test]
    fn no_line_of_the_summary_is_too_wide() {
        let connections = CONNECTIONS.iter().map(|it| (7, *it)).collect();
        let layout = Layout {
            columns: 40,
            colored: false,
            unicode: false,
        };
        let mut explainer = Explainer::new(connections, layout);
        for event in EventName::ALL {
            explainer.explain(&record(*event));
        }
        for text in [explainer.introduction(), explainer.conclusion()] {
            assert!(text.contains("  A  "), "{text}");
            for line in text.lines() {
                assert!(line.width() <= 40, "{line}");
            }
        }
    }

    #[test]
    fn an_answer_for_a_vanished_peer_belongs_to_its_connection() {
        let far = |event| {
            with(record(event), |it| {
                it.endpoints.get_or_insert_default().lport = 8;
                it.endpoints.get_or_insert_default().rport = 7;
                it.direction = Some(Direction::Passive);
            })
        };
        let text = explainer().explain(&far(EventName::RstSent));
        assert!(
            text.is_some_and(|it| it.starts_with("  1.0s  A  the far side answers with a reset"))
        );
        let mut stray = far(EventName::Verdict);
        stray.verdict = Some(crate::model::values::VerdictName::StraySegment);
        let text = explainer().explain(&stray);
        assert!(text.is_some_and(|it| it.starts_with("  1.0s  A  stray_segment  -  ")));
    }

    #[test]
    fn explains_every_event_within_the_width_and_no_other_connection() {
        for event in EventName::ALL {
            let text = explainer().explain(&record(*event)).unwrap_or_default();
            assert!(!text.is_empty(), "{event:?}");
            assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        }
        let other = with(record(EventName::Probe), |it| {
            it.endpoints.get_or_insert_default().lport = 8;
        });
        assert_eq!(explainer().explain(&other), None);
    }
}
