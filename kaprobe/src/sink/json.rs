//! JSON lines: the log format, described by `schema/kaprobe-log.schema.json`.
//!
//! A record is written here rather than by serde_json, which takes several times as long:
//! it looks for what is to be escaped in names and words that can hold no such thing.
//! What comes out is the same.

use crate::model::field::Fields as _;
use std::io::{self, Write};

use crate::model::field::{FieldVisitor, Name, Value};
use crate::model::header::{Header, HeaderLine};
use crate::model::record::Record;
use crate::sink::{Head, Sink};
use crate::text::digits;

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

    fn header(&mut self, header: &Header) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &HeaderLine { header })?;
        self.out.write_all(b"\n")
    }
}

/// Appends the fields that are there, with a comma before each.
struct Fields<'a> {
    line: &'a mut String,
    times: &'a mut digits::Rfc3339,
    outcome: serde_json::Result<()>,
}

impl FieldVisitor<'_> for &mut Fields<'_> {
    #[inline(always)]
    fn see(&mut self, name: Name, value: Value<'_>) {
        let line = &mut *self.line;
        if !matches!(value, Value::Absent) {
            line.push_str(name.key());
        }
        match value {
            Value::Absent => {}
            Value::Number(number) => digits::number(line, number),
            Value::Bool(bool) => line.push_str(if bool { "true" } else { "false" }),
            Value::Word(word) => quoted(line, |line| line.push_str(word)),
            Value::Address(address) => quoted(line, |line| digits::address(line, address)),
            Value::Time(time) => quoted(line, |line| self.times.put(line, time.0)),
            Value::Escaped(text) if is_plain(text.as_str()) => {
                quoted(line, |line| line.push_str(text.as_str()));
            }
            other => self.put(&other),
        }
    }
}

impl Fields<'_> {
    #[inline(never)]
    fn put(&mut self, value: &Value<'_>) {
        match serde_json::to_string(value) {
            Ok(text) => self.line.push_str(&text),
            Err(why) => self.outcome = Err(why),
        }
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
        let mut fields = Fields {
            line: &mut self.line,
            times: &mut self.times,
            outcome: Ok(()),
        };
        record.visit(&mut fields);
        fields.outcome?;
        // The first field has its comma in place of this.
        self.line.replace_range(..1, "{");
        self.line.push_str("}\n");
        self.out.write_all(self.line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
