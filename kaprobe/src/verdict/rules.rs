//! The rules that derive a verdict from a record.

use crate::model::record::Record;
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::{Cause, Confidence, Errno, LearnedOf, Met, State, VerdictName};
use crate::timeout::estimate::{Death, TimeoutBounds, is_survived};
use crate::timeout::middlebox::{AfterExpiry, Fit, MiddleboxTable, shortest_refreshed_s, slack_ms};
use crate::verdict::finding::{
    Abort, Explanation, Finding, ForgottenBy, IdleLimit, OtherEnd, OtherEndWhy, OtherTtl, Restart,
    SilentEnd, Stray,
};
use crate::verdict::phrases;
use crate::verdict::remedies::{self, IdleDeath};
use crate::verdict::sent_resets::Sender;

/// The minimum silence of an idle connection, ms. A shorter silence can be the time that
/// the peer and the network take for an answer.
const IDLE_MS: u64 = 1_000;

/// The shortest idle age that a first probe can precede by half, ms: TCP_KEEPIDLE is at
/// least 1 s.
const MIN_PROBED_MS: u64 = 2_000;

/// The longest time that a closed connection stays in FIN_WAIT2 and TIME_WAIT, ns. A
/// segment that arrives sooner after the first record, or after a loss, may belong to a
/// connection that was closed before.
const AFTER_CLOSE_NS: u64 = 2 * 60_000_000_000;

/// A host or a program that started longer ago is not said to have restarted, s.
const RESTART_S: u64 = 600;

/// A program that starts later than this after its host did not start with it, s.
const BOOT_S: u64 = 60;

/// The trigger of a received reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetTrigger {
    /// A keepalive probe, with `out` probes unanswered.
    Probe { out: u8, is_recorded: bool },
    /// The first segment after `gap_ms` without a packet.
    FirstSegment { gap_ms: u64, retransmitted: bool },
    /// Data that the peer had left unanswered, sent more than once.
    Retransmission,
    /// Data that was sent before the peer's FIN arrived.
    CrossedClose,
    /// No segment from this host: the connection was idle.
    Unsolicited,
    /// Traffic, or a trigger that cannot be told from traffic.
    Traffic,
}

impl ResetTrigger {
    /// The death by idle timeout that the reset may show, if any. The age is an upper
    /// bound: any packet that passed after the peer was last heard makes the true age
    /// shorter.
    pub(super) fn death(self, record: &Record) -> Option<Death> {
        if record.from_this_host == Some(true) {
            return None;
        }
        let first = match self {
            Self::Probe { out, .. } => out == 1,
            Self::FirstSegment { .. } => true,
            _ => false,
        };
        // A peer that has closed has finished the connection, not forgotten it.
        let open = matches!(record.state, Some(State::Established | State::FinWait1));
        let age_ms = record
            .ages
            .quiet_ms()
            .filter(|_| first && open)?
            .saturating_add(TICK_MS);
        Some(Death::after(age_ms, record.mono_ns))
    }
}

/// Finds the trigger of a received reset. `None` if there is nothing to explain: the
/// handshake was refused, the connection was over, or its program had closed it and only
/// its FIN was on its way.
pub(super) fn received(record: &Record, is_recorded: bool) -> Option<ResetTrigger> {
    use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
    let state = record.state?;
    let (idle, sent) = (record.ages.idle_ms?, record.ages.lastsnd_ms?);
    let (out, unacked) = (record.probes_out?, record.unacked?);
    // The kernel records no send time for a FIN without data (`tcp_event_data_sent`).
    let sent_since_heard = sent < idle;
    let is_orphan = record.identity.orphan == Some(true);
    match state {
        Established | CloseWait => {}
        FinWait1 | LastAck | Closing if sent_since_heard => {}
        FinWait2 if !is_orphan => {}
        _ => return None,
    }
    // If data is waiting, the probe is a window probe (`tcp_send_probe0`).
    if out > 0 && unacked == 0 && record.unsent == Some(false) {
        return Some(ResetTrigger::Probe { out, is_recorded });
    }
    if state == CloseWait && unacked > 0 && sent.saturating_add(TICK_MS) >= record.ages.lastack_ms?
    {
        return Some(ResetTrigger::CrossedClose);
    }
    // A probe of the peer was a packet too. If one came after the data, the data is not the
    // first segment that the path saw.
    let gap_ms = match state {
        Established | FinWait1 if sent_since_heard => record.ages.quiet_ms()?.saturating_sub(sent),
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
    } else if unacked > 0 && retransmits > 0 && idle >= IDLE_MS {
        ResetTrigger::Retransmission
    } else if unacked == 0 && idle >= IDLE_MS && sent >= IDLE_MS {
        ResetTrigger::Unsolicited
    } else {
        ResetTrigger::Traffic
    })
}

