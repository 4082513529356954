//! The rules: which verdict follows from a record.

use crate::model::record::Record;
use crate::model::remedy::{Remedy, SetIn};
use crate::model::time::TICK_MS;
use crate::model::values::{Cause, Confidence, LearnedOf, Met, State, VerdictName};
use crate::timeout::estimate::{Death, TimeoutBounds};
use crate::timeout::middlebox::MiddleboxTable;
use crate::verdict::finding::{Abort, Because, Finding, HalfOf};
use crate::verdict::remedies;

/// A connection that was quiet for less than this was not idle, ms: it is what peers
/// and the network take for an answer.
const IDLE_MS: u64 = 1_000;

/// Below this idle time, a peer that happened to reset just then is about as likely as
/// a timeout, ms.
const LIKELY_MS: u64 = 10_000;

/// How long a connection that this host closed may live on without a process, ns:
/// FIN_WAIT2 and TIME_WAIT. What came in sooner after the first record, or after a
/// loss, may be of one that was closed before it.
const AFTERLIFE_NS: u64 = 2 * 60_000_000_000;

/// A reset that came in, by what drew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// A keepalive probe, of so many out.
    Probe { out: u32, is_recorded: bool },
    /// The first segment after nothing had passed for so long, ms.
    FirstSegment { gap_ms: u64, sent_again: bool },
    /// Nothing that this host sent: it had been quiet.
    Unasked,
    /// Traffic, or nothing that can be told from it.
    Traffic,
}

impl Reset {
    /// What it shows of an idle timeout. Everything that passed the middlebox after
    /// the peer was last heard came later than that: the true age is no longer.
    pub(super) fn death(self, record: &Record) -> Option<Death> {
        let first = match self {
            Self::Probe { out, .. } => out == 1,
            Self::FirstSegment { .. } => true,
            Self::Unasked | Self::Traffic => false,
        };
        // A peer that has closed is not forgotten but done.
        let open = matches!(record.state, Some(State::Established | State::FinWait1));
        let age_ms = record
            .ages
            .idle_ms
            .filter(|_| first && open)?
            .saturating_add(TICK_MS);
        Some(Death {
            age_ms,
            heard_ns: record
                .mono_ns
                .saturating_sub(age_ms.saturating_mul(1_000_000)),
            died_ns: record.mono_ns,
        })
    }
}

/// What drew this reset; `None` where there is nothing to explain.
///
/// `tcp_receive_reset` is also passed by data for an orphan, which has nobody to read
/// it (`tcp_rcv_state_process`, net/ipv4/tcp_input.c): an acknowledgement has just
/// been taken from that segment then, and the answer to it tells the rest.
pub(super) fn received(record: &Record, is_recorded: bool) -> Option<Reset> {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
    let state = record.state?;
    let (idle, sent) = (record.ages.idle_ms?, record.ages.lastsnd_ms?);
    let is_orphan = record.identity.orphan == Some(true);
    match state {
        Established | CloseWait | Closing | LastAck => {}
        FinWait1 | FinWait2 if is_orphan && record.ages.lastack_ms? <= TICK_MS => return None,
        FinWait1 | FinWait2 => {}
        // A handshake that was refused; a connection that is over.
        _ => return None,
    }
    let (out, unacked) = (record.probes_out?, record.unacked?);
    // With data waiting, a probe asks for the window (`tcp_send_probe0`).
    if out > 0 && unacked == 0 && record.unsent == Some(false) {
        return Some(Reset::Probe { out, is_recorded });
    }
    // A FIN without data is sent without a stamp (`tcp_event_data_sent`).
    let gap_ms = match state {
        Established | FinWait1 if sent < idle => idle - sent,
        FinWait1 => idle,
        _ => 0,
    };
    let retransmits = record.retransmits.unwrap_or_default();
    // Only the last time is stamped: with each try the first lies longer back, by
    // twice the time between the last two.
    let tries_ms = if retransmits > 0 {
        4_000 << retransmits.min(16)
    } else {
        0
    };
    Some(if unacked > 0 && gap_ms >= IDLE_MS.max(tries_ms) {
        Reset::FirstSegment {
            gap_ms,
            sent_again: retransmits > 0,
        }
    } else if unacked == 0 && idle >= IDLE_MS && sent >= IDLE_MS {
        Reset::Unasked
    } else {
        Reset::Traffic
    })
}

