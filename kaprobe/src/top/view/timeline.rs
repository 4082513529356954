//! The timeline of a connection, and the help, as lines of text.

use unicode_width::UnicodeWidthStr as _;

use crate::model::record::EventName;
use crate::text::units::plural;
use crate::text::wrap::wrapped;
use crate::top::events::TimelineLine;
use crate::top::model::ConnectionRow;
use crate::top::view::connections::about;
use crate::top::view::look::{Look, Tone};

/// Keys and columns, and what they do and show. A test holds it to a screen of 80 columns and
/// 24 lines.
const HELP: &[(&str, &str)] = &[
    (
        "arrows",
        "move; also PageUp, PageDown, Home, End, j, k, g, G",
    ),
    (
        "Enter, right",
        "open the row: a group's connections, a connection's timeline",
    ),
    ("Esc, left", "back"),
    (
        "/",
        "show rows that contain a text; Enter keeps it, Esc drops it",
    ),
    (
        "s, r",
        "sort by the next key (see the first line); reverse the order",
    ),
    ("p, space", "pause: the screen stays, the trace goes on"),
    ("q, Ctrl-C", "quit; Ctrl-L draws the screen anew"),
    ("", ""),
    ("CONN", "connections now"),
    (
        "KEEPALIVE",
        "first probe after/then each/probes; ut: TCP_USER_TIMEOUT",
    ),
    (
        "IDLE",
        "idle for up to 1, 10, 60, 300, 900, 3600, 21600 s, and for longer",
    ),
    ("LONGEST", "the longest idle time"),
    (
        "PROBES",
        "keepalive probes sent / answered, since top began",
    ),
    ("UNANSW", "connections whose last probes have no answer yet"),
    (
        "STALL",
        "connections whose data is sent again, and not acknowledged",
    ),
    (
        "VERDICTS",
        "conclusions on why connections ended or stalled, since top began",
    ),
    (
        "RISK",
        "connections that the idle timeout on their path would kill, or has",
    ),
    ("NEXT", "time until the keepalive timer fires"),
    (
        "DEAD-IN",
        "time until the kernel gives up if the peer is gone",
    ),
    ("", ""),
    (
        "",
        "kaprobe audit says what to set; kaprobe trace shows every event.",
    ),
];

/// A line, and how good or bad it is.
pub(super) struct TextLine {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// The help.
pub(super) fn help(width: usize) -> Vec<TextLine> {
    let names = HELP.iter().map(|(name, _)| name.len());
    let widest = names.max().unwrap_or_default();
    let lines = HELP.iter().flat_map(|(name, text)| match *name {
        "" => broken("", text, width),
        name => broken(&format!("{name:widest$}  "), text, width),
    });
    lines
        .map(|text| TextLine {
            text,
            tone: Tone::Plain,
        })
        .collect()
}

/// What is known of a connection, then what happened to it, oldest first.
pub(super) fn lines(look: &Look, row: &ConnectionRow<'_>, width: usize) -> Vec<TextLine> {
    let mut lines = Vec::new();
    let mut add = |head: &str, text: &str, tone| {
        let broken = broken(head, text, width).into_iter();
        lines.extend(broken.map(|text| TextLine { text, tone }));
    };
    for line in about(row) {
        add("", &line, Tone::Plain);
    }
    add("", "", Tone::Plain);
    let Some(timeline) = row.timeline else {
        add("", "nothing happened since top began", Tone::Faint);
        return lines;
    };
    if timeline.dropped > 0 {
        let dropped = plural(timeline.dropped, "older line", "older lines");
        add("", &format!("{dropped} not kept"), Tone::Faint);
    }
    for line in &timeline.lines {
        add(&head(look, line), &text(line), tone(line.event));
    }
    lines
}

/// When a line's records happened.
fn head(look: &Look, line: &TimelineLine) -> String {
    let first = look.clock(line.first);
    match look.clock(line.last) {
        last if last == first => format!("{first}  "),
        last => format!("{first}-{last}  "),
    }
}

fn text(line: &TimelineLine) -> String {
    match line.count {
        1 => line.text.clone(),
        count => format!("{}, {count} times", line.text),
    }
}

const fn tone(event: EventName) -> Tone {
    match event {
        EventName::Answered | EventName::Resumed => Tone::Good,
        EventName::Timeout
        | EventName::Zombie
        | EventName::RstReceived
        | EventName::RstSent
        | EventName::Aborted
        | EventName::Stalled
        | EventName::Verdict => Tone::Bad,
        EventName::Closed => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// Breaks a text into lines of this width. A word that is wider is broken too: the screen
/// would cut it off.
fn broken(head: &str, text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let head = if head.len() * 2 > width { "" } else { head };
    let lines = wrapped(head, text, width);
    if lines.is_empty() {
        return vec![lines];
    }
    lines.lines().flat_map(|line| pieces(line, width)).collect()
}

/// Cuts a line that is too wide for lack of spaces.
fn pieces(line: &str, width: usize) -> Vec<String> {
    if line.width() <= width {
        return vec![line.to_owned()];
    }
    let lines = textwrap::wrap(line, width);
    lines.into_iter().map(Into::into).collect()
}
