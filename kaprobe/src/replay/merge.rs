//! Merges several logs into one stream, ordered by time. Reads each log on demand.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::mem;

use crate::model::header::Header;
use crate::model::time::{TimeWindow, WallTime};
use crate::replay::chain::{FileStart, LogIndex, chains, copies};
use crate::replay::input_file::{InputFile, Peeked};
use crate::replay::line::Item;
use crate::replay::log::{LogCounts, LogError, Remark, RemarkKind};
use crate::replay::read_ahead::{AheadFile, read_ahead};
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
pub struct Merge {
    files: Vec<AheadFile>,
    /// The items of each file that are read already.
    heads: Vec<VecDeque<Item>>,
    /// The remark on a file that ended without a trailer, until the next file tells why.
    unended: Vec<Option<Remark>>,
    /// The logs.
    sources: Vec<LogSource>,
    /// The logs that have a next item, by its time.
    queue: BinaryHeap<Reverse<(i64, SourceIndex)>>,
    /// The log of the last returned item. Its next item is not read yet.
    taken: Option<SourceIndex>,
    /// `None` if there is only one log: it has its own order.
    order: Option<SenderFirst<(LogIndex, LogError)>>,
    /// Records of other times are left out.
    window: TimeWindow,
    read: TimesRead,
    /// Files that end before their trace does.
    damaged: u64,
}

/// A log: its files, and where the reader is.
#[derive(Debug, Default)]
struct LogSource {
    /// The files that have not ended, in order.
    files: VecDeque<LogIndex>,
    /// The file of the last item.
    current: Option<LogIndex>,
    /// The last file that has ended.
    ended: Option<LogIndex>,
    /// A file that ended without a trailer.
    unended: Option<(LogIndex, Remark)>,
    /// The last header, without its maps.
    header: Option<Header>,
}

/// A log that is merged.
#[derive(Debug)]
pub struct MergedLog {
    /// The name of its first file.
    pub name: String,
    /// The headers before the first record.
    pub headers: Vec<Header>,
}

impl Merge {
    /// Merges the logs in these files.
    #[must_use]
    pub fn new(files: Vec<InputFile>) -> Self {
        Self {
            heads: files.iter().map(|_| VecDeque::new()).collect(),
            unended: files.iter().map(|_| None).collect(),
            files: files.into_iter().map(AheadFile::new).collect(),
            sources: Vec::new(),
            queue: BinaryHeap::new(),
            taken: None,
            order: None,
            window: TimeWindow::default(),
            read: TimesRead::default(),
            damaged: 0,
        }
    }

    /// Leaves out the records of other times.
    #[must_use]
    pub fn within(self, window: TimeWindow) -> Self {
        Self { window, ..self }
    }

