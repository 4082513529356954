//! Reads ahead in several logs at the same time, each on a thread of its own: parsing takes most
//! of the time of a replay. What is read, and in which order, does not depend on it.

use std::collections::VecDeque;
use std::num::NonZero;
use std::thread;

use crate::replay::input_file::InputFile;
use crate::replay::line::Item;
use crate::replay::log::{LogCounts, LogError, Remark};

/// Most items of one file that are read ahead.
const AHEAD: usize = 512;

/// Most items of all files together that are read ahead.
const AHEAD_IN_ALL: usize = 32 * AHEAD;

/// A file, and what was read of it and not yet taken.
pub(super) struct AheadFile {
    file: InputFile,
    ahead: VecDeque<Read>,
    /// Nothing more is to be read.
    has_ended: bool,
    /// Counts of the lines that were taken.
    counts: LogCounts,
    /// Of what was taken, something was a header or a record.
    is_log: bool,
}

/// What was read of a file.
enum Read {
    Remark(Remark),
    /// The next item, or the end, with the counts up to it, and whether it is a log.
    Item(Option<Item>, LogCounts, bool),
    Failure(LogError),
}

impl AheadFile {
    pub(super) fn new(file: InputFile) -> Self {
        Self {
            file,
            ahead: VecDeque::new(),
            has_ended: false,
            counts: LogCounts::default(),
            is_log: false,
        }
    }

    /// The file.
    pub(super) const fn file(&self) -> &InputFile {
        &self.file
    }

    /// Counts of the lines taken so far.
    pub(super) const fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Whether a header or a record was taken so far.
    pub(super) const fn is_log(&self) -> bool {
        self.is_log
    }

    /// Whether nothing was read ahead.
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Whether the next item can be taken without waiting.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_empty() || self.has_ended || self.file.is_ready()
    }

    /// Takes the next item: see [`InputFile::next`].
    ///
    /// # Errors
    /// If the rest of the log can't be read, or the file is not a log.
    pub(super) fn next(
        &mut self,
        on_remark: &mut dyn FnMut(Remark),
    ) -> Result<Option<Item>, LogError> {
        loop {
            match self.ahead.pop_front() {
                Some(Read::Remark(remark)) => on_remark(remark),
                Some(Read::Item(item, counts, is_log)) => {
                    (self.counts, self.is_log) = (counts, is_log);
                    return Ok(item);
                }
                Some(Read::Failure(why)) => return Err(why),
                None if self.has_ended => return Ok(None),
                None => self.read(1),
            }
        }
    }

    /// Reads ahead, up to so many entries. Waits for the first, but for no other: a log may be a
    /// pipe.
    fn read(&mut self, most: usize) {
        while !self.has_ended && self.ahead.len() < most {
            if !self.ahead.is_empty() && !self.file.is_ready() {
                return;
            }
            let ahead = &mut self.ahead;
            let next = self
                .file
                .next(&mut |remark| ahead.push_back(Read::Remark(remark)));
            self.has_ended = !matches!(next, Ok(Some(_)));
            self.ahead.push_back(match next {
                Ok(item) => Read::Item(item, self.file.counts(), self.file.is_log()),
                Err(why) => Read::Failure(why),
            });
        }
    }
}

/// Reads ahead in the files that are chosen, on all processors.
pub(super) fn read_ahead(files: &mut [AheadFile], is_chosen: impl Fn(usize) -> bool) {
    let chosen = files.iter_mut().enumerate();
    let mut chosen: Vec<_> = chosen.filter(|(at, _)| is_chosen(*at)).collect();
    let most = (AHEAD_IN_ALL / chosen.len().max(1)).clamp(1, AHEAD);
    chosen.retain(|(_, it)| it.ahead.len() <= most / 2);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = chosen.len().div_ceil(threads).max(1);
    let read = |files: &mut [(usize, &mut AheadFile)]| {
        files.iter_mut().for_each(|(_, it)| it.read(most));
    };
    thread::scope(|scope| {
        let mut shares = chosen.chunks_mut(share);
        let own = shares.next();
        for others in shares {
            scope.spawn(move || read(others));
        }
        own.into_iter().for_each(read);
    });
}
