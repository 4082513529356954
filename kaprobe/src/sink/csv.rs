//! CSV: every field of a record, one column each.
//!
//! A command may be named `=1+1`, which a spreadsheet would take for a formula. The
//! first character of such text is escaped as hostile ones are anywhere: `\x3d1+1`. So is
//! one after a semicolon, which separates fields where the comma is a decimal point; there,
//! quotes inside a line mean nothing. A number stays one.
//!
//! kaprobe writes a record by itself, since the csv crate takes several times as long: it
//! looks for characters to quote in numbers and words that cannot hold any. The result is
//! the same.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::mem;

use crate::model::field::{Fields, Name, Value};
use crate::model::header::Header;
use crate::model::record::Record;
use crate::sink::interface::{Encoder, Head, Sink};
use crate::sink::record_line::{PutField, RecordLine};
use crate::text::digits::{self, Rfc3339};
use crate::text::escape::Escaped;

/// What a spreadsheet takes for the beginning of a formula, also in full width.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];
/// What may stand before a formula.
const BEFORE_FORMULA: [char; 3] = [' ', '"', '\''];
/// What separates fields in some countries.
const SEPARATOR: char = ';';
/// What a field has to be quoted for (RFC 4180).
const SPECIAL: [char; 4] = ['"', ',', '\n', '\r'];

/// Writes records as CSV lines.
pub(crate) struct CsvLines<W> {
    out: W,
    heading: bool,
    /// The host of the records that do not name theirs.
    host: Option<Escaped>,
    line: RecordLine,
    times: Rfc3339,
}

impl<W: Write> CsvLines<W> {
    pub(crate) fn new(out: W, heading: bool) -> Self {
        Self {
            out,
            heading,
            host: None,
            line: RecordLine::default(),
            times: Rfc3339::default(),
        }
    }

    /// Writes the names of a record's fields, where a heading is wanted.
    pub(crate) fn put_heading<F: Fields>(&mut self) -> io::Result<()> {
        if !self.heading {
            return Ok(());
        }
        writeln!(self.out, "{}", F::NAMES.join(","))
    }

    /// Writes fields as a line.
    pub(crate) fn put(&mut self, fields: &impl Fields) -> io::Result<()> {
        self.line.begin();
        self.put_line(fields)
    }

    #[inline]
    fn put_line(&mut self, record: &impl Fields) -> io::Result<()> {
        let mut fields = CsvFields {
            times: &mut self.times,
        };
        self.line.put(record, self.host.as_ref(), &mut fields);
        let line = &mut self.line.text;
        line.push('\n');
        // The first field has no comma before it.
        self.out.write_all(&line.as_bytes()[1..])
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Appends the fields, with a comma before each.
struct CsvFields<'a> {
    times: &'a mut Rfc3339,
}

impl PutField for CsvFields<'_> {
    #[inline(always)]
    fn put(&mut self, line: &mut String, _: Name, value: Value<'_>) {
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

/// Whether a text needs neither quotes nor escapes in CSV.
fn is_plain(text: &str) -> bool {
    !text.starts_with(FORMULA)
        && !text.starts_with(BEFORE_FORMULA)
        && !text.contains(SPECIAL)
        && !text.contains(SEPARATOR)
}

/// Escapes the first character of what a spreadsheet would take for a formula.
fn without_formulas(text: String) -> String {
    let parts = text.split(SEPARATOR).map(without_formula);
    if parts.clone().all(|part| matches!(part, Cow::Borrowed(_))) {
        return text;
    }
    parts.collect::<Vec<_>>().join(";")
}

fn without_formula(part: &str) -> Cow<'_, str> {
    let rest = part.trim_start_matches(BEFORE_FORMULA);
    match rest.chars().next() {
        Some(first) if FORMULA.contains(&first) && !is_number(rest) => {
            let (before, after) = part.split_at(part.len() - rest.len());
            let after = &after[first.len_utf8()..];
            let first = match u32::from(first) {
                ascii @ ..0x80 => format!("\\x{ascii:02x}"),
                wide => format!("\\u{{{wide:x}}}"),
            };
            format!("{before}{first}{after}").into()
        }
        _ => part.into(),
    }
}

/// Appends a value of a kind that never needs quotes or escapes; gives back one of
/// another kind.
#[inline(always)]
fn put_plain<'a>(line: &mut String, value: Value<'a>) -> Option<Value<'a>> {
    match value {
        Value::Absent => {}
        Value::Number(number) => digits::number(line, number),
        Value::Bool(bool) => line.push_str(if bool { "true" } else { "false" }),
        Value::Word(word) => line.push_str(word),
        Value::Address(address) => digits::address(line, address),
        Value::CommunityId(id) => line.push_str(id.text().as_str()),
        other => return Some(other),
    }
    None
}

/// Appends a value that may need quotes.
#[inline(never)]
fn put_text(line: &mut String, value: Value<'_>) {
    let mut text = String::new();
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
        plain => drop(put_plain(&mut text, plain)),
    }
    let text = without_formulas(text);
    if text.contains(SPECIAL) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(&text);
    }
}

fn is_number(text: &str) -> bool {
    text.parse().is_ok_and(f64::is_finite)
}

impl<W: Write + Send> Sink for CsvLines<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.host = head.host();
        self.put_heading::<Record>()
    }

    fn next_trace(&mut self, header: &Header) -> io::Result<()> {
        if let Some(host) = &mut self.host {
            host.clone_from(&header.host);
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line.begin_record(record);
        self.put_line(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Encoder for CsvLines<Vec<u8>> {
    fn size(&self) -> usize {
        self.out.len()
    }

    fn swap(&mut self, next: Vec<u8>) -> Vec<u8> {
        mem::replace(&mut self.out, next)
    }

    fn twin(&self) -> Box<dyn Encoder> {
        Box::new(Self::new(Vec::new(), self.heading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::field::name;

    #[test]
    fn a_spreadsheet_finds_no_formula() {
        for (text, field) in [
            ("=1+1", "\\x3d1+1"),
            ("+1+1", "\\x2b1+1"),
            ("-bash", "\\x2dbash"),
            ("@SUM(A1)", "\\x40SUM(A1)"),
            ("  =1", "  \\x3d1"),
            ("\t=1", "\\t=1"),
            ("＝1+1", "\\u{ff1d}1+1"),
            ("＋1", "\\u{ff0b}1"),
            ("－1", "\\u{ff0d}1"),
            ("＠A1", "\\u{ff20}A1"),
            ("a;=1+1", "a;\\x3d1+1"),
            ("a; =1;@b", "a; \\x3d1;\\x40b"),
            ("a;\"=1", "\"a;\"\"\\x3d1\""),
            ("a;'=1", "a;'\\x3d1"),
            ("-12", "-12"),
            ("+1.5", "+1.5"),
            ("-1;2", "-1;2"),
            ("-", "\\x2d"),
            ("-inf", "\\x2dinf"),
            ("a=b", "a=b"),
            ("a-b; c+d", "a-b; c+d"),
        ] {
            let escaped = Escaped::from(text);
            let mut line = String::new();
            let mut fields = CsvFields {
                times: &mut Rfc3339::default(),
            };
            fields.put(&mut line, name!(comm), Value::Escaped(&escaped));
            assert_eq!(line, format!(",{field}"), "{text:?}");
        }
    }
}
