//! The interface of all sinks.

use std::io;

use crate::model::header::{Header, TimeoutsChange};
use crate::model::record::Record;

/// Writes records in one format. Output is passed on in whole lines, at [`Sink::flush`]
/// at the latest.
pub trait Sink: Send {
    /// Writes the head of the output, before any record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn head(&mut self, head: &Head<'_>) -> io::Result<()>;

    /// Writes the header of the next trace, whose records follow.
    ///
    /// # Errors
    /// When it cannot be written.
    fn next_trace(&mut self, _: &Header) -> io::Result<()> {
        Ok(())
    }

    /// Writes that the host has other idle timeouts from here on.
    ///
    /// # Errors
    /// When it cannot be written.
    fn timeouts(&mut self, _: &TimeoutsChange) -> io::Result<()> {
        Ok(())
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn record(&mut self, record: &Record) -> io::Result<()>;

    /// Writes out buffered lines.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

/// The head of an output.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The headers of the traces, if the records have any.
    pub headers: &'a [Header],
    /// Records name their host, because there are several.
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
