//! Several logs as one stream in the order of time, reading each as it is needed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;

use crate::model::header::Header;
use crate::replay::line::Item;
use crate::replay::log::{Log, LogError, Remark};

/// How many headers a log is looked at for before its first record: one for each log
/// that it was merged from.
const HEADERS: usize = 1_000;

/// Where something came from: the place of its log among those that are merged.
pub type From = usize;

/// Merges logs by the wall clock, which is the one that hosts share. Within a log
/// nothing changes places: what was derived stands behind what it was derived from,
/// though it happened before.
#[derive(Debug)]
pub struct Merge<R> {
    logs: Vec<Log<R>>,
    /// What is next of each log that has not ended.
    heads: Vec<Option<Item>>,
    /// The logs that have a head, by its time.
    queue: BinaryHeap<Reverse<(i64, From)>>,
    /// The log whose head was taken last, and whose next is not read yet.
    taken: Option<From>,
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

    /// The logs, each with what was read of it so far.
    #[must_use]
    pub fn logs(&self) -> &[Log<R>] {
        &self.logs
    }

    /// Reads each log up to its first record: the headers that it starts with. To be
    /// called once, before [`Merge::next`].
    ///
    /// # Errors
    /// With the log that can't be read.
    pub fn start(
        &mut self,
        tell: &mut dyn FnMut(From, Remark),
    ) -> Result<Vec<Vec<Header>>, (From, LogError)> {
        let mut all = Vec::with_capacity(self.logs.len());
        for from in 0..self.logs.len() {
            let mut headers = Vec::new();
            while let Some(item) = self.read(from, tell)? {
                match item {
                    Item::Header(header) if headers.len() < HEADERS => headers.push(*header),
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

    /// Whether the next record may have to be waited for.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.taken.is_some_and(|from| !self.logs[from].is_ready())
    }

    /// What is next, and of which log.
    ///
    /// # Errors
    /// With the log that can't be read on.
    pub fn next(
        &mut self,
        tell: &mut dyn FnMut(From, Remark),
    ) -> Result<Option<(From, Item)>, (From, LogError)> {
        if let Some(from) = self.taken.take()
            && let Some(item) = self.read(from, tell)?
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
        from: From,
        tell: &mut dyn FnMut(From, Remark),
    ) -> Result<Option<Item>, (From, LogError)> {
        let next = self.logs[from].next(&mut |remark| tell(from, remark));
        next.map_err(|why| (from, why))
    }

    fn put(&mut self, from: From, item: Item) {
        let time = match &item {
            // It belongs right behind what came before it.
            Item::Header(_) => i64::MIN,
            Item::Record(record) => record.time.0,
        };
        self.heads[from] = Some(item);
        self.queue.push(Reverse((time, from)));
    }
}
