//! What the records of one connection show of the silences that it survived.

use std::mem;

use crate::model::alive::Alive;
use crate::model::record::{EventName, Record};
use crate::model::time::{TICK_MS, ms_to_ns};
use crate::model::values::State;

/// The longest delay of an acknowledgement, ms: `TCP_DELACK_MAX` (include/net/tcp.h). The
/// acknowledgement is a packet too, but the kernel records no time for it.
const DELAYED_ACK_MS: u64 = 200;

/// A silence of a connection that it may survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    /// The time at which `ms` was measured, CLOCK_MONOTONIC ns.
    at_ns: u64,
    /// A lower bound for the time without a packet at `at_ns`, ms; 0 if none was measured.
    ms: u32,
}

impl Quiet {
    /// The silence after the probes that this record sums.
    #[must_use]
    pub fn after(alive: &Alive) -> Self {
        Self {
            at_ns: alive.quiet_ns.unwrap_or(0),
            ms: alive.quiet_ms.unwrap_or(0),
        }
    }

    /// The silence, ms, and when it was measured, CLOCK_MONOTONIC ns. `None` if there is
    /// none.
    #[must_use]
    pub fn pending(self) -> Option<(u32, u64)> {
        (self.ms > 0).then_some((self.ms, self.at_ns))
    }

    /// Takes the next record of the connection. Returns the idle age that it survived, ms;
    /// `None` if this record shows none.
    ///
    /// The age is survived if the peer was heard after the age was measured. Ticks can't tell
    /// that of a peer that is near; its answer is later than the probe all the same.
    pub fn survived(&mut self, record: &Record) -> Option<u64> {
        let tick_ns = ms_to_ns(TICK_MS);
        let ages = (
            record.ages.lastrcv_ms,
            record.ages.lastack_ms,
            record.ages.lastsnd_ms,
        );
        let (Some(lastrcv), Some(lastack), Some(lastsnd)) = ages else {
            return None;
        };
        // The peer's probes are packets on the path as well.
        let quiet = record.ages.quiet_ms()?.min(lastrcv).min(lastack);
        let heard_ns = record.mono_ns.saturating_sub(ms_to_ns(quiet));
        let is_answer = record.event == EventName::Answered && record.mono_ns >= self.at_ns;
        let is_heard = is_answer || heard_ns > self.at_ns.saturating_add(tick_ns);
        let survived = (is_heard && self.ms > 0).then(|| mem::take(&mut self.ms));
        // An unanswered probe passed the middlebox too, but the kernel recorded no time.
        let is_first = match record.event {
            EventName::Probe => record.probe == Some(1),
            EventName::Early | EventName::RstReceived => record.probes_out == Some(0),
            _ => false,
        };
        if is_first {
            let age_ms = quiet.min(lastsnd);
            let age_ms = age_ms.saturating_sub(DELAYED_ACK_MS + TICK_MS);
            self.at_ns = record.mono_ns;
            self.ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        }
        survived.map(u64::from)
    }
}

/// The time without data after which the peer answered a probe, ms: its program had not
/// closed the connection. `None` if this record shows none.
#[must_use]
pub fn held_ms(record: &Record) -> Option<u64> {
    let is_first_probe = record.event == EventName::Probe && record.probe == Some(1);
    let is_open = record.state == Some(State::Established);
    let (lastrcv, lastsnd) = (record.ages.lastrcv_ms?, record.ages.lastsnd_ms?);
    let held = lastrcv.min(lastsnd).checked_sub(record.ages.lastack_ms?)?;
    (is_first_probe && is_open && held > 0).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::socket::Ages;
    use crate::model::time::Instant;

    fn record(at_ms: u64, event: EventName, quiet_ms: u64) -> Record {
        let at = Instant {
            mono_ns: ms_to_ns(at_ms),
            wall_ns: 0,
        };
        let mut record = Record::new(at, event);
        record.ages = Ages::new(quiet_ms, quiet_ms, quiet_ms);
        record.probe = Some(1);
        record
    }

    #[test]
    fn a_near_peer_that_answers_a_probe_survived_the_silence_before() {
        let mut quiet = Quiet::default();
        let probe = record(100_000, EventName::Probe, 60_000);
        assert_eq!(quiet.survived(&probe), None);
        // An answer within the tick of its probe; the ages are those of the next firing.
        let answer = record(100_001, EventName::Answered, 59_999);
        let survived = 60_000 - DELAYED_ACK_MS - TICK_MS;
        assert_eq!(quiet.survived(&answer), Some(survived));
        // It counts once.
        let next = record(160_000, EventName::Probe, 59_999);
        assert_eq!(quiet.survived(&next), None);
    }

    #[test]
    fn an_answer_to_an_earlier_probe_shows_nothing_of_a_later_silence() {
        let mut quiet = Quiet::default();
        let probe = record(100_000, EventName::Probe, 60_000);
        assert_eq!(quiet.survived(&probe), None);
        let late = record(90_000, EventName::Answered, 10);
        assert_eq!(quiet.survived(&late), None);
    }
}
