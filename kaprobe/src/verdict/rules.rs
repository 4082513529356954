//! The rules: which verdict follows from a record.

use crate::model::record::Record;
use crate::model::values::{Cause, Met};
use crate::model::values::{Confidence, LearnedOf, State, VerdictName};
use crate::timeout::estimate::{Bracket, Death};
use crate::timeout::middlebox::Known;
use crate::verdict::{Finding, TICK_MS, advice};

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
    bracket: Option<Bracket>,
    is_lossy: bool,
    known: &Known,
) -> Finding {
    use Confidence::{High, Low, Medium};
    let idle = record.ages.idle_ms.unwrap_or_default();
    let mut finding = match reset {
        Reset::Probe { is_recorded, .. } => {
            let confidence = if is_recorded { High } else { Medium };
            Finding::new(VerdictName::ProbeReset, confidence, String::new())
        }
        Reset::FirstSegment { gap_ms, sent_again } => {
            let repeated = bracket.is_some_and(|it| !it.contradictory);
            // Of another endpoint in its network, it may be another box.
            let here = bracket.is_some_and(|it| it.of == LearnedOf::Endpoint);
            let contradicted = bracket.is_some_and(|it| it.contradictory);
            let confidence = match () {
                () if contradicted || sent_again => Low,
                () if repeated && here && !is_lossy => High,
                () if gap_ms >= LIKELY_MS || repeated => Medium,
                () => Low,
            };
            Finding::new(VerdictName::IdleEviction, confidence, String::new())
        }
        Reset::Unasked => Finding::new(
            VerdictName::AbortedByPeer,
            Low,
            advice::unasked(record, &known.proxies(idle)),
        ),
        Reset::Traffic => Finding::new(
            VerdictName::AbortedByPeer,
            Medium,
            advice::aborted_by_peer(record),
        ),
    };
    finding.idle_ms = Some(match reset {
        Reset::FirstSegment { gap_ms, .. } => gap_ms,
        _ => idle,
    });
    let Some(death) = reset.death(record) else {
        if matches!(reset, Reset::Probe { .. }) {
            finding.advice = advice::probe_of_the_dead(record);
        }
        return finding;
    };
    let survived_ms = bracket.and_then(|it| it.survived_ms);
    let shortest_ms = bracket.and_then(|it| it.died_ms).unwrap_or(u64::MAX);
    let died_ms = finding.idle_ms.unwrap_or(death.age_ms).min(shortest_ms);
    finding.fits = known.fits(survived_ms, died_ms);
    if finding.confidence == Low && finding.fits.iter().any(|fit| fit.is_host) {
        let explained = !bracket.is_some_and(|it| it.contradictory);
        finding.confidence = if explained { Medium } else { Low };
    }
    finding.advice = advice::earlier_probe(record, died_ms, bracket, &finding.fits);
    finding.bracket = bracket;
    finding
}

/// The verdict on keepalive giving up.
pub(super) fn gave_up(record: &Record, known: &Known) -> Option<Finding> {
    let (verdict, advice) = match record.cause? {
        Cause::ProbeCount => (
            VerdictName::PeerUnreachable,
            advice::unreachable(record, known),
        ),
        Cause::UserTimeout => (VerdictName::UserTimeout, advice::user_timeout(record)),
    };
    let mut finding = Finding::new(verdict, Confidence::High, advice);
    finding.idle_ms = record.ages.idle_ms;
    Some(finding)
}

/// The verdict on an orphan's timer.
pub(super) fn fin_wait2(record: &Record) -> Finding {
    Finding::new(
        VerdictName::FinWait2,
        Confidence::High,
        advice::fin_wait2(record),
    )
}

/// The verdict on a reset that this host sent of its own accord.
///
/// Where the kernel gives no reason, the state does: whoever closes or disconnects
/// sets CLOSE before (`__tcp_close`, `tcp_disconnect`), an administrator does not
/// (`tcp_abort`).
pub(super) fn sent(record: &Record) -> Option<Finding> {
    // Part of a firing, which has the verdict.
    let reason = advice::reason(record);
    if record.firing_ns.is_some() || reason.ends_with("KEEPALIVE_TIMEOUT") {
        return None;
    }
    // Perhaps of a firing whose begin was lost.
    if reason.is_empty() && record.state != Some(State::Close) && record.probes_out != Some(0) {
        return None;
    }
    let advice = advice::aborted_locally(record);
    let mut finding = Finding::new(VerdictName::AbortedLocally, Confidence::High, advice);
    finding.idle_ms = record.ages.idle_ms;
    Some(finding)
}

/// The verdict on a reset in answer to a segment, nothing having been missed for so
/// long before; `was_known`: that connection was spoken of before.
pub(super) fn passive(
    record: &Record,
    was_known: bool,
    since_ns: u64,
    known: &Known,
) -> Option<Finding> {
    let flags = record.flags?;
    // A closed port; what acknowledges nothing belongs to no connection.
    if flags.opens() || !flags.acknowledges() {
        return None;
    }
    let len = record.len.unwrap_or_default();
    match (record.met?, record.state) {
        (Met::Nothing, _) | (Met::Socket, Some(State::Listen)) if !was_known => {
            let sure = len > 0 && since_ns > AFTERLIFE_NS;
            let confidence = if sure {
                Confidence::Medium
            } else {
                Confidence::Low
            };
            let advice = advice::stray(record, known);
            Some(Finding::new(VerdictName::StraySegment, confidence, advice))
        }
        // Data for what a program has closed. TIME_WAIT draws a reset only while it
        // stands for FIN_WAIT2 (`tcp_timewait_state_process`, net/ipv4/tcp_minisocks.c).
        (Met::Socket | Met::TimeWait, Some(state)) if len > 0 && is_closed(state) => {
            Some(Finding::new(
                VerdictName::AbortedLocally,
                Confidence::Medium,
                advice::data_after_close(record),
            ))
        }
        // Its FIN acknowledged, nothing more awaited (`tcp_rcv_state_process`).
        (Met::Socket, Some(State::Close)) => Some(Finding::new(
            VerdictName::AbortedLocally,
            Confidence::Medium,
            advice::no_fin_wait2(),
        )),
        // A handshake, or the last of a connection that was.
        _ => None,
    }
}

const fn is_closed(state: State) -> bool {
    use State::{Close, Closing, FinWait1, FinWait2, LastAck, TimeWait};
    matches!(
        state,
        Close | Closing | FinWait1 | FinWait2 | LastAck | TimeWait
    )
}
