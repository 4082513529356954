//! Chains: the files of one log that was rotated, to be read one after the other.

use crate::model::header::Header;
use crate::model::segment::SegmentName;

/// The index of a file among those that are read.
pub type LogIndex = usize;

/// The endings of compressed files.
const COMPRESSED: [&str; 2] = [".gz", ".zst"];

/// Groups files into chains, each in the order of its headers. Files are of one log if they
/// are of one trace, or if they are of one host and their names differ only by the number
/// or the date of a rotation. A file that lacks a header, or has the headers of several
/// hosts, is a chain of its own; so is a second copy of a file. The segments of a recorder are
/// a chain, whatever their headers, unless these name other hosts.
pub(super) fn chains(headers: &[Vec<Header>], names: &[String]) -> Vec<Vec<LogIndex>> {
    let mut all: Vec<Vec<LogIndex>> = Vec::new();
    let only = |log: LogIndex| match headers[log].as_slice() {
        [header] => Some(header),
        _ => None,
    };
    let segment = |log: LogIndex| segment(&names[log]);
    let is_same = |a: LogIndex, b: LogIndex| {
        if let (Some((one, _)), Some((other, _))) = (segment(a), segment(b)) {
            let hosts = only(a).zip(only(b));
            return one == other && hosts.is_none_or(|(one, other)| one.host == other.host);
        }
        let (Some(one), Some(other)) = (only(a), only(b)) else {
            return false;
        };
        let is_one_trace = one.started == other.started;
        let is_one_name = stem(&names[a]) == stem(&names[b]);
        one.host == other.host && (is_one_trace || is_one_name)
    };
    // The clock may have been set between segments: their numbers order them.
    let place = |log: LogIndex| {
        let number = segment(log).map(|(_, number)| number);
        let header = only(log).filter(|_| number.is_none());
        (number, header.map(|it| (it.started, it.part.unwrap_or(1))))
    };
    for log in 0..headers.len() {
        let chain = all.iter_mut().find(|chain| {
            let is_copy = chain.iter().any(|it| place(*it) == place(log));
            !is_copy && chain.iter().any(|it| is_same(*it, log))
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
        #[rustfmt::skip]
        let rows = [
            ("parts of one trace", vec![("x", header("a", 1, 3)), ("y", header("a", 1, 1)), ("z", header("a", 1, 2))], "120"),
            ("restarts between rotations", vec![("l", header("a", 3, 2)), ("l.1", header("a", 3, 1)), ("l.2.gz", header("a", 1, 1))], "210"),
            ("dated by logrotate", vec![("l-20240506.zst", header("a", 1, 1)), ("l", header("a", 2, 1))], "01"),
            ("different hosts", vec![("l", header("a", 1, 1)), ("l.1", header("b", 1, 2))], "0 1"),
            ("different logs of one host", vec![("l", header("a", 1, 1)), ("m", header("a", 2, 1))], "0 1"),
            ("two folders", vec![("a/l", header("a", 1, 1)), ("b/l.1", header("a", 2, 1))], "0 1"),
            ("a copy", vec![("l.1", header("a", 1, 1)), ("l.1.gz", header("a", 1, 1))], "0 1"),
            ("no header, and several", vec![("l", vec![]), ("l.1", vec![]), ("l.2", merged)], "0 1 2"),
            ("two logs, rotated", vec![("l", header("a", 1, 2)), ("m", header("b", 5, 1)), ("l.1", header("a", 1, 1))], "20 1"),
        ];
        for (what, files, expected) in rows {
            let (names, headers): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            let found: Vec<String> = chains(&headers, &names)
                .iter()
                .map(|chain| chain.iter().map(usize::to_string).collect())
                .collect();
            assert_eq!(found.join(" "), expected, "{what}");
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
