//! The sink that counts the records of a trace. It writes nothing.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::record::Record;
use crate::sink::{Encoder, Head, Sink, event_text};
use crate::top::events::Events;

/// The counts of records, shared by the trace and by what shows them.
pub(super) type SharedEvents = Arc<Mutex<Events>>;

/// Locks the counts.
pub(super) fn lock(events: &SharedEvents) -> MutexGuard<'_, Events> {
    // A panic leaves them consistent.
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the records of a trace.
pub(super) struct CountingSink {
    /// `None` in the twin, which gets no records.
    events: Option<SharedEvents>,
}

impl CountingSink {
    pub(super) const fn new(events: SharedEvents) -> Self {
        Self {
            events: Some(events),
        }
    }
}

impl Sink for CountingSink {
    fn head(&mut self, _: &Head<'_>) -> io::Result<()> {
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if let Some(events) = &self.events {
            let text = event_text(record);
            lock(events).push(record, &text);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder for CountingSink {
    fn size(&self) -> usize {
        0
    }

    fn swap(&mut self, next: Vec<u8>) -> Vec<u8> {
        next
    }

    fn twin(&self) -> Box<dyn Encoder> {
        Box::new(Self { events: None })
    }
}
