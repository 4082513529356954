//! CSV: every field of the record, one column each; the host only where there are
//! several.
//!
//! A command may be named `=1+1`, which a spreadsheet would take for a formula. The
//! first character of such text is escaped as hostile ones are anywhere: `\x3d1+1`.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Head, Sink, digits};
use crate::record::{Name, Record, Value, name};

/// The field that is there only where there are several hosts.
const HOST: Name = name!(host);

pub(super) struct Csv<W: Write> {
    out: csv::Writer<W>,
    heading: bool,
    hosts: bool,
    /// The text of a field, kept for its memory.
    text: String,
    times: digits::Rfc3339,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(out: W, heading: bool) -> Self {
        Self {
            out: csv::Writer::from_writer(out),
            heading,
            hosts: false,
            text: String::new(),
            times: digits::Rfc3339::default(),
        }
    }

    fn field(&mut self, value: Value<'_>) -> csv::Result<()> {
        self.text.clear();
        match value {
            Value::Time(time) => self.times.put(&mut self.text, time),
            other => field_text(&mut self.text, other),
        }
        self.out.write_field(&self.text)
    }
}

/// Appends a field to an empty text.
pub(crate) fn field_text(text: &mut String, value: Value<'_>) {
    match value {
        Value::Absent => {}
        Value::Number(number) => digits::number(text, number),
        Value::Bool(bool) => text.push_str(if bool { "true" } else { "false" }),
        Value::Word(word) => text.push_str(word),
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
        Value::Address(address) => digits::address(text, address),
        Value::Escaped(escaped) => text.push_str(escaped.as_str()),
        // Writing to a String cannot fail.
        Value::Time(time) => drop(write!(text, "{time}")),
        Value::Text(shown) => drop(write!(text, "{shown}")),
    }
    if let Some(first @ (b'=' | b'+' | b'-' | b'@')) = text.bytes().next() {
        text.replace_range(..1, &format!("\\x{first:02x}"));
    }
}

/// The error below, where there is one: its kind tells a closed pipe.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl<W: Write + Send> Sink for Csv<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.hosts = head.hosts;
        if self.heading {
            let names = Record::NAMES.iter();
            let names = names.filter(|name| self.hosts || **name != HOST.as_str());
            self.out.write_record(names).map_err(io_error)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let mut outcome = Ok(());
        record.visit(|name, value| {
            if outcome.is_ok() && (self.hosts || name != HOST) {
                outcome = self.field(value);
            }
        });
        // A record of no further fields ends the line.
        outcome
            .and_then(|()| self.out.write_record(None::<&[u8]>))
            .map_err(io_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
