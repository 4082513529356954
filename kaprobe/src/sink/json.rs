//! JSON lines: the log format, described by `schema/kaprobe-log.schema.json`.
//!
//! A record is written here rather than by serde_json, which takes three times as long:
//! it looks for what is to be escaped in names and words that can hold no such thing.
//! What comes out is the same.

use std::io::{self, Write};

use super::{Head, Sink, digits};
use crate::record::{Header, HeaderLine, Name, Record, Value};

pub(super) struct Json<W> {
    out: W,
    /// The line at hand, kept for its memory.
    line: String,
    times: digits::Rfc3339,
}

impl<W: Write> Json<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            line: String::new(),
            times: digits::Rfc3339::default(),
        }
    }

    /// Appends a field, where it is there.
    fn field(&mut self, name: Name, value: Value<'_>) -> serde_json::Result<()> {
        if matches!(value, Value::Absent) {
            return Ok(());
        }
        let line = &mut self.line;
        if line.is_empty() {
            line.push('{');
            line.push_str(name.key().trim_start_matches(','));
        } else {
            line.push_str(name.key());
        }
        match value {
            Value::Number(number) => digits::number(line, number),
            Value::Bool(bool) => line.push_str(if bool { "true" } else { "false" }),
            Value::Word(word) => quoted(line, |line| line.push_str(word)),
            Value::Address(address) => quoted(line, |line| digits::address(line, address)),
            Value::Time(time) => quoted(line, |line| self.times.put(line, time)),
            Value::Escaped(text) if is_plain(text.as_str()) => {
                quoted(line, |line| line.push_str(text.as_str()));
            }
            other => line.push_str(&serde_json::to_string(&other)?),
        }
        Ok(())
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &HeaderLine { header })?;
        self.out.write_all(b"\n")
    }
}

fn quoted(line: &mut String, put: impl FnOnce(&mut String)) {
    line.push('"');
    put(line);
    line.push('"');
}

/// Whether JSON has the text as it is.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|it| it >= b' ' && it != b'"' && it != b'\\')
}

impl<W: Write + Send> Sink for Json<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        head.headers.iter().try_for_each(|it| self.header(it))
    }

    fn next_trace(&mut self, header: &Header) -> io::Result<()> {
        self.header(header)
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        let mut outcome = Ok(());
        record.visit(|name, value| {
            if outcome.is_ok() {
                outcome = self.field(name, value);
            }
        });
        outcome?;
        self.line.push_str("}\n");
        self.out.write_all(self.line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
