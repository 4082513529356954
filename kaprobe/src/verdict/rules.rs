//! The rules that derive a verdict from a record.

use crate::model::record::Record;
use crate::model::remedy::{Remedy, SetIn};
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::{Cause, Confidence, LearnedOf, Met, State, VerdictName};
use crate::timeout::estimate::{Death, TimeoutBounds};
use crate::timeout::middlebox::{Fit, MiddleboxTable};
use crate::verdict::finding::{Abort, Explanation, Finding, HalfOf};
use crate::verdict::remedies;

/// The minimum silence of an idle connection, ms. A shorter silence can be the time that
/// the peer and the network take for an answer.
const IDLE_MS: u64 = 1_000;

/// The minimum idle age that makes a timeout likely, ms. Below it, a peer that resets by
/// coincidence is about as likely.
const LIKELY_MS: u64 = 10_000;

/// The longest time that a closed connection stays in FIN_WAIT2 and TIME_WAIT, ns. A
/// segment that arrives sooner after the first record, or after a loss, may belong to a
/// connection that was closed before.
const AFTER_CLOSE_NS: u64 = 2 * 60_000_000_000;

/// The trigger of a received reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetTrigger {
    /// A keepalive probe, with `out` probes unanswered.
    Probe { out: u8, is_recorded: bool },
    /// The first segment after `gap_ms` without a packet.
    FirstSegment { gap_ms: u64, retransmitted: bool },
    /// No segment from this host: the connection was idle.
    Unsolicited,
    /// Traffic, or a trigger that cannot be told from traffic.
    Traffic,
}

impl ResetTrigger {
    /// The death by idle timeout that the reset shows, if any. The age is an upper bound:
    /// any packet that passed after the peer was last heard makes the true age shorter.
    pub(super) fn death(self, record: &Record) -> Option<Death> {
        let first = match self {
            Self::Probe { out, .. } => out == 1,
            Self::FirstSegment { .. } => true,
            Self::Unsolicited | Self::Traffic => false,
        };
        // A peer that has closed has finished the connection, not forgotten it.
        let open = matches!(record.state, Some(State::Established | State::FinWait1));
        let age_ms = record
            .ages
            .idle_ms
            .filter(|_| first && open)?
            .saturating_add(TICK_MS);
        Some(Death {
            age_ms,
            heard_ns: record.mono_ns.saturating_sub(ms_to_ns(age_ms)),
            died_ns: record.mono_ns,
        })
    }
}

/// Finds the trigger of a received reset. `None` if there is nothing to explain.
///
/// Data for an orphan also passes `tcp_receive_reset`, because no process can read it
/// (`tcp_rcv_state_process`, net/ipv4/tcp_input.c). The kernel has then just processed
/// the ACK of that segment. The reset that answers it gets the verdict instead.
pub(super) fn received(record: &Record, is_recorded: bool) -> Option<ResetTrigger> {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
    let state = record.state?;
    let (idle, sent) = (record.ages.idle_ms?, record.ages.lastsnd_ms?);
    let is_orphan = record.identity.orphan == Some(true);
    match state {
        Established | CloseWait | Closing | LastAck => {}
        FinWait1 | FinWait2 if is_orphan && record.ages.lastack_ms? <= TICK_MS => return None,
        FinWait1 | FinWait2 => {}
        // The handshake was refused, or the connection is already over.
        _ => return None,
    }
    let (out, unacked) = (record.probes_out?, record.unacked?);
    // If data is waiting, the probe is a window probe (`tcp_send_probe0`).
    if out > 0 && unacked == 0 && record.unsent == Some(false) {
        return Some(ResetTrigger::Probe { out, is_recorded });
    }
    // The kernel records no send time for a FIN without data (`tcp_event_data_sent`).
    let gap_ms = match state {
        Established | FinWait1 if sent < idle => idle - sent,
        FinWait1 => idle,
        _ => 0,
    };
    let retransmits = record.retransmits.unwrap_or_default();
    // The kernel records only the last transmission. Each retransmission moves the first
    // one further back, by twice the time between the last two.
    let retransmitting_ms = if retransmits > 0 {
        4_000 << retransmits.min(16)
    } else {
        0
    };
    Some(if unacked > 0 && gap_ms >= IDLE_MS.max(retransmitting_ms) {
        ResetTrigger::FirstSegment {
            gap_ms,
            retransmitted: retransmits > 0,
        }
    } else if unacked == 0 && idle >= IDLE_MS && sent >= IDLE_MS {
        ResetTrigger::Unsolicited
    } else {
        ResetTrigger::Traffic
    })
}

