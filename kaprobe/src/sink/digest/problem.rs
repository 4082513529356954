//! What a record tells of a problem, in words. Most records tell of none.

use anstyle::{AnsiColor, Style};

use crate::model::advice::Advice;
use crate::model::fate::Why;
use crate::model::named::Named as _;
use crate::model::peers::Peers;
use crate::model::record::{EventName, Record};
use crate::model::values::{Cause, LostWhy, VerdictName};
use crate::text::cell::{NOTHING, endpoint};
use crate::text::escape::Escaped;
use crate::text::units::{Ms, plural};

/// A reset after less silence than this is none of an idle connection, ms.
const IDLE_MS: u64 = 1_000;

/// A problem, in words for a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The verdict, or the event.
    pub(crate) name: &'static str,
    pub(crate) gravity: Gravity,
    /// The confidence of the verdict.
    pub(crate) confidence: Option<&'static str>,
    /// The process that holds the socket.
    pub(crate) who: String,
    /// The same without its number: several processes of a program have the same problem.
    pub(crate) program: String,
    /// The local and the remote end.
    pub(crate) ends: Option<(String, String)>,
    /// The service end of the connection, if it was looked for.
    pub(crate) service: Option<Peers>,
    pub(crate) seen: String,
    pub(crate) advised: String,
    /// What the records of other hosts show.
    pub(crate) story: String,
    /// What else tells two problems apart that have the same name.
    pub(crate) detail: String,
    /// How many there are: of lost events, several at once.
    pub(crate) count: u64,
}

/// How grave a problem is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// A connection has died, or is about to.
    #[default]
    Failure,
    /// Something is not as it should be, or may not be.
    Warning,
    /// A program ended the connection.
    Note,
    /// A problem is over.
    Relief,
}

impl Gravity {
    /// How its name is shown on a colored screen.
    pub(crate) const fn style(self) -> Style {
        match self {
            Self::Failure => AnsiColor::Red.on_default().bold(),
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Note => AnsiColor::Cyan.on_default(),
            Self::Relief => AnsiColor::Green.on_default(),
        }
    }

    const fn of(verdict: VerdictName) -> Self {
        match verdict {
            VerdictName::PeerUnreachable
            | VerdictName::UserTimeout
            | VerdictName::ProbeReset
            | VerdictName::IdleEviction
            | VerdictName::SilentDrop
            | VerdictName::PathLost
            | VerdictName::IcmpRejected => Self::Failure,
            VerdictName::StraySegment
            | VerdictName::AbortedByPeer
            | VerdictName::IdleCloseRace
            | VerdictName::PeerExited => Self::Warning,
            VerdictName::AbortedLocally | VerdictName::FinWait2 | VerdictName::IdleClose => {
                Self::Note
            }
        }
    }
}

impl Problem {
    /// The problem that a record tells of, if it tells of one.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let told = match record.event {
            EventName::Verdict => verdict(record),
            EventName::Probe => unanswered(record)?,
            EventName::Answered => answered(record)?,
            EventName::Timeout => timeout(record),
            EventName::RstReceived => reset(record)?,
            EventName::Stalled => stalled(record),
            EventName::Resumed => resumed(record),
            EventName::Zombie => zombie(record),
            EventName::Aborted => aborted(),
            EventName::Lost => lost(record),
            EventName::Alive
            | EventName::ProbeCongested
            | EventName::Early
            | EventName::DataPending
            | EventName::Busy
            | EventName::FinWait2
            | EventName::NotRearmed
            | EventName::Unclassified
            | EventName::ChangedMeanwhile
            | EventName::RstSent
            | EventName::FinReceived
            | EventName::FinSent
            | EventName::Closed => return None,
        };
        Some(told.placed(record))
    }

    fn new(name: &'static str, gravity: Gravity, seen: String, advised: String) -> Self {
        Self {
            name,
            gravity,
            seen,
            advised,
            count: 1,
            ..Self::default()
        }
    }

    /// Adds who and where.
    fn placed(mut self, record: &Record) -> Self {
        self.ends = record
            .endpoints
            .map(|it| (endpoint(it.local()), endpoint(it.remote())));
        if record.endpoints.is_some() {
            self.who = record.process.label().unwrap_or_else(|| NOTHING.to_owned());
            self.program = program(record);
        }
        if let Some(name) = &record.netns_name {
            self.who = format!("{} in netns {name}", self.who);
        }
        if let Some(host) = &record.host {
            self.who = format!("{host}: {}", self.who);
            self.program = format!("{host}: {}", self.program);
        }
        self.story = text(record.story.as_ref()).to_owned();
        self
    }
}