/// What other records tell about a received reset.
#[derive(Clone, Debug)]
pub(super) struct ResetContext<'a> {
    /// The learned bounds for the idle timeout towards the peer.
    pub(super) bounds: Option<TimeoutBounds>,
    /// The longest idle age that this very connection survived, ms.
    pub(super) survived_ms: Option<u64>,
    pub(super) sender: Sender,
    /// The TTL of the peer's segments.
    pub(super) peer_ttl: Option<u8>,
    /// True if an event was lost.
    pub(super) is_lossy: bool,
    pub(super) middleboxes: &'a MiddleboxTable,
}

impl ResetContext<'_> {
    /// The bounds, if there are enough deaths to report them.
    fn believed(&self) -> Option<TimeoutBounds> {
        self.bounds.filter(TimeoutBounds::is_believed)
    }

    /// The TTLs, if they show that a box between sent the reset.
    fn by_box(&self, record: &Record) -> Option<OtherTtl> {
        OtherTtl::of_box(record.ttl?, self.peer_ttl?)
    }

    /// The age that this very connection survived, if it excludes an idle timeout as the
    /// cause of a death, ms. Another connection may have another path.
    fn excludes(&self, death: Death) -> Option<u64> {
        let is_survived = is_survived(self.survived_ms, death.age_ms);
        self.survived_ms.filter(|_| is_survived)
    }
}

/// The verdict on a received reset.
pub(super) fn explain(record: &Record, reset: ResetTrigger, context: &ResetContext<'_>) -> Finding {
    let idle = record.ages.idle_ms.unwrap_or_default();
    if let Some(other_end) = &context.sender.other_end
        && other_end.why != OtherEndWhy::Unknown
    {
        return by_other_end(reset, idle, other_end);
    }
    if record.from_this_host == Some(true) {
        return by_this_host(record, idle);
    }
    let death = reset.death(record);
    let survived_ms = death.and_then(|it| context.excludes(it));
    let (verdict, idle_ms) = match reset {
        ResetTrigger::Probe { .. } => (VerdictName::ProbeReset, idle),
        ResetTrigger::FirstSegment { gap_ms, .. } if survived_ms.is_none() => {
            (VerdictName::IdleEviction, gap_ms)
        }
        _ => (VerdictName::AbortedByPeer, idle),
    };
    let explanation = match (reset, survived_ms) {
        (ResetTrigger::Traffic | ResetTrigger::Probe { .. }, None)
            if let Some(fit) = half_closed(record, context) =>
        {
            Explanation::HalfClosedForgotten(fit)
        }
        _ if let Some(ttl) = context.by_box(record) => Explanation::ByBox(ttl),
        (_, Some(ms)) => Explanation::Survived(ms),
        (ResetTrigger::Unsolicited, _) => {
            let proxies = context.middleboxes.proxies(idle);
            Explanation::Unsolicited(proxies.into_iter().next())
        }
        (ResetTrigger::CrossedClose, _) => Explanation::CrossedPeerClose,
        (ResetTrigger::Retransmission, _) => Explanation::ResetWhileRetransmitting,
        (ResetTrigger::Traffic, _) if has_peer_closed(record) => Explanation::SentAfterPeerClosed,
        (ResetTrigger::Traffic, _) if record.data_received == Some(false) => {
            Explanation::BeforeAnswer
        }
        (ResetTrigger::Traffic, _) => Explanation::InUse,
        _ if has_peer_closed(record) => Explanation::PeerHadClosed,
        _ => Explanation::PeerRestarted,
    };
    let mut finding = Finding {
        idle_ms: Some(idle_ms),
        peer_host: context.sender.peer_host.clone(),
        same_ttl: record.ttl.filter(|_| record.ttl == context.peer_ttl),
        ..Finding::new(verdict, Confidence::Low, explanation)
    };
    if let Explanation::HalfClosedForgotten(fit) = &finding.explanation {
        finding.fits = vec![fit.clone()];
        let idle = IdleDeath {
            died_ms: idle_ms,
            survived_ms: context
                .bounds
                .map_or(context.survived_ms, |it| it.survived_ms),
        };
        (finding.remedy, _) = idle.first_probe(record, &finding.fits);
    } else if death.is_some() && survived_ms.is_none() {
        forgotten(record, reset, &mut finding, idle_ms, context);
    }
    finding.confidence = confidence(reset, &finding, context);
    finding
}

