//! Phrases that several verdicts share: the program, the first probe, and its limit.

use crate::model::record::Record;
use crate::model::remedy::{Remedy, SetIn};
use crate::text::cell;
use crate::text::units::Ms;
use crate::verdict::finding::{IdleLimit, OtherEnd};

/// What was seen, and what to do: clauses, which are separated by semicolons.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) seen: String,
    pub(super) advised: String,
}

impl Words {
    /// What was seen, and what to do.
    pub(super) fn new(seen: impl Into<String>, advised: impl Into<String>) -> Self {
        Self {
            seen: seen.into(),
            advised: advised.into(),
        }
    }

    /// Adds a clause to what was seen.
    pub(super) fn also_seen(&mut self, clause: &str) {
        add(&mut self.seen, clause);
    }

    /// Adds a clause to what is to be done.
    pub(super) fn also_advised(&mut self, clause: &str) {
        add(&mut self.advised, clause);
    }

    /// Adds the clauses of others.
    pub(super) fn also(&mut self, more: &Self) {
        self.also_seen(&more.seen);
        self.also_advised(&more.advised);
    }

    /// These clauses, and those of others.
    pub(super) fn with(mut self, more: &Self) -> Self {
        self.also(more);
        self
    }
}

fn add(clauses: &mut String, clause: &str) {
    if !clauses.is_empty() && !clause.is_empty() {
        clauses.push_str("; ");
    }
    clauses.push_str(clause);
}

/// What limits the advised TCP_KEEPIDLE, as a phrase.
pub(super) fn limit(of: &IdleLimit) -> String {
    match of {
        IdleLimit::Fit(fit) => format!("half of {}'s {}s", fit.first_name(), fit.seconds),
        IdleLimit::Death(ms) => format!(
            "half of {}, the shortest silence before such an end or stall; the timeout may be \
             shorter still",
            Ms(*ms)
        ),
        IdleLimit::Survived(ms) => format!("connections survived {}", Ms(*ms)),
        IdleLimit::Host(what) => format!("half of this host's {what} timeout"),
        IdleLimit::Common => "half of the shortest common default".to_owned(),
    }
}

/// The change that sends the first probe in time against a box that forgets idle connections:
/// what to check `before` it, the change, and what limits it. Without a change, a note that the
/// first probe is early enough. Nothing for a socket that its program has closed: no program can
/// set it.
pub(super) fn against_a_box(
    record: &Record,
    remedy: Option<Remedy>,
    before: &str,
    of: &IdleLimit,
) -> Words {
    match remedy {
        _ if is_orphan(record) => Words::default(),
        Some(remedy) => Words::new(
            "",
            format!("{before}{} ({})", first_probe(record, remedy), limit(of)),
        ),
        None => Words::new(
            format!(
                "the first probe of {} after {}s is early enough against a box, unless keepalive \
                 was turned on only lately",
                program(record),
                record.settings.keepalive_time_ms.unwrap_or_default() / 1_000
            ),
            "",
        ),
    }
}

/// The change that sends the first probe earlier.
pub(super) fn first_probe(record: &Record, remedy: Remedy) -> String {
    let program = program(record);
    let settings = &record.settings;
    let time_s = settings.keepalive_time_ms.unwrap_or_default() / 1000;
    let intvl_s = settings.keepalive_intvl_ms.unwrap_or_default() / 1000;
    let own = Remedy {
        set_in: SetIn::Program,
        keepalive: false,
        ..remedy
    };
    let changes = [
        ("TCP_KEEPINTVL", intvl_s, remedy.intvl_s),
        ("TCP_KEEPIDLE", time_s, remedy.time_s),
    ];
    let changed = changes
        .iter()
        .filter_map(|(name, now, to)| Some((name, now, (*to)?)));
    let set = match remedy.set_in {
        SetIn::Sysctl => {
            let now: Vec<_> = changed.map(|(_, now, _)| now.to_string()).collect();
            let (now, netns) = (now.join(" and "), netns(record));
            format!("set {remedy} (now {now}) in netns {netns}, or {own} in {program}")
        }
        _ if remedy.keepalive => format!("in {program}, turn on SO_KEEPALIVE with {own}"),
        _ => {
            let lower = changed.map(|(name, now, to)| format!("{name} from {now} to {to}"));
            let lower: Vec<_> = lower.collect();
            format!("in {program}, lower {}", lower.join(" and "))
        }
    };
    let why = match remedy.intvl_s {
        Some(_) => ", as each later probe waits for the interval, answered or not",
        None => "",
    };
    format!("{set}{why}")
}

/// True if a program has closed the socket: no process holds it, and the kernel sends what is
/// left.
pub(super) fn is_orphan(record: &Record) -> bool {
    record.identity.orphan == Some(true)
}

/// The program that holds the socket.
pub(super) fn program(record: &Record) -> String {
    let label = record.process.label();
    label.unwrap_or_else(|| "the program".to_owned())
}

/// The program that closed or reset the connection.
pub(super) fn closer(record: &Record) -> String {
    record.closer().unwrap_or_else(|| "the program".to_owned())
}

/// Where the other end is.
pub(super) fn place(record: &Record, other_end: &OtherEnd) -> String {
    match other_end
        .host
        .as_ref()
        .filter(|_| other_end.host != record.host)
    {
        Some(host) => format!("on {host}"),
        None => format!(
            "on this host, in netns {}",
            cell::netns(other_end.netns_name.as_ref(), other_end.netns)
        ),
    }
}

/// The network namespace of the socket.
pub(super) fn netns(record: &Record) -> String {
    let number = record.endpoints.map_or(0, |it| it.netns);
    cell::netns(record.netns_name.as_ref(), number)
}

/// When the peer's last probe came, ms before the record, if it came after the first of the
/// probes that it did not answer.
pub(super) fn probed_meanwhile_ms(record: &Record) -> Option<u64> {
    let probes = u64::from(record.probes_out?);
    let unanswered_ms = probes.saturating_mul(record.settings.keepalive_intvl_ms?);
    record.ages.probed_ms().filter(|ms| *ms < unanswered_ms)
}
