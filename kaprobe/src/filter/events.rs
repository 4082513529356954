//! The values of `--events`, and the event kinds that the BPF programs send for them.

use crate::model::named::Named as _;
use std::collections::BTreeSet;

use kaprobe_ebpf::wire::kind;

use crate::model::record::EventName;

/// A value of `--events`: one or more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSet {
    /// All events except [`NOISE`].
    Default,
    /// All events.
    All,
    /// One event.
    One(EventName),
}

impl EventSet {
    /// All values.
    pub const ALL: &'static [Self] = &{
        let mut all = [Self::Default; 2 + EventName::ALL.len()];
        all[1] = Self::All;
        let mut index = 0;
        while index < EventName::ALL.len() {
            all[2 + index] = Self::One(EventName::ALL[index]);
            index += 1;
        }
        all
    };

    /// The events of this value.
    pub fn names(self) -> impl Iterator<Item = EventName> {
        EventName::ALL
            .iter()
            .copied()
            .filter(move |name| match self {
                Self::Default => !NOISE.contains(name),
                Self::All => true,
                Self::One(one) => one == *name,
            })
    }
}

/// Firings after which keepalive has nothing to do. The kernel drops them unless
/// `--events` names them.
pub const NOISE: [EventName; 3] = [EventName::Early, EventName::DataPending, EventName::Busy];

/// Bit mask of the kinds ([`kind`]) that these records need.
///
/// `closed` is always set: user space frees a socket on it.
pub fn event_mask(events: &BTreeSet<EventName>) -> u32 {
    let bits = events.iter().map(|event| match event {
        // An answer is inferred from its probe and the next firing. The kernel sends
        // that firing even if the mask excludes it (`flag::NEWS`).
        EventName::Probe | EventName::Answered => 1 << kind::PROBE,
        EventName::ProbeCongested => 1 << kind::PROBE_CONGESTED,
        EventName::Early => 1 << kind::EARLY,
        EventName::DataPending => 1 << kind::DATA_PENDING,
        EventName::Busy => 1 << kind::BUSY,
        EventName::Timeout => 1 << kind::TIMEOUT | 1 << kind::GAVE_UP,
        EventName::FinWait2 => 1 << kind::FIN_WAIT2,
        EventName::NotRearmed => 1 << kind::NOT_REARMED,
        EventName::Unclassified => 1 << kind::UNCLASSIFIED,
        EventName::ChangedMeanwhile => 1 << kind::CHANGED_MEANWHILE,
        EventName::RstSent => 1 << kind::RST_SENT | 1 << kind::RST_PASSIVE,
        // `closed` is reported for sockets with an earlier event. The mask makes these
        // the same sockets, whatever other events are shown.
        EventName::Closed => TRACKED_KINDS,
        EventName::RstReceived => 1 << kind::RST_RECEIVED,
        EventName::FinReceived => 1 << kind::FIN_RECEIVED,
        EventName::FinSent => 1 << kind::FIN_SENT,
        EventName::Aborted => 1 << kind::ABORTED,
        // Whoever has stalled is looked at until it resumes.
        EventName::Stalled | EventName::Resumed => 1 << kind::STALLED,
        EventName::Verdict => VERDICT_KINDS,
        EventName::Alive => 1 << kind::PROBE,
        // No hook reports these.
        EventName::Lost | EventName::Zombie => 0,
    });
    bits.fold(1 << kind::CLOSED, |mask, bit| mask | bit)
}

/// The kinds after which a socket gets a `closed` event: all except noise.
const TRACKED_KINDS: u32 =
    (1 << kind::COUNT) - 1 - (1 << kind::EARLY) - (1 << kind::DATA_PENDING) - (1 << kind::BUSY);

/// The kinds that verdicts use.
const VERDICT_KINDS: u32 = 1 << kind::PROBE
    | 1 << kind::TIMEOUT
    | 1 << kind::FIN_WAIT2
    | 1 << kind::RST_SENT
    | 1 << kind::RST_PASSIVE
    | 1 << kind::RST_RECEIVED
    | 1 << kind::FIN_RECEIVED
    | 1 << kind::FIN_SENT
    | 1 << kind::GAVE_UP
    | 1 << kind::ABORTED
    | 1 << kind::STALLED;