/// The timeout of this host for a half-closed connection that may have ended this one.
fn half_closed(record: &Record, context: &ResetContext<'_>) -> Option<Fit> {
    if !matches!(record.state, Some(State::CloseWait | State::FinWait2)) {
        return None;
    }
    let idle_ms = record.ages.idle_ms?;
    let connection = record.endpoints.as_ref()?;
    context.middleboxes.half_closed(connection, idle_ms)
}

fn has_peer_closed(record: &Record) -> bool {
    use State::{CloseWait, Closing, LastAck};
    matches!(record.state, Some(CloseWait | Closing | LastAck))
}

/// The verdict on a reset that the other end sent, as its own records show.
fn by_other_end(reset: ResetTrigger, idle_ms: u64, other_end: &OtherEnd) -> Finding {
    let verdict = match reset {
        ResetTrigger::Probe { .. } => VerdictName::ProbeReset,
        _ => VerdictName::AbortedByPeer,
    };
    let explanation = Explanation::ByOtherEnd(other_end.clone());
    Finding {
        idle_ms: Some(idle_ms),
        evidence: vec![other_end.seq],
        ..Finding::new(verdict, Confidence::High, explanation)
    }
}

/// The verdict on a reset that this host sent to itself, in place of the peer.
fn by_this_host(record: &Record, idle_ms: u64) -> Finding {
    // With the peer's handshake, it is known that the peer's segments come from elsewhere.
    let confidence = match record.peer_ttl {
        Some(_) => Confidence::High,
        None => Confidence::Medium,
    };
    Finding {
        idle_ms: Some(idle_ms),
        ..Finding::new(
            VerdictName::AbortedLocally,
            confidence,
            Explanation::ByThisHost,
        )
    }
}

/// From the records of one host, the peer's program and a box between look the same. Only
/// more evidence makes an eviction sure: connections that the peer's program kept for
/// longer, or the records of the host that answered.
fn confidence(reset: ResetTrigger, finding: &Finding, context: &ResetContext<'_>) -> Confidence {
    use Confidence::{High, Low, Medium};
    let contradictory = context.believed().is_some_and(|it| it.contradictory);
    let is_answered_elsewhere = context.sender.other_end.is_some();
    match reset {
        ResetTrigger::Probe { is_recorded, .. } if is_recorded => High,
        ResetTrigger::Unsolicited if !matches!(finding.explanation, Explanation::ByBox(_)) => Low,
        ResetTrigger::FirstSegment { .. } if finding.verdict != VerdictName::IdleEviction => Medium,
        ResetTrigger::FirstSegment { .. } if is_answered_elsewhere => Medium,
        ResetTrigger::FirstSegment { retransmitted, .. } if contradictory || retransmitted => Low,
        ResetTrigger::FirstSegment { .. } => match finding.explanation {
            Explanation::Forgotten {
                by: ForgottenBy::Box,
                ..
            } if !context.is_lossy => High,
            Explanation::Forgotten {
                by: ForgottenBy::BoxByTtl(_),
                ..
            } => Medium,
            _ if context.believed().is_some() || has_host_fit(finding) => Medium,
            _ => Low,
        },
        _ => Medium,
    }
}

/// Whether a timeout that this host applies explains the end.
fn has_host_fit(finding: &Finding) -> bool {
    finding.fits.iter().any(Fit::is_host)
}

