//! The rules for connections that a program closed after a time without data: the idle
//! timeout of an application, such as HTTP's keep-alive. TCP keepalive plays no part in it.

use crate::model::record::{EventName, Record};
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::{Confidence, State, VerdictName};
use crate::timeout::estimate::{Death, TimeoutBounds};
use crate::timeout::middlebox::MiddleboxTable;
use crate::verdict::finding::{Explanation, Finding, IdleClose, LateData, OtherEnd};

/// The shortest time without data that an application's idle timeout may have ended, ms.
const IDLE_MS: u64 = 1_000;

/// Data that comes within this time after a close was on its way when the program closed,
/// ns. It is more than a round trip around the earth, and less than any idle timeout.
const ON_ITS_WAY_NS: u64 = 1_000_000_000;

/// How one end closed an established connection that was idle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The number of the record of its FIN.
    seq: u64,
    mono_ns: u64,
    /// The names of the program that closed, if they are known.
    closer_names: Option<String>,
    /// Data of this host was on its way when the peer's FIN came.
    in_flight: bool,
    /// What a verdict tells of it. The time without data is that before data that was on its
    /// way.
    close: IdleClose,
}

impl Closed {
    /// What a record of a FIN tells. `None` if the connection was not idle, or if its
    /// process was ending. A probe was last answered at `answered_ns`, CLOCK_MONOTONIC: the
    /// kernel has processed the acknowledgement in a FIN, so its age tells nothing. The
    /// other end's own record is that of `other_end`.
    pub(super) fn of(
        record: &Record,
        answered_ns: Option<u64>,
        other_end: Option<OtherEnd>,
    ) -> Option<Self> {
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
        // Sent data that is still on its way does not count: its reader has not seen it. What
        // was sent and acknowledged before does, and only the kernel's stamps tell of it.
        let quiet_ms = if in_flight {
            record.transfer.silent_ms?
        } else {
            lastrcv.min(lastsnd)
        };
        if quiet_ms < IDLE_MS {
            return None;
        }
        let quiet_since_ns = record
            .mono_ns
            .saturating_sub(ms_to_ns(lastrcv.min(lastsnd)));
        Some(Self {
            seq: record.seq,
            mono_ns: record.mono_ns,
            closer_names: match (by_peer, &other_end) {
                (true, other_end) => other_end.as_ref().and_then(|it| it.names.clone()),
                (false, _) => record.closer_names(),
            },
            in_flight,
            close: IdleClose {
                by_peer,
                program: record.closer(),
                other_end: other_end.filter(|_| by_peer),
                quiet_ms,
                answered: answered_ns.is_some_and(|it| it > quiet_since_ns),
                keepalive: record.settings.keepalive == Some(true),
                late: None,
            },
        })
    }

    /// The end of the connection, as a death by the application's idle timeout. The time is
    /// an upper bound for the timeout.
    pub(super) fn death(&self) -> Death {
        let age_ms = self.close.quiet_ms.saturating_add(TICK_MS);
        Death::after(age_ms, self.mono_ns)
    }

    /// True if the peer closed the connection: its timeout can be learned by its address.
    pub(super) const fn is_by_peer(&self) -> bool {
        self.close.by_peer
    }
}

/// The verdict on a FIN that the kernel sent for a process that was ending, as the record of
/// that end shows. `None` if this end had closed before.
pub(super) fn peer_exited(record: &Record, other_end: OtherEnd) -> Option<Finding> {
    let was_open = record.state == Some(State::Established);
    was_open.then(|| Finding {
        evidence: vec![other_end.seq],
        idle_ms: record.ages.lastrcv_ms.min(record.ages.lastsnd_ms),
        ..Finding::new(
            VerdictName::PeerExited,
            Confidence::High,
            Explanation::PeerExited(other_end),
        )
    })
}

/// The verdict on a close, when it happens. Data that was on its way to the peer then is
/// never answered, whether it draws a reset or the peer's kernel takes it.
pub(super) fn closed(
    closed: &Closed,
    bounds: Option<TimeoutBounds>,
    middleboxes: &MiddleboxTable,
) -> Finding {
    let (verdict, late) = if closed.in_flight {
        (VerdictName::IdleCloseRace, Some(LateData::OnItsWay))
    } else {
        (VerdictName::IdleClose, None)
    };
    finding(closed, verdict, late, bounds, middleboxes)
}

/// The verdict on the end of a connection that a program of this host had closed for
/// idleness. `None` if no data came after the close, or if the program may have waited for
/// it: many shut down only their own side.
pub(super) fn lingered(
    record: &Record,
    closed: &Closed,
    middleboxes: &MiddleboxTable,
) -> Option<Finding> {
    let names = closed.closer_names.as_deref();
    let lingers = names.is_some_and(|it| middleboxes.lingers(it));
    let data_ns = record
        .mono_ns
        .saturating_sub(ms_to_ns(record.ages.lastrcv_ms?));
    let after_ns = data_ns.checked_sub(closed.mono_ns + ms_to_ns(TICK_MS))?;
    if closed.close.by_peer || !lingers || after_ns > ON_ITS_WAY_NS {
        return None;
    }
    let late = Some(LateData::Lingered);
    let mut finding = finding(closed, VerdictName::IdleCloseRace, late, None, middleboxes);
    finding.evidence.push(closed.seq);
    Some(finding)
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
    // What was on its way to a peer that closed has its verdict already.
    let (verdict, late) = if !closed.close.by_peer && after_ns <= ON_ITS_WAY_NS {
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
    let names = closed.closer_names.as_deref();
    let fits = middleboxes.programs(closed.close.quiet_ms, names);
    let closes_idle = names.is_some_and(|it| middleboxes.is_listed(it) || !fits.is_empty());
    let confidence = match (bounds, late) {
        (Some(bounds), _) if !bounds.contradictory => High,
        (_, Some(_)) => Medium,
        // Some default fits most times, so it tells something only of a program that is known.
        _ if closes_idle => Medium,
        _ => Low,
    };
    let close = IdleClose {
        late,
        ..closed.close.clone()
    };
    let (other_end, quiet_ms) = (close.other_end.as_ref().map(|it| it.seq), close.quiet_ms);
    let mut finding = Finding::new(verdict, confidence, Explanation::IdleClose(close));
    finding.evidence.extend(other_end);
    finding.idle_ms = Some(quiet_ms);
    finding.fits = fits;
    finding.bounds = bounds;
    finding
}
