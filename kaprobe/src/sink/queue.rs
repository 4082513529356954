//! The queue between the thread that formats records and the thread that writes them to
//! one output. Its size is bounded: what does not fit is counted, and becomes a gap in the
//! output, at its place.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::tally::Tally;

/// Most bytes that wait for one output. A pipe takes 64 KiB, and the ring buffer 4 MiB by
/// default: a reader that pauses for a moment loses nothing.
const MOST: usize = 8 * 1024 * 1024;
/// What a block takes beside its bytes, roughly.
const OVERHEAD: usize = 1024;

/// Lines, and what they report.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Whole lines: one for each record.
    pub(super) lines: Vec<u8>,
    pub(super) tally: Tally,
    /// The status line from here on, if it is another one.
    pub(super) status: Option<Arc<str>>,
    /// A log in segments begins a new one after these lines.
    pub(super) ends_segment: bool,
}

impl Block {
    /// Whether it has nothing but a status line.
    fn is_status(&self) -> bool {
        self.lines.is_empty() && self.tally.is_empty() && !self.ends_segment
    }
}

/// What an output is to write next.
#[derive(Debug)]
pub(super) enum Queued {
    Lines(Arc<Block>),
    /// Records that are lost to this output.
    Gap(Box<Tally>),
}

/// What a writer is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Write(Queued),
    /// Open the file anew.
    Reopen,
    /// Nothing has come for a while.
    Idle,
    /// Nothing more will come.
    End,
    /// Nothing more is to be written, not even the end of a log.
    CutOff,
}

/// How an output has ended, or how it stands.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Lost records that the output itself reports.
    pub(super) told: u64,
    /// Records that are neither in the output nor reported there.
    pub(super) untold: u64,
    /// The writer has ended. Otherwise it is stuck in a write.
    pub(super) done: bool,
    /// Why it has ended early.
    pub(super) failure: Option<io::Error>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Queued>,
    /// Bytes in `entries`.
    bytes: usize,
    reopen: bool,
    /// Nothing more comes.
    closed: bool,
    /// The writer is to end once it has written what waits now.
    cut_off: bool,
    /// Records in the block that is being written, less the lines of it that are written.
    in_flight: u64,
    /// Records that the writer has taken and keeps, to write them with others.
    kept: u64,
    /// How often the writer has got on with its work.
    progress: u64,
    ended: Ended,
}

/// The queue of one output.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Most bytes that wait.
    most: Room,
    /// How often the writer has asked what to do next.
    turns: AtomicU64,
}

