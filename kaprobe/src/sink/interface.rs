//! What every sink does.

use std::io;

use crate::model::header::Header;
use crate::model::record::Record;

/// Writes records in one format. What it writes reaches its place in whole lines, at
/// [`Sink::flush`] at the latest.
pub trait Sink: Send {
    /// Writes what heads the output, before any record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn head(&mut self, head: &Head<'_>) -> io::Result<()>;

    /// Writes the header of a trace whose records follow on those of another.
    ///
    /// # Errors
    /// When it cannot be written.
    fn next_trace(&mut self, _: &Header) -> io::Result<()> {
        Ok(())
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn record(&mut self, record: &Record) -> io::Result<()>;

    /// Writes out what waits.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

/// What heads an output.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The header of each trace that the records are of, where there is one.
    pub headers: &'a [Header],
    /// Records name their host: there are several.
    pub hosts: bool,
}

impl<'a> From<&'a Header> for Head<'a> {
    fn from(header: &'a Header) -> Self {
        Self {
            headers: std::slice::from_ref(header),
            hosts: false,
        }
    }
}
