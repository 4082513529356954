//! Where events come from.

use anyhow::Result;

use crate::model::event::Event;

/// Yields events in the order in which they happened.
pub trait Source {
    /// Replaces what `batch` holds with the next events, waiting until there are any
    /// or until there is reason to look again; `false` at the end.
    ///
    /// # Errors
    /// When the source can't go on.
    fn next_batch(&mut self, batch: &mut Vec<Event>) -> Result<bool>;
}
