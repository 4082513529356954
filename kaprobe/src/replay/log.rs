//! Reads a log line by line. Keeps at most one line in memory.

use std::fmt::{self, Display};
use std::io::{self, BufRead as _, BufReader, Read};
use std::ops::AddAssign;

use memchr::memchr;

use crate::exit;
use crate::model::header::Header;
use crate::replay::foreign;
use crate::replay::line::{self, Item, LineError, Version};
use crate::text::escape::{self, Escaped};

/// Longest line that is read, bytes. A record is over a thousand times shorter.
pub const MAX_LINE_LEN: usize = 1 << 20;

/// Most broken lines, and most unknown fields and values, that are reported for one
/// log. The others are only counted.
const MAX_REMARKS: usize = 20;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Reads one log.
#[derive(Debug)]
pub struct Log<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    number: u64,
    at_end: bool,
    headed: bool,
    /// The log has a newer minor version: it may contain unknown fields and values.
    newer: bool,
    counts: LogCounts,
    /// The unknown fields and values reported so far.
    unknown: Vec<String>,
    /// The remarks on the lines before the first header or record. If none follows, the
    /// file is no log, and they say nothing.
    early: Vec<Remark>,
    /// The last header, without its maps.
    last_header: Option<Header>,
    /// Lines since the last header, trailers not counted. `None` once the trailer has
    /// come, or if the format has none.
    since_header: Option<u64>,
    /// The number of a line that breaks off, until the next line tells why.
    cut: Option<u64>,
    /// A segment of a recorder: if the rest can't be read, other segments are.
    is_segment: bool,
    /// The rest can't be read.
    is_broken: bool,
}

/// Counts of the lines of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Records.
    pub records: u64,
    /// Lines that are neither a header nor a record.
    pub broken: u64,
    /// Lines of a newer version that this kaprobe does not understand.
    pub not_understood: u64,
    /// Places where a part is missing that was written, or that can't be read.
    pub damaged: u64,
}

impl AddAssign for LogCounts {
    fn add_assign(&mut self, more: Self) {
        self.records += more.records;
        self.broken += more.broken;
        self.not_understood += more.not_understood;
        self.damaged += more.damaged;
    }
}

/// A message for the user about a line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line number, from 1.
    pub line: u64,
    /// The message.
    pub kind: RemarkKind,
}

/// What a [`Remark`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Display has the message of each")]
pub enum RemarkKind {
    Broken(String),
    /// Further broken lines of this log are not reported.
    ManyBroken,
    /// The line breaks off, and is the last one of its trace.
    Cut,
    Empty,
    /// The file has bytes, but breaks off before the first line is whole.
    CutAtStart,
    NoHeader,
    NextTrace(Escaped),
    /// There is no trailer before this line.
    NoTrailer,
    /// There is no trailer before this line, but the trace goes on after it.
    Unended,
    /// Files of the trace are missing before this line: the first and the last of them.
    MissingParts(u32, u32),
    /// Segments of a recorder are missing before this one: the first and the last of them.
    MissingSegments(u64, u64),
    /// The segment was there a moment ago.
    Removed,
    /// The file is not read: it is taken for a copy of the one with this name.
    CopyOf(String),
    /// The trailer counts other records than there are.
    Incomplete {
        records: u64,
        counted: u64,
    },
    Newer(String),
    NotUnderstood(String),
    UnknownField(String),
    /// The rest of a segment can't be read.
    Unreadable(String),
}

impl Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.kind)
    }
}

