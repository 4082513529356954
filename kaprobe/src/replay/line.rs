//! Parses one line of a log: a header, a record, a trailer, or the reason why it is none.

use crate::model::header;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::model::field::ReadFields as _;
use crate::model::header::{Header, HeaderLine, TimeoutsChange, TimeoutsLine};
use crate::model::record::Record;
use crate::model::trailer::{Trailer, TrailerLine};

/// A header, a change of the host's timeouts, a record or a trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The header of a trace whose records follow.
    Header(Box<Header>),
    /// From here on the host has other idle timeouts.
    Timeouts(Box<TimeoutsChange>),
    /// A record.
    Record(Box<Record>),
    /// The trailer of the trace whose records came before.
    Trailer(Box<Trailer>),
}

/// A parsed line, and its fields that this kaprobe does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) item: Item,
    /// The names of the first [`UNKNOWN_FIELDS`] unknown fields, in the line's order.
    pub(super) unknown: Vec<String>,
}

/// Most unknown fields of one line that are reported.
const UNKNOWN_FIELDS: usize = 8;

/// Why a line is neither a header, nor a record, nor a trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// Cut off: it may be the start of a valid line.
    Cut,
    /// The header of a log of another major version.
    Version(String),
    /// JSON that this kaprobe does not understand.
    NotUnderstood(String),
    /// Not a JSON object, or too long.
    NotJson(String),
}

/// A version of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

impl Version {
    /// Whether this kaprobe understands everything in a log of that version. `None` if
    /// the major version differs.
    pub(super) fn is_known(text: &str) -> Option<bool> {
        let ours: Self = header::VERSION.parse().ok()?;
        let version: Self = text.parse().ok()?;
        (version.major == ours.major).then_some(version <= ours)
    }

    /// Whether logs of that version end with a trailer.
    pub(super) fn has_trailer(text: &str) -> bool {
        const FIRST: Version = Version { major: 1, minor: 4 };
        text.parse::<Self>().is_ok_and(|version| version >= FIRST)
    }
}

/// The part of a header that every version has.
#[derive(serde::Deserialize)]
struct Versioned {
    version: String,
}

/// Parses a line without its line end.
pub(super) fn read(line: &[u8]) -> Result<Line, LineError> {
    let line = std::str::from_utf8(line).map_err(|why| match why.error_len() {
        None => LineError::Cut,
        Some(_) => LineError::NotJson(format!("column {}: not UTF-8", why.valid_up_to() + 1)),
    })?;
    // Serde would accept an array.
    if line
        .trim_start()
        .bytes()
        .next()
        .is_some_and(|it| it != b'{')
    {
        return Err(LineError::NotJson("not a JSON object".to_owned()));
    }
    // Nearly every line is a record.
    let not_a_record = match record(line) {
        Ok((record, unknown)) => {
            let item = Item::Record(Box::new(record));
            return Ok(Line { item, unknown });
        }
        Err(why) => why,
    };
    if let Ok(TimeoutsLine::<IgnoredAny> { .. }) = serde_json::from_str(line) {
        let (TimeoutsLine { timeouts }, unknown) = parse::<TimeoutsLine>(line)?;
        let item = Item::Timeouts(Box::new(timeouts));
        return Ok(Line { item, unknown });
    }
    let Ok(HeaderLine::<Versioned> { header }) = serde_json::from_str(line) else {
        let is_trailer = serde_json::from_str::<TrailerLine<IgnoredAny>>(line).is_ok();
        return if is_trailer {
            trailer(line)
        } else {
            Err(not_a_record)
        };
    };
    if Version::is_known(&header.version).is_none() {
        return Err(LineError::Version(Short(&header.version).to_string()));
    }
    let (HeaderLine { mut header }, unknown) = parse::<HeaderLine>(line)?;
    header.version = Short(&header.version).to_string();
    let item = Item::Header(Box::new(header));
    Ok(Line { item, unknown })
}

/// Parses a record. Names of unknown fields are collected in a second pass: that takes several
/// times as long, and nearly all records have none.
fn record(line: &str) -> Result<(Record, Vec<String>), LineError> {
    let mut has_unknown = false;
    let mut json = serde_json::Deserializer::from_str(line);
    let record = Record::read(&mut json, &mut || has_unknown = true);
    match record.and_then(|record| json.end().map(|()| record)) {
        Ok(record) if !has_unknown => Ok((record, Vec::new())),
        _ => parse::<Record>(line),
    }
}

fn trailer(line: &str) -> Result<Line, LineError> {
    let (TrailerLine { trailer }, unknown) = parse::<TrailerLine>(line)?;
    let item = Item::Trailer(Box::new(trailer));
    Ok(Line { item, unknown })
}

/// Parses one JSON value with nothing after it. Also returns the unknown fields.
fn parse<T: DeserializeOwned>(line: &str) -> Result<(T, Vec<String>), LineError> {
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_str(line);
    let value = serde_ignored::deserialize(&mut json, |path| {
        if unknown.len() < UNKNOWN_FIELDS {
            unknown.push(Short(&path.to_string()).to_string());
        }
    });
    let value = value.and_then(|value| json.end().map(|()| value));
    match value {
        Ok(value) => Ok((value, unknown)),
        Err(why) => Err(match why.classify() {
            Category::Eof => LineError::Cut,
            Category::Data => LineError::NotUnderstood(message(&why)),
            Category::Syntax | Category::Io => LineError::NotJson(message(&why)),
        }),
    }
}

