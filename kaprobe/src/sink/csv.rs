//! CSV: every field of the record, one column each; the host only where there are
//! several.
//!
//! A command may be named `=1+1`, which a spreadsheet would take for a formula. The
//! first character of such text is escaped as hostile ones are anywhere: `\x3d1+1`.
//!
//! A record is written here rather than by the csv crate, which takes several times as
//! long: it looks for what is to be quoted in numbers and words that can hold no such
//! thing. What comes out is the same.

use crate::model::field::Fields as _;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::model::field::{FieldVisitor, Name, Value, name};
use crate::model::record::Record;
use crate::sink::{Head, Sink};
use crate::text::digits;

/// The field that is there only where there are several hosts.
const HOST: Name = name!(host);

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 4] = ['=', '+', '-', '@'];
/// What a field has to be quoted for (RFC 4180).
const SPECIAL: [char; 4] = ['"', ',', '\n', '\r'];

pub(super) struct Csv<W> {
    out: W,
    heading: bool,
    hosts: bool,
    /// The line at hand, kept for its memory.
    line: String,
    times: digits::Rfc3339,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(out: W, heading: bool) -> Self {
        Self {
            out,
            heading,
            hosts: false,
            line: String::new(),
            times: digits::Rfc3339::default(),
        }
    }
}

/// Appends the fields, with a comma before each.
struct Fields<'a> {
    line: &'a mut String,
    times: &'a mut digits::Rfc3339,
    hosts: bool,
}

impl FieldVisitor<'_> for Fields<'_> {
    #[inline(always)]
    fn see(&mut self, name: Name, value: Value<'_>) {
        if name == HOST && !self.hosts {
            return;
        }
        let line = &mut *self.line;
        line.push(',');
        match value {
            Value::Time(time) => self.times.put(line, time.0),
            Value::Escaped(text) if is_plain(text.as_str()) => line.push_str(text.as_str()),
            other => {
                if let Some(text) = put_plain(line, other) {
                    put_text(line, text);
                }
            }
        }
    }
}

/// Whether a text is a field as it is.
fn is_plain(text: &str) -> bool {
    !text.starts_with(FORMULA) && !text.contains(SPECIAL)
}

/// Appends a value that is a field as it is, of whatever kind that never needs more;
/// gives back one of another kind.
#[inline(always)]
fn put_plain<'a>(line: &mut String, value: Value<'a>) -> Option<Value<'a>> {
    match value {
        Value::Absent => {}
        Value::Number(number) => digits::number(line, number),
        Value::Bool(bool) => line.push_str(if bool { "true" } else { "false" }),
        Value::Word(word) => line.push_str(word),
        Value::Address(address) => digits::address(line, address),
        other => return Some(other),
    }
    None
}

/// Appends text that may have to be quoted.
#[inline(never)]
fn put_text(line: &mut String, value: Value<'_>) {
    let mut text = String::new();
    field_text(&mut text, value);
    if text.contains(SPECIAL) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(&text);
    }
}

/// Appends a field to an empty text.
pub(crate) fn field_text(text: &mut String, value: Value<'_>) {
    match value {
        Value::Numbers(numbers) => {
            let words: Vec<_> = numbers.iter().map(u64::to_string).collect();
            text.push_str(&words.join(" "));
        }
        Value::Owners(owners) => {
            let words: Vec<_> = owners
                .iter()
                .map(|it| format!("{}/{}/{}", it.pid, it.fd, it.comm))
                .collect();
            text.push_str(&words.join(" "));
        }
        Value::Escaped(escaped) => text.push_str(escaped.as_str()),
        // Writing to a String cannot fail.
        Value::Time(time) => drop(write!(text, "{time}")),
        Value::Text(shown) => drop(write!(text, "{shown}")),
        plain => drop(put_plain(text, plain)),
    }
    if text.starts_with(FORMULA) {
        let first = text.remove(0);
        text.insert_str(0, &format!("\\x{:02x}", u32::from(first)));
    }
}

impl<W: Write + Send> Sink for Csv<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.hosts = head.hosts;
        if self.heading {
            let names = Record::NAMES.iter();
            let names = names.filter(|name| self.hosts || **name != HOST.as_str());
            let names: Vec<_> = names.copied().collect();
            writeln!(self.out, "{}", names.join(","))?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        record.visit(Fields {
            line: &mut self.line,
            times: &mut self.times,
            hosts: self.hosts,
        });
        self.line.push('\n');
        // The first field has no comma before it.
        self.out.write_all(&self.line.as_bytes()[1..])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