/// Completes the finding for a connection that an idle timeout may have ended.
fn forgotten(
    record: &Record,
    reset: ResetTrigger,
    finding: &mut Finding,
    idle_ms: u64,
    context: &ResetContext<'_>,
) {
    let idle = IdleDeath::of(idle_ms, context.survived_ms, context.bounds);
    finding.fits = idle.fits(record, context.middleboxes, AfterExpiry::Reset);
    finding.bounds = context.believed();
    if idle.died_ms < MIN_PROBED_MS {
        finding.explanation = Explanation::ForgottenTooSoon(idle.died_ms);
        return;
    }
    let limit;
    (finding.remedy, limit) = idle.first_probe(record, &finding.fits);
    let by = if has_host_fit(finding) {
        ForgottenBy::HostBox
    } else {
        forgotten_by(record, reset, idle_ms, context)
    };
    finding.explanation = Explanation::Forgotten { limit, by };
}

/// Who may have forgotten the connection.
fn forgotten_by(
    record: &Record,
    reset: ResetTrigger,
    idle_ms: u64,
    context: &ResetContext<'_>,
) -> ForgottenBy {
    if let Some(ttl) = context.by_box(record) {
        return ForgottenBy::BoxByTtl(ttl);
    }
    // Other connections survived the age at which this one died.
    if context.bounds.is_some_and(|it| it.contradictory) {
        return ForgottenBy::RestartOrManyBoxes;
    }
    let believed = context.believed();
    // Another endpoint of the same network may be another program.
    let believed_here = believed.filter(|it| it.of == LearnedOf::Endpoint);
    let is_held = believed_here
        .and_then(|it| it.held_ms)
        .is_some_and(|held| held > idle_ms.saturating_add(slack_ms(idle_ms)));
    match (reset, believed) {
        (ResetTrigger::Probe { .. }, None) => ForgottenBy::RestartOrBox,
        // The host that answered had no socket: no program has closed one just now.
        (_, None) if context.sender.other_end.is_some() => ForgottenBy::RestartOrBox,
        (ResetTrigger::Probe { .. }, Some(_)) => ForgottenBy::Box,
        _ if is_held => ForgottenBy::Box,
        (_, Some(_)) => ForgottenBy::ProgramOrBox,
        (_, None) => ForgottenBy::PeerOrBox,
    }
}

