//! Explains what a record means. Pure: the same records make the same story.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::demo::connections::Role;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::model::values::Cause;
use crate::model::values::{Direction, Errno};
use crate::text::units::Tenths;
use crate::text::wrap::wrapped;

/// How wide the story is.
const WIDTH: usize = 80;

/// A role, and the local port that its connection goes by.
type Player = (u16, Role);

/// Tells the story.
#[derive(Debug)]
pub struct Narrator {
    players: Vec<Player>,
    started: WallTime,
    /// The explanations that were given: each is given once.
    given: BTreeSet<String>,
    seen: BTreeMap<char, BTreeMap<EventName, u32>>,
}

impl Narrator {
    /// A narrator for these players.
    #[must_use]
    pub fn new(players: Vec<Player>) -> Self {
        Self {
            players,
            started: WallTime::default(),
            given: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// From when the seconds count.
    pub fn start(&mut self, at: WallTime) {
        self.started = at;
    }

    /// Who plays, and what will happen.
    #[must_use]
    pub fn prologue(&self) -> String {
        let mut text = String::new();
        for (port, role) in &self.players {
            let _ = writeln!(text, "  {}  port {port:<5}  {}", role.letter, role.plot);
        }
        text
    }

    /// What a record means: a line or more, or nothing where it is of no player.
    pub fn tell(&mut self, record: &Record) -> Option<String> {
        if record.event == EventName::Lost {
            return Some(self.paragraph(record, ' ', &lost(record)));
        }
        // What the far side does belongs to the same connection.
        let ends = [
            record.endpoints.map(|it| it.lport),
            record.endpoints.map(|it| it.rport),
        ];
        let (_, role) = *self
            .players
            .iter()
            .find(|(port, _)| ends.contains(&Some(*port)))?;
        let letter = role.letter;
        *self
            .seen
            .entry(letter)
            .or_default()
            .entry(record.event)
            .or_default() += 1;
        let (what, why) = words(record);
        let told = if why.is_empty() || !self.given.insert(why.clone()) {
            what
        } else {
            format!("{what}. {why}")
        };
        Some(self.paragraph(record, letter, &told))
    }

    /// What was seen of each, and what it is in production.
    #[must_use]
    pub fn epilogue(&self) -> String {
        let mut text = String::new();
        for (_, role) in &self.players {
            let seen = self.seen.get(&role.letter);
            let seen = seen.map_or_else(|| "nothing was seen of it".to_owned(), tally);
            let head = format!("  {}  {seen}", role.letter);
            let _ = writeln!(text, "{head}\n{}", wrapped("     ", role.lesson, WIDTH));
        }
        text
    }

    fn paragraph(&self, record: &Record, letter: char, words: &str) -> String {
        let ms = record.time.0.saturating_sub(self.started.0) / 1_000_000;
        let at = Tenths(ms.unsigned_abs()).to_string();
        let head = format!("{at:>6}  {letter}  ");
        wrapped(&head, words, WIDTH)
    }
}

/// What happened, and what is behind it.
fn words(record: &Record) -> (String, String) {
    match record.event {
        EventName::Probe => probe(record),
        EventName::Answered => answered(record),
        EventName::Timeout => timeout(record),
        EventName::RstSent if record.firing_ns.is_some() => (
            "sends a reset, should the peer still hear".into(),
            String::new(),
        ),
        EventName::RstSent if record.direction == Some(Direction::Passive) => (
            "the far side answers with a reset: it knows of no such connection".into(),
            "Behind a load balancer that forgot the connection, the far side is another \
             server, to which it sent this segment."
                .into(),
        ),
        EventName::RstReceived => (
            "hears a reset: the connection is over".into(),
            String::new(),
        ),
        EventName::Closed => closed(record),
        EventName::DataPending => (
            format!("asks nothing: {} unacknowledged", segments(record)),
            "Retransmission is at work on this connection; keepalive stands back.".into(),
        ),
        EventName::Early => (
            format!(
                "asks nothing: the peer was heard {} ago, looks again in {}",
                Tenths(record.ages.idle_ms.unwrap_or_default()),
                Tenths(record.next_ms.unwrap_or_default())
            ),
            "Traffic is as good as an answer.".into(),
        ),
        EventName::Verdict => (verdict(record), String::new()),
        other => (other.name().into(), String::new()),
    }
}

fn verdict(record: &Record) -> String {
    let verdict = record.verdict.map_or("verdict", |verdict| verdict.name());
    match &record.advice {
        Some(advice) => format!("{verdict}: {advice}"),
        None => verdict.to_owned(),
    }
}

fn probe(record: &Record) -> (String, String) {
    let n = record.probe.unwrap_or_default();
    let of = record.settings.keepalive_probes.unwrap_or_default();
    let idle = Tenths(record.ages.idle_ms.unwrap_or_default());
    if n > 1 {
        return (
            format!("probe {n} of {of}: no answer for {idle}, asks again"),
            String::new(),
        );
    }
    (
        format!("probe {n} of {of}: nothing heard for {idle}, asks"),
        "A probe is an empty segment that the peer's kernel has to acknowledge.".into(),
    )
}

fn answered(record: &Record) -> (String, String) {
    let what = match record.answered_after_ms {
        None | Some(0) => "answered at once".into(),
        Some(ms) => format!("answered within {}", Tenths(ms)),
    };
    let why = "The peer's kernel replied; no application noticed. (Told late: it shows only \
               when the timer fires again.)";
    (what, why.into())
}

fn segments(record: &Record) -> String {
    match record.unacked {
        Some(1) => "1 segment is".into(),
        Some(n) => format!("{n} segments are"),
        None => "data is".into(),
    }
}

fn timeout(record: &Record) -> (String, String) {
    let idle = Tenths(record.ages.idle_ms.unwrap_or_default());
    let why = match record.cause {
        Some(Cause::UserTimeout) => format!(
            "gives up after {idle}: TCP_USER_TIMEOUT of {} has passed",
            Tenths(record.settings.user_timeout_ms.unwrap_or_default().into())
        ),
        Some(Cause::ProbeCount) | None => format!(
            "gives up after {idle}: {} probes, no answer",
            record.probes_out.unwrap_or_default()
        ),
    };
    (why, error_of(record))
}

fn closed(record: &Record) -> (String, String) {
    const ECONNRESET: Errno = Errno(libc::ECONNRESET.cast_unsigned());
    match record.err {
        Some(ECONNRESET) => (
            "is gone: its probe drew a reset".into(),
            format!(
                "The other side had forgotten the connection. {}",
                error_of(record)
            ),
        ),
        _ => (
            "is gone: the application let go of its socket".into(),
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
    format!(
        "kaprobe could not follow: {} events are missing",
        record.lost.unwrap_or_default()
    )
}

/// `3× probe, 2× answered, 1× closed`.
fn tally(seen: &BTreeMap<EventName, u32>) -> String {
    let each = seen
        .iter()
        .map(|(event, n)| format!("{n}× {}", event.name()));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::connections::CAST;
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

    fn narrator() -> Narrator {
        let players = CAST.iter().take(1).map(|role| (7, *role)).collect();
        let mut narrator = Narrator::new(players);
        narrator.start(WallTime(500_000_000));
        narrator
    }

    #[test]
    fn explains_once_then_only_names() {
        let mut narrator = narrator();
        let nothing = "  A  nothing was seen of it\n     A healthy idle connection.";
        assert!(narrator.epilogue().starts_with(nothing));
        let first = "  1.0s  A  probe 1 of 3: nothing heard for 1.0s, asks. A probe is an empty\n           \
                     segment that the peer's kernel has to acknowledge.";
        let again = "  1.0s  A  probe 1 of 3: nothing heard for 1.0s, asks";
        assert_eq!(
            narrator.tell(&record(EventName::Probe)).as_deref(),
            Some(first)
        );
        assert_eq!(
            narrator.tell(&record(EventName::Probe)).as_deref(),
            Some(again)
        );
        assert!(narrator.epilogue().starts_with("  A  2× probe\n"));
    }

    #[test]
    fn what_answers_for_a_vanished_peer_is_told_of_its_connection() {
        let far = |event| {
            with(record(event), |it| {
                it.endpoints.get_or_insert_default().lport = 8;
                it.endpoints.get_or_insert_default().rport = 7;
                it.direction = Some(Direction::Passive);
            })
        };
        let told = narrator().tell(&far(EventName::RstSent));
        assert!(
            told.is_some_and(|it| it.starts_with("  1.0s  A  the far side answers with a reset"))
        );
        let mut stray = far(EventName::Verdict);
        stray.verdict = Some(crate::model::values::VerdictName::StraySegment);
        let told = narrator().tell(&stray);
        assert!(told.is_some_and(|it| it.starts_with("  1.0s  A  stray_segment")));
    }

    #[test]
    fn tells_every_event_within_the_width_and_nothing_of_strangers() {
        for event in EventName::ALL {
            let told = narrator().tell(&record(*event)).unwrap_or_default();
            assert!(!told.is_empty(), "{event:?}");
            assert!(told.lines().all(|line| line.len() <= WIDTH), "{told}");
        }
        let stranger = with(record(EventName::Probe), |it| {
            it.endpoints.get_or_insert_default().lport = 8;
        });
        assert_eq!(narrator().tell(&stranger), None);
    }
}