impl Display for RemarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "skipped, not a record: {}", escape::message(why)),
            Self::ManyBroken => f.write_str("further broken lines are only counted"),
            Self::Cut => f.write_str(
                "the log breaks off in this line, without a trailer: kaprobe was killed, or still writes it",
            ),
            Self::Empty => f.write_str("the log is empty"),
            Self::CutAtStart => f.write_str(
                "the log breaks off in its first frame: kaprobe was killed, or still writes it",
            ),
            Self::NoHeader => {
                f.write_str("a record before any header: its host and filters are unknown")
            }
            Self::NextTrace(host) => {
                write!(f, "another trace follows in the same log, of host {host}")
            }
            Self::NoTrailer => f.write_str(
                "the log up to here ended without a trailer: kaprobe was killed, or still writes it",
            ),
            Self::Unended => f.write_str(
                "damaged: the log up to here ended without a trailer, but its trace goes on: \
                 records may be missing",
            ),
            Self::MissingParts(first, last) => missing(f, "part", first, last),
            Self::MissingSegments(first, last) => missing(f, "segment", first, last),
            Self::Removed => f.write_str("the recorder has removed this segment meanwhile"),
            Self::CopyOf(name) => write!(
                f,
                "it has the same header as {name}: left out, as a copy of it"
            ),
            Self::Incomplete { records, counted } => write!(
                f,
                "{records} records since the header, but the trailer counts {counted}: the log is not whole"
            ),
            Self::Newer(version) => write!(
                f,
                "log format {} is newer than this kaprobe's {}: unknown parts are left out",
                escape::message(version),
                crate::model::header::VERSION
            ),
            Self::NotUnderstood(why) => {
                write!(f, "left out, not understood: {}", escape::message(why))
            }
            Self::Unreadable(why) => write!(
                f,
                "the rest of this segment is left out: {}",
                escape::message(why)
            ),
            Self::UnknownField(name) => {
                write!(f, "unknown field {} left out", escape::message(name))
            }
        }
    }
}

/// Says which parts or segments of a log are missing before a line.
fn missing<N: Display + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    first: N,
    last: N,
) -> fmt::Result {
    if first == last {
        write!(f, "{what} {first} of this log is missing before this line")
    } else {
        write!(
            f,
            "{what}s {first} to {last} of this log are missing before this line"
        )
    }
}

/// The reason why the rest of a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log has another major version.
    #[error(
        "{line}: log format {version}, this kaprobe reads {}: use the kaprobe that wrote it, or a newer one",
        crate::model::header::VERSION
    )]
    Version {
        /// The line of the header.
        line: u64,
        /// The version, escaped.
        version: Escaped,
    },
    /// The file is not a log.
    #[error("not a log of kaprobe: {0}")]
    NotALog(&'static str),
}

impl LogError {
    /// The error of a log of this name.
    #[must_use]
    pub fn of(&self, name: &str) -> exit::Error {
        exit::Error::failure(match self {
            Self::Io(why) => format!("cannot read {name}: {why}"),
            Self::Version { .. } => format!("{name}:{self}"),
            Self::NotALog(_) => format!("{name}: {self}"),
        })
    }
}

/// How a line ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// At a newline.
    Line,
    /// At the end of the log.
    Log,
    /// The line is longer than [`MAX_LINE_LEN`].
    TooLong,
}

