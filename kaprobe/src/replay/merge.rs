//! Merges several logs into one stream, ordered by time. Reads each log on demand.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;

use crate::model::header::Header;
use crate::replay::line::Item;
use crate::replay::log::{Log, LogError, Remark};

/// Most headers that are read before the first record. A merged log has one for each log
/// that it was merged from.
const HEADERS: usize = 1_000;

/// Most bytes of the lines of these headers. One of kaprobe takes less than a kilobyte, and
/// some 60 bytes more for each timeout.
const HEADERS_LEN: usize = 4 << 20;

/// The index of a log among the merged logs.
pub type LogIndex = usize;

/// Merges logs by the wall clock, the only clock that hosts share. Keeps the order
/// within each log: a derived record stays after the record it was derived from, even
/// if its time is earlier.
#[derive(Debug)]
pub struct Merge<R> {
    logs: Vec<Log<R>>,
    /// The next item of each log that has not ended.
    heads: Vec<Option<Item>>,
    /// The logs that have a next item, by its time.
    queue: BinaryHeap<Reverse<(i64, LogIndex)>>,
    /// The log of the last returned item. Its next item is not read yet.
    taken: Option<LogIndex>,
}

impl<R: Read> Merge<R> {
    /// Merges these logs.
    #[must_use]
    pub fn new(logs: Vec<Log<R>>) -> Self {
        let heads = logs.iter().map(|_| None).collect();
        Self {
            logs,
            heads,
            queue: BinaryHeap::new(),
            taken: None,
        }
    }

    /// The merged logs.
    #[must_use]
    pub fn logs(&self) -> &[Log<R>] {
        &self.logs
    }

    /// Reads the headers before the first record of each log. Call it once, before
    /// [`Merge::next`].
    ///
    /// # Errors
    /// The index of a log that can't be read, and the reason.
    pub fn start(
        &mut self,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Vec<Vec<Header>>, (LogIndex, LogError)> {
        let mut all = Vec::with_capacity(self.logs.len());
        for from in 0..self.logs.len() {
            let (mut headers, mut len) = (Vec::new(), 0);
            while let Some(item) = self.read(from, on_remark)? {
                len += self.logs[from].line_len();
                let has_room = headers.len() < HEADERS && len <= HEADERS_LEN;
                match item {
                    // The header of a host that has one already starts the next trace.
                    Item::Header(header)
                        if has_room && headers.iter().all(|it: &Header| it.host != header.host) =>
                    {
                        headers.push(*header);
                    }
                    item => {
                        self.put(from, item);
                        break;
                    }
                }
            }
            all.push(headers);
        }
        Ok(all)
    }

    /// Whether [`Merge::next`] may have to wait.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.taken.is_some_and(|from| !self.logs[from].is_ready())
    }

    /// Returns the next item and the index of its log.
    ///
    /// # Errors
    /// The index of a log whose rest can't be read, and the reason.
    pub fn next(
        &mut self,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<(LogIndex, Item)>, (LogIndex, LogError)> {
        if let Some(from) = self.taken.take()
            && let Some(item) = self.read(from, on_remark)?
        {
            self.put(from, item);
        }
        let Some(Reverse((_, from))) = self.queue.pop() else {
            return Ok(None);
        };
        self.taken = Some(from);
        Ok(self.heads[from].take().map(|item| (from, item)))
    }

    fn read(
        &mut self,
        from: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<Item>, (LogIndex, LogError)> {
        let next = self.logs[from].next(&mut |remark| on_remark(from, remark));
        next.map_err(|why| (from, why))
    }

    fn put(&mut self, from: LogIndex, item: Item) {
        let time = match &item {
            // They directly follow the item before them.
            Item::Header(_) | Item::Timeouts(_) | Item::Trailer(_) => i64::MIN,
            Item::Record(record) => record.time.0,
        };
        self.heads[from] = Some(item);
        self.queue.push(Reverse((time, from)));
    }
}
