//! A log, read as it comes: at most one line of it is kept.

use std::fmt::{self, Display};
use std::io::{self, BufRead as _, BufReader, Read};

use crate::replay::line::{self, Fault, Item, Version};
use crate::text::escape::{self, Escaped};

/// Longest line that is read, bytes. A record has less than a thousandth of that.
pub const LONGEST: usize = 1 << 20;

/// How many broken lines, and how many unknown things, are told of one log; the rest
/// is counted.
const TOLD: usize = 20;

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
    /// The header was of a version that may say what this kaprobe does not know.
    newer: bool,
    counts: LogCounts,
    /// What was told as unknown, once each.
    unknown: Vec<String>,
}

/// What a log held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Records.
    pub records: u64,
    /// Lines that were neither header nor record, and should have been.
    pub broken: u64,
    /// Lines of a newer version that this kaprobe does not understand.
    pub not_understood: u64,
}

/// What is to be told of a log besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line that it is about, from 1.
    pub line: u64,
    /// What it is.
    pub what: What,
}

/// See [`Remark`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "they say themselves what they are: see Display"
)]
pub enum What {
    Broken(String),
    /// No more broken lines of this log are told.
    Enough,
    Cut,
    Empty,
    NoHeader,
    NextTrace(Escaped),
    Newer(String),
    NotUnderstood(String),
    UnknownField(String),
}

impl Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "skipped, it is no record: {}", escape::message(why)),
            Self::Enough => f.write_str("broken lines from here on are counted only"),
            Self::Cut => f.write_str("the log breaks off in this line: read up to it"),
            Self::Empty => f.write_str("the log is empty"),
            Self::NoHeader => {
                f.write_str("a record before any header: its host and filters are unknown")
            }
            Self::NextTrace(host) => {
                write!(f, "another trace follows in the same log, of host {host}")
            }
            Self::Newer(version) => write!(
                f,
                "log format {} is newer than this kaprobe's {}: what is new in it is left out",
                escape::message(version),
                crate::model::header::VERSION
            ),
            Self::NotUnderstood(why) => {
                write!(f, "left out, not understood: {}", escape::message(why))
            }
            Self::UnknownField(name) => {
                write!(f, "unknown field {} left out", escape::message(name))
            }
        }
    }
}

/// Why a log can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its bytes can't be had.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is of another major version.
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
}

