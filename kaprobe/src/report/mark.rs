//! Marks: what a record looks like on the timeline of a connection.

use crate::model::record::{EventName, Record};
use crate::model::values::{Confidence, VerdictName};
use crate::sink::event_text;
use crate::text::escape::Escaped;

/// What a mark shows, in the order of the legend. Each has a shape and a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Keepalive probes that were answered, so many one after the other.
    Answered,
    /// A keepalive probe of which no answer is known.
    Probe,
    /// Data is sent again and again.
    Stalled,
    /// Data that had stalled was acknowledged.
    Resumed,
    /// The kernel gave up.
    GaveUp,
    /// A reset was received.
    ResetReceived,
    /// A reset was sent.
    ResetSent,
    /// A FIN was received or sent.
    Fin,
    /// The connection ended, and the peer was not told.
    Aborted,
    /// The socket was destroyed.
    Closed,
    /// The connection was already dead when the trace began.
    Zombie,
    /// Any other event.
    Other,
}

impl Shape {
    /// The shape of an event. `None` if a timeline does not show the event.
    fn of(event: EventName) -> Option<Self> {
        Some(match event {
            EventName::Probe | EventName::ProbeCongested => Self::Probe,
            EventName::Answered | EventName::Alive => Self::Answered,
            EventName::Stalled => Self::Stalled,
            EventName::Resumed => Self::Resumed,
            EventName::Timeout => Self::GaveUp,
            EventName::RstReceived => Self::ResetReceived,
            EventName::RstSent => Self::ResetSent,
            EventName::FinReceived | EventName::FinSent => Self::Fin,
            EventName::Aborted => Self::Aborted,
            EventName::Closed => Self::Closed,
            EventName::Zombie => Self::Zombie,
            EventName::FinWait2 | EventName::Unclassified | EventName::ChangedMeanwhile => {
                Self::Other
            }
            _ => return None,
        })
    }

    /// The name of the shape's class in the style sheet.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Probe => "probe",
            Self::Stalled => "stalled",
            Self::Resumed => "resumed",
            Self::GaveUp => "gave-up",
            Self::ResetReceived => "reset-received",
            Self::ResetSent => "reset-sent",
            Self::Fin => "fin",
            Self::Aborted => "aborted",
            Self::Closed => "closed",
            Self::Zombie => "zombie",
            Self::Other => "other",
        }
    }

    /// What the legend says.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Answered => "probe, answered",
            Self::Probe => "probe, no answer known",
            Self::Stalled => "data sent again, not acknowledged",
            Self::Resumed => "that data was acknowledged",
            Self::GaveUp => "the kernel gave up",
            Self::ResetReceived => "reset received",
            Self::ResetSent => "reset sent",
            Self::Fin => "FIN received or sent",
            Self::Aborted => "ended, and the peer was not told",
            Self::Closed => "socket gone",
            Self::Zombie => "found dead at the start of the trace",
            Self::Other => "another event",
        }
    }

    /// Whether the socket is of no use to its program after such an event.
    pub(super) const fn ends(self) -> bool {
        matches!(
            self,
            Self::GaveUp | Self::ResetReceived | Self::Aborted | Self::Closed
        )
    }
}

/// Most characters of the text of a mark.
const MAX_TEXT: usize = 400;

fn shortened(mut text: String) -> Box<str> {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push_str("...");
    }
    text.into()
}

/// A mark on the lane of a connection.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) shape: Shape,
    /// Wall clock, ns; of several probes, the first.
    pub(super) at_ns: i64,
    /// The same, of the last probe.
    pub(super) until_ns: i64,
    /// How many events the mark stands for.
    pub(super) count: u64,
    /// For how long nothing was received before, ms.
    pub(super) idle_ms: Option<u64>,
    /// The event and its details, as text lines show them. Probes that were answered have
    /// none: there may be many.
    pub(super) text: Option<Box<str>>,
}

impl Mark {
    /// The mark of a record, if a timeline shows it.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let shape = Shape::of(record.event)?;
        let text = (shape != Shape::Answered).then(|| shortened(event_text(record)));
        let at_ns = |mono_ns: u64| {
            let ago_ns = record.mono_ns.saturating_sub(mono_ns);
            record.time.0.saturating_sub_unsigned(ago_ns)
        };
        let alive = record.alive.as_deref();
        Some(Self {
            shape,
            at_ns: alive.map_or(record.time.0, |it| at_ns(it.since_ns)),
            until_ns: alive.map_or(record.time.0, |it| at_ns(it.answered_ns)),
            count: alive.map_or(1, |it| it.probes_answered),
            idle_ms: record.ages.idle_ms,
            text,
        })
    }

    /// Turns the mark of a probe into that of a probe that was answered.
    pub(super) fn answer(&mut self) {
        self.shape = Shape::Answered;
        self.text = None;
    }

    /// Adds the probes of a later mark.
    pub(super) fn merge(&mut self, later: &Self) {
        self.until_ns = later.until_ns;
        self.count = self.count.saturating_add(later.count);
        self.idle_ms = self.idle_ms.max(later.idle_ms);
    }
}

/// A verdict on a connection.
#[derive(Clone, Debug)]
pub(super) struct VerdictMark {
    pub(super) verdict: VerdictName,
    pub(super) confidence: Option<Confidence>,
    /// The number of its lane.
    pub(super) lane: usize,
    /// Wall clock, ns.
    pub(super) at_ns: i64,
    pub(super) idle_ms: Option<u64>,
    /// What explains it.
    pub(super) advice: Option<Escaped>,
}
