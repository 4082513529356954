//! Which problems a report shows first.

use std::collections::BTreeSet;

use crate::model::values::VerdictName;

/// The place of a connection with these verdicts: that of the most telling one. What an
/// idle timeout explains comes first, what a program did on purpose last.
pub(super) fn rank(verdicts: &BTreeSet<VerdictName>) -> usize {
    let places = verdicts.iter().map(|it| place(*it));
    // Without a verdict: stalled, or not answered yet.
    places.min().unwrap_or(WITHOUT_VERDICT)
}

/// The place of a connection without a verdict.
const WITHOUT_VERDICT: usize = 6;

fn place(verdict: VerdictName) -> usize {
    match verdict {
        VerdictName::IdleEviction => 0,
        VerdictName::SilentDrop => 1,
        VerdictName::ProbeReset => 2,
        VerdictName::IdleCloseRace => 3,
        VerdictName::PeerUnreachable => 4,
        VerdictName::StraySegment => 5,
        VerdictName::UserTimeout => 7,
        VerdictName::IcmpRejected => 8,
        VerdictName::PathLost | VerdictName::PeerExited => 9,
        VerdictName::IdleClose | VerdictName::AbortedByPeer => 10,
        VerdictName::FinWait2 => 11,
        VerdictName::AbortedLocally => 12,
    }
}

/// Whether an idle timeout on the way, or of the peer's program, explains such an end.
pub(super) const fn is_idle_end(verdict: VerdictName) -> bool {
    matches!(
        verdict,
        VerdictName::IdleEviction
            | VerdictName::SilentDrop
            | VerdictName::ProbeReset
            | VerdictName::IdleCloseRace
            | VerdictName::IdleClose
    )
}