    /// Counts of the lines read so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        let mut sum = LogCounts {
            damaged: self.damaged,
            ..LogCounts::default()
        };
        self.files.iter().for_each(|it| sum += it.counts());
        sum
    }

    /// The name of a file that was read and is no log. A recorder that is killed may leave an
    /// empty segment: that is none.
    #[must_use]
    pub fn not_a_log(&self) -> Option<&str> {
        let mut files = self.files.iter();
        let file = files.find(|it| !it.is_log() && !it.file().is_segment())?;
        Some(&file.file().name)
    }

    /// Says that no record is of the time that was to be read, if so.
    #[must_use]
    pub fn outside(&self) -> Option<String> {
        let folders = self.files.iter().filter_map(|it| it.file().folder_times);
        (!self.files.is_empty())
            .then(|| self.read.outside(folders, &self.window))
            .flatten()
    }

    /// Reads the headers before the first record of each file, and finds the logs that the
    /// files are of by these and by the names. Call it once, before [`Merge::next`].
    ///
    /// # Errors
    /// The index of a file that can't be read, and the reason.
    pub fn start(
        &mut self,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Vec<MergedLog>, (LogIndex, LogError)> {
        let mut beginnings = Vec::with_capacity(self.files.len());
        for file in 0..self.files.len() {
            beginnings.push(self.beginning(file, on_remark)?);
        }
        let mut logs = Vec::new();
        for mut chain in self.chains(&beginnings, on_remark) {
            // An empty segment says nothing.
            let is_empty = |&it: &LogIndex| beginnings[it].is_empty;
            while chain.len() > 1 && chain.front().is_some_and(is_empty) {
                let empty = chain.pop_front().unwrap_or_default();
                self.read(empty, on_remark)?;
                if let Some(remark) = self.unended[empty].take() {
                    on_remark(empty, remark);
                }
            }
            let first = chain.front().copied().unwrap_or_default();
            let headers = mem::take(&mut beginnings[first].headers);
            if self.files[first].file().is_segment() {
                let item = self.read(first, on_remark)?;
                let item = item.filter(|it| !matches!(it, Item::Header(_)));
                self.heads[first].extend(item);
            }
            // Only of files that continue a log, the headers are items.
            for &file in chain.iter().skip(1) {
                if self.files[file].file().is_segment() {
                    continue;
                }
                for header in mem::take(&mut beginnings[file].headers).into_iter().rev() {
                    self.heads[file].push_front(Item::Header(Box::new(header)));
                }
            }
            self.sources.push(LogSource {
                files: chain,
                header: headers.last().map(Header::without_maps),
                ..LogSource::default()
            });
            logs.push(MergedLog {
                name: self.files[first].file().name.clone(),
                headers,
            });
            self.queue_next(self.sources.len() - 1, on_remark)?;
        }
        self.order = (logs.len() > 1).then(SenderFirst::new);
        Ok(logs)
    }

    /// The files of each log, in order. Without those that are copies of others.
    fn chains(
        &self,
        beginnings: &[Beginning],
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Vec<VecDeque<LogIndex>> {
        let files = self.files.iter().zip(beginnings);
        let files = files.map(|(file, beginning)| FileStart {
            name: &file.file().name,
            size: file.file().size,
            headers: &beginning.headers,
        });
        let files: Vec<_> = files.collect();
        let copies = copies(&files);
        for it in &copies {
            let kind = RemarkKind::CopyOf(self.files[it.of].file().name.clone());
            on_remark(it.copy, Remark { line: 1, kind });
        }
        let is_read = |file: LogIndex| {
            !beginnings[file].is_removed && copies.iter().all(|it| it.copy != file)
        };
        let chains = chains(&files, is_read);
        chains.into_iter().map(VecDeque::from).collect()
    }

    /// Reads the headers before the first record of a file.
    fn beginning(
        &mut self,
        file: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Beginning, (LogIndex, LogError)> {
        if self.files[file].file().is_segment() {
            let peeked = self.files[file].file().peek().map_err(|why| (file, why))?;
            return Ok(Beginning::of_segment(peeked));
        }
        let (mut headers, mut len) = (Vec::new(), 0);
        while let Some(item) = self.read(file, on_remark)? {
            len += self.files[file].file().line_len();
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
        Ok(Beginning {
            headers,
            ..Beginning::default()
        })
    }

    /// Whether [`Merge::next`] may have to wait.
    #[must_use]
    pub fn waits(&self) -> bool {
        if self.order.as_ref().is_some_and(SenderFirst::has_next) {
            return false;
        }
        let file = self.taken.and_then(|it| self.sources[it].files.front());
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
        let file = self.sources[from].files.front();
        let item = file.and_then(|&file| self.heads[file].pop_front());
        Ok(item.map(|item| (from, item)))
    }

    /// Puts the next item of a log in the queue, if there is one.
    fn queue_next(
        &mut self,
        from: SourceIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<(), (LogIndex, LogError)> {
        while let Some(&file) = self.sources[from].files.front() {
            if self.heads[file].is_empty() {
                let next = self.read(file, on_remark)?;
                self.heads[file].extend(next);
            }
            if let Some(item) = self.heads[file].front() {
                self.queue.push(Reverse((time(item), from)));
                self.enter(from, file, on_remark);
                return Ok(());
            }
            let source = &mut self.sources[from];
            source.files.pop_front();
            source.ended = Some(file);
            if let Some(remark) = self.unended[file].take() {
                let earlier = source.unended.replace((file, remark));
                earlier.into_iter().for_each(|(of, it)| on_remark(of, it));
            }
        }
        if let Some((file, remark)) = self.sources[from].unended.take() {
            on_remark(file, remark);
        }
        Ok(())
    }

    /// Notes that the next item of a log is in this file. Says what is missing before it.
    fn enter(
        &mut self,
        from: SourceIndex,
        file: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) {
        let source = &mut self.sources[from];
        let header = match self.heads[file].front() {
            Some(Item::Header(header)) => Some(header),
            _ => None,
        };
        if source.current.replace(file) != Some(file) {
            let last = source.header.as_ref();
            let continued = header.zip(last).filter(|(it, last)| it.continues(last));
            if let Some((of, mut remark)) = source.unended.take() {
                if continued.is_some() {
                    self.damaged += 1;
                    remark.kind = RemarkKind::Unended;
                }
                on_remark(of, remark);
            }
            let numbers = source.ended.and_then(|it| self.files[it].file().segment);
            let missing = match numbers.zip(self.files[file].file().segment) {
                Some((last, next)) => (next.saturating_sub(last) > 1)
                    .then(|| RemarkKind::MissingSegments(last + 1, next - 1)),
                None => continued
                    .and_then(|(it, last)| it.missing_since(last))
                    .map(|(first, last)| RemarkKind::MissingParts(first, last)),
            };
            if let Some(kind) = missing {
                on_remark(file, Remark { line: 1, kind });
            }
        }
        if let Some(header) = header {
            source.header = Some(header.without_maps());
        }
    }

    /// Reads ahead in the file that each log has come to.
    fn read_ahead(&mut self) {
        let fronts = self.sources.iter().filter_map(|it| it.files.front());
        let fronts: BTreeSet<_> = fronts.copied().collect();
        read_ahead(&mut self.files, |file| fronts.contains(&file));
    }

    /// Reads the next item of a file. Keeps back that it ended without a trailer.
    fn read(
        &mut self,
        file: LogIndex,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<Option<Item>, (LogIndex, LogError)> {
        loop {
            if self.files[file].is_empty() && self.sources.len() > 1 {
                self.read_ahead();
            }
            let mut last = None;
            let next = self.files[file].next(&mut |remark| {
                last.replace(remark)
                    .into_iter()
                    .for_each(|it| on_remark(file, it));
            });
            let next = next.map_err(|why| (file, why));
            if let (Ok(None), Some(remark)) = (&next, &last)
                && matches!(
                    remark.kind,
                    RemarkKind::NoTrailer | RemarkKind::Cut | RemarkKind::CutAtStart
                )
            {
                self.unended[file] = last.take();
            }
            last.into_iter().for_each(|it| on_remark(file, it));
            match next? {
                Some(Item::Record(it)) if !self.read.note(it.time, &self.window) => {}
                next => return Ok(next),
            }
        }
    }
}

/// How a file begins.
#[derive(Debug, Default)]
struct Beginning {
    /// The headers before its first record.
    headers: Vec<Header>,
    /// A segment that has nothing to read.
    is_empty: bool,
    /// A segment that the recorder has removed.
    is_removed: bool,
}

impl Beginning {
    fn of_segment(peeked: Peeked) -> Self {
        Self {
            is_empty: matches!(peeked, Peeked::Nothing),
            is_removed: matches!(peeked, Peeked::Removed),
            headers: match peeked {
                Peeked::Header(header) => vec![*header],
                Peeked::Removed | Peeked::Nothing | Peeked::Item => Vec::new(),
            },
        }
    }
}

/// The times of the records that were read.
#[derive(Debug, Default)]
struct TimesRead {
    /// A record is of the time that was to be read.
    has_any: bool,
    /// The first and the last time of the others.
    others: Option<(WallTime, WallTime)>,
}

impl TimesRead {
    /// Notes a record. Returns whether its time is in the window.
    fn note(&mut self, at: WallTime, window: &TimeWindow) -> bool {
        let is_in = window.contains(at);
        if is_in {
            self.has_any = true;
        } else {
            let (first, last) = self.others.unwrap_or((at, at));
            self.others = Some((first.min(at), last.max(at)));
        }
        is_in
    }

    /// Says that no record is in the window, if so. `folders` has the times of what need not be
    /// read to know that.
    fn outside(
        &self,
        folders: impl Iterator<Item = (WallTime, WallTime)>,
        window: &TimeWindow,
    ) -> Option<String> {
        if self.has_any || *window == TimeWindow::default() {
            return None;
        }
        let all = self.others.into_iter().chain(folders);
        let all = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        Some(match all {
            Some((first, last)) => format!(
                "nothing was logged {window}: the logs are of {} to {}",
                first.to_the_second(),
                last.to_the_second()
            ),
            None => format!("nothing was logged {window}"),
        })
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
