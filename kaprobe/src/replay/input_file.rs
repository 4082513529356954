//! A file of a log. A segment of a recorder is open only while it is read: a folder has more
//! segments than a process may have open files.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::model::header::Header;
use crate::model::segment::SegmentName;
use crate::model::time::WallTime;
use crate::replay::decompress::LogReader;
use crate::replay::line::Item;
use crate::replay::log::{Log, LogCounts, LogError, Remark, RemarkKind};

/// A file, by the numbers of its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// The file that this metadata is of.
    #[must_use]
    pub fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

/// A file to read.
pub struct InputFile {
    /// Its name in messages.
    pub name: String,
    /// Which file it is.
    pub id: FileId,
    /// Its length, bytes; 0 if it has none, as a pipe.
    pub size: u64,
    /// Its number, if it is a segment of a recorder.
    pub segment: Option<u64>,
    /// From when to when the segments of its folder are, if it is one.
    pub folder_times: Option<(WallTime, WallTime)>,
    state: State,
    /// Counts of its lines, once it was read.
    counts: LogCounts,
    /// A header or a record was found in it.
    is_log: bool,
}

enum State {
    /// A segment whose turn has not come.
    Closed(PathBuf),
    Open(Box<Log<LogReader>>),
    Ended,
}

impl InputFile {
    /// A log that is open.
    #[must_use]
    pub fn open(name: String, id: FileId, size: u64, reader: LogReader) -> Self {
        let state = State::Open(Box::new(Log::new(reader)));
        Self::new(name, id, size, None, state)
    }

    /// A segment of a recorder, which is opened in its turn.
    #[must_use]
    pub fn segment(
        name: String,
        id: FileId,
        size: u64,
        segment: SegmentName,
        path: PathBuf,
    ) -> Self {
        Self::new(name, id, size, Some(segment.number), State::Closed(path))
    }

    fn new(name: String, id: FileId, size: u64, segment: Option<u64>, state: State) -> Self {
        Self {
            name,
            id,
            size,
            segment,
            folder_times: None,
            state,
            counts: LogCounts::default(),
            is_log: false,
        }
    }

    /// Whether it is a segment of a recorder.
    #[must_use]
    pub const fn is_segment(&self) -> bool {
        self.segment.is_some()
    }

    /// Looks into a segment whose turn has not come: its header, if it starts with one.
    ///
    /// # Errors
    /// If it can't be opened or read.
    pub(super) fn peek(&self) -> Result<Peeked, LogError> {
        let State::Closed(path) = &self.state else {
            return Ok(Peeked::Nothing);
        };
        let Some(mut log) = open(path)? else {
            return Ok(Peeked::Removed);
        };
        // They are said when its turn comes.
        Ok(match log.next(&mut |_| {})? {
            None => Peeked::Nothing,
            Some(Item::Header(header)) => Peeked::Header(header),
            Some(_) => Peeked::Item,
        })
    }

    /// Returns the next header or record; `None` at the end. See [`Log::next`].
    ///
    /// # Errors
    /// If the rest of the log can't be read, or the file is not a log.
    pub(super) fn next(
        &mut self,
        on_remark: &mut dyn FnMut(Remark),
    ) -> Result<Option<Item>, LogError> {
        if let State::Closed(path) = &self.state {
            self.state = match open(path)? {
                Some(log) => State::Open(Box::new(log)),
                None => {
                    on_remark(Remark {
                        line: 1,
                        kind: RemarkKind::Removed,
                    });
                    State::Ended
                }
            };
        }
        let State::Open(log) = &mut self.state else {
            return Ok(None);
        };
        let has_bytes = self.size > 0;
        let next = log.next(&mut |remark| {
            let kind = match remark.kind {
                RemarkKind::Empty if has_bytes => RemarkKind::CutAtStart,
                kind => kind,
            };
            on_remark(Remark { kind, ..remark });
        })?;
        self.counts = log.counts();
        self.is_log = log.is_log();
        if next.is_none() {
            self.state = State::Ended;
        }
        Ok(next)
    }

    /// Counts of the lines read so far.
    #[must_use]
    pub const fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Whether a header or a record was found so far.
    #[must_use]
    pub const fn is_log(&self) -> bool {
        self.is_log
    }

    /// The length of the last line, bytes.
    pub(super) fn line_len(&self) -> usize {
        match &self.state {
            State::Open(log) => log.line_len(),
            State::Closed(_) | State::Ended => 0,
        }
    }

    /// Whether the next line can be read without waiting.
    pub(super) fn is_ready(&self) -> bool {
        match &self.state {
            State::Open(log) => log.is_ready(),
            State::Closed(_) | State::Ended => true,
        }
    }
}

/// What a segment starts with.
#[derive(Debug)]
pub(super) enum Peeked {
    /// The recorder has removed it.
    Removed,
    /// Nothing can be read.
    Nothing,
    Header(Box<Header>),
    /// Something else: its header was damaged.
    Item,
}

/// Opens a segment. `None` if the recorder has removed it.
fn open(path: &PathBuf) -> io::Result<Option<Log<LogReader>>> {
    match File::open(path) {
        Ok(file) => LogReader::segment(file).map(|it| Some(Log::segment(it))),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}
