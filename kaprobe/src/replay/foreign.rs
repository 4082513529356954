//! Tells what a file is that is not a log, from its beginning.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use crate::model::field::Fields as _;
use crate::model::record::Record;

/// Bytes at a place in a file that show what it is.
const MAGIC: [(usize, &[u8], &str); 16] = [
    (0, b"\x7fELF", "an ELF binary"),
    (0, b"\xd4\xc3\xb2\xa1", "a packet capture (pcap)"),
    (0, b"\xa1\xb2\xc3\xd4", "a packet capture (pcap)"),
    (0, b"\x4d\x3c\xb2\xa1", "a packet capture (pcap)"),
    (0, b"\xa1\xb2\x3c\x4d", "a packet capture (pcap)"),
    (0, b"\x0a\x0d\x0d\x0a", "a packet capture (pcapng)"),
    (0, b"\x1f\x8b", "compressed by gzip, twice"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd, twice"),
    (0, b"BZh", "compressed by bzip2: decompress it first"),
    (0, b"\xfd7zXZ\0", "compressed by xz: decompress it first"),
    (
        0,
        b"\x04\x22\x4d\x18",
        "compressed by lz4: decompress it first",
    ),
    (0, b"PK\x03\x04", "a zip archive: extract it first"),
    (257, b"ustar", "a tar archive: extract it first"),
    (0, b"LPKSHHRH", "a journal of systemd"),
    (0, b"PERFILE2", "a recording of perf"),
    (0, b"%PDF-", "a PDF file"),
];

/// What a file is that is no text.
#[must_use]
pub(super) fn binary(start: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|it| it.starts_with(magic));
    let known = MAGIC.iter().find(|(at, magic, _)| has(*at, magic));
    let other = || start.contains(&0).then_some("binary data");
    known.map(|(.., what)| *what).or_else(other)
}

/// What a text is whose first line is neither a header nor a record. `None` if a log may
/// follow.
#[must_use]
pub(super) fn text(first_line: &[u8]) -> Option<&'static str> {
    let line = first_line.trim_ascii();
    if let Ok(object) = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(line) {
        return json(&object);
    }
    let columns = Record::NAMES[..4].join(",");
    let is_ours = line.starts_with(columns.as_bytes());
    match line.first()? {
        b'[' => Some("a JSON array, and not lines of JSON"),
        _ if is_ours => Some("CSV of kaprobe trace: replay reads JSON lines"),
        b'T' if line.starts_with(b"TIME ") && line.ends_with(b"EVENT") => {
            Some("text of kaprobe trace: replay reads JSON lines")
        }
        b'S' if line.starts_with(b"STATE ") => Some("text of kaprobe sockets"),
        _ if line.iter().filter(|it| **it == b',').count() > 2 => Some("a CSV file"),
        _ => None,
    }
}

/// What a line of JSON is that is neither a header nor a record.
fn json(object: &BTreeMap<String, IgnoredAny>) -> Option<&'static str> {
    let has = |name: &str| object.contains_key(name);
    let known = [
        ("verdicts", "a summary of kaprobe replay"),
        ("fate", "output of kaprobe audit"),
        ("summary", "output of kaprobe audit"),
        ("recvq", "output of kaprobe sockets"),
        ("privileges", "output of kaprobe doctor"),
    ];
    if has("header") || has("event") {
        return None;
    }
    let known = known.iter().find(|(name, _)| has(name));
    Some(known.map_or("JSON, but not of kaprobe trace", |(_, what)| *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_log_is_told() {
        let golden = |name: &str| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/expected/");
            std::fs::read(format!("{folder}{name}")).unwrap_or_default()
        };
        let tar = [&[b'x'; 257][..], b"ustar\0"].concat();
        for (file, what) in [
            (b"\x7fELF\x02\x01\x01\0".to_vec(), Some("an ELF binary")),
            (
                b"\xd4\xc3\xb2\xa1\x02\0".to_vec(),
                Some("a packet capture (pcap)"),
            ),
            (
                b"\x1f\x8b\x08\0".to_vec(),
                Some("compressed by gzip, twice"),
            ),
            (tar, Some("a tar archive: extract it first")),
            (b"one\0two".to_vec(), Some("binary data")),
            (
                b"[1,2]".to_vec(),
                Some("a JSON array, and not lines of JSON"),
            ),
            (
                b"{\"a\":1}".to_vec(),
                Some("JSON, but not of kaprobe trace"),
            ),
            (b"id,name,size,time\n1,2,3,4".to_vec(), Some("a CSV file")),
            (b"root:x:0:0:root:/root:/bin/bash".to_vec(), None),
            (b"{\"event\":\"nap\"}".to_vec(), None),
            (b"{\"header\":{}}".to_vec(), None),
            (b"{\"time\":\"2024-05".to_vec(), None),
            (
                golden("records.csv"),
                Some("CSV of kaprobe trace: replay reads JSON lines"),
            ),
            (
                golden("records.txt"),
                Some("text of kaprobe trace: replay reads JSON lines"),
            ),
            (golden("summary.json"), Some("a summary of kaprobe replay")),
            (golden("audit-host.json"), Some("output of kaprobe audit")),
            (golden("sockets.json"), Some("output of kaprobe sockets")),
            (golden("sockets.txt"), Some("text of kaprobe sockets")),
            (golden("records.json"), None),
        ] {
            let first_line = file.split(|it| *it == b'\n').next().unwrap_or_default();
            let told = binary(&file).or_else(|| text(first_line));
            let shown = String::from_utf8_lossy(first_line);
            assert_eq!(told, what, "{shown}");
        }
    }
}