/// The verdict on a reset that came in.
pub(super) fn explain(
    record: &Record,
    reset: Reset,
    bounds: Option<TimeoutBounds>,
    is_lossy: bool,
    known: &MiddleboxTable,
) -> Finding {
    let idle = record.ages.idle_ms.unwrap_or_default();
    let (verdict, idle_ms) = match reset {
        Reset::Probe { .. } => (VerdictName::ProbeReset, idle),
        Reset::FirstSegment { gap_ms, .. } => (VerdictName::IdleEviction, gap_ms),
        Reset::Unasked | Reset::Traffic => (VerdictName::AbortedByPeer, idle),
    };
    let confidence = confidence(reset, bounds, is_lossy);
    let because = match reset {
        Reset::Unasked => Because::Unasked(known.proxies(idle).into_iter().next()),
        Reset::Traffic if record.state == Some(State::CloseWait) => Because::SentAfterPeerClosed,
        Reset::Traffic => Because::InUse,
        _ if record.state == Some(State::CloseWait) => Because::PeerHadClosed,
        _ => Because::PeerRestarted,
    };
    let mut finding = Finding::new(verdict, confidence, because);
    finding.idle_ms = Some(idle_ms);
    if reset.death(record).is_some() {
        forgotten(record, &mut finding, idle_ms, bounds, known);
    }
    finding
}

fn confidence(reset: Reset, bounds: Option<TimeoutBounds>, is_lossy: bool) -> Confidence {
    use Confidence::{High, Low, Medium};
    let repeated = bounds.is_some_and(|it| !it.contradictory);
    // Of another endpoint in its network, it may be another box.
    let here = bounds.is_some_and(|it| it.of == LearnedOf::Endpoint);
    let contradicted = bounds.is_some_and(|it| it.contradictory);
    match reset {
        Reset::Probe { is_recorded, .. } if is_recorded => High,
        Reset::Probe { .. } | Reset::Traffic => Medium,
        Reset::Unasked => Low,
        Reset::FirstSegment { sent_again, .. } if contradicted || sent_again => Low,
        Reset::FirstSegment { .. } if repeated && here && !is_lossy => High,
        Reset::FirstSegment { gap_ms, .. } if gap_ms >= LIKELY_MS || repeated => Medium,
        Reset::FirstSegment { .. } => Low,
    }
}

/// Adds what follows where a connection died of its idle time.
fn forgotten(
    record: &Record,
    finding: &mut Finding,
    idle_ms: u64,
    bounds: Option<TimeoutBounds>,
    known: &MiddleboxTable,
) {
    let survived_ms = bounds.and_then(|it| it.survived_ms);
    let shortest_ms = bounds.and_then(|it| it.died_ms).unwrap_or(u64::MAX);
    let died_ms = idle_ms.min(shortest_ms);
    finding.fits = known.fits(survived_ms, died_ms);
    let explained = !bounds.is_some_and(|it| it.contradictory);
    if finding.confidence == Confidence::Low
        && explained
        && finding.fits.iter().any(|fit| fit.is_host)
    {
        finding.confidence = Confidence::Medium;
    }
    finding.bounds = bounds;
    let (seconds, half_of) = match finding.fits.first() {
        // Half of it is less than TCP_KEEPIDLE can be.
        None if died_ms < 2_000 => {
            finding.because = Because::ForgottenAtOnce(died_ms);
            return;
        }
        Some(fit) => (fit.seconds / 2, HalfOf::Fit(fit.clone())),
        None => (died_ms / 2_000, HalfOf::Death(died_ms)),
    };
    finding.because = Because::Forgotten(half_of);
    finding.remedy = remedies::first_probe(&record.settings, seconds.max(1));
}

/// The verdict on keepalive giving up.
pub(super) fn gave_up(record: &Record, known: &MiddleboxTable) -> Option<Finding> {
    let settings = &record.settings;
    let (verdict, because, remedy) = match record.cause? {
        Cause::ProbeCount => {
            let shortest_s = known.shortest_refreshed_s();
            let is_late = settings.keepalive_time_ms.unwrap_or_default() / 1000 > shortest_s;
            let remedy = is_late.then(|| remedies::first_probe(settings, shortest_s / 2));
            (
                VerdictName::PeerUnreachable,
                Because::Unreachable,
                remedy.flatten(),
            )
        }
        Cause::UserTimeout => (
            VerdictName::UserTimeout,
            Because::UserTimeout,
            Some(remedies::all_probes(settings)),
        ),
    };
    let mut finding = Finding::new(verdict, Confidence::High, because);
    finding.idle_ms = record.ages.idle_ms;
    finding.remedy = remedy;
    Some(finding)
}

/// The verdict on an orphan's timer.
pub(super) const fn fin_wait2() -> Finding {
    Finding::new(VerdictName::FinWait2, Confidence::High, Because::FinWait2)
}

/// The kernel's reason for a reset; empty where it gives none, in whatever words.
fn reason(record: &Record) -> &str {
    let reason = record.reason.as_ref().map_or("", |it| it.as_str());
    if reason.ends_with("NOT_SPECIFIED") {
        ""
    } else {
        reason
    }
}