/// Most bytes that wait for an output.
#[derive(Debug)]
struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Queue {
    /// A queue where so many bytes may wait.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self {
            most: Room(bytes),
            ..Self::default()
        }
    }

    /// Appends a block. Never waits.
    pub(super) fn push(&self, block: &Arc<Block>) {
        let mut state = self.lock();
        if state.ended.done {
            state.ended.untold += block.tally.records();
            return;
        }
        if let Some(Queued::Lines(last)) = state.entries.back()
            && last.is_status()
        {
            state.bytes -= size_of(last);
            state.entries.pop_back();
        }
        // After a gap, lines are taken again only once half of the room is free: few long
        // gaps are easier to read than many short ones.
        let most = match state.entries.back() {
            Some(Queued::Gap(_)) => self.most.0 / 2,
            _ => self.most.0,
        };
        let size = size_of(block);
        // The first block always fits.
        if state.bytes == 0 || state.bytes + size <= most {
            state.bytes += size;
            state.entries.push_back(Queued::Lines(Arc::clone(block)));
        } else if let Some(Queued::Gap(gap)) = state.entries.back_mut() {
            gap.append(&block.tally);
        } else {
            state
                .entries
                .push_back(Queued::Gap(Box::new(block.tally.clone())));
        }
        self.changed.notify_all();
    }

    /// Puts records in front that could not be written: they are lost.
    pub(super) fn put_back_lost(&self, mut lost: Tally) {
        let mut state = self.lock();
        state.in_flight = 0;
        if let Some(Queued::Gap(gap)) = state.entries.front() {
            lost.append(gap);
            state.entries.pop_front();
        }
        if !lost.is_empty() {
            state.entries.push_front(Queued::Gap(Box::new(lost)));
        }
    }

    /// Waits for something to do, at most for `pause`.
    pub(super) fn next(&self, pause: Duration) -> Next {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.in_flight = 0;
        let deadline = Instant::now() + pause;
        loop {
            if state.reopen {
                state.reopen = false;
                return Next::Reopen;
            }
            if let Some(entry) = state.entries.pop_front() {
                state.in_flight = match &entry {
                    Queued::Lines(block) => {
                        state.bytes -= size_of(block);
                        block.tally.records()
                    }
                    Queued::Gap(tally) => tally.records(),
                };
                return Next::Write(entry);
            }
            if state.closed {
                return Next::End;
            }
            if state.cut_off {
                return Next::CutOff;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Idle;
            }
            state = self.wait(state, left);
        }
    }

    /// Waits until there is room again in a full file: for `pause`, or until the output
    /// is to end.
    pub(super) fn wait_for_room(&self, pause: Duration) {
        let mut state = self.lock();
        let deadline = Instant::now() + pause;
        while !state.is_ending() && !state.reopen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.wait(state, left);
        }
    }

    /// Whether the output is to end.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().is_ending()
    }

    /// Notes that so many lines of the current block are written.
    pub(super) fn wrote(&self, lines: u64) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(lines);
        state.progress += 1;
    }

    /// Notes that the writer keeps so many records that it has taken.
    pub(super) fn keep(&self, records: u64) {
        let mut state = self.lock();
        (state.in_flight, state.kept) = (0, records);
        state.progress += 1;
    }

    /// How often the writer has got on with its work: equal numbers mean that it has not.
    pub(super) fn progress(&self) -> u64 {
        self.lock().progress
    }

    /// Notes that the output reports so many records as lost, or no longer does.
    pub(super) fn told(&self, records: i64) {
        let told = &mut self.lock().ended.told;
        *told = told.saturating_add_signed(records);
    }

    /// Asks the writer to open its file anew.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_all();
    }

    /// Nothing more comes: the writer ends once it has written what waits.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The writer ends once it has written what waits. Returns whether it would have ended
    /// in order.
    pub(super) fn cut_off(&self) -> bool {
        let mut state = self.lock();
        state.cut_off = true;
        self.changed.notify_all();
        state.closed
    }

    /// Records that are neither in the output nor reported there, as it stands.
    pub(super) fn untold(&self) -> u64 {
        let state = self.lock();
        state.ended.untold + state.waiting()
    }

    /// How often the writer has asked what to do next. It asks at least each second, unless it
    /// is stuck in a write.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Records that are lost to this output, as far as it knows by now.
    pub(super) fn lost(&self) -> u64 {
        let state = self.lock();
        state.ended.told + state.ended.untold
    }

    /// Makes one gap of all that waits.
    pub(super) fn give_up_waiting(&self) {
        let mut state = self.lock();
        let mut gap = Tally::default();
        for entry in state.entries.drain(..) {
            gap.append(match &entry {
                Queued::Lines(block) => &block.tally,
                Queued::Gap(tally) => tally,
            });
        }
        state.bytes = 0;
        if !gap.is_empty() {
            state.entries.push_back(Queued::Gap(Box::new(gap)));
        }
    }

    /// The writer has ended: what waits will not be written.
    pub(super) fn end(&self, failure: Option<io::Error>) {
        let mut state = self.lock();
        state.ended.untold += state.waiting();
        state.entries.clear();
        (state.bytes, state.in_flight, state.kept) = (0, 0, 0);
        state.ended.done = true;
        state.ended.failure = failure;
        self.changed.notify_all();
    }

    /// Waits until the writer has ended, at most until `deadline`. Returns whether it has.
    pub(super) fn wait_until_ended(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.ended.done {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
    }

    /// How the output has ended, or how it stands if its writer is stuck.
    pub(super) fn take_end(&self) -> Ended {
        let mut state = self.lock();
        let waiting = if state.ended.done { 0 } else { state.waiting() };
        let mut ended = std::mem::take(&mut state.ended);
        ended.untold += waiting;
        ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    const fn is_ending(&self) -> bool {
        self.closed || self.cut_off
    }

    /// Records that are not written yet, lost or not.
    fn waiting(&self) -> u64 {
        let entries = self.entries.iter().map(|entry| match entry {
            Queued::Lines(block) => block.tally.records(),
            Queued::Gap(tally) => tally.records(),
        });
        self.in_flight + self.kept + entries.sum::<u64>()
    }
}

fn size_of(block: &Block) -> usize {
    block.lines.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{EventName, Record};

    const NOW: Duration = Duration::ZERO;

    fn block(seq: u64, bytes: usize) -> Arc<Block> {
        let mut tally = Tally::default();
        tally.count(&Record {
            seq,
            event: EventName::Probe,
            ..Record::default()
        });
        Arc::new(Block {
            lines: vec![b'\n'; bytes],
            tally,
            status: None,
            ends_segment: false,
        })
    }

    /// What comes out: `+` for lines, and the number of records in each gap.
    fn taken(queue: &Queue) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            match queue.next(NOW) {
                Next::Write(Queued::Lines(_)) => taken.push("+".to_owned()),
                Next::Write(Queued::Gap(gap)) => taken.push(gap.records().to_string()),
                Next::Reopen => taken.push("reopen".to_owned()),
                Next::Idle | Next::End | Next::CutOff => return taken,
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_one_gap_at_its_place() {
        let queue = Queue::default();
        let third = MOST / 3;
        for seq in 1..=5 {
            queue.push(&block(seq, third));
        }
        // A gap ends only once there is much room.
        assert!(matches!(queue.next(NOW), Next::Write(Queued::Lines(_))));
        queue.push(&block(6, third));
        assert_eq!(taken(&queue), ["+", "4"]);
        // A block that is too large by itself is written.
        queue.push(&block(7, 2 * MOST));
        queue.push(&block(8, 1));
        queue.push(&block(9, 1));
        assert_eq!(taken(&queue), ["+", "2"]);
    }

    /// An output that is stuck for an hour has one status line to write, and loses nothing.
    #[test]
    fn only_the_last_status_line_waits() {
        let queue = Queue::default();
        queue.push(&block(1, 1));
        for second in 0..3_600 {
            queue.push(&Arc::new(Block {
                status: Some(format!("{second} s").into()),
                ..Block::default()
            }));
        }
        assert!(matches!(queue.next(NOW), Next::Write(Queued::Lines(_))));
        let Next::Write(Queued::Lines(last)) = queue.next(NOW) else {
            unreachable!("a status line was pushed");
        };
        assert_eq!(last.status.as_deref(), Some("3599 s"));
        assert!(matches!(queue.next(NOW), Next::Idle));
        assert_eq!(queue.untold(), 0);
    }

    #[test]
    fn what_is_not_written_is_counted() {
        let queue = Queue::default();
        (1..=4).for_each(|seq| queue.push(&block(seq, 1)));
        let Next::Write(Queued::Lines(first)) = queue.next(NOW) else {
            unreachable!("four were pushed");
        };
        queue.put_back_lost(first.tally.clone());
        queue.close();
        queue.give_up_waiting();
        let Next::Write(Queued::Gap(gap)) = queue.next(NOW) else {
            unreachable!("all of it is lost");
        };
        assert_eq!((gap.records(), gap.as_lost()[0].seq), (4, 1));
        // Stuck while it writes that.
        assert!(!queue.wait_until_ended(Instant::now()));
        assert_eq!(queue.take_end().untold, 4);
        queue.wrote(1);
        queue.end(None);
        queue.push(&block(5, 1));
        assert_eq!(queue.take_end().untold, 3 + 1);
        assert!(matches!(queue.next(NOW), Next::End));
    }
}
