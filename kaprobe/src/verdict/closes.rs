//! The rules for connections that a program closed after a time without data: the idle
//! timeout of an application, such as HTTP's keep-alive. TCP keepalive plays no part in it.

use crate::model::record::{EventName, Record};
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::{Confidence, State, VerdictName};
use crate::text::escape::Escaped;
use crate::timeout::estimate::{Death, TimeoutBounds};
use crate::timeout::middlebox::MiddleboxTable;
use crate::verdict::finding::{Explanation, Finding, IdleClose, LateData};
use crate::verdict::phrases;

/// The shortest time without data that an application's idle timeout may have ended, ms.
const IDLE_MS: u64 = 1_000;

/// Data that comes within this time after a close was on its way when the program closed,
/// ns. It is more than a round trip around the earth, and less than any idle timeout.
const ON_ITS_WAY_NS: u64 = 1_000_000_000;

/// How one end closed an established connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The number of the record of its FIN.
    seq: u64,
    mono_ns: u64,
    /// The peer closed it; else a program of this host.
    by_peer: bool,
    /// The program of this host.
    program: String,
    /// The command name of the program that closed it, if it is of this host and known.
    closer: Option<Escaped>,
    /// The time without data before the close, ms; before data that was on its way then.
    quiet_ms: u64,
    /// Data of this host was on its way when the peer's FIN came.
    in_flight: bool,
    /// Probes were answered while no data came.
    answered: bool,
    keepalive: bool,
}

impl Closed {
    /// What a record of a FIN tells. `None` if the connection was not idle, or if its
    /// program was ending. A probe was last answered at `answered_ns`, CLOCK_MONOTONIC: the
    /// kernel has processed the acknowledgement in a FIN, so its age tells nothing.
    pub(super) fn of(record: &Record, answered_ns: Option<u64>) -> Option<Self> {
        if record.state != Some(State::Established) || record.actor.by_exiting == Some(true) {
            return None;
        }
        let by_peer = record.event == EventName::FinReceived;
        let (lastrcv, lastsnd) = (record.ages.lastrcv_ms?, record.ages.lastsnd_ms?);
        let in_flight = by_peer && record.unacked? > 0 && lastsnd < lastrcv;
        // Data that waits or is not acknowledged is no idleness: the peer does not read, or
        // nothing reaches it.
        if record.unsent == Some(true) || record.unacked? > 0 && !in_flight {
            return None;
        }
        // Sent data that is still on its way does not count: its reader has not seen it.
        let quiet_ms = if in_flight {
            lastrcv - lastsnd
        } else {
            lastrcv.min(lastsnd)
        };
        let quiet_since_ns = record
            .mono_ns
            .saturating_sub(ms_to_ns(lastrcv.min(lastsnd)));
        (quiet_ms >= IDLE_MS).then(|| Self {
            seq: record.seq,
            mono_ns: record.mono_ns,
            by_peer,
            program: phrases::closer(record),
            closer: closer(record).filter(|_| !by_peer).cloned(),
            quiet_ms,
            in_flight,
            answered: answered_ns.is_some_and(|it| it > quiet_since_ns),
            keepalive: record.settings.keepalive == Some(true),
        })
    }

    /// The end of the connection, as a death by the application's idle timeout. The time is
    /// an upper bound for the timeout.
    pub(super) fn death(&self) -> Death {
        let age_ms = self.quiet_ms.saturating_add(TICK_MS);
        Death::after(age_ms, self.mono_ns)
    }

    /// True if the peer closed the connection: its timeout can be learned by its address.
    pub(super) const fn is_by_peer(&self) -> bool {
        self.by_peer
    }
}

/// The command name of the process that closed a connection, else of that which holds it.
fn closer(record: &Record) -> Option<&Escaped> {
    record
        .actor
        .by_comm
        .as_ref()
        .or(record.process.comm.as_ref())
}

/// The verdict on a close, when it happens. `None` if data is on its way: its fate tells.
pub(super) fn closed(
    closed: &Closed,
    bounds: Option<TimeoutBounds>,
    middleboxes: &MiddleboxTable,
) -> Option<Finding> {
    (!closed.in_flight).then(|| finding(closed, VerdictName::IdleClose, None, bounds, middleboxes))
}

/// The verdict on data that met a connection which one end had closed for idleness, and
/// drew a reset. `record` is the reset.
pub(super) fn late_data(
    record: &Record,
    closed: &Closed,
    bounds: Option<TimeoutBounds>,
    middleboxes: &MiddleboxTable,
) -> Finding {
    let after_ns = record.mono_ns.saturating_sub(closed.mono_ns);
    let was_on_its_way = if closed.by_peer {
        closed.in_flight
    } else {
        after_ns <= ON_ITS_WAY_NS
    };
    let (verdict, late) = if was_on_its_way {
        (VerdictName::IdleCloseRace, LateData::OnItsWay)
    } else {
        (
            VerdictName::IdleClose,
            LateData::After(after_ns / 1_000_000),
        )
    };
    let mut finding = finding(closed, verdict, Some(late), bounds, middleboxes);
    finding.evidence.push(closed.seq);
    finding
}

fn finding(
    closed: &Closed,
    verdict: VerdictName,
    late: Option<LateData>,
    bounds: Option<TimeoutBounds>,
    middleboxes: &MiddleboxTable,
) -> Finding {
    use Confidence::{High, Low, Medium};
    let bounds = bounds.filter(TimeoutBounds::is_believed);
    let comm = closed.closer.as_ref().map(Escaped::as_str);
    let fits = middleboxes.programs(closed.quiet_ms, comm);
    let confidence = match (bounds, late) {
        (Some(bounds), _) if !bounds.contradictory => High,
        (_, Some(_)) => Medium,
        // Some default fits most times, so it tells something only of a program that is known.
        _ if comm.is_some() && !fits.is_empty() => Medium,
        _ => Low,
    };
    let explanation = Explanation::IdleClose(IdleClose {
        by_peer: closed.by_peer,
        program: closed.program.clone(),
        quiet_ms: closed.quiet_ms,
        answered: closed.answered,
        keepalive: closed.keepalive,
        late,
    });
    let mut finding = Finding::new(verdict, confidence, explanation);
    finding.idle_ms = Some(closed.quiet_ms);
    finding.fits = fits;
    finding.bounds = bounds;
    finding
}
