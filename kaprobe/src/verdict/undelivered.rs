//! The rules for data that was sent and never acknowledged: it is sent again, then the
//! kernel gives up. No keepalive probe is sent meanwhile.

use crate::model::record::Record;
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::{Cause, Confidence, Errno, State, VerdictName};
use crate::timeout::estimate::{Death, TimeoutBounds, is_survived};
use crate::timeout::middlebox::{AfterExpiry, MiddleboxTable};
use crate::verdict::finding::{Explanation, Finding, Stuck, StuckWhy};
use crate::verdict::remedies::IdleDeath;

/// The shortest silence that a box on the way may have ended by forgetting the connection,
/// ms. Shorter ones are pauses of a conversation: no known middlebox has so short a timeout.
const SILENT_MS: u64 = 5_000;

/// What other records tell about data that is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct StuckContext<'a> {
    /// The learned bounds for the idle timeout towards the peer.
    pub(super) bounds: Option<TimeoutBounds>,
    /// The longest idle age that this very connection survived, ms.
    pub(super) survived_ms: Option<u64>,
    /// When another connection to the same endpoint was last heard, CLOCK_MONOTONIC ns.
    pub(super) others_heard_ns: Option<u64>,
    /// True if an event was lost.
    pub(super) is_lossy: bool,
    pub(super) middleboxes: &'a MiddleboxTable,
}

/// The death by idle timeout that the end of a connection shows, if any.
pub(super) fn death(record: &Record, survived_ms: Option<u64>) -> Option<Death> {
    let age_ms = silent_ms(record, survived_ms)?.saturating_add(TICK_MS);
    let stalled_ns = ms_to_ns(record.transfer.stalled_ms?);
    let died_ns = record.mono_ns.saturating_sub(stalled_ns);
    Some(Death::after(age_ms, died_ns))
}

/// The silence after which the data was sent, if a box may have forgotten the connection
/// meanwhile, ms. What this connection survived is no timeout of its path.
fn silent_ms(record: &Record, survived_ms: Option<u64>) -> Option<u64> {
    let silent_ms = record.transfer.silent_ms?;
    let is_idle = silent_ms >= SILENT_MS && !is_survived(survived_ms, silent_ms);
    is_idle.then_some(silent_ms)
}

/// The silence that the connection survived, if it was no shorter than that before the data,
/// ms.
fn outlived_ms(record: &Record, survived_ms: Option<u64>) -> Option<u64> {
    let silent_ms = record.transfer.silent_ms?;
    survived_ms.filter(|_| silent_ms >= SILENT_MS && is_survived(survived_ms, silent_ms))
}

/// The verdict on data that is sent again without an answer, or that the kernel gave up.
/// `None` if nobody has answered the handshake yet: there is no connection.
pub(super) fn explain(
    record: &Record,
    context: &StuckContext<'_>,
    gave_up: bool,
) -> Option<Finding> {
    if matches!(record.state, Some(State::SynSent | State::SynRecv)) {
        return None;
    }
    let transfer = &record.transfer;
    let is_unsent = transfer.unacked_bytes == Some(0);
    let icmp = icmp_error(record);
    let (verdict, why) = match (record.cause, icmp, silent_ms(record, context.survived_ms)) {
        (_, Some(err), _) => (VerdictName::IcmpRejected, StuckWhy::Icmp(err)),
        (Some(Cause::UserTimeout), ..) if is_unsent => {
            (VerdictName::UserTimeout, StuckWhy::ZeroWindow)
        }
        (Some(Cause::UserTimeout), ..) => (VerdictName::UserTimeout, StuckWhy::UserTimeout),
        // `tcp_orphan_retries` counts for an orphan whose peer acknowledges too
        // (`tcp_probe_timer`, net/ipv4/tcp_timer.c).
        (Some(Cause::ZeroWindow), ..) if acknowledges(record) => {
            (VerdictName::AbortedLocally, StuckWhy::ZeroWindow)
        }
        (Some(Cause::ZeroWindow), ..) => (VerdictName::PathLost, StuckWhy::ZeroWindow),
        (.., Some(_)) => (VerdictName::SilentDrop, StuckWhy::Silence),
        _ => {
            let survived_ms = outlived_ms(record, context.survived_ms);
            (VerdictName::PathLost, StuckWhy::Outage { survived_ms })
        }
    };
    let others_work = others_work(record, context);
    let stuck = Stuck {
        why,
        gave_up,
        others_work,
        limit: None,
    };
    let confidence = confidence(verdict, &stuck, context);
    let mut finding = Finding::new(verdict, confidence, Explanation::Stuck(stuck));
    finding.idle_ms = transfer.silent_ms;
    if let Some(silent_ms) = silent_ms(record, context.survived_ms) {
        forgotten(record, &mut finding, silent_ms, context);
    }
    Some(finding)
}

/// Whether the peer answered the last probe of its closed window: any acknowledgement sets
/// their number to 0 (`tcp_ack`, net/ipv4/tcp_input.c).
pub(super) fn acknowledges(record: &Record) -> bool {
    record.probes_out == Some(0)
}

/// The error that ICMP reported, if one took part.
fn icmp_error(record: &Record) -> Option<Errno> {
    let at_end = record.err.filter(|err| *err != Errno::TIMED_OUT);
    record.transfer.err_soft.or(at_end)
}

/// Whether another connection to the same endpoint was heard after this one stalled.
fn others_work(record: &Record, context: &StuckContext<'_>) -> bool {
    let stalled_ns = ms_to_ns(record.transfer.stalled_ms.unwrap_or_default());
    let since_ns = record.mono_ns.saturating_sub(stalled_ns);
    context.others_heard_ns.is_some_and(|it| it > since_ns)
}

/// A stall may still pass. The end is a fact; its cause is surer if it repeats, or if the
/// peer answers others.
fn confidence(verdict: VerdictName, stuck: &Stuck, context: &StuckContext<'_>) -> Confidence {
    use Confidence::{High, Low, Medium};
    let repeats = context.bounds.is_some_and(|it| it.is_believed());
    let contradictory = context.bounds.is_some_and(|it| it.contradictory);
    match (verdict, stuck.gave_up) {
        (VerdictName::SilentDrop, true) if contradictory => Low,
        // What the connection survived before the trace is not known.
        (VerdictName::SilentDrop, true) if repeats && !context.is_lossy => High,
        (VerdictName::SilentDrop, true) => Medium,
        (VerdictName::SilentDrop, false) if repeats || stuck.others_work => Medium,
        (VerdictName::IcmpRejected, false) => Medium,
        (_, false) => Low,
        (_, true) => High,
    }
}

/// Completes the finding for a connection that a box may have forgotten.
fn forgotten(record: &Record, finding: &mut Finding, silent_ms: u64, context: &StuckContext<'_>) {
    let idle = IdleDeath::of(silent_ms, context.survived_ms, context.bounds);
    let fits = idle.fits(record, context.middleboxes, AfterExpiry::Silence);
    let limit;
    (finding.remedy, limit) = idle.first_probe(record, &fits);
    if let Explanation::Stuck(stuck) = &mut finding.explanation {
        stuck.limit = Some(limit);
    }
    if finding.verdict == VerdictName::SilentDrop {
        finding.fits = fits;
        finding.bounds = context.bounds.filter(TimeoutBounds::is_believed);
    }
}
