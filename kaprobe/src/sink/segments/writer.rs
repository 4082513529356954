//! The thread that writes the segments of a recorder.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::tally::Tally;
use crate::model::time::WallTime;
use crate::sink::queue::{Next, Queue, Queued};
use crate::sink::segments::log::{Now, SegmentLog};
use crate::stderr;
use crate::stop::Stop;

/// Time between two looks at the clock while nothing is to be written.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest time that lines wait for others of their frame. A process that is killed loses
/// no more.
const FRAME_AGE: Duration = Duration::from_secs(5);

/// How long a full segment waits for the sums that belong to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of lines that make a frame: about one block of the compressor, which finds nothing again
/// beyond one. What waits for a frame must still be compressed when the recorder is to end.
const FRAME_SIZE: usize = 128 * 1024;

/// Writes the segments of a recorder.
pub(in crate::sink) struct SegmentWriter {
    name: String,
    queue: Arc<Queue>,
    log: SegmentLog,
    /// Set once the segment is long or old enough to end.
    full: Arc<AtomicBool>,
    /// When it was set for this segment.
    asked: Option<Instant>,
    frame: Frame,
    /// The first error that the output has recovered from.
    failed: Option<io::Error>,
    /// Nothing could be written lately, and that was reported.
    is_failing: bool,
}

/// The lines of the next frame.
#[derive(Default)]
struct Frame {
    lines: Vec<u8>,
    tally: Tally,
    /// When the first of them came.
    began: Option<Instant>,
}

impl SegmentWriter {
    /// A writer of the blocks in a queue. Errors call it by its name.
    pub(in crate::sink) fn new(
        name: String,
        queue: Arc<Queue>,
        log: SegmentLog,
        full: Arc<AtomicBool>,
    ) -> Self {
        Self {
            name,
            queue,
            log,
            full,
            asked: None,
            frame: Frame::default(),
            failed: None,
            is_failing: false,
        }
    }

    /// Writes until the output ends. Then there is one fewer `alive`; the last one requests
    /// `stop`.
    pub(in crate::sink) fn run(mut self, alive: &AtomicUsize, stop: &Stop) {
        self.work();
        let lost = self.log.lost().clone();
        if !lost.is_empty() {
            self.queue.put_back_lost(lost);
        }
        self.queue.end(self.failed.take());
        if alive.fetch_sub(1, Ordering::Relaxed) == 1 {
            // A write to an eventfd fails only after about 2^64 writes.
            let _cannot_fail = stop.stop();
        }
    }

    fn work(&mut self) {
        let begun = self.log.begin(now());
        self.note(begun);
        loop {
            let next = self.queue.next(PAUSE);
            let now = now();
            match next {
                Next::Write(Queued::Lines(block)) => {
                    self.frame.add(&block.lines, &block.tally, now.mono);
                    self.queue.keep(self.frame.tally.records());
                    if block.ends_segment {
                        self.end_segment(true, now);
                    }
                }
                Next::Write(Queued::Gap(lost)) => {
                    // It stands behind the lines that came before.
                    self.end_frame(now);
                    self.log.lose(&lost);
                    self.end_frame(now);
                }
                Next::Reopen | Next::Idle => {}
                Next::CutOff => return self.end_frame(now),
                Next::End => return self.end_segment(false, now),
            }
            if self.frame.is_due(now.mono) || !self.log.lost().is_empty() && self.is_idle() {
                self.end_frame(now);
            }
            self.look_at_segment(now);
        }
    }

    /// Whether no lines wait: a report of what was lost is tried again each second.
    fn is_idle(&self) -> bool {
        self.frame.lines.is_empty()
    }

    /// Asks for the end of a segment that is full, so that the sums that belong to it come
    /// first. If the end does not come, it ends without them.
    fn look_at_segment(&mut self, now: Now) {
        match self.asked {
            None if self.log.is_full(now) => {
                self.asked = Some(now.mono);
                self.full.store(true, Ordering::Relaxed);
            }
            Some(asked) if now.mono.saturating_duration_since(asked) >= PATIENCE => {
                self.end_segment(true, now);
            }
            _ => {}
        }
    }

    fn end_segment(&mut self, continued: bool, now: Now) {
        self.end_frame(now);
        self.asked = None;
        let ended = self.log.end_segment(continued, now);
        self.note(ended);
        if continued {
            let begun = self.log.begin(now);
            self.note(begun);
        }
    }

    fn end_frame(&mut self, now: Now) {
        let reported = self.log.lost().records();
        let Frame { lines, tally, .. } = &self.frame;
        let put = self.log.put(lines, tally, now);
        if put.is_ok() {
            self.queue.told(reported.cast_signed());
        }
        self.frame.clear();
        self.queue.keep(self.log.lost().records());
        self.note(put);
    }

    /// Reports an error, once until it is over.
    fn note(&mut self, outcome: io::Result<()>) {
        let Err(why) = outcome else {
            self.is_failing = false;
            return;
        };
        if !self.is_failing {
            stderr::line(format_args!("cannot write to {}: {why}", self.name));
        }
        self.is_failing = true;
        self.failed.get_or_insert(why);
    }
}

impl Frame {
    fn add(&mut self, lines: &[u8], tally: &Tally, now: Instant) {
        self.lines.extend_from_slice(lines);
        self.tally.append(tally);
        self.began.get_or_insert(now);
    }

    fn is_due(&self, now: Instant) -> bool {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        self.lines.len() >= FRAME_SIZE || age.is_some_and(|age| age >= FRAME_AGE)
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.tally = Tally::default();
        self.began = None;
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        wall: WallTime(since.map_or(0, |it| it.as_nanos().try_into().unwrap_or(i64::MAX))),
        mono: Instant::now(),
    }
}
