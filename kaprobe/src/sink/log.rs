//! The file of a log while it is written: it can be cut, continued in a new file, and
//! opened anew.

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Instant;

use crate::model::tally::Tally;
use crate::output_file::rename_older;
use crate::sink::log_file;
use crate::sink::options::{Existing, Format, LogFile, Rotation};
use crate::sink::target::Target;

/// The end of a log that is given up for its last lines when the disk is full, bytes.
const ROOM: u64 = 16 * 1024;

/// The file of a log.
#[derive(Debug)]
pub(super) struct WrittenLog {
    path: PathBuf,
    format: Format,
    /// The first line of a log, unless its format is JSON.
    heading: Vec<u8>,
    rotation: Rotation,
    /// Only a regular file can be cut and replaced.
    is_regular: bool,
    size: u64,
    /// The size and the time from which rotation counts.
    since: (u64, Instant),
    /// What was written last.
    recent: VecDeque<Written>,
    /// A file at the path that could not be opened, by device and inode.
    refused: Option<(u64, u64)>,
}

/// Lines of a log.
#[derive(Debug)]
pub(super) struct Written {
    /// Where they start.
    pub(super) start: u64,
    /// What they report.
    pub(super) lines: Tally,
    /// The records that are lost without them.
    pub(super) lost: Tally,
    /// Number of records that they report as lost.
    pub(super) told: u64,
}

/// Why a log is continued in another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// The file is long or old enough.
    Rotated,
    /// The file was removed or renamed.
    Gone,
    /// The file was truncated.
    Truncated,
}

impl WrittenLog {
    /// Opens the file.
    pub(super) fn open(
        log: &LogFile,
        heading: Vec<u8>,
        now: Instant,
    ) -> io::Result<(Self, Target)> {
        let file = log_file::open(&log.path, log.existing, log.format, &heading)?;
        let kind = file.metadata()?;
        let new = Self {
            path: log.path.clone(),
            format: log.format,
            heading,
            rotation: log.rotation,
            is_regular: kind.is_file(),
            size: kind.size(),
            since: (0, now),
            recent: VecDeque::new(),
            refused: None,
        };
        Ok((new, Target::new(file)?))
    }

    /// Whether the log can go on after this error.
    pub(super) fn is_full(&self, why: &io::Error) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        self.is_regular && full.contains(&why.kind())
    }

    /// Notes that so many bytes were written, and what they report.
    pub(super) fn wrote(&mut self, bytes: u64, lines: Tally, lost: Tally, told: u64) {
        let start = self.size;
        self.size += bytes;
        self.recent.push_back(Written {
            start,
            lines,
            lost,
            told,
        });
        while self
            .recent
            .get(1)
            .is_some_and(|it| it.start + ROOM < self.size)
        {
            self.recent.pop_front();
        }
    }

    /// Notes that so many bytes were written that are never cut off.
    pub(super) fn wrote_head(&mut self, bytes: u64) {
        self.size += bytes;
        self.recent.clear();
    }

    /// Cuts off what was written only in part.
    pub(super) fn cut(&self, target: &Target) -> io::Result<()> {
        target.file().set_len(self.size)
    }

    /// Cuts off the last lines, to make room. They are lost. Cuts off nothing if the last
    /// lines only report losses.
    pub(super) fn make_room(&mut self, target: &Target) -> io::Result<Vec<Written>> {
        if self.recent.iter().all(|it| it.told == it.lost.records()) {
            return Ok(Vec::new());
        }
        let removed: Vec<_> = self.recent.drain(..).collect();
        if let Some(first) = removed.first() {
            self.size = first.start;
        }
        self.cut(target)?;
        Ok(removed)
    }

    /// Whether the log is to be continued in another file now, before so many more bytes are
    /// written.
    pub(super) fn moved(&mut self, target: &Target, more: u64, now: Instant) -> Option<Moved> {
        if !self.is_regular {
            return None;
        }
        if let Some(moved) = self.look(target) {
            return Some(moved);
        }
        let (size, time) = self.since;
        let long = |most| self.size.saturating_sub(size) + more > most;
        let old = |most| now.saturating_duration_since(time) >= most;
        // A file without records stays.
        let due = self.rotation.size.is_some_and(long) || self.rotation.age.is_some_and(old);
        (due && !self.recent.is_empty()).then_some(Moved::Rotated)
    }

    /// Whether another file is at the path, or the file was truncated.
    pub(super) fn look(&mut self, target: &Target) -> Option<Moved> {
        let own = target.file().metadata().ok().filter(Metadata::is_file)?;
        let there = fs::metadata(&self.path).ok();
        match there.map(|it| (it.dev(), it.ino())) {
            Some(id) if id == (own.dev(), own.ino()) => {
                (own.size() < self.size).then_some(Moved::Truncated)
            }
            Some(id) if self.refused == Some(id) => None,
            _ => Some(Moved::Gone),
        }
    }

    /// Opens the file at the path anew, after renaming the current one if the log is
    /// rotated.
    pub(super) fn next_file(
        &mut self,
        moved: Moved,
        current: &Target,
        now: Instant,
    ) -> io::Result<Target> {
        if moved == Moved::Rotated {
            // Also counts from here if this fails: the next attempt is not the next block.
            self.since = (self.size, now);
            rename_older(&self.path, current.file(), self.rotation.keep)?;
        }
        let opened = log_file::open(&self.path, Existing::Append, self.format, &self.heading);
        let file = opened.inspect_err(|_| {
            let there = fs::metadata(&self.path).ok();
            self.refused = there.map(|it| (it.dev(), it.ino()));
        })?;
        let size = file.metadata()?.size();
        let target = Target::new(file)?;
        (self.size, self.since) = (size, (0, now));
        self.recent.clear();
        self.refused = None;
        Ok(target)
    }

    /// Starts at the beginning of the same file, which was truncated.
    pub(super) fn start_over(&mut self, now: Instant) {
        (self.size, self.since) = (0, (0, now));
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_log_is_rotated_by_its_age_once_it_has_records() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("log.jsonl");
        let hour = Duration::from_secs(3_600);
        let log = LogFile {
            path: path.clone(),
            format: Format::Json,
            existing: Existing::Append,
            rotation: Rotation {
                size: None,
                age: Some(hour),
                keep: 9,
            },
        };
        let began = Instant::now();
        let (mut log, mut target) = WrittenLog::open(&log, Vec::new(), began)?;
        let put = |log: &mut WrittenLog, target: &Target| {
            log.wrote(2, Tally::default(), Tally::default(), 0);
            target.file().write_all(b"{}")
        };
        assert_eq!(log.moved(&target, 0, began + 2 * hour), None, "no record");
        put(&mut log, &target)?;
        let just_before = began + hour - Duration::from_nanos(1);
        assert_eq!(log.moved(&target, 0, just_before), None);
        let late = began + 3 * hour;
        for now in [began + hour, late] {
            assert_eq!(log.moved(&target, 0, now), Some(Moved::Rotated));
        }
        target = log.next_file(Moved::Rotated, &target, late)?;
        assert_eq!(fs::read(dir.path().join("log.jsonl.1"))?, b"{}");
        // The age of the new file counts from its beginning.
        put(&mut log, &target)?;
        assert_eq!(log.moved(&target, 0, late + hour / 2), None);
        assert_eq!(log.moved(&target, 0, late + hour), Some(Moved::Rotated));
        Ok(())
    }
}