/// The name of a program, and what it belongs to.
fn program(record: &Record) -> String {
    let process = &record.process;
    let Some(name) = process.cmdline.as_ref().or(process.comm.as_ref()) else {
        return NOTHING.to_owned();
    };
    format!("{name}{}", process.workload().suffix())
}

fn text(it: Option<&Escaped>) -> &str {
    it.map_or("", Escaped::as_str)
}

fn verdict(record: &Record) -> Problem {
    let (seen, advised) = record
        .advice
        .as_deref()
        .map(Advice::parts)
        .unwrap_or_default();
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let first = match record.verdict {
        Some(VerdictName::IdleEviction) => {
            format!("the first segment after {idle} of silence was answered with a reset")
        }
        Some(VerdictName::ProbeReset) => {
            format!("a probe after {idle} of silence was answered with a reset")
        }
        _ => String::new(),
    };
    let fits = record.middlebox.as_ref();
    let fits = fits.map_or(String::new(), |it| format!("fits {it}"));
    let seen = [first.as_str(), seen, &fits]
        .into_iter()
        .filter(|it| !it.is_empty());
    let seen = seen.collect::<Vec<_>>().join("; ");
    let name = record.verdict.map_or("verdict", |it| it.name());
    let gravity = record.verdict.map(Gravity::of).unwrap_or_default();
    Problem {
        confidence: record.confidence.map(|it| it.name()),
        detail: text(record.set.as_ref()).to_owned(),
        ..Problem::new(name, gravity, seen, advised.to_owned())
    }
}

/// A probe that is sent because the last one was not answered.
fn unanswered(record: &Record) -> Option<Problem> {
    let probe = record.probe.filter(|&number| number > 1)?;
    let settings = &record.settings;
    let of = settings.keepalive_probes.unwrap_or_default();
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let seen = format!(
        "probe {probe} of {of}: {} unanswered, nothing heard for {idle}",
        plural((probe - 1).into(), "probe is", "probes are")
    );
    let end = match settings.user_timeout_ms {
        Some(ms) if ms > 0 => format!("once TCP_USER_TIMEOUT of {} has passed", Ms(ms.into())),
        _ => format!(
            "after {of} probes, {} apart",
            Ms(settings.keepalive_intvl_ms.unwrap_or_default())
        ),
    };
    let advised = format!("check the peer's host and the path to it: the kernel gives up {end}");
    Some(Problem::new("unanswered", Gravity::Warning, seen, advised))
}

/// An answer after probes that were not answered.
fn answered(record: &Record) -> Option<Problem> {
    let probe = record.probe.filter(|&number| number > 1)?;
    let before = plural((probe - 1).into(), "probe", "probes");
    let seen = format!("the peer answers again, after {before} without an answer");
    let name = EventName::Answered.name();
    Some(Problem::new(name, Gravity::Relief, seen, String::new()))
}

/// A give-up without a verdict.
fn timeout(record: &Record) -> Problem {
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let probes = record.probes_out.unwrap_or_default();
    let why = match record.cause {
        Some(Cause::UserTimeout) => "TCP_USER_TIMEOUT has passed".to_owned(),
        Some(Cause::Retransmission) => format!(
            "data was retransmitted {} times",
            record.retransmits.unwrap_or_default()
        ),
        Some(Cause::ZeroWindow) => format!("{probes} probes of a closed window are unanswered"),
        Some(Cause::ProbeCount) | None => format!("{probes} probes are unanswered"),
    };
    let seen = format!("the kernel gave up: {why}, nothing heard for {idle}");
    let advised = "check the peer's host and the path to it".to_owned();
    Problem::new(EventName::Timeout.name(), Gravity::Failure, seen, advised)
}