/// The verdict on a received reset.
pub(super) fn explain(
    record: &Record,
    reset: ResetTrigger,
    bounds: Option<TimeoutBounds>,
    is_lossy: bool,
    middleboxes: &MiddleboxTable,
) -> Finding {
    let idle = record.ages.idle_ms.unwrap_or_default();
    let (verdict, idle_ms) = match reset {
        ResetTrigger::Probe { .. } => (VerdictName::ProbeReset, idle),
        ResetTrigger::FirstSegment { gap_ms, .. } => (VerdictName::IdleEviction, gap_ms),
        ResetTrigger::Unsolicited | ResetTrigger::Traffic => (VerdictName::AbortedByPeer, idle),
    };
    let confidence = confidence(reset, bounds, is_lossy);
    let explanation = match reset {
        ResetTrigger::Unsolicited => {
            Explanation::Unsolicited(middleboxes.proxies(idle).into_iter().next())
        }
        ResetTrigger::Traffic if record.state == Some(State::CloseWait) => {
            Explanation::SentAfterPeerClosed
        }
        ResetTrigger::Traffic => Explanation::InUse,
        _ if record.state == Some(State::CloseWait) => Explanation::PeerHadClosed,
        _ => Explanation::PeerRestarted,
    };
    let mut finding = Finding::new(verdict, confidence, explanation);
    finding.idle_ms = Some(idle_ms);
    if reset.death(record).is_some() {
        forgotten(record, &mut finding, idle_ms, bounds, middleboxes);
    }
    finding
}

fn confidence(reset: ResetTrigger, bounds: Option<TimeoutBounds>, is_lossy: bool) -> Confidence {
    use Confidence::{High, Low, Medium};
    let repeated = bounds.is_some_and(|it| !it.contradictory);
    // Another endpoint of the same network may be behind another middlebox.
    let same_endpoint = bounds.is_some_and(|it| it.of == LearnedOf::Endpoint);
    let contradicted = bounds.is_some_and(|it| it.contradictory);
    match reset {
        ResetTrigger::Probe { is_recorded, .. } if is_recorded => High,
        ResetTrigger::Probe { .. } | ResetTrigger::Traffic => Medium,
        ResetTrigger::Unsolicited => Low,
        ResetTrigger::FirstSegment { retransmitted, .. } if contradicted || retransmitted => Low,
        ResetTrigger::FirstSegment { .. } if repeated && same_endpoint && !is_lossy => High,
        ResetTrigger::FirstSegment { gap_ms, .. } if gap_ms >= LIKELY_MS || repeated => Medium,
        ResetTrigger::FirstSegment { .. } => Low,
    }
}

