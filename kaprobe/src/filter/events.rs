//! Which events are asked for, and what the BPF programs have to send for them.

use crate::model::named::Named as _;
use std::collections::BTreeSet;

use kaprobe_ebpf::wire::kind;

use crate::model::record::EventName;

/// One or more events, as `--events` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// All but the noise.
    Default,
    /// All.
    All,
    /// This one.
    One(EventName),
}

impl Events {
    /// Every value.
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

    /// The events that it names.
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

/// Firings that say that there is nothing to say. Dropped in the kernel unless asked
/// for.
pub const NOISE: [EventName; 3] = [EventName::Early, EventName::DataPending, EventName::Busy];

/// The kinds of [`kind`] that these records are made of.
///
/// `closed` is always among them: it is what lets user space forget a socket.
pub fn event_mask(events: &BTreeSet<EventName>) -> u32 {
    let bits = events.iter().map(|event| match event {
        // An answer is derived from its probe and the firing after it, which the
        // kernel sends unasked (`flag::NEWS`).
        EventName::Probe | EventName::Answered => 1 << kind::PROBE,
        EventName::ProbeCongested => 1 << kind::PROBE_CONGESTED,
        EventName::Early => 1 << kind::EARLY,
        EventName::DataPending => 1 << kind::DATA_PENDING,
        EventName::Busy => 1 << kind::BUSY,
        EventName::Timeout => 1 << kind::TIMEOUT,
        EventName::FinWait2 => 1 << kind::FIN_WAIT2,
        EventName::NotRearmed => 1 << kind::NOT_REARMED,
        EventName::Unclassified => 1 << kind::UNCLASSIFIED,
        EventName::RstSent => 1 << kind::RST_SENT | 1 << kind::RST_PASSIVE,
        // It is told of sockets that were spoken of: the same ones, whatever else is
        // shown.
        EventName::Closed => SPOKEN_OF,
        EventName::RstReceived => 1 << kind::RST_RECEIVED,
        EventName::Verdict => VERDICT_KINDS,
        // Told of by no hook.
        EventName::Lost | EventName::Zombie => 0,
    });
    bits.fold(1 << kind::CLOSED, |mask, bit| mask | bit)
}

/// The kinds that make a socket one that `closed` is told of: all but noise.
const SPOKEN_OF: u32 =
    (1 << kind::COUNT) - 1 - (1 << kind::EARLY) - (1 << kind::DATA_PENDING) - (1 << kind::BUSY);

/// The kinds that verdicts rest on.
const VERDICT_KINDS: u32 = 1 << kind::PROBE
    | 1 << kind::TIMEOUT
    | 1 << kind::FIN_WAIT2
    | 1 << kind::RST_SENT
    | 1 << kind::RST_PASSIVE
    | 1 << kind::RST_RECEIVED;
