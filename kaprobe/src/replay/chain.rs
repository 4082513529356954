//! Chains: the files of one log that was rotated, to be read one after the other.

use crate::model::header::Header;
use crate::model::segment::SegmentName;

/// The index of a file among those that are read.
pub type LogIndex = usize;

/// The endings of compressed files.
const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// The beginning of a file, by which chains are found.
#[derive(Debug)]
pub(super) struct FileStart<'a> {
    pub(super) name: &'a str,
    /// Bytes.
    pub(super) size: u64,
    /// The headers before the first record.
    pub(super) headers: &'a [Header],
}

impl FileStart<'_> {
    /// Its header, if it has exactly one.
    const fn only(&self) -> Option<&Header> {
        match self.headers {
            [header] => Some(header),
            _ => None,
        }
    }
}

/// A file that is not read, and the one that it is taken for a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyOf {
    pub(super) copy: LogIndex,
    pub(super) of: LogIndex,
}

/// Finds the copies among files: a log and its compressed copy, or two folders with the same
/// segments. Their headers are equal, to the nanosecond when the trace began. The largest file
/// is read: the others may have been copied while the log was written.
pub(super) fn copies(files: &[FileStart<'_>]) -> Vec<CopyOf> {
    let is_copy = |a: LogIndex, b: LogIndex| {
        let headers = files[a].only().zip(files[b].only());
        a != b && headers.is_some_and(|(one, other)| one == other)
    };
    let rank = |it: LogIndex| (files[it].size, std::cmp::Reverse(it));
    let copy = |copy: LogIndex| {
        let all = (0..files.len()).filter(|of| is_copy(copy, *of));
        let of = all.max_by_key(|of| rank(*of))?;
        (rank(of) > rank(copy)).then_some(CopyOf { copy, of })
    };
    (0..files.len()).filter_map(copy).collect()
}

/// Groups files into chains, each in the order of its headers. Files are of one log if they
/// are of one trace, or if they are of one host and their names differ only by the number
/// or the date of a rotation. A file that lacks a header, or has the headers of several
/// hosts, is a chain of its own; so is a second file of the same place. The segments in a
/// folder of a recorder are a chain, whatever their headers, unless these name other hosts.
/// `is_read` leaves files out.
pub(super) fn chains(
    files: &[FileStart<'_>],
    is_read: impl Fn(LogIndex) -> bool,
) -> Vec<Vec<LogIndex>> {
    let mut all: Vec<Vec<LogIndex>> = Vec::new();
    let only = |log: LogIndex| files[log].only();
    let segment = |log: LogIndex| segment(files[log].name);
    let is_same = |a: LogIndex, b: LogIndex| {
        if let (Some((one, _)), Some((other, _))) = (segment(a), segment(b)) {
            let Some((first, second)) = only(a).zip(only(b)) else {
                return one == other;
            };
            // Some may be in a copy of the folder.
            let is_one_log = one == other || first.started == second.started;
            return is_one_log && first.host == second.host;
        }
        let (Some(one), Some(other)) = (only(a), only(b)) else {
            return false;
        };
        let is_one_trace = one.started == other.started;
        let is_one_name = stem(files[a].name) == stem(files[b].name);
        one.host == other.host && (is_one_trace || is_one_name)
    };
    // The clock may have been set between segments: their numbers order them.
    let place = |log: LogIndex| {
        let number = segment(log).map(|(_, number)| number);
        let header = only(log).filter(|_| number.is_none());
        (number, header.map(|it| (it.started, it.part.unwrap_or(1))))
    };
    for log in (0..files.len()).filter(|it| is_read(*it)) {
        let chain = all.iter_mut().find(|chain| {
            let is_taken = chain.iter().any(|it| place(*it) == place(log));
            !is_taken && chain.iter().any(|it| is_same(*it, log))
        });
        match chain {
            Some(chain) => chain.push(log),
            None => all.push(vec![log]),
        }
    }
    for chain in &mut all {
        chain.sort_by_key(|it| place(*it));
    }
    all
}

/// The folder and the number of a segment of a recorder.
fn segment(name: &str) -> Option<(&str, u64)> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    Some((folder, SegmentName::parse(file)?.number))
}

/// The name of a log without what a rotation appends: a number or a date, and the ending of
/// a compressed file.
fn stem(name: &str) -> &str {
    let uncompressed = COMPRESSED.iter().find_map(|it| name.strip_suffix(it));
    let name = uncompressed.unwrap_or(name);
    let without_digits = name.trim_end_matches(|it: char| it.is_ascii_digit());
    let is_numbered = without_digits.len() < name.len();
    let stem = without_digits.strip_suffix(['.', '-']);
    stem.filter(|_| is_numbered).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::WallTime;
    use crate::text::escape::Escaped;

    /// The header of a part of a trace.
    fn header(host: &str, started: i64, part: u32) -> Vec<Header> {
        vec![Header {
            host: Escaped::from(host),
            started: WallTime(started),
            part: (part > 1).then_some(part),
            ..Header::default()
        }]
    }

    #[test]
    fn files_of_one_log_are_a_chain_in_the_order_of_their_headers() {
        let merged = [header("a", 1, 1), header("b", 1, 1)].concat();
        let mut extract = header("a", 1, 1);
        extract[0].narrowed.push(Default::default());
        #[rustfmt::skip]
        let rows = [
            ("parts of one trace", vec![("x", header("a", 1, 3)), ("y", header("a", 1, 1)), ("z", header("a", 1, 2))], "120"),
            ("restarts between rotations", vec![("l", header("a", 3, 2)), ("l.1", header("a", 3, 1)), ("l.2.gz", header("a", 1, 1))], "210"),
            ("dated by logrotate", vec![("l-20240506.zst", header("a", 1, 1)), ("l", header("a", 2, 1))], "01"),
            ("different hosts", vec![("l", header("a", 1, 1)), ("l.1", header("b", 1, 2))], "0 1"),
            ("different logs of one host", vec![("l", header("a", 1, 1)), ("m", header("a", 2, 1))], "0 1"),
            ("two folders", vec![("a/l", header("a", 1, 1)), ("b/l.1", header("a", 2, 1))], "0 1"),
            ("an extract", vec![("l.1", header("a", 1, 1)), ("x", extract)], "0 1"),
            ("a folder and a part of it", vec![("a/kaprobe-00000002-20240506T070809Z.jsonl.zst", header("a", 1, 2)), ("b/kaprobe-00000001-20240506T070809Z.jsonl.zst", header("a", 1, 1))], "10"),
            ("folders of two recorders", vec![("a/kaprobe-00000001-20240506T070809Z.jsonl.zst", header("a", 1, 1)), ("b/kaprobe-00000002-20240506T070809Z.jsonl.zst", header("a", 2, 1))], "0 1"),
            ("no header, and several", vec![("l", vec![]), ("l.1", vec![]), ("l.2", merged)], "0 1 2"),
            ("two logs, rotated", vec![("l", header("a", 1, 2)), ("m", header("b", 5, 1)), ("l.1", header("a", 1, 1))], "20 1"),
        ];
        for (what, files, expected) in rows {
            let (names, headers): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            let names = names.iter().map(String::as_str).zip(&headers);
            let files: Vec<_> = names
                .map(|(name, headers)| FileStart {
                    name,
                    size: 1,
                    headers,
                })
                .collect();
            let found: Vec<String> = chains(&files, |_| true)
                .iter()
                .map(|chain| chain.iter().map(usize::to_string).collect())
                .collect();
            assert_eq!(found.join(" "), expected, "{what}");
        }
    }

    /// The sizes and headers of files; each copy, and what it is one of.
    type CopiesCase<'a> = (&'a [(u64, &'a [Header])], &'a [(LogIndex, LogIndex)]);

    #[test]
    fn of_a_log_and_its_copies_the_largest_is_read() {
        let one = header("a", 1, 1);
        let merged = [header("a", 1, 1), header("b", 1, 1)].concat();
        let mut extract = header("a", 1, 1);
        extract[0].narrowed.push(Default::default());
        #[rustfmt::skip]
        let rows: &[CopiesCase<'_>] = &[
            (&[(100, &one), (10, &one)], &[(1, 0)]),
            (&[(10, &one), (100, &one), (100, &one)], &[(0, 1), (2, 1)]),
            // No header: nothing is known. Several: a merged log is no copy of one of its logs.
            (&[(5, &[]), (5, &[])], &[]),
            (&[(5, &merged), (5, &one)], &[]),
            (&[(5, &one), (5, &header("a", 1, 2)), (5, &header("b", 1, 1)), (5, &extract)], &[]),
        ];
        for (files, expected) in rows {
            let files: Vec<_> = files
                .iter()
                .map(|(size, headers)| FileStart {
                    name: "l",
                    size: *size,
                    headers,
                })
                .collect();
            let found = copies(&files);
            let found: Vec<_> = found.iter().map(|it| (it.copy, it.of)).collect();
            assert_eq!(found, *expected);
        }
    }

    #[test]
    fn a_rotation_appends_a_number_or_a_date() {
        for (name, expected) in [
            ("log.jsonl", "log.jsonl"),
            ("log.jsonl.1", "log.jsonl"),
            ("log.jsonl.12.gz", "log.jsonl"),
            ("log.jsonl.zst", "log.jsonl"),
            ("log.jsonl-20240506", "log.jsonl"),
            ("mq1", "mq1"),
            ("7", "7"),
            ("", ""),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
    }
}
