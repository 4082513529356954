//! Whether the threads of the agent move.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::shared::Shared;
use crate::sink::OutputsWatch;

/// Where the threads count their turns.
#[derive(Clone)]
pub(super) struct Turns {
    /// Of the threads that count events and connections.
    pub(super) shared: Arc<Shared>,
    /// Of the threads that write.
    pub(super) outputs: OutputsWatch,
}

impl Turns {
    fn read(&self) -> Vec<(&'static str, u64)> {
        let outputs = self.outputs.turns().into_iter();
        let outputs = outputs.map(|turns| ("the thread that writes the segments", turns));
        [
            ("the thread that reads events", self.shared.turns()),
            (
                "the thread that counts connections",
                self.shared.connection_turns(),
            ),
        ]
        .into_iter()
        .chain(outputs)
        .collect()
    }
}

/// Notes when each thread moved last. Look about once a second.
pub(super) struct Pulse {
    turns: Turns,
    last: Vec<(&'static str, u64, Instant)>,
}

impl Pulse {
    pub(super) fn new(turns: Turns, now: Instant) -> Self {
        let last = turns.read().into_iter();
        let last = last.map(|(name, turns)| (name, turns, now)).collect();
        Self { turns, last }
    }

    /// Looks at the threads. Returns the one that has not moved for the longest time, and for
    /// how long.
    pub(super) fn look(&mut self, now: Instant) -> (&'static str, Duration) {
        for (last, (_, turns)) in self.last.iter_mut().zip(self.turns.read()) {
            if last.1 != turns {
                (last.1, last.2) = (turns, now);
            }
        }
        let still = self.last.iter().map(|(name, _, moved)| {
            let still = now.saturating_duration_since(*moved);
            (*name, still)
        });
        still.max_by_key(|it| it.1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::aggregator::Aggregator;
    use crate::model::header::Header;
    use crate::sample::at as sample_at;
    use crate::sink::LiveSinks;
    use crate::stop::Stop;
    use crate::timeout::estimate::TimeoutEstimator;
    use crate::trace::TraceNews;

    #[test]
    fn a_thread_that_is_stuck_is_named() -> anyhow::Result<()> {
        let sinks = LiveSinks::none(&Header::default(), Stop::new()?);
        let turns = Turns {
            shared: Arc::default(),
            outputs: sinks.watch(),
        };
        let began = Instant::now();
        let mut pulse = Pulse::new(turns.clone(), began);
        let mut aggregator = Aggregator::new(std::num::NonZeroUsize::MIN);
        let learned = TimeoutEstimator::default();
        let mut tick = || {
            let news = TraceNews::Tick(sample_at(0), &learned);
            turns.shared.observe(&mut aggregator, &news);
        };
        let at = |s| began + Duration::from_secs(s);
        tick();
        turns.shared.turn_connections();
        assert_eq!(pulse.look(at(1)).1, Duration::ZERO);
        turns.shared.turn_connections();
        let stuck = ("the thread that reads events", Duration::from_secs(4));
        assert_eq!(pulse.look(at(5)), stuck);
        turns.shared.turn_connections();
        let stuck = ("the thread that reads events", Duration::from_secs(6));
        assert_eq!(pulse.look(at(7)), stuck);
        tick();
        let stuck = ("the thread that counts connections", Duration::from_secs(3));
        assert_eq!(pulse.look(at(10)), stuck);
        Ok(())
    }
}
