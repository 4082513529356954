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

/// The segments of a folder that are to be read.
pub(super) struct FoundSegments {
    /// Those that may have records of the window, oldest first.
    pub(super) paths: Vec<PathBuf>,
    /// From when to when all of the folder are, also those that are not read.
    pub(super) times: (WallTime, WallTime),
}

/// The segments of a folder that may have records of this window. Says if there is none.
///
/// # Errors
/// If the folder can't be read, or has no segment.
pub(super) fn find(folder: &Path, window: &TimeWindow) -> Result<FoundSegments> {
    let shown = Escaped::from_path(folder);
    let mut all = read(folder).with_context(|| format!("cannot read {shown}"))?;
    all.sort_by_key(|it| it.name);
    let Some(times) = times(&all) else {
        let why = format!("{shown}: a folder without segments of kaprobe record");
        return Err(exit::Error::failure(why).into());
    };
    let selected = select(&all, window);
    if selected.is_empty() {
        let (first, last) = times;
        stderr::line(format_args!(
            "{shown}: nothing was recorded {window}: its segments are of {} to {}",
            first.to_the_second(),
            last.to_the_second()
        ));
    }
    let (first, mut last) = times;
    if let Some(read) = selected.last().filter(|it| Some(*it) == all.last()) {
        // Its records tell the end better: a copy of a file was written later than it.
        last = read.name.began;
    }
    Ok(FoundSegments {
        paths: selected.iter().map(|it| it.path.clone()).collect(),
        times: (first, last),
    })
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

/// Leaves out the segments before the first and after the last that may have records of the
/// window. One was over before it by the names of those after it and by the time of its last
/// write; or it began after the window. If the clock was set, the names don't ascend; then more
/// are read.
fn select<'a>(all: &'a [Segment], window: &TimeWindow) -> &'a [Segment] {
    let mut selected = None;
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
            let (first, _) = selected.unwrap_or((nth, nth));
            selected = Some((first, nth));
        }
    }
    selected.map_or(&[], |(first, last)| &all[first..=last])
}

/// From when to when segments were written.
fn times(all: &[Segment]) -> Option<(WallTime, WallTime)> {
    let first = all.iter().map(|it| it.name.began).min()?;
    let last = all.iter().filter_map(|it| it.written).max();
    Some((first, last.unwrap_or(first)))
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
            (&set_back, Some(11), None, "1234"),
            (&set_back, None, Some(6), "12"),
        ];
        for (all, since, until, expected) in rows {
            let hour = |h: i64| WallTime(h * 3_600_000_000_000);
            let window = TimeWindow {
                since: since.map(hour),
                until: until.map(hour),
            };
            let all = segments(all);
            let found = select(&all, &window);
            let found: String = found.iter().map(|it| it.name.number.to_string()).collect();
            assert_eq!(found, expected, "{since:?} {until:?}");
        }
    }
}
