//! Merges several logs into one stream, ordered by time. Reads each log on demand.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::Read;

use crate::model::header::Header;
use crate::model::time::TimeWindow;
use crate::replay::chain::{LogIndex, chains};
use crate::replay::line::Item;
use crate::replay::log::{Log, LogError, Remark};
use crate::replay::sender_first::SenderFirst;

/// Most headers that are read before the first record. A merged log has one for each log
/// that it was merged from.
const HEADERS: usize = 1_000;

/// Most bytes of the lines of these headers. One of kaprobe takes less than a kilobyte, and
/// some 60 bytes more for each timeout.
const HEADERS_LEN: usize = 4 << 20;

/// The index of a log: a file, or a chain of files.
pub type SourceIndex = usize;

/// Merges logs by the wall clock, the only clock that hosts share. Keeps the order
/// within each log: a derived record stays after the record it was derived from, even
/// if its time is earlier. The files of a log that was rotated are one log: [`chains`].
#[derive(Debug)]
pub struct Merge<R> {
    files: Vec<Log<R>>,
    /// The items of each file that are read already.
    heads: Vec<VecDeque<Item>>,
    /// The files of each log that have not ended, in order.
    sources: Vec<VecDeque<LogIndex>>,
    /// The logs that have a next item, by its time.
    queue: BinaryHeap<Reverse<(i64, SourceIndex)>>,
    /// The log of the last returned item. Its next item is not read yet.
    taken: Option<SourceIndex>,
    /// `None` if there is only one log: it has its own order.
    order: Option<SenderFirst<(LogIndex, LogError)>>,
    /// Records of other times are left out.
    window: TimeWindow,
}

/// A log that is merged.
#[derive(Debug)]
pub struct MergedLog {
    /// The name of its first file.
    pub name: String,
    /// The headers before the first record.
    pub headers: Vec<Header>,
}

impl<R: Read> Merge<R> {
    /// Merges the logs in these files.
    #[must_use]
    pub fn new(files: Vec<Log<R>>) -> Self {
        Self {
            heads: files.iter().map(|_| VecDeque::new()).collect(),
            files,
            sources: Vec::new(),
            queue: BinaryHeap::new(),
            taken: None,
            order: None,
            window: TimeWindow::default(),
        }
    }

    /// Leaves out the records of other times.
    #[must_use]
    pub fn within(self, window: TimeWindow) -> Self {
        Self { window, ..self }
    }

    /// The files that are read.
    #[must_use]
    pub fn files(&self) -> &[Log<R>] {
        &self.files
    }

    /// Reads the headers before the first record of each file, and finds the logs that the
    /// files are of by these and by the names. Call it once, before [`Merge::next`].
    ///
    /// # Errors
    /// The index of a file that can't be read, and the reason.
    pub fn start(
        &mut self,
        names: &[String],
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Vec<MergedLog>, (LogIndex, LogError)> {
        let mut headers = Vec::with_capacity(self.files.len());
        for file in 0..self.files.len() {
            headers.push(self.headers(file, on_remark)?);
        }
        let mut logs = Vec::new();
        for chain in chains(&headers, names) {
            let mut chain = VecDeque::from(chain);
            // An empty segment says nothing.
            let is_empty = |&it: &LogIndex| headers[it].is_empty() && self.heads[it].is_empty();
            while chain.len() > 1 && chain.front().is_some_and(is_empty) {
                chain.pop_front();
            }
            // Only of files that continue a log, the headers are items.
            for &file in chain.iter().skip(1) {
                for header in std::mem::take(&mut headers[file]).into_iter().rev() {
                    self.heads[file].push_front(Item::Header(Box::new(header)));
                }
            }
            let first = chain.make_contiguous().first().copied().unwrap_or_default();
            logs.push(MergedLog {
                name: names[first].clone(),
                headers: std::mem::take(&mut headers[first]),
            });
            self.sources.push(chain);
            self.queue_next(self.sources.len() - 1, on_remark)?;
        }
        self.order = (logs.len() > 1).then(SenderFirst::new);
        Ok(logs)
    }

    /// Reads the headers before the first record of a file.
    fn headers(
        &mut self,
        file: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Vec<Header>, (LogIndex, LogError)> {
        let (mut headers, mut len) = (Vec::new(), 0);
        while let Some(item) = self.read(file, on_remark)? {
            len += self.files[file].line_len();
            let has_room = headers.len() < HEADERS && len <= HEADERS_LEN;
            match item {
                // The header of a host that has one already starts the next trace.
                Item::Header(header)
                    if has_room && headers.iter().all(|it: &Header| it.host != header.host) =>
                {
                    headers.push(*header);
                }
                item => {
                    self.heads[file].push_back(item);
                    break;
                }
            }
        }
        Ok(headers)
    }

    /// Whether [`Merge::next`] may have to wait.
    #[must_use]
    pub fn waits(&self) -> bool {
        if self.order.as_ref().is_some_and(SenderFirst::has_next) {
            return false;
        }
        let file = self.taken.and_then(|it| self.sources[it].front());
        file.is_some_and(|&it| self.heads[it].is_empty() && !self.files[it].is_ready())
    }

    /// Returns the next item and the index of its log.
    ///
    /// # Errors
    /// The index of a file whose rest can't be read, and the reason.
    pub fn next(
        &mut self,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<(SourceIndex, Item)>, (LogIndex, LogError)> {
        let Some(mut order) = self.order.take() else {
            return self.next_by_time(on_remark);
        };
        let next = order.next(&mut || self.next_by_time(on_remark));
        self.order = Some(order);
        next
    }

    fn next_by_time(
        &mut self,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<(SourceIndex, Item)>, (LogIndex, LogError)> {
        if let Some(from) = self.taken.take() {
            self.queue_next(from, on_remark)?;
        }
        let Some(Reverse((_, from))) = self.queue.pop() else {
            return Ok(None);
        };
        self.taken = Some(from);
        let file = self.sources[from].front();
        let item = file.and_then(|&file| self.heads[file].pop_front());
        Ok(item.map(|item| (from, item)))
    }

    /// Puts the next item of a log in the queue, if there is one.
    fn queue_next(
        &mut self,
        from: SourceIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<(), (LogIndex, LogError)> {
        while let Some(&file) = self.sources[from].front() {
            if self.heads[file].is_empty() {
                let next = self.read(file, on_remark)?;
                self.heads[file].extend(next);
            }
            if let Some(item) = self.heads[file].front() {
                self.queue.push(Reverse((time(item), from)));
                return Ok(());
            }
            self.sources[from].pop_front();
        }
        Ok(())
    }

    fn read(
        &mut self,
        file: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<Item>, (LogIndex, LogError)> {
        loop {
            let next = self.files[file].next(&mut |remark| on_remark(file, remark));
            match next.map_err(|why| (file, why))? {
                Some(Item::Record(it)) if !self.window.contains(it.time) => {}
                next => return Ok(next),
            }
        }
    }
}

/// The time by which an item is merged.
fn time(item: &Item) -> i64 {
    match item {
        // They directly follow the item before them.
        Item::Header(_) | Item::Timeouts(_) | Item::Trailer(_) => i64::MIN,
        Item::Record(record) => record.time.0,
    }
}