/// The verdict on a reset that this host sent of its own accord.
///
/// Where the kernel gives no reason, the state does: whoever closes or disconnects
/// sets CLOSE before (`__tcp_close`, `tcp_disconnect`), an administrator does not
/// (`tcp_abort`).
pub(super) fn sent(record: &Record) -> Option<Finding> {
    // Part of a firing, which has the verdict.
    let reason = reason(record);
    if record.firing_ns.is_some() || reason.ends_with("KEEPALIVE_TIMEOUT") {
        return None;
    }
    // Perhaps of a firing whose begin was lost.
    if reason.is_empty() && record.state != Some(State::Close) && record.probes_out != Some(0) {
        return None;
    }
    let because = Because::Aborted(abort(record, reason));
    let mut finding = Finding::new(VerdictName::AbortedLocally, Confidence::High, because);
    finding.idle_ms = record.ages.idle_ms;
    Some(finding)
}

/// Why this host reset a connection, by the kernel's reason and the state it was in.
fn abort(record: &Record, reason: &str) -> Abort {
    let said = |what: &str| reason.ends_with(what);
    let orphan = record.identity.orphan;
    match record.state {
        _ if said("ABORT_ON_CLOSE") => Abort::DataUnread,
        _ if said("ABORT_ON_LINGER") => Abort::NoFinWait2,
        _ if said("ABORT_ON_MEMORY") => Abort::Memory,
        _ if said("DISCONNECT_WITH_DATA") => Abort::DisconnectWithData,
        // A socket without a file, and not because it was closed (`inet_child_forget`,
        // net/ipv4/inet_connection_sock.c).
        Some(State::Close) if record.identity.inode.is_none() && orphan == Some(false) => {
            Abort::NeverAccepted
        }
        Some(State::Close) if said("TCP_STATE") => Abort::LingerOrDisconnect,
        Some(State::Close) if orphan == Some(true) => Abort::OrphanLinger2OrMemory,
        Some(State::Close) => Abort::UnreadLingerOrDisconnect,
        // Its retransmission timer found no room for it (`tcp_out_of_resources`,
        // net/ipv4/tcp_timer.c), or an administrator asked (`tcp_abort`).
        _ if orphan == Some(true) && reason.is_empty() => Abort::OrphanMemoryOrDestroyed,
        _ => Abort::Destroyed,
    }
}

/// The verdict on a reset in answer to a segment, nothing having been missed for so
/// long before; `was_known`: that connection was seen before.
pub(super) fn passive(
    record: &Record,
    was_known: bool,
    since_ns: u64,
    known: &MiddleboxTable,
) -> Option<Finding> {
    let flags = record.flags?;
    // A closed port; what acknowledges nothing belongs to no connection.
    if flags.opens() || !flags.acknowledges() {
        return None;
    }
    let len = record.len.unwrap_or_default();
    let aborted = |because| Finding::new(VerdictName::AbortedLocally, Confidence::Medium, because);
    match (record.met?, record.state) {
        (Met::Nothing, _) | (Met::Socket, Some(State::Listen)) if !was_known => {
            Some(stray(len > 0 && since_ns > AFTERLIFE_NS, known))
        }
        // Data for what a program has closed. TIME_WAIT draws a reset only while it
        // stands for FIN_WAIT2 (`tcp_timewait_state_process`, net/ipv4/tcp_minisocks.c).
        (Met::Socket | Met::TimeWait, Some(state)) if len > 0 && is_closed(state) => {
            Some(aborted(Because::DataAfterClose))
        }
        // Its FIN acknowledged, nothing more awaited (`tcp_rcv_state_process`).
        (Met::Socket, Some(State::Close)) => Some(aborted(Because::Aborted(Abort::NoFinWait2Left))),
        // A handshake, or the last of a connection that was.
        _ => None,
    }
}

/// The verdict on a segment of a connection that this host never had.
fn stray(is_sure: bool, known: &MiddleboxTable) -> Finding {
    let own = known.host().max_by_key(|it| it.seconds);
    let (seconds, half_of) = match own.filter(|it| it.seconds < 7_200) {
        Some(own) => (own.seconds / 2, HalfOf::Host(own.what.to_string())),
        None => (known.shortest_refreshed_s() / 2, HalfOf::Common),
    };
    let confidence = if is_sure {
        Confidence::Medium
    } else {
        Confidence::Low
    };
    Finding {
        remedy: Some(Remedy::first_probe(SetIn::Peer, seconds.max(1))),
        ..Finding::new(
            VerdictName::StraySegment,
            confidence,
            Because::Stray(half_of),
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
