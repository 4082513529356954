//! What the other threads of a trace send to the one that writes.

use anyhow::Result;

use crate::model::event::Event;

/// A message to the thread that writes.
pub(super) enum Arrival {
    /// These events happened, or are rows of the snapshot.
    Events(Vec<Event>),
    /// The snapshot is complete, or has failed.
    SnapshotEnd(Result<()>),
    /// No event follows.
    End,
}
