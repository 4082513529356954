//! The segments in the folder of a recorder.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};

use crate::model::segment::SegmentName;
use crate::model::time::{TimeWindow, WallTime};
use crate::text::escape::Escaped;
use crate::{exit, stderr};

/// How much later a record may be written than it is dated, ns: a probe is written once its
/// answer is missing.
const LATE_NS: i64 = 3_600_000_000_000;

/// A segment of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    name: SegmentName,
    path: PathBuf,
    /// When it was last written, if that is known.
    written: Option<WallTime>,
}

/// The name of a segment, if a path has one.
#[must_use]
pub(super) fn name_of(path: &Path) -> Option<SegmentName> {
    path.file_name()
        .and_then(OsStr::to_str)
        .and_then(SegmentName::parse)
}

/// The segments of a folder that may have records of this window, oldest first. Says which are
/// missing between them.
///
/// # Errors
/// If the folder can't be read, or has no segment.
pub(super) fn find(folder: &Path, window: &TimeWindow) -> Result<Vec<PathBuf>> {
    let shown = Escaped::from_path(folder);
    let mut all = read(folder).with_context(|| format!("cannot read {shown}"))?;
    all.sort_by_key(|it| it.name);
    if all.is_empty() {
        let why = format!("{shown}: a folder without segments of kaprobe record");
        return Err(exit::Error::failure(why).into());
    }
    for gap in gaps(&all) {
        stderr::line(format_args!("{shown}: {gap}"));
    }
    Ok(select(&all, window))
}

fn read(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = name_of(&path) else {
            continue;
        };
        // A recorder may have removed it just now. What else has such a name is none of its own.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        let since = metadata
            .modified()
            .ok()
            .and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let written = since.and_then(|it| i64::try_from(it.as_nanos()).ok());
        all.push(Segment {
            name,
            path,
            written: written.map(WallTime),
        });
    }
    Ok(all)
}

/// What is said about segments that are missing between these.
fn gaps(all: &[Segment]) -> Vec<String> {
    let numbers = all.iter().map(|it| it.name.number);
    let pairs = numbers.clone().zip(numbers.skip(1));
    let gap = |(before, after): (u64, u64)| match after.checked_sub(before)? {
        0 | 1 => None,
        2 => Some(format!("segment {} is missing", before + 1)),
        _ => Some(format!(
            "segments {} to {} are missing",
            before + 1,
            after - 1
        )),
    };
    pairs.filter_map(gap).collect()
}

/// Leaves out the segments that were over before the window, by the names of those after them
/// and by the time of their last write, and those that began after it. If the clock was set,
/// the names don't ascend; then more are read.
fn select(all: &[Segment], window: &TimeWindow) -> Vec<PathBuf> {
    let mut selected = Vec::new();
    let mut latest = WallTime(i64::MIN);
    for (nth, segment) in all.iter().enumerate() {
        let next = all.get(nth + 1).map(|it| it.name.began);
        latest = latest.max(segment.name.began);
        let is_over = window.since.is_some_and(|since| {
            let ends = [next, segment.written, Some(latest)];
            ends.iter().all(|end| end.is_some_and(|end| end < since))
        });
        let begins_later = window
            .until
            .is_some_and(|until| segment.name.began.0.saturating_sub(LATE_NS) > until.0);
        if !is_over && !begins_later {
            selected.push(segment.path.clone());
        }
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of these numbers, that begin and are last written at these hours.
    fn segments(all: &[(u64, i64, i64)]) -> Vec<Segment> {
        let hour = |h: i64| WallTime(h * 3_600_000_000_000);
        let segment = |&(number, began, written): &(u64, i64, i64)| Segment {
            name: SegmentName {
                number,
                began: hour(began),
            },
            path: PathBuf::from(number.to_string()),
            written: Some(hour(written)),
        };
        all.iter().map(segment).collect()
    }

    #[test]
    fn segments_outside_of_the_window_are_left_out() {
        let steady = [(1, 0, 10), (2, 10, 20), (3, 20, 30), (4, 30, 31)];
        // In the first, the clock was set back from 12 to 5; then a file was copied.
        let set_back = [(1, 0, 12), (2, 5, 8), (3, 8, 99), (4, 12, 13)];
        let rows = [
            (&steady, None, None, "1234"),
            (&steady, Some(25), None, "34"),
            (&steady, Some(11), Some(12), "2"),
            (&steady, None, Some(5), "1"),
            (&steady, Some(40), None, "4"),
            (&steady, None, Some(-5), ""),
            (&set_back, Some(11), None, "134"),
            (&set_back, None, Some(6), "12"),
        ];
        for (all, since, until, expected) in rows {
            let hour = |h: i64| WallTime(h * 3_600_000_000_000);
            let window = TimeWindow {
                since: since.map(hour),
                until: until.map(hour),
            };
            let found = select(&segments(all), &window);
            let found: String = found.iter().map(|it| it.display().to_string()).collect();
            assert_eq!(found, expected, "{since:?} {until:?}");
        }
    }

    #[test]
    fn missing_segments_are_named() {
        let all = segments(&[(3, 0, 1), (4, 1, 2), (6, 2, 3), (9, 4, 5)]);
        assert_eq!(
            gaps(&all),
            ["segment 5 is missing", "segments 7 to 8 are missing"]
        );
    }
}