/// The verdict on a connection that keepalive gave up.
pub(super) fn gave_up(record: &Record) -> Option<Finding> {
    let settings = &record.settings;
    let (verdict, explanation, remedy) = match record.cause? {
        _ if let Some(err) = record.err.filter(|err| *err != Errno::TIMED_OUT) => {
            (VerdictName::IcmpRejected, Explanation::Rejected(err), None)
        }
        Cause::ProbeCount => {
            let shortest_s = shortest_refreshed_s();
            // A peer whose probes still come in is not forgotten by a box between.
            let is_late = settings.keepalive_time_ms.unwrap_or_default() / 1000 > shortest_s
                && phrases::probed_meanwhile_ms(record).is_none();
            let remedy = is_late.then(|| remedies::first_probe(settings, shortest_s / 2));
            (
                VerdictName::PeerUnreachable,
                Explanation::Unreachable,
                remedy.flatten(),
            )
        }
        Cause::UserTimeout => {
            let all = remedies::all_probes(settings);
            let had_ms = settings.user_timeout_ms.map(u64::from);
            let is_short = had_ms < all.user_timeout_ms;
            (
                VerdictName::UserTimeout,
                Explanation::UserTimeout,
                is_short.then_some(all),
            )
        }
        // No keepalive timer gives up so.
        Cause::Retransmission | Cause::ZeroWindow => return None,
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
        _ if reason_is("ABORT_ON_CLOSE") => Abort::DataUnread {
            exiting: record.actor.by_exiting,
        },
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

/// What earlier records show of the endpoints of a segment that no socket took.
#[derive(Debug)]
pub(super) enum Earlier {
    /// A connection, and its peer was told of its end.
    Seen,
    /// The end of a connection, and its peer was not told.
    EndedSilently(SilentEnd),
    /// Nothing. No record is missing for so long, ns.
    Unknown { since_ns: u64 },
}

/// The verdict on a passive reset, sent in answer to a segment.
pub(super) fn passive(
    record: &Record,
    earlier: Earlier,
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
        // The peer answers a close that this host has forgotten.
        (Met::Nothing, _) | (Met::Socket, Some(State::Listen)) if flags.closes() && len == 0 => {
            None
        }
        (Met::Socket, Some(State::Listen)) if reason(record).ends_with("INVALID_SYN") => {
            Some(accept_queue_full())
        }
        // The connection that the segment belongs to is not yet this one.
        (Met::Socket, Some(State::SynSent)) => Some(Finding::new(
            VerdictName::StraySegment,
            Confidence::Medium,
            Explanation::PortsReused,
        )),
        (Met::Nothing, _) | (Met::Socket, Some(State::Listen)) => {
            unknown_here(record, earlier, middleboxes)
        }
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

/// The verdict on a segment that belongs to no connection of this host.
fn unknown_here(
    record: &Record,
    earlier: Earlier,
    middleboxes: &MiddleboxTable,
) -> Option<Finding> {
    let stray_segment = |confidence, explanation| {
        Some(Finding::new(
            VerdictName::StraySegment,
            confidence,
            explanation,
        ))
    };
    match earlier {
        Earlier::Seen => None,
        Earlier::EndedSilently(end) => Some(Finding {
            evidence: vec![end.seq],
            ..Finding::new(
                VerdictName::StraySegment,
                Confidence::Medium,
                Explanation::EndedHere(end),
            )
        }),
        Earlier::Unknown { .. }
            if record.met == Some(Met::Nothing) && is_invalid(record, middleboxes) =>
        {
            stray_segment(Confidence::Medium, Explanation::NotTranslated)
        }
        Earlier::Unknown { since_ns } => Some(stray(record, since_ns, middleboxes)),
    }
}

/// The verdict on the last segment of a handshake that found the accept queue full
/// (`tcp_check_req`, net/ipv4/tcp_minisocks.c).
fn accept_queue_full() -> Finding {
    Finding::new(
        VerdictName::AbortedLocally,
        Confidence::High,
        Explanation::AcceptQueueFull,
    )
}

/// Whether conntrack of this host took a segment for INVALID: it tracks, and has no entry
/// for the segment (`nf_conntrack_in`, net/netfilter/nf_conntrack_core.c). It does not
/// translate such a segment.
fn is_invalid(record: &Record, middleboxes: &MiddleboxTable) -> bool {
    let netns = record.endpoints.map(|it| it.netns);
    record.tracked == Some(false) && netns.is_some_and(|it| middleboxes.tracks(it))
}

/// What is known of a restart of this host or of the program that listens. The monotonic
/// clock counts from the start of the host.
fn restart(record: &Record) -> Restart {
    let up_s = record.mono_ns / ms_to_ns(1_000);
    match record.process_age_s.map(u64::from) {
        Some(age_s) if age_s < RESTART_S && age_s.saturating_add(BOOT_S) < up_s => {
            Restart::Program(age_s)
        }
        _ if up_s < RESTART_S => Restart::Host(up_s),
        Some(age_s) if age_s >= RESTART_S => Restart::NotSince(age_s),
        _ => Restart::Unknown,
    }
}

/// The verdict on a segment for a connection that no record of this host shows. No record is
/// missing in the `since_ns` before it.
fn stray(record: &Record, since_ns: u64, middleboxes: &MiddleboxTable) -> Finding {
    let common_s = shortest_refreshed_s();
    let connection = record.endpoints.as_ref();
    let own = connection.and_then(|it| middleboxes.on_path_of(it).min_by_key(|it| it.seconds));
    let (seconds, limit) = match own.filter(|it| it.seconds < common_s) {
        Some(own) => (own.seconds / 2, IdleLimit::Host(own.what.to_string())),
        None => (common_s / 2, IdleLimit::Common),
    };
    let is_likely = record.len > Some(0) && since_ns > AFTER_CLOSE_NS;
    let confidence = if is_likely {
        Confidence::Medium
    } else {
        Confidence::Low
    };
    let stray = Stray {
        limit,
        restart: restart(record),
        since_ms: since_ns / ms_to_ns(1),
    };
    Finding {
        remedy: Some(remedies::first_probe_of_peer(seconds.max(1))),
        ..Finding::new(
            VerdictName::StraySegment,
            confidence,
            Explanation::Stray(stray),
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