/// How a line ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a line end.
    Line,
    /// With the log.
    Log,
    /// It didn't, as long as it was kept.
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
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Whether the next line is at hand, so that nothing has to be waited for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.at_end || self.input.buffer().contains(&b'\n')
    }

    /// The next header or record; `None` at the end. What else there is to say goes to
    /// `tell`.
    ///
    /// # Errors
    /// When the log can't be read on.
    pub fn next(&mut self, tell: &mut dyn FnMut(Remark)) -> Result<Option<Item>, LogError> {
        while let Some(end) = self.read_line()? {
            if end != End::TooLong && self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let read = match end {
                End::TooLong => Err(Fault::Nothing(format!("longer than {LONGEST} bytes"))),
                End::Line | End::Log => line::read(&self.line),
            };
            let item = match read {
                Ok(line::Line { item, unknown }) => {
                    self.tell_unknown(unknown, tell);
                    item
                }
                Err(Fault::Cut) if end == End::Log => {
                    self.remark(What::Cut, tell);
                    continue;
                }
                Err(fault) => {
                    self.skip(fault, tell)?;
                    continue;
                }
            };
            self.note(&item, tell);
            return Ok(Some(item));
        }
        if self.number == 0 {
            self.number = 1;
            self.remark(What::Empty, tell);
        }
        Ok(None)
    }

    /// Reads a line, without its end, and no more of it than [`LONGEST`].
    fn read_line(&mut self) -> io::Result<Option<End>> {
        self.line.clear();
        let mut length = 0_usize;
        let end = loop {
            let chunk = match self.input.fill_buf() {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                self.at_end = true;
                break End::Log;
            }
            let line_end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..line_end.unwrap_or(chunk.len())];
            let room = LONGEST - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            length = length.saturating_add(part.len());
            let used = part.len() + usize::from(line_end.is_some());
            self.input.consume(used);
            if line_end.is_some() {
                break End::Line;
            }
        };
        if end == End::Log && length == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(if length > LONGEST { End::TooLong } else { end }))
    }

    fn remark(&self, what: What, tell: &mut dyn FnMut(Remark)) {
        tell(Remark {
            line: self.number,
            what,
        });
    }

    /// Takes note of what was read.
    fn note(&mut self, item: &Item, tell: &mut dyn FnMut(Remark)) {
        match item {
            Item::Header(header) => {
                self.newer = Version::is_known(&header.version) == Some(false);
                self.headed = true;
                if self.newer {
                    self.remark(What::Newer(header.version.clone()), tell);
                }
                if self.counts.records > 0 {
                    self.remark(What::NextTrace(header.host.clone()), tell);
                }
            }
            Item::Record(_) => {
                if !self.headed && self.counts.records == 0 {
                    self.remark(What::NoHeader, tell);
                }
                self.counts.records += 1;
            }
        }
    }

    fn tell_unknown(&mut self, fields: Vec<String>, tell: &mut dyn FnMut(Remark)) {
        for field in fields {
            if self.is_news(&field) {
                self.remark(What::UnknownField(field), tell);
            }
        }
    }

    /// Whether this is unknown for the first time, and shall be told.
    fn is_news(&mut self, unknown: &str) -> bool {
        let news = self.unknown.len() < TOLD && self.unknown.iter().all(|it| it != unknown);
        if news {
            self.unknown.push(unknown.to_owned());
        }
        news
    }

    /// Leaves a line out, and tells why.
    fn skip(&mut self, fault: Fault, tell: &mut dyn FnMut(Remark)) -> Result<(), LogError> {
        let why = match fault {
            Fault::Version(version) => {
                return Err(LogError::Version {
                    line: self.number,
                    version: Escaped::from(version.as_str()),
                });
            }
            Fault::Meaning(why) if self.newer => {
                self.counts.not_understood += 1;
                // The column, which differs from line to line, is no news.
                let what = why.split_once(": ").map_or(&*why, |(_, what)| what);
                if self.is_news(what) {
                    self.remark(What::NotUnderstood(why), tell);
                }
                return Ok(());
            }
            Fault::Meaning(why) | Fault::Nothing(why) => why,
            Fault::Cut => "it breaks off".to_owned(),
        };
        self.counts.broken += 1;
        if self.counts.broken <= TOLD as u64 {
            self.remark(What::Broken(why), tell);
        } else if self.counts.broken == TOLD as u64 + 1 {
            self.remark(What::Enough, tell);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::header::VERSION;
    use crate::model::header::{Header, HeaderLine};
    use crate::model::record::Record;
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

    /// A header and a record of every kind, one line each.
    fn lines() -> Vec<String> {
        let header = header(VERSION);
        let records = sample::records(&sample::everything());
        let records = records.iter().map(line);
        std::iter::once(line(&HeaderLine { header }))
            .chain(records)
            .collect()
    }

    /// All that is read of a log, as far as it can be read; and what is told of it.
    fn read(log: &[u8]) -> (Vec<Item>, Vec<String>, LogCounts) {
        let mut log = Log::new(log);
        let (mut items, mut told) = (Vec::new(), Vec::new());
        let ended = loop {
            match log.next(&mut |remark| told.push(remark.to_string())) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break None,
                Err(why) => break Some(why.to_string()),
            }
        };
        told.extend(ended);
        (items, told, log.counts())
    }

    fn told(log: &[u8]) -> Vec<String> {
        read(log).1
    }

    #[test]
    fn a_whole_log_is_read_and_nothing_told() {
        let lines = lines();
        let (items, told, counts) = read(lines.concat().as_bytes());
        assert_eq!(items.len(), lines.len());
        assert!(told.is_empty(), "{told:?}");
        let records = lines.len() as u64 - 1;
        assert_eq!(
            counts,
            LogCounts {
                records,
                ..LogCounts::default()
            }
        );
    }

    /// Lines, what is told, and what is counted: records, broken, not understood.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], (u64, u64, u64));

    #[test]
    fn what_is_odd_is_told() {
        let lines = lines();
        let [header_line, first, second, ..] = lines.as_slice() else {
            unreachable!("the sample has more");
        };
        let newer = line(&HeaderLine {
            header: header("1.999"),
        });
        let nap = second.replace("\"answered\"", "\"nap\"");
        let more = second.replacen('{', "{\"more\":[1,{}],\"\\u001b[2J\":2,", 1);
        let cut = &first[..50];
        let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(LONGEST));
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            (&[], &["1: the log is empty"], (0, 0, 0)),
            (&["\n", " \r\n", header_line, "\n", first], &[], (1, 0, 0)),
            (&[header_line, first.trim_end()], &[], (1, 0, 0)),
            (&[first, second], &["1: a record before any header"], (2, 0, 0)),
            (&[header_line, first, cut], &["3: the log breaks off"], (1, 0, 0)),
            (&[header_line, first, &header_line[..40]], &["3: the log breaks off"], (1, 0, 0)),
            (&[header_line, cut, "\n", first], &["2: skipped, it is no record: it breaks off"], (1, 1, 0)),
            (&[header_line, cut, first, second], &["2: skipped, it is no record: column"], (1, 1, 0)),
            (&[header_line, "PK\u{3}\u{4}\n", first], &["2: skipped, it is no record: not a JSON object"], (1, 1, 0)),
            (&[header_line, "PK"], &["2: skipped, it is no record: not a JSON object"], (0, 1, 0)),
            (&[header_line, &nap], &["2: skipped, it is no record: column 86: \"nap\" is none of probe,"], (0, 1, 0)),
            (&[header_line, &more, &more], &["2: unknown field more left out", "2: unknown field \\u{1b}[2J left out"], (2, 0, 0)),
            (&[header_line, first, header_line, second], &["3: another trace follows in the same log, of host mq1"], (2, 0, 0)),
            (&[header_line, header_line, second], &[], (1, 0, 0)),
            (&[&newer, &nap, first, &nap], &["1: log format 1.999 is newer than this kaprobe's", "2: left out, not understood: column 86: \"nap\" is none of"], (1, 0, 2)),
            (&[&newer, first, "{\n"], &["1: log format", "3: skipped, it is no record: it breaks off"], (1, 1, 0)),
            (&[header_line, first, &newer.replace("1.999", "7.0"), second], &["3: log format 7.0, this kaprobe reads 1."], (1, 0, 0)),
            (&[header_line, &long, first], &["2: skipped, it is no record: longer than 1048576 bytes"], (1, 1, 0)),
            (&[header_line, &long[..LONGEST + 1]], &["2: skipped, it is no record: longer than 1048576 bytes"], (0, 1, 0)),
            (&[&"x\n".repeat(100), first], &[], (1, 100, 0)),
        ];
        for (log, expected, (records, broken, not_understood)) in rows {
            let (_, told, counts) = read(log.concat().as_bytes());
            if !expected.is_empty() {
                assert_eq!(told.len(), expected.len(), "{told:?}");
            }
            for (told, expected) in told.iter().zip(*expected) {
                assert!(told.starts_with(expected), "{told}");
            }
            let expected = LogCounts {
                records: *records,
                broken: *broken,
                not_understood: *not_understood,
            };
            assert_eq!(counts, expected, "{told:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_broken_line() {
        let lines = lines().concat().replace("beam.smp", "beam\u{1}smp");
        let log: Vec<_> = lines
            .bytes()
            .map(|it| if it == 1 { 0xff } else { it })
            .collect();
        assert!(
            told(&log)
                .iter()
                .all(|it| it.ends_with(": not UTF-8") || it.ends_with("no header"))
        );
    }

    #[test]
    fn broken_lines_are_told_up_to_a_point() {
        let told = told("x\n".repeat(TOLD + 9).as_bytes());
        assert_eq!(told.len(), TOLD + 1);
        assert_eq!(
            told.last().map(String::as_str),
            Some("21: broken lines from here on are counted only")
        );
    }

    /// Gives what there is in pieces.
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
        /// Cutting a log loses what was cut off and nothing else.
        #[test]
        fn a_cut_log_is_the_start_of_the_whole(at in any::<prop::sample::Index>()) {
            let log = lines().concat();
            let at = at.index(log.len() + 1);
            let (whole, ..) = read(log.as_bytes());
            let (start, told, counts) = read(&log.as_bytes()[..at]);
            prop_assert!(whole.starts_with(&start));
            let line_ends = log.as_bytes()[..at].iter().filter(|it| **it == b'\n').count();
            prop_assert!(start.len() >= line_ends, "{} of {line_ends}", start.len());
            prop_assert_eq!((counts.broken, counts.not_understood), (0, 0));
            prop_assert!(told.len() <= 1, "{:?}", told);
        }

        #[test]
        fn it_is_the_same_in_pieces(size in 1_usize..5_000) {
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
                Item::Header(_) => None,
            })
            .collect();
        assert_eq!(read, records);
    }
}
