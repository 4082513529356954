//! JSON lines: the log format, described by `schema/kaprobe-log.schema.json`.
//!
//! kaprobe writes a record by itself, since serde_json takes several times as long: it
//! looks for characters to escape in names and words that cannot hold any. The result is
//! the same.

use std::io::{self, Write};
use std::mem;

use serde::Serialize;

use crate::model::field::{Fields, Name, Value};
use crate::model::header::{Header, HeaderLine, TimeoutsChange, TimeoutsLine};
use crate::model::record::Record;
use crate::model::trailer::{Trailer, TrailerLine};
use crate::sink::interface::{Encoder, Head, Sink};
use crate::sink::record_line::{PutField, RecordLine};
use crate::text::digits::{self, Rfc3339};
use crate::text::escape::Escaped;

/// Writes records as JSON lines.
pub(crate) struct JsonLines<W> {
    out: W,
    line: RecordLine,
    times: Rfc3339,
    /// What the lines begin with: a field with the comma before it, or nothing.
    start: String,
    /// The host of the records that do not name theirs.
    host: Option<Escaped>,
}

impl<W: Write> JsonLines<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            line: RecordLine::default(),
            times: Rfc3339::default(),
            start: String::new(),
            host: None,
        }
    }

    /// Lines of a format other than the log's: each bears the version of its schema.
    pub(crate) fn versioned(out: W, version: &str) -> Self {
        Self {
            start: format!(",\"version\":\"{version}\""),
            ..Self::new(out)
        }
    }

    /// Writes fields as a line.
    pub(crate) fn put(&mut self, fields: &impl Fields) -> io::Result<()> {
        self.line.begin();
        self.put_line(fields)
    }

    #[inline]
    fn put_line(&mut self, record: &impl Fields) -> io::Result<()> {
        self.line.text.push_str(&self.start);
        let mut fields = JsonFields {
            times: &mut self.times,
            outcome: Ok(()),
        };
        self.line.put(record, self.host.as_ref(), &mut fields);
        fields.outcome?;
        let line = &mut self.line.text;
        line.push_str("}\n");
        // The first field has no comma before it.
        self.out.write_all(b"{")?;
        self.out.write_all(&line.as_bytes()[1..])
    }

    /// Writes any other value as a line.
    pub(crate) fn put_value(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Appends the fields that are present, with a comma before each.
struct JsonFields<'a> {
    times: &'a mut Rfc3339,
    outcome: serde_json::Result<()>,
}

impl PutField for JsonFields<'_> {
    #[inline(always)]
    fn put(&mut self, line: &mut String, name: Name, value: Value<'_>) {
        if !matches!(value, Value::Absent) {
            line.push_str(name.key());
        }
        match value {
            Value::Absent => {}
            Value::Number(number) => digits::number(line, number),
            Value::Bool(bool) => line.push_str(if bool { "true" } else { "false" }),
            Value::Word(word) => quoted(line, |line| line.push_str(word)),
            Value::Address(address) => quoted(line, |line| digits::address(line, address)),
            Value::CommunityId(id) => quoted(line, |line| line.push_str(id.text().as_str())),
            Value::Time(time) => quoted(line, |line| self.times.put(line, time.0)),
            Value::Escaped(text) if is_plain(text.as_str()) => {
                quoted(line, |line| line.push_str(text.as_str()));
            }
            other => self.put_other(line, &other),
        }
    }
}

impl JsonFields<'_> {
    #[inline(never)]
    fn put_other(&mut self, line: &mut String, value: &Value<'_>) {
        match serde_json::to_string(value) {
            Ok(text) => line.push_str(&text),
            Err(why) => self.outcome = Err(why),
        }
    }
}

fn quoted(line: &mut String, put: impl FnOnce(&mut String)) {
    line.push('"');
    put(line);
    line.push('"');
}

/// Whether a text needs no escapes in JSON.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|it| it >= b' ' && it != b'"' && it != b'\\')
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        head.headers.iter().try_for_each(|it| self.next_trace(it))?;
        self.host = head.host();
        Ok(())
    }

    fn next_trace(&mut self, header: &Header) -> io::Result<()> {
        if let Some(host) = &mut self.host {
            host.clone_from(&header.host);
        }
        self.put_value(&HeaderLine { header })
    }

    fn timeouts(&mut self, timeouts: &TimeoutsChange) -> io::Result<()> {
        let host = timeouts.host.as_ref().or(self.host.as_ref());
        self.put_value(&TimeoutsLine {
            timeouts: TimeoutsChange {
                host: host.cloned(),
                ..timeouts.clone()
            },
        })
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line.begin_record(record);
        self.put_line(record)
    }

    fn trailer(&mut self, trailer: &Trailer) -> io::Result<()> {
        self.put_value(&TrailerLine { trailer })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Encoder for JsonLines<Vec<u8>> {
    fn size(&self) -> usize {
        self.out.len()
    }

    fn swap(&mut self, next: Vec<u8>) -> Vec<u8> {
        mem::replace(&mut self.out, next)
    }

    fn twin(&self) -> Box<dyn Encoder> {
        Box::new(Self::new(Vec::new()))
    }
}
