//! Messages from the other threads of a trace to the thread that writes.

use anyhow::Result;

use crate::host::timeouts::NetnsNames;
use crate::model::event::Event;
use crate::model::host_timeout::NetnsTimeouts;

/// A message to the thread that writes.
pub(super) enum Arrival {
    /// Events of the trace, or rows of the snapshot.
    Events(Vec<Event>),
    /// The idle timeouts of the host have changed.
    Timeouts(Vec<NetnsTimeouts>),
    /// The network namespaces of the host have other names.
    Names(NetnsNames),
    /// The snapshot is complete, or has failed.
    SnapshotEnd(Result<()>),
    /// Nothing has come for a while.
    Nothing,
    /// No more events follow.
    End,
}
