//! What ends an output.

use std::io;

/// A failure to write an output. Its source is the [`io::Error`], whose kind shows whether
/// the reader has gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {to}")]
pub struct SinkError {
    to: String,
    source: io::Error,
}

impl SinkError {
    /// A failure to write the output of this name, escaped.
    #[must_use]
    pub fn new(to: &str, source: io::Error) -> Self {
        Self {
            to: to.to_owned(),
            source,
        }
    }

    /// A failure to write standard output.
    #[must_use]
    pub fn stdout(source: io::Error) -> Self {
        Self::new("standard output", source)
    }
}
