//! The folder of a recorder: its lock, its segments, and the room that they have.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use std::{process, thread};

use crate::model::segment::SegmentName;
use crate::model::time::WallTime;
use crate::output_file::folder::Folder;
use crate::text::escape::Escaped;

/// The file that a recorder locks while it writes to the folder. It has the recorder's PID.
const LOCK: &str = "lock";

/// Most segments that are kept: a reader looks into each.
const MAX_SEGMENTS: usize = 1_000;

/// The largest number that a segment of an earlier run may have: far more than a recorder makes,
/// and as many are left. A file that somebody else made may have a larger one.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// Longest text of the lock file that is read, bytes.
const MAX_PID_LEN: u64 = 20;

/// The folder of a recorder, locked.
#[derive(Debug)]
pub(super) struct SegmentFolder {
    folder: Folder,
    /// Held as long as the folder is.
    _lock: File,
    /// Most bytes of all segments.
    max_size: u64,
    /// Oldest first. Those of earlier runs are among them.
    segments: VecDeque<Segment>,
    last_number: u64,
}

/// A segment on the disk.
#[derive(Debug)]
struct Segment {
    number: u64,
    name: String,
    size: u64,
}

impl SegmentFolder {
    /// Opens the folder, and makes it if there is none. Removes the oldest segments if there
    /// are more than have room.
    ///
    /// # Errors
    /// When it can't be opened, other users can write to it, or another kaprobe records in it.
    pub(super) fn open(path: &Path, max_size: u64) -> io::Result<Self> {
        let folder = Folder::open(path)?;
        let lock = lock(&folder)?;
        let mut segments: Vec<_> = folder
            .files()?
            .into_iter()
            .filter_map(|file| {
                let number = SegmentName::parse(&file.name)?.number;
                Some(Segment {
                    number,
                    name: file.name,
                    size: file.size,
                })
            })
            .collect();
        segments.sort_by_key(|it| it.number);
        if let Some(last) = segments.last().filter(|it| it.number > MAX_NUMBER) {
            let name = Escaped::from(last.name.as_str());
            return Err(io::Error::other(format!(
                "no number is left after {name}: move that file away"
            )));
        }
        let mut opened = Self {
            folder,
            _lock: lock,
            max_size,
            last_number: segments.last().map_or(0, |it| it.number),
            segments: segments.into(),
        };
        opened.make_room(0, false)?;
        Ok(opened)
    }

    /// Makes the file of the next segment.
    ///
    /// # Errors
    /// When it can't be made, or there are no more numbers.
    pub(super) fn create(&mut self, began: WallTime) -> io::Result<File> {
        self.limit_count()?;
        let next = self.last_number.checked_add(1);
        let number = next.ok_or_else(|| io::Error::other("no segment number is left"))?;
        let name = SegmentName { number, began }.to_string();
        let file = self.folder.create(&name)?;
        self.last_number = number;
        self.segments.push_back(Segment {
            number,
            name,
            size: 0,
        });
        // If it fails, a power failure may take the segment.
        let _synced = self.folder.sync();
        Ok(file)
    }

    /// Notes the size of the newest segment.
    pub(super) fn note_size(&mut self, size: u64) {
        if let Some(newest) = self.segments.back_mut() {
            newest.size = size;
        }
    }

    /// Removes the oldest segments until so many bytes more fit. `is_open` keeps the newest:
    /// it is written. Returns whether they fit.
    ///
    /// # Errors
    /// When a segment can't be removed.
    pub(super) fn make_room(&mut self, more: u64, is_open: bool) -> io::Result<bool> {
        while self.size().saturating_add(more) > self.max_size {
            if !self.remove_oldest(is_open)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the oldest segment. Returns whether there was one to remove.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(super) fn remove_oldest(&mut self, is_open: bool) -> io::Result<bool> {
        if self.segments.len() <= usize::from(is_open) {
            return Ok(false);
        }
        let Some(oldest) = self.segments.front() else {
            return Ok(false);
        };
        match self.folder.remove(&oldest.name) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            // Another process has removed it.
            _ => self.segments.pop_front(),
        };
        Ok(true)
    }

    /// Removes the newest segment, which has nothing in it.
    pub(super) fn remove_newest(&mut self) {
        if let Some(newest) = self.segments.pop_back() {
            self.last_number = newest.number.saturating_sub(1);
            // An empty segment takes no room.
            let _removed = self.folder.remove(&newest.name);
        }
    }

    fn limit_count(&mut self) -> io::Result<()> {
        while self.segments.len() >= MAX_SEGMENTS {
            self.remove_oldest(false)?;
        }
        Ok(())
    }

    /// Bytes of all segments.
    fn size(&self) -> u64 {
        let sizes = self.segments.iter().map(|it| it.size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// How often a lock is tried, and the pause between: a process that was just started has the lock
/// of its parent until it runs its own program.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Whether another process has the lock of a file, and keeps it.
fn is_held(file: &File) -> bool {
    for _ in 0..TRIES {
        let Err(TryLockError::WouldBlock) = file.try_lock() else {
            return false;
        };
        thread::sleep(PAUSE);
    }
    true
}

/// Locks the folder, so that no other kaprobe records in it.
fn lock(folder: &Folder) -> io::Result<File> {
    let mut file = folder.open_or_create(LOCK)?;
    if is_held(&file) {
        let mut pid = String::new();
        // Without its number, the message says less.
        let _read = file.take(MAX_PID_LEN).read_to_string(&mut pid);
        let pid = Escaped::from(pid.trim());
        return Err(io::Error::other(format!(
            "another kaprobe records there: process {pid}"
        )));
    }
    // Some file systems have no locks. The number is only for people.
    let _written = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", process::id()));
    Ok(file)
}