/// A message with the column of the error.
fn message(why: &serde_json::Error) -> String {
    // Serde's message ends with a line and a column; the line is always 1.
    let text = why.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(it, _)| it);
    format!("column {}: {}", why.column(), Short(what))
}

/// Shortens a message, which may quote a long part of a line.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(160) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"time":"2024-05-06T07:08:09.000000000Z","mono_ns":1,"seq":1,"event":"closed","comm":"é"}"#;
    const TRAILER: &str = r#"{"trailer":{"ended":"2024-05-06T07:08:09.000000000Z","records":2,"events":{"probe":2},"lost":{}}}"#;
    const HEADER: &str = r#"{"header":{"version":"VERSION","host":"mq1","kernel":"6.12","kaprobe":"0.1.0","started":"2024-05-06T07:08:09.000000000Z","clock_offset_ns":0,"hz":250,"hooks":{},"filters":{}}}"#;

    const TIMEOUTS: &str = r#"{"timeouts":{"time":"2024-05-06T07:08:09.000000000Z","mono_ns":1,"namespaces":[{"netns":7,"timeouts":[{"what":"ipvs","netns":7,"seconds":900}]}]}}"#;

    fn header(version: &str) -> String {
        HEADER.replace("VERSION", version)
    }

    #[test]
    fn headers_records_and_errors_are_distinguished() {
        let now = header(header::VERSION);
        let with = |line: &str, more: &str| line.replacen('{', &format!("{{{more},"), 1);
        #[rustfmt::skip]
        let rows = [
            (RECORD.to_owned(), Ok("record")),
            (format!("  {RECORD}\r"), Ok("record")),
            (with(RECORD, r#""new":{"a":[1]},"er":null"#), Ok("record new er")),
            (now.clone(), Ok("header")),
            (now.replace("\"hz\"", "\"more\":1,\"hz\""), Ok("header header.more")),
            (with(&now, "\"x\":1"), Ok("header x")),
            (TRAILER.to_owned(), Ok("trailer")),
            (TRAILER.replace("\"events\"", "\"more\":1,\"events\""), Ok("trailer trailer.more")),
            (r#"{"trailer":{}}"#.to_owned(), Err(LineError::NotUnderstood("column 13: missing field `ended`".to_owned()))),
            (header("1.999"), Ok("header")),
            (TIMEOUTS.to_owned(), Ok("timeouts")),
            (TIMEOUTS.replace("\"seconds\"", "\"more\":1,\"seconds\""), Ok("timeouts timeouts.namespaces.0.timeouts.0.more")),
            (TIMEOUTS.replace(":900", ":\"long\""), Err(LineError::NotUnderstood("column ".to_owned()))),
            (r#"{"timeouts":[]}"#.to_owned(), Err(LineError::NotUnderstood("column ".to_owned()))),
            (header("1"), Ok("header")),
            (header("2.0"), Err(LineError::Version("2.0".to_owned()))),
            (header("0.9"), Err(LineError::Version("0.9".to_owned()))),
            (header("one"), Err(LineError::Version("one".to_owned()))),
            (r#"{"header":{"version":"2.0"}}"#.to_owned(), Err(LineError::Version("2.0".to_owned()))),
            (RECORD.replace("closed", "nap"), Err(LineError::NotUnderstood(r#"column 74: "nap" is none of"#.to_owned()))),
            ("{}".to_owned(), Err(LineError::NotUnderstood("column 2: missing field `time`".to_owned()))),
            ("[]".to_owned(), Err(LineError::NotJson("not a JSON object".to_owned()))),
            ("null".to_owned(), Err(LineError::NotJson("not a JSON object".to_owned()))),
            (format!("{RECORD} {RECORD}"), Err(LineError::NotJson("column 92: trailing".to_owned()))),
            ("time,mono_ns".to_owned(), Err(LineError::NotJson("not a JSON object".to_owned()))),
        ];
        for (line, expected) in rows {
            let read = read(line.as_bytes()).map(|line| {
                let kind = match line.item {
                    Item::Header(_) => "header",
                    Item::Timeouts(_) => "timeouts",
                    Item::Record(_) => "record",
                    Item::Trailer(_) => "trailer",
                };
                let words = std::iter::once(kind.to_owned()).chain(line.unknown);
                words.collect::<Vec<_>>().join(" ")
            });
            match (&read, &expected) {
                (Err(LineError::NotUnderstood(message)), Err(LineError::NotUnderstood(start)))
                | (Err(LineError::NotJson(message)), Err(LineError::NotJson(start))) => {
                    assert!(message.starts_with(start), "{line}: {message}");
                }
                _ => assert_eq!(read.as_deref(), expected.as_deref(), "{line}"),
            }
        }
    }

    #[test]
    fn a_line_cut_anywhere_is_reported_as_cut() {
        let headers = [header("1.0"), header("1.999")];
        for line in [RECORD, TRAILER, TIMEOUTS]
            .map(str::to_owned)
            .into_iter()
            .chain(headers)
        {
            for end in 0..line.len() {
                let cut = read(&line.as_bytes()[..end]);
                assert_eq!(cut, Err(LineError::Cut), "{end} of {line}");
            }
        }
    }

    #[test]
    fn a_long_quote_is_shortened() {
        let long = RECORD.replace("closed", &"\u{1f980}".repeat(1000));
        let long = long.replace("\"event\"", "\"pid\"");
        let Err(LineError::NotUnderstood(message)) = read(long.as_bytes()) else {
            unreachable!("it has no event");
        };
        assert!(message.len() < 1000, "{message}");
    }
}