impl<R: Read> Log<R> {
    /// Reads a log from its beginning.
    pub fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(CHUNK, input),
            line: Vec::new(),
            number: 0,
            at_end: false,
            headed: false,
            newer: false,
            counts: LogCounts::default(),
            unknown: Vec::new(),
            early: Vec::new(),
            last_header: None,
            since_header: None,
            cut: None,
            is_segment: false,
            is_broken: false,
        }
    }

    /// Reads a segment of a recorder from its beginning. If the rest of it can't be read, it
    /// ends, with a remark: other segments can be.
    pub fn segment(input: R) -> Self {
        Self {
            is_segment: true,
            ..Self::new(input)
        }
    }

    /// Whether the log is a segment of a recorder.
    #[must_use]
    pub const fn is_segment(&self) -> bool {
        self.is_segment
    }

    /// Counts of the lines read so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Whether the next line can be read without waiting.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.at_end || self.input.buffer().contains(&b'\n')
    }

    /// Returns the next header or record; `None` at the end. Passes remarks to
    /// `on_remark`.
    ///
    /// # Errors
    /// If the rest of the log can't be read, or the file is not a log.
    pub fn next(&mut self, on_remark: &mut dyn FnMut(Remark)) -> Result<Option<Item>, LogError> {
        if self.is_broken {
            return Ok(None);
        }
        match self.next_item(on_remark) {
            Err(why) if self.is_segment && !matches!(why, LogError::Version { .. }) => {
                self.is_broken = true;
                self.counts.damaged += 1;
                self.early.drain(..).for_each(&mut *on_remark);
                on_remark(Remark {
                    line: self.number + 1,
                    kind: RemarkKind::Unreadable(why.to_string()),
                });
                Ok(None)
            }
            next => next,
        }
    }

    fn next_item(&mut self, on_remark: &mut dyn FnMut(Remark)) -> Result<Option<Item>, LogError> {
        if self.number == 0 {
            self.check_start()?;
        }
        while let Some(end) = self.read_line()? {
            if end != LineEnd::TooLong && self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let read = self.parse(end);
            self.judge_cut(self.starts_trace(&read), on_remark);
            let item = match read {
                Ok(line::Line { item, unknown }) => {
                    self.remark_unknown(unknown, on_remark);
                    item
                }
                Err(LineError::Cut) if self.may_end_trace(end) => {
                    self.cut = Some(self.number);
                    continue;
                }
                Err(error) => {
                    self.skip(error, on_remark)?;
                    continue;
                }
            };
            self.note(&item, on_remark);
            self.early.drain(..).for_each(on_remark);
            return Ok(Some(item));
        }
        self.judge_cut(true, on_remark);
        if self.number == 0 {
            self.number = 1;
            self.remark(RemarkKind::Empty, on_remark);
        } else if !self.is_log() && self.counts.broken > 0 {
            return Err(LogError::NotALog("text"));
        }
        self.early.drain(..).for_each(&mut *on_remark);
        if self.since_header.take().is_some() {
            self.remark(RemarkKind::NoTrailer, on_remark);
        }
        Ok(None)
    }

    /// The length of the last line, bytes.
    pub(super) fn line_len(&self) -> usize {
        self.line.len()
    }

    /// Whether a header or a record was found so far.
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.headed || self.counts.records > 0
    }

    /// Fails if the file is no text.
    fn check_start(&mut self) -> Result<(), LogError> {
        let start = loop {
            match self.input.fill_buf() {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                start => break start?,
            }
        };
        foreign::binary(start).map_or(Ok(()), |what| Err(LogError::NotALog(what)))
    }

    /// Reads a line without its line end. Keeps at most [`MAX_LINE_LEN`] bytes.
    fn read_line(&mut self) -> io::Result<Option<LineEnd>> {
        self.line.clear();
        let mut length = 0_usize;
        let end = loop {
            let chunk = match self.input.fill_buf() {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                self.at_end = true;
                break LineEnd::Log;
            }
            let line_end = memchr(b'\n', chunk);
            let part = &chunk[..line_end.unwrap_or(chunk.len())];
            let room = MAX_LINE_LEN - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            length = length.saturating_add(part.len());
            let used = part.len() + usize::from(line_end.is_some());
            self.input.consume(used);
            if line_end.is_some() {
                break LineEnd::Line;
            }
        };
        if end == LineEnd::Log && length == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(if length > MAX_LINE_LEN {
            LineEnd::TooLong
        } else {
            end
        }))
    }

    /// Parses the current line. A header may follow a line that breaks off without a line
    /// end: logs that were joined by `cat`.
    fn parse(&mut self, end: LineEnd) -> Result<line::Line, LineError> {
        if end == LineEnd::TooLong {
            let why = format!("longer than {MAX_LINE_LEN} bytes");
            return Err(LineError::NotJson(why));
        }
        let whole = line::read(&self.line);
        if whole.is_err()
            && let Some(at) = last_header(&self.line)
            && let header @ Ok(_) = line::read(&self.line[at..])
        {
            self.cut = Some(self.number);
            return header;
        }
        whole
    }

    /// Whether another trace starts in the current line, even if its header breaks off too.
    fn starts_trace(&self, read: &Result<line::Line, LineError>) -> bool {
        match read {
            Ok(line) => match &line.item {
                Item::Header(header) => {
                    let last = self.last_header.as_ref();
                    !last.is_some_and(|last| header.continues(last))
                }
                _ => false,
            },
            Err(why) => *why == LineError::Cut && self.line.starts_with(HEADER),
        }
    }

    /// Whether a line that breaks off may be the last one of a trace that was killed.
    fn may_end_trace(&self, end: LineEnd) -> bool {
        end == LineEnd::Log || self.is_log() || self.line.starts_with(HEADER)
    }

    /// Reports a line that broke off. If nothing of its trace follows, the trace was killed
    /// while it wrote that line, which is no worse than a missing trailer. Otherwise the log
    /// is damaged.
    fn judge_cut(&mut self, ended: bool, on_remark: &mut dyn FnMut(Remark)) {
        let Some(line) = self.cut.take() else {
            return;
        };
        if ended {
            self.since_header = None;
            self.remark_on(line, RemarkKind::Cut, on_remark);
        } else {
            self.note_line();
            self.broken(line, "it breaks off".to_owned(), on_remark);
        }
    }

    fn remark(&mut self, kind: RemarkKind, on_remark: &mut dyn FnMut(Remark)) {
        self.remark_on(self.number, kind, on_remark);
    }

    fn remark_on(&mut self, line: u64, kind: RemarkKind, on_remark: &mut dyn FnMut(Remark)) {
        let remark = Remark { line, kind };
        if self.is_log() {
            self.early.drain(..).for_each(&mut *on_remark);
            on_remark(remark);
        } else {
            self.early.push(remark);
        }
    }

    /// Updates the state for a header or record.
    fn note(&mut self, item: &Item, on_remark: &mut dyn FnMut(Remark)) {
        match item {
            Item::Header(header) => {
                self.newer = Version::is_known(&header.version) == Some(false);
                self.headed = true;
                if self.newer {
                    self.remark(RemarkKind::Newer(header.version.clone()), on_remark);
                }
                self.note_header(header, on_remark);
            }
            Item::Trailer(trailer) => {
                if let Some(records) = self.since_header.take()
                    && records != trailer.records
                {
                    let counted = trailer.records;
                    self.remark(RemarkKind::Incomplete { records, counted }, on_remark);
                }
            }
            Item::Timeouts(_) => {}
            Item::Record(_) => {
                if !self.headed && self.counts.records == 0 {
                    self.remark(RemarkKind::NoHeader, on_remark);
                }
                self.counts.records += 1;
                self.note_line();
            }
        }
    }

    fn note_header(&mut self, header: &Header, on_remark: &mut dyn FnMut(Remark)) {
        let last = self.last_header.take();
        let last = last.as_ref();
        // A merged log starts with the headers of its hosts, and has one trailer.
        let is_merged =
            self.since_header == Some(0) && last.is_none_or(|it| it.host != header.host);
        let continued = last.filter(|it| header.continues(it));
        if self.since_header.is_some() && !is_merged {
            if continued.is_some() {
                self.counts.damaged += 1;
                self.remark(RemarkKind::Unended, on_remark);
            } else {
                self.remark(RemarkKind::NoTrailer, on_remark);
            }
        }
        if let Some((first, last)) = continued.and_then(|it| header.missing_since(it)) {
            self.remark(RemarkKind::MissingParts(first, last), on_remark);
        }
        if self.counts.records > 0 && continued.is_none() {
            self.remark(RemarkKind::NextTrace(header.host.clone()), on_remark);
        }
        self.since_header = Version::has_trailer(&header.version).then_some(0);
        self.last_header = Some(header.without_maps());
    }

    /// Counts a line that was a record, or is taken for one.
    fn note_line(&mut self) {
        if let Some(lines) = &mut self.since_header {
            *lines += 1;
        }
    }

    fn remark_unknown(&mut self, fields: Vec<String>, on_remark: &mut dyn FnMut(Remark)) {
        for field in fields {
            if self.is_new(&field) {
                self.remark(RemarkKind::UnknownField(field), on_remark);
            }
        }
    }

    /// Whether an unknown field or value is reported: it is seen for the first time.
    fn is_new(&mut self, unknown: &str) -> bool {
        let is_new =
            self.unknown.len() < MAX_REMARKS && self.unknown.iter().all(|it| it != unknown);
        if is_new {
            self.unknown.push(unknown.to_owned());
        }
        is_new
    }

    /// Skips a line and reports why.
    fn skip(
        &mut self,
        error: LineError,
        on_remark: &mut dyn FnMut(Remark),
    ) -> Result<(), LogError> {
        self.note_line();
        let why = match error {
            LineError::Version(version) => {
                return Err(LogError::Version {
                    line: self.number,
                    version: Escaped::from(version.as_str()),
                });
            }
            LineError::NotUnderstood(why) if self.newer => {
                self.counts.not_understood += 1;
                // Compares without the column, which differs from line to line.
                let what = why.split_once(": ").map_or(&*why, |(_, what)| what);
                if self.is_new(what) {
                    self.remark(RemarkKind::NotUnderstood(why), on_remark);
                }
                return Ok(());
            }
            LineError::NotUnderstood(why) | LineError::NotJson(why) => why,
            LineError::Cut => "it breaks off".to_owned(),
        };
        if !self.is_log()
            && self.counts.broken == 0
            && let Some(what) = foreign::text(&self.line)
        {
            return Err(LogError::NotALog(what));
        }
        self.broken(self.number, why, on_remark);
        Ok(())
    }

    /// Counts a broken line, and reports the first ones.
    fn broken(&mut self, line: u64, why: String, on_remark: &mut dyn FnMut(Remark)) {
        self.counts.broken += 1;
        if self.counts.broken <= MAX_REMARKS as u64 {
            self.remark_on(line, RemarkKind::Broken(why), on_remark);
        } else if self.counts.broken == MAX_REMARKS as u64 + 1 {
            self.remark_on(line, RemarkKind::ManyBroken, on_remark);
        }
    }
}