/// A reset of an idle connection, without a verdict.
fn reset(record: &Record) -> Option<Problem> {
    let idle_ms = record.ages.idle_ms.filter(|&ms| ms >= IDLE_MS)?;
    let seen = format!("a reset came in after {} of silence", Ms(idle_ms));
    let name = EventName::RstReceived.name();
    Some(Problem::new(name, Gravity::Failure, seen, String::new()))
}

fn stalled(record: &Record) -> Problem {
    let transfer = &record.transfer;
    let mut seen = format!(
        "{} retransmitted {} times in {}, nothing acknowledged; silent for {} before",
        plural(
            transfer.unacked_bytes.unwrap_or_default().into(),
            "byte",
            "bytes"
        ),
        record.retransmits.unwrap_or_default(),
        Ms(transfer.stalled_ms.unwrap_or_default()),
        Ms(transfer.silent_ms.unwrap_or_default())
    );
    if let Some(err) = transfer.err_soft {
        seen.push_str(&format!("; ICMP reports {err}"));
    }
    let mut advised = "check the peer's host and the path to it".to_owned();
    if let Some(ms) = record.dead_in_ms {
        advised.push_str(&format!(": the kernel gives up in {}", Ms(ms)));
    }
    Problem::new(EventName::Stalled.name(), Gravity::Failure, seen, advised)
}

fn resumed(record: &Record) -> Problem {
    let stalled = Ms(record.transfer.stalled_ms.unwrap_or_default());
    let seen = format!("the data is acknowledged, after {stalled}");
    let name = EventName::Resumed.name();
    Problem::new(name, Gravity::Relief, seen, String::new())
}

/// A connection that was dead before the trace.
fn zombie(record: &Record) -> Problem {
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let probes = record.probes_out.unwrap_or_default();
    let seen = match record.why {
        Some(Why::NoProbes) => format!("keepalive is off, and nothing was heard for {idle}"),
        Some(Why::Unacknowledged) => {
            format!("data was sent again and again, and nothing was heard for {idle}")
        }
        Some(Why::ZeroWindow) => {
            format!("{probes} probes of a closed window are unanswered, nothing heard for {idle}")
        }
        _ => format!("{probes} probes are unanswered, nothing heard for {idle}"),
    };
    let advised = match record.dead_in_ms {
        Some(ms) => format!(
            "check the peer's host and the path to it: the kernel gives up in {}",
            Ms(ms)
        ),
        None if record.why == Some(Why::NoProbes) => format!(
            "turn on SO_KEEPALIVE in {}: nothing else ends a dead connection that is silent",
            record
                .process
                .label()
                .unwrap_or_else(|| "the program".to_owned())
        ),
        None => "check the peer's host and the path to it".to_owned(),
    };
    Problem {
        detail: record.why.map_or("", |it| it.name()).to_owned(),
        ..Problem::new(EventName::Zombie.name(), Gravity::Failure, seen, advised)
    }
}

fn aborted() -> Problem {
    Problem::new(
        EventName::Aborted.name(),
        Gravity::Note,
        "this end is gone without a FIN or a reset: the peer was not told".to_owned(),
        String::new(),
    )
}

fn lost(record: &Record) -> Problem {
    let kind = record.lost_kind.map_or("", |it| it.name());
    let hook = record.hook.map_or("this output", |it| it.name());
    let why = record.lost_why.map_or("", |it| it.name());
    let count = match record.lost {
        Some(count) => plural(count, "event", "events"),
        None => "an unknown number of events".to_owned(),
    };
    let of = if kind.is_empty() {
        format!("of {hook}")
    } else {
        format!("({kind}) of {hook}")
    };
    let advised = match record.lost_why {
        Some(LostWhy::RingBuffer) => "trace fewer sockets, or set a larger --buffer-size",
        Some(LostWhy::Output) => "write a log with -o: it has what this screen lacks",
        _ => "",
    };
    Problem {
        detail: format!("{kind} {hook} {why}"),
        count: record.lost.unwrap_or(1),
        ..Problem::new(
            EventName::Lost.name(),
            Gravity::Warning,
            format!("{count} {of} could not be delivered ({why}): problems may be missing here"),
            advised.to_owned(),
        )
    }
}