/// Completes the finding for a connection that an idle timeout ended.
fn forgotten(
    record: &Record,
    finding: &mut Finding,
    idle_ms: u64,
    bounds: Option<TimeoutBounds>,
    middleboxes: &MiddleboxTable,
) {
    let survived_ms = bounds.and_then(|it| it.survived_ms);
    let shortest_ms = bounds.and_then(|it| it.died_ms).unwrap_or(u64::MAX);
    let died_ms = idle_ms.min(shortest_ms);
    finding.fits = middleboxes.fits(record.endpoints.as_ref(), survived_ms, died_ms);
    let explained = !bounds.is_some_and(|it| it.contradictory);
    if finding.confidence == Confidence::Low && explained && finding.fits.iter().any(Fit::is_host) {
        finding.confidence = Confidence::Medium;
    }
    finding.bounds = bounds;
    let (seconds, half_of) = match finding.fits.first() {
        // Half of this age is below the minimum of TCP_KEEPIDLE.
        None if died_ms < 2_000 => {
            finding.explanation = Explanation::ForgottenTooSoon(died_ms);
            return;
        }
        Some(fit) => (fit.seconds / 2, HalfOf::Fit(fit.clone())),
        None => (died_ms / 2_000, HalfOf::Death(died_ms)),
    };
    finding.explanation = Explanation::Forgotten(half_of);
    finding.remedy = remedies::first_probe(&record.settings, seconds.max(1));
}

/// The verdict on a connection that keepalive gave up.
pub(super) fn gave_up(record: &Record, middleboxes: &MiddleboxTable) -> Option<Finding> {
    let settings = &record.settings;
    let (verdict, explanation, remedy) = match record.cause? {
        Cause::ProbeCount => {
            let shortest_s = middleboxes.shortest_refreshed_s();
            let is_late = settings.keepalive_time_ms.unwrap_or_default() / 1000 > shortest_s;
            let remedy = is_late.then(|| remedies::first_probe(settings, shortest_s / 2));
            (
                VerdictName::PeerUnreachable,
                Explanation::Unreachable,
                remedy.flatten(),
            )
        }
        Cause::UserTimeout => (
            VerdictName::UserTimeout,
            Explanation::UserTimeout,
            Some(remedies::all_probes(settings)),
        ),
    };
    let mut finding = Finding::new(verdict, Confidence::High, explanation);
    finding.idle_ms = record.ages.idle_ms;
    finding.remedy = remedy;
    Some(finding)
}

/// The verdict on an orphan whose FIN_WAIT2 timer fired.
pub(super) const fn fin_wait2() -> Finding {
    Finding::new(
        VerdictName::FinWait2,
        Confidence::High,
        Explanation::FinWait2,
    )
}

/// The kernel's reason for a reset; empty if it is missing or NOT_SPECIFIED.
fn reason(record: &Record) -> &str {
    let reason = record.reason.as_ref().map_or("", |it| it.as_str());
    if reason.ends_with("NOT_SPECIFIED") {
        ""
    } else {
        reason
    }
}

/// The verdict on an active reset that this host sent.
///
/// If the kernel gives no reason, the state shows it: a close or disconnect sets CLOSE
/// before the reset (`__tcp_close`, `tcp_disconnect`), an administrator's abort does not
/// (`tcp_abort`).
pub(super) fn sent(record: &Record) -> Option<Finding> {
    // The reset belongs to a firing of the timer, and the firing gets the verdict.
    let reason = reason(record);
    if record.firing_ns.is_some() || reason.ends_with("KEEPALIVE_TIMEOUT") {
        return None;
    }
    // The reset may belong to a firing whose start was lost.
    if reason.is_empty() && record.state != Some(State::Close) && record.probes_out != Some(0) {
        return None;
    }
    let explanation = Explanation::Aborted(abort(record, reason));
    let mut finding = Finding::new(VerdictName::AbortedLocally, Confidence::High, explanation);
    finding.idle_ms = record.ages.idle_ms;
    Some(finding)
}

