//! A line of one record. What it says of the socket is copied from the line before, if both
//! records are of one socket: the answer to a probe is reported just before the next probe.

use std::mem;
use std::ops::Range;

use crate::model::field::{FieldVisitor, Fields, Name, Value, name};
use crate::model::owner::Owner;
use crate::model::record::Record;
use crate::model::socket::{Endpoints, Identity};
use crate::sink::interface::value_or_host;
use crate::text::escape::Escaped;

/// The first of the fields that describe a socket. [`Socket`] has all, up to [`LAST`].
const FIRST: Name = name!(host);
/// The last of the fields that describe a socket.
const LAST: Name = name!(cgroup);

/// A line, and the one before it, both kept for their memory.
#[derive(Debug, Default)]
pub(super) struct RecordLine {
    pub(super) text: String,
    before: String,
    /// Where the last line describes its socket.
    part: Range<usize>,
    /// The socket of the last line.
    socket: Option<Socket>,
    is_repeated: bool,
}

/// What a line says of a socket.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    sock: u64,
    host: Option<Escaped>,
    process: Owner,
    endpoints: Option<Endpoints>,
    /// A sum of probes has no Community ID.
    is_sum: bool,
    netns_name: Option<Escaped>,
    identity: Identity,
}

impl RecordLine {
    /// Begins a line that may have any text.
    pub(super) fn begin(&mut self) {
        self.text.clear();
        (self.socket, self.is_repeated) = (None, false);
    }

    /// Begins the line of a record.
    #[inline]
    pub(super) fn begin_record(&mut self, record: &Record) {
        mem::swap(&mut self.text, &mut self.before);
        self.text.clear();
        self.is_repeated = self.socket.as_ref().is_some_and(|it| it.is_of(record));
        if !self.is_repeated {
            self.socket = Socket::of(record);
        }
    }

    /// Appends fields, as a format writes them. `host` is that of a record that names none.
    #[inline]
    pub(super) fn put(
        &mut self,
        fields: &impl Fields,
        host: Option<&Escaped>,
        format: &mut impl PutField,
    ) {
        fields.visit(LineFields {
            line: self,
            is_written: false,
            host,
            format,
        });
    }

    /// Begins the part that describes the socket. Returns whether it is still to be written.
    #[inline]
    pub(super) fn begin_socket(&mut self) -> bool {
        let start = self.text.len();
        if self.is_repeated {
            self.text.push_str(&self.before[self.part.clone()]);
        }
        self.part = start..self.text.len();
        !self.is_repeated
    }

    /// Ends the part that describes the socket.
    #[inline]
    pub(super) fn end_socket(&mut self) {
        self.part.end = self.text.len();
    }
}

/// Writes a field in a format.
pub(super) trait PutField {
    /// Appends a field to a line.
    fn put(&mut self, line: &mut String, name: Name, value: Value<'_>);
}

/// Appends the fields that the line does not have yet.
struct LineFields<'a, F> {
    line: &'a mut RecordLine,
    /// The line has this part already.
    is_written: bool,
    host: Option<&'a Escaped>,
    format: &'a mut F,
}

impl<F: PutField> FieldVisitor<'_> for LineFields<'_, F> {
    #[inline(always)]
    fn visit(&mut self, name: Name, value: Value<'_>) {
        if name == FIRST {
            self.is_written = !self.line.begin_socket();
        }
        if !self.is_written {
            let value = value_or_host(name, value, self.host);
            self.format.put(&mut self.line.text, name, value);
        }
        if name == LAST {
            self.line.end_socket();
            self.is_written = false;
        }
    }
}

impl Socket {
    fn of(record: &Record) -> Option<Self> {
        Some(Self {
            sock: record.sock?,
            host: record.host.clone(),
            process: record.process.clone(),
            endpoints: record.endpoints,
            is_sum: record.alive.is_some(),
            netns_name: record.netns_name.clone(),
            identity: identity(record),
        })
    }

    fn is_of(&self, record: &Record) -> bool {
        Some(self.sock) == record.sock
            && self.host == record.host
            && self.process == record.process
            && self.endpoints == record.endpoints
            && self.is_sum == record.alive.is_some()
            && self.netns_name == record.netns_name
            && self.identity == identity(record)
    }
}

/// The identity of a record's socket, without what comes after [`LAST`].
fn identity(record: &Record) -> Identity {
    Identity {
        orphan: None,
        ..record.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_all_fields_of_its_part() {
        let at = |name: Name| Record::NAMES.iter().position(|it| *it == name.as_str());
        let ends = at(FIRST).zip(at(LAST));
        let part = ends.and_then(|(first, last)| Record::NAMES.get(first..=last));
        let expected = "host sock pid comm cmdline unit container container_id pod pod_namespace \
                        pod_uid family laddr lport raddr rport netns community_id netns_name \
                        inode cookie uid cgroup";
        assert_eq!(part.map(|it| it.join(" ")).as_deref(), Some(expected));
    }
}