/// How a header starts.
const HEADER: &[u8] = br#"{"header":"#;

/// Where a header starts in a line after something else. No JSON string has these bytes:
/// quotes in it are escaped.
fn last_header(line: &[u8]) -> Option<usize> {
    let mut starts = line.windows(HEADER.len());
    starts.rposition(|it| it == HEADER).filter(|at| *at > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::header::{HeaderLine, VERSION};
    use crate::model::record::Record;
    use crate::model::tally::Tally;
    use crate::model::trailer::{Trailer, TrailerLine};
    use crate::sample;

    fn header(version: &str) -> Header {
        Header {
            version: version.to_owned(),
            host: Escaped::from("mq1"),
            ..Header::default()
        }
    }

    fn line(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).unwrap_or_default() + "\n"
    }

    /// A header, a record of every kind and a trailer, one line each.
    fn lines() -> Vec<String> {
        let header = header(VERSION);
        let records = sample::records(&sample::everything());
        let mut lines = vec![line(&HeaderLine { header })];
        lines.extend(records.iter().map(line));
        lines.push(trailer(&records));
        lines
    }

    /// The trailer after these records.
    fn trailer(records: &[Record]) -> String {
        let mut tally = Tally::default();
        records.iter().for_each(|record| tally.count(record));
        let ended = tally.last_time().unwrap_or_default();
        let trailer = Trailer::new(ended, &tally);
        line(&TrailerLine { trailer })
    }

    /// Reads a log as far as possible: its items, the messages about it, the counts.
    fn read(log: &[u8]) -> (Vec<Item>, Vec<String>, LogCounts) {
        let mut log = Log::new(log);
        let (mut items, mut messages) = (Vec::new(), Vec::new());
        let ended = loop {
            match log.next(&mut |remark| messages.push(remark.to_string())) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break None,
                Err(why) => break Some(why.to_string()),
            }
        };
        messages.extend(ended);
        (items, messages, log.counts())
    }

    fn messages(log: &[u8]) -> Vec<String> {
        read(log).1
    }

    #[test]
    fn a_complete_log_is_read_without_remarks() {
        let lines = lines();
        let (items, messages, counts) = read(lines.concat().as_bytes());
        assert_eq!(items.len(), lines.len());
        assert!(messages.is_empty(), "{messages:?}");
        let records = lines.len() as u64 - 2;
        assert_eq!(
            counts,
            LogCounts {
                records,
                ..LogCounts::default()
            }
        );
    }

    /// Lines, messages, and counts: records, broken, not understood.
    type LogCase<'a> = (&'a [&'a str], &'a [&'a str], (u64, u64, u64));

    #[test]
    fn odd_lines_are_reported() {
        let lines = lines();
        let [_, first, second, ..] = lines.as_slice() else {
            unreachable!("the sample has more");
        };
        // Logs of this version have no trailer.
        let header_line = &line(&HeaderLine {
            header: header("1.3"),
        });
        let newer = line(&HeaderLine {
            header: header("1.999"),
        });
        let nap = second.replace("\"answered\"", "\"nap\"");
        let more = second.replacen('{', "{\"more\":[1,{}],\"\\u001b[2J\":2,", 1);
        let cut = &first[..50];
        let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(MAX_LINE_LEN));
        #[rustfmt::skip]
        let rows: &[LogCase<'_>] = &[
            (&[], &["1: the log is empty"], (0, 0, 0)),
            (&["\n", " \r\n", header_line, "\n", first], &[], (1, 0, 0)),
            (&[header_line, first.trim_end()], &[], (1, 0, 0)),
            (&[first, second], &["1: a record before any header"], (2, 0, 0)),
            (&[header_line, first, cut], &["3: the log breaks off"], (1, 0, 0)),
            (&[header_line, first, &header_line[..40]], &["3: the log breaks off"], (1, 0, 0)),
            (&[header_line, cut, "\n", first], &["2: skipped, not a record: it breaks off"], (1, 1, 0)),
            (&[header_line, cut, first, second], &["2: skipped, not a record: column"], (1, 1, 0)),
            (&[header_line, "PK\u{3}\u{4}\n", first], &["2: skipped, not a record: not a JSON object"], (1, 1, 0)),
            (&[header_line, "PK"], &["2: skipped, not a record: not a JSON object"], (0, 1, 0)),
            (&[header_line, &nap], &["2: skipped, not a record: column 86: \"nap\" is none of probe,"], (0, 1, 0)),
            (&[header_line, &more, &more], &["2: unknown field more left out", "2: unknown field \\u{1b}[2J left out"], (2, 0, 0)),
            (&[header_line, first, header_line, second], &["3: another trace follows in the same log, of host mq1"], (2, 0, 0)),
            (&[header_line, header_line, second], &[], (1, 0, 0)),
            (&[&newer, &nap, first, &nap], &["1: log format 1.999 is newer than this kaprobe's", "2: left out, not understood: column 86: \"nap\" is none of", "4: the log up to here ended without a trailer"], (1, 0, 2)),
            (&[&newer, first, "{\n"], &["1: log format", "3: the log breaks off"], (1, 0, 0)),
            (&["{\n", "\"a\": 1\n", "}\n"], &["not a log of kaprobe: text"], (0, 3, 0)),
            (&[header_line, first, &newer.replace("1.999", "7.0"), second], &["3: log format 7.0, this kaprobe reads 1."], (1, 0, 0)),
            (&[header_line, &long, first], &["2: skipped, not a record: longer than 1048576 bytes"], (1, 1, 0)),
            (&[header_line, &long[..MAX_LINE_LEN + 1]], &["2: skipped, not a record: longer than 1048576 bytes"], (0, 1, 0)),
            (&[&"x\n".repeat(100), first], &[], (1, 100, 0)),
            (&[&"x\n".repeat(100)], &["not a log of kaprobe: text"], (0, 100, 0)),
            (&["time,mono_ns,seq,event\n", first], &["not a log of kaprobe: CSV of kaprobe trace"], (0, 0, 0)),
            (&["\u{7f}ELF\n", first], &["not a log of kaprobe: an ELF binary"], (0, 0, 0)),
            (&["{\"fate\":\"safe\"}\n", first], &["not a log of kaprobe: output of kaprobe audit"], (0, 0, 0)),
            (&["Welcome to mq1.\n", header_line, first], &["1: skipped, not a record: not a JSON object"], (1, 1, 0)),
        ];
        for (log, expected, (records, broken, not_understood)) in rows {
            let (_, messages, counts) = read(log.concat().as_bytes());
            if !expected.is_empty() {
                assert_eq!(messages.len(), expected.len(), "{messages:?}");
            }
            for (message, expected) in messages.iter().zip(*expected) {
                assert!(message.starts_with(expected), "{message}");
            }
            let expected = LogCounts {
                records: *records,
                broken: *broken,
                not_understood: *not_understood,
                damaged: 0,
            };
            assert_eq!(counts, expected, "{messages:?}");
        }
    }

    #[test]
    fn a_log_without_its_trailer_is_reported() {
        let lines = lines();
        let (start, [last]) = lines.split_at(lines.len() - 1) else {
            unreachable!("it has lines");
        };
        let [start, last] = [start.concat(), last.clone()];
        let header = |change: fn(&mut Header)| {
            let mut header = header(VERSION);
            change(&mut header);
            line(&HeaderLine { header })
        };
        let [same, other] = [header(|_| ()), header(|it| it.host = Escaped::from("mq2"))];
        let part = header(|it| it.part = Some(2));
        let [third, tenth] = [
            header(|it| it.part = Some(3)),
            header(|it| it.part = Some(10)),
        ];
        let none = trailer(&[]);
        let missing = "the log up to here ended without a trailer";
        #[rustfmt::skip]
        let rows: &[(&[&str], &[&str])] = &[
            (&[&start, &last], &[]),
            (&[&start], &[missing]),
            (&[&same], &[missing]),
            (&[&same, &none], &[]),
            // Restarted: after its end, after kill -9, and twice without a record.
            (&[&start, &last, &start, &last], &["another trace follows"]),
            (&[&start, &start, &last], &[missing, "another trace follows"]),
            (&[&same, &same, &none], &[missing]),
            // Continued in another file, which lacks its trailer or is the third.
            (&[&start, &last, &part, &none], &[]),
            (&[&start, &part, &none], &["damaged: the log up to here ended without a trailer, but its trace goes on"]),
            (&[&start, &last, &third, &none], &["part 2 of this log is missing before this line"]),
            (&[&start, &tenth, &none], &["damaged", "parts 2 to 9 of this log are missing before this line"]),
            // Merged from two hosts.
            (&[&other, &start, &last], &[]),
            (&[&other, &start], &[missing]),
            (&[&start, &none], &["records since the header, but the trailer counts 0: the log is not whole"]),
        ];
        for (log, expected) in rows {
            let messages = messages(log.concat().as_bytes());
            assert_eq!(messages.len(), expected.len(), "{messages:?}");
            for (message, expected) in messages.iter().zip(*expected) {
                assert!(message.contains(expected), "{message}: not {expected}");
            }
        }
    }

    /// A trace that was killed may have written a part of its last line. The next trace ends
    /// that line.
    #[test]
    fn a_trace_that_was_killed_in_a_line_is_no_damage() {
        let lines = lines();
        let [head, first, .., last] = lines.as_slice() else {
            unreachable!("it has lines");
        };
        let [cut, cut_head] = [&first[..50], &head[..40]];
        let (breaks, follows) = ("the log breaks off", "another trace follows");
        let damaged = "skipped, not a record: it breaks off";
        let none = &*trailer(&[]);
        let part = &*line(&HeaderLine {
            header: header(VERSION).next_part(),
        });
        #[rustfmt::skip]
        let rows: &[(&[&str], &[&str], u64)] = &[
            (&[head, first, cut, "\n", head, none], &[breaks, follows], 0),
            (&[head, first, cut, "\n", "\n"], &[breaks], 0),
            // Killed before and while the header was written.
            (&[cut_head, "\n", head, none], &[breaks], 0),
            (&[head, first, cut, "\n", cut_head, "\n", head, none], &[breaks, breaks, follows], 0),
            (&[head, first, &last[..20], "\n", head, none], &[breaks, follows], 0),
            // Joined by `cat`: nothing ended the line.
            (&[head, first, cut, head, none], &[breaks, follows], 0),
            (&[head, cut, first, last], &["skipped, not a record: column", "is not whole"], 1),
            // The trace goes on.
            (&[head, cut, "\n", none], &[damaged, "is not whole"], 1),
            (&[head, first, cut, "\n", part, none], &[damaged, "damaged: "], 1),
            (&[head, cut, "\n", cut, "\n", head, none], &[damaged, breaks], 1),
            (&[head, cut, "\n", "x\n", head, none], &[damaged, "not a JSON object", "without a trailer"], 2),
        ];
        for (log, expected, broken) in rows {
            let (_, messages, counts) = read(log.concat().as_bytes());
            assert_eq!(messages.len(), expected.len(), "{messages:?}");
            for (message, expected) in messages.iter().zip(*expected) {
                assert!(message.contains(expected), "{message}: not {expected}");
            }
            assert_eq!(counts.broken, *broken, "{messages:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_broken() {
        // Only the first broken lines are named.
        let lines: String = lines().into_iter().take(12).collect();
        let lines = lines.replace("beam.smp", "beam\u{1}smp");
        let log: Vec<_> = lines
            .bytes()
            .map(|it| if it == 1 { 0xff } else { it })
            .collect();
        let messages = messages(&log);
        let Some((last, broken)) = messages.split_last() else {
            unreachable!("it has no trailer");
        };
        assert!(last.contains("without a trailer"), "{last}");
        assert!(!broken.is_empty());
        assert!(
            broken.iter().all(|it| it.ends_with(": not UTF-8")),
            "{broken:?}"
        );
    }

    #[test]
    fn the_number_of_reported_broken_lines_is_limited() {
        let log = lines().remove(0) + &"x\n".repeat(MAX_REMARKS + 9);
        let messages = messages(log.as_bytes());
        let [.., many, last] = messages.as_slice() else {
            unreachable!("two at least: {messages:?}");
        };
        assert_eq!(messages.len(), MAX_REMARKS + 2);
        assert_eq!(many, "22: further broken lines are only counted");
        assert!(last.contains("without a trailer"), "{last}");
    }

    /// Reads at most the given number of bytes at once.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let (size, into_size) = (self.1.min(self.0.len()), into.len());
            let (now, later) = self.0.split_at(size.min(into_size));
            into[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    proptest! {
        #[test]
        fn cutting_a_log_loses_only_the_part_cut_off(at in any::<prop::sample::Index>()) {
            let log = lines().concat();
            let at = at.index(log.len() + 1);
            let (whole, ..) = read(log.as_bytes());
            let (start, messages, counts) = read(&log.as_bytes()[..at]);
            prop_assert!(whole.starts_with(&start));
            let line_ends = log.as_bytes()[..at].iter().filter(|it| **it == b'\n').count();
            prop_assert!(start.len() >= line_ends, "{} of {line_ends}", start.len());
            prop_assert_eq!((counts.broken, counts.not_understood), (0, 0));
            prop_assert!(messages.len() <= 1, "{:?}", messages);
        }

        #[test]
        fn the_read_size_does_not_matter(size in 1_usize..5_000) {
            let log = lines().concat();
            let mut pieces = Log::new(Pieces(log.as_bytes(), size));
            let mut items = Vec::new();
            while let Ok(Some(item)) = pieces.next(&mut |_| {}) {
                items.push(item);
            }
            prop_assert_eq!(items, read(log.as_bytes()).0);
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let records = sample::records(&sample::everything());
        let (items, ..) = read(lines().concat().as_bytes());
        let read: Vec<Record> = items
            .into_iter()
            .filter_map(|item| match item {
                Item::Record(record) => Some(*record),
                Item::Header(_) | Item::Timeouts(_) | Item::Trailer(_) => None,
            })
            .collect();
        assert_eq!(read, records);
    }
}
