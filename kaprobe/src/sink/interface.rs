//! The interface of all sinks.

use std::io;
use std::sync::Arc;

use crate::model::field::{Name, Value, name};
use crate::model::header::{Header, TimeoutsChange};
use crate::model::record::Record;
use crate::model::row::Row;
use crate::model::time::Instant;
use crate::model::trailer::Trailer;
use crate::text::escape::Escaped;

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

    /// Writes the trailer of the trace, in formats that have one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn trailer(&mut self, _: &Trailer) -> io::Result<()> {
        Ok(())
    }

    /// Writes what is left to write once there are no more records.
    ///
    /// # Errors
    /// When it cannot be written.
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes out buffered lines.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

/// A sink that keeps what it writes, until it is taken.
pub trait Encoder: Sink {
    /// Number of bytes that can be taken.
    fn size(&self) -> usize;

    /// Takes the bytes written so far: whole lines. Goes on in `next`, which is empty.
    fn swap(&mut self, next: Vec<u8>) -> Vec<u8>;

    /// Takes the bytes written so far: whole lines.
    fn take(&mut self) -> Vec<u8> {
        self.swap(Vec::new())
    }

    /// Another encoder for the same output, for lines between those of this one.
    fn twin(&self) -> Box<dyn Encoder>;

    /// Takes a socket that exists when the trace begins.
    fn existing(&mut self, _: &Row) {}

    /// Writes what is watched, once all existing sockets are known. `is_filtered`: a filter
    /// selects some of them.
    ///
    /// # Errors
    /// When it cannot be written.
    fn watching(&mut self, _: Instant, _is_filtered: bool) -> io::Result<()> {
        Ok(())
    }

    /// Takes the time, about once a second, whether there are records or not.
    ///
    /// # Errors
    /// When something cannot be written.
    fn tick(&mut self, _: Instant) -> io::Result<()> {
        Ok(())
    }

    /// Takes the status line, if there is a new one.
    fn status(&mut self) -> Option<Arc<str>> {
        None
    }
}

/// The head of an output.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The headers of the traces, if the records have any.
    pub headers: &'a [Header],
    /// Records name their host, because there are several.
    pub hosts: bool,
}

impl Head<'_> {
    /// The host of all records, if there is only one. A record in a file bears it: lines of
    /// many files may be put together later.
    #[must_use]
    pub fn host(&self) -> Option<Escaped> {
        let first = self.headers.first().filter(|_| !self.hosts);
        first.map(|header| header.host.clone())
    }
}

/// The field that a record of a single host does not have itself.
const HOST: Name = name!(host);

/// The value of a field; of the host, if it is absent, the one that all records have.
#[inline(always)]
pub(crate) fn value_or_host<'a>(
    name: Name,
    value: Value<'a>,
    host: Option<&'a Escaped>,
) -> Value<'a> {
    match (value, host) {
        (Value::Absent, Some(host)) if name == HOST => Value::Escaped(host),
        (value, _) => value,
    }
}

impl<'a> From<&'a Header> for Head<'a> {
    fn from(header: &'a Header) -> Self {
        Self {
            headers: std::slice::from_ref(header),
            hosts: false,
        }
    }
}