/// Why this host reset a connection, from the kernel's reason and the socket's state.
fn abort(record: &Record, reason: &str) -> Abort {
    let reason_is = |name: &str| reason.ends_with(name);
    let orphan = record.identity.orphan;
    match record.state {
        _ if reason_is("ABORT_ON_CLOSE") => Abort::DataUnread,
        _ if reason_is("ABORT_ON_LINGER") => Abort::NoFinWait2,
        _ if reason_is("ABORT_ON_MEMORY") => Abort::Memory,
        _ if reason_is("DISCONNECT_WITH_DATA") => Abort::DisconnectWithData,
        // The socket has no file although nobody closed it (`inet_child_forget`,
        // net/ipv4/inet_connection_sock.c).
        Some(State::Close) if record.identity.inode.is_none() && orphan == Some(false) => {
            Abort::NeverAccepted
        }
        Some(State::Close) if reason_is("TCP_STATE") => Abort::LingerOrDisconnect,
        Some(State::Close) if orphan == Some(true) => Abort::OrphanLinger2OrMemory,
        Some(State::Close) => Abort::UnreadLingerOrDisconnect,
        // The retransmission timer found no room for it (`tcp_out_of_resources`,
        // net/ipv4/tcp_timer.c), or an administrator destroyed it (`tcp_abort`).
        _ if orphan == Some(true) && reason.is_empty() => Abort::OrphanMemoryOrDestroyed,
        _ => Abort::Destroyed,
    }
}

/// The verdict on a passive reset, sent in answer to a segment.
///
/// No record is missing in the `since_ns` before it. `was_seen` is true if an earlier
/// record has the same endpoints.
pub(super) fn passive(
    record: &Record,
    was_seen: bool,
    since_ns: u64,
    middleboxes: &MiddleboxTable,
) -> Option<Finding> {
    let flags = record.flags?;
    // A SYN for a closed port, or a segment without ACK, belongs to no connection.
    if flags.opens() || !flags.acknowledges() {
        return None;
    }
    let len = record.len.unwrap_or_default();
    let aborted =
        |explanation| Finding::new(VerdictName::AbortedLocally, Confidence::Medium, explanation);
    match (record.met?, record.state) {
        (Met::Nothing, _) | (Met::Socket, Some(State::Listen)) if !was_seen => Some(stray(
            record,
            len > 0 && since_ns > AFTER_CLOSE_NS,
            middleboxes,
        )),
        // Data for a connection that a program has closed. A TIME_WAIT socket sends a
        // reset only while it replaces a FIN_WAIT2 socket (`tcp_timewait_state_process`,
        // net/ipv4/tcp_minisocks.c).
        (Met::Socket | Met::TimeWait, Some(state)) if len > 0 && is_closed(state) => {
            Some(aborted(Explanation::DataAfterClose))
        }
        // The FIN was acknowledged and FIN_WAIT2 skipped (`tcp_rcv_state_process`).
        (Met::Socket, Some(State::Close)) => {
            Some(aborted(Explanation::Aborted(Abort::NoFinWait2Late)))
        }
        // A handshake, or the last segment of a connection that was seen.
        _ => None,
    }
}

/// The verdict on a segment for a connection that this host never had.
fn stray(record: &Record, is_likely: bool, middleboxes: &MiddleboxTable) -> Finding {
    let connection = record.endpoints.as_ref();
    let own = connection.and_then(|it| middleboxes.on_path_of(it).max_by_key(|it| it.seconds));
    let (seconds, half_of) = match own.filter(|it| it.seconds < 7_200) {
        Some(own) => (own.seconds / 2, HalfOf::Host(own.what.to_string())),
        None => (middleboxes.shortest_refreshed_s() / 2, HalfOf::Common),
    };
    let confidence = if is_likely {
        Confidence::Medium
    } else {
        Confidence::Low
    };
    Finding {
        remedy: Some(Remedy::first_probe(SetIn::Peer, seconds.max(1))),
        ..Finding::new(
            VerdictName::StraySegment,
            confidence,
            Explanation::Stray(half_of),
        )
    }
}

const fn is_closed(state: State) -> bool {
    use State::{Close, Closing, FinWait1, FinWait2, LastAck, TimeWait};
    matches!(
        state,
        Close | Closing | FinWait1 | FinWait2 | LastAck | TimeWait
    )
}
