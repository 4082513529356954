//! The thread that writes one output. Whatever it waits for, nothing else waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::header::Header;
use crate::model::tally::Tally;
use crate::model::time::WallTime;
use crate::model::trailer::Trailer;
use crate::sink::interface::{Encoder, Head};
use crate::sink::log::{Moved, WrittenLog};
use crate::sink::queue::{Next, Queue, Queued};
use crate::sink::status_line::StatusLine;
use crate::sink::target::Target;
use crate::stderr;
use crate::stop::Stop;

/// Time between two looks at the file while nothing is to be written, and between two
/// attempts to write to a full disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes one output.
pub(super) struct Writer {
    pub(super) name: String,
    pub(super) queue: Arc<Queue>,
    /// For lines that only this output has: its header, what it lost, its trailer.
    pub(super) encoder: Box<dyn Encoder>,
    pub(super) header: Header,
    pub(super) target: Target,
    /// If the output is a log.
    pub(super) log: Option<WrittenLog>,
    /// If the output is a terminal that shows a digest.
    pub(super) status: Option<StatusLine>,
    /// What was written since the header.
    pub(super) written: Tally,
    /// The first error that the output has recovered from.
    pub(super) failed: Option<io::Error>,
}

impl Writer {
    /// Writes until the output ends, or fails. Then there is one fewer `alive`; the last
    /// one requests `stop`.
    pub(super) fn run(mut self, alive: &AtomicUsize, stop: &Stop) {
        let ended = self.work();
        let others = alive.fetch_sub(1, Ordering::Relaxed) - 1;
        if let Err(why) = &ended
            && others > 0
            && !self.queue.is_ending()
        {
            stderr::line(format_args!("{} ends, the trace goes on: {why}", self.name));
        }
        self.queue.end(ended.err());
        if others == 0 {
            // A write to an eventfd fails only after about 2^64 writes.
            let _cannot_fail = stop.stop();
        }
    }

    fn work(&mut self) -> io::Result<()> {
        self.write_head()?;
        loop {
            match self.queue.next(PAUSE) {
                Next::Write(Queued::Lines(block)) => {
                    self.move_on(block.lines.len())?;
                    match self.under(&block.lines, block.status.as_ref()) {
                        Some(lines) => self.put(&lines, &block.tally, &block.tally, 0)?,
                        None => self.put(&block.lines, &block.tally, &block.tally, 0)?,
                    }
                }
                Next::Write(Queued::Gap(lost)) => self.put_gap(&lost)?,
                Next::Reopen => self.reopen()?,
                Next::Idle => {
                    self.move_on(0)?;
                    self.redraw()?;
                }
                Next::CutOff => return self.erase(),
                Next::End => {
                    self.erase()?;
                    if self.write_trailer()? {
                        return self.failed.take().map_or(Ok(()), Err);
                    }
                }
            }
        }
    }

    /// Lines, and the status line below them, if the output has one.
    fn under(&mut self, lines: &[u8], next: Option<&Arc<str>>) -> Option<Vec<u8>> {
        let status = self.status.as_mut()?;
        Some(status.below(lines, next))
    }

    /// Draws the status line again if something else is in its place.
    fn redraw(&mut self) -> io::Result<()> {
        match &mut self.status {
            Some(status) if status.is_stale() => {
                let line = status.below(b"", None);
                self.target.write(&line, &mut |_| {})
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Erases the status line.
    fn erase(&mut self) -> io::Result<()> {
        let erased = self.status.as_mut().map_or(&b""[..], StatusLine::erased);
        self.target.write(erased, &mut |_| {})
    }

    fn write_head(&mut self) -> io::Result<()> {
        self.encoder.head(&Head::from(&self.header))?;
        let lines = self.encoder.take();
        self.written = Tally::default();
        while let Err(why) = self.target.write(&lines, &mut |_| {}) {
            let full = self.log.as_ref().filter(|log| log.is_full(&why));
            let Some(log) = full.filter(|_| !self.queue.is_ending()) else {
                return Err(why);
            };
            log.cut(&self.target)?;
            self.wait_for_room(why);
        }
        if let Some(log) = &mut self.log {
            log.wrote_head(lines.len() as u64);
        }
        Ok(())
    }

    fn wait_for_room(&mut self, why: io::Error) {
        if self.failed.is_none() {
            stderr::line(format_args!("cannot write {}: {why}", self.name));
            self.failed = Some(why);
        }
        self.queue.wait_for_room(PAUSE);
    }

    /// Reports what is lost to this output. Writes the changes of timeouts that were lost:
    /// verdicts that follow depend on them.
    fn put_gap(&mut self, lost: &Tally) -> io::Result<()> {
        let mut tally = Tally::default();
        for record in lost.as_lost() {
            tally.count(&record);
            self.encoder.record(&record)?;
        }
        if let Some(change) = lost.timeouts() {
            tally.change(change);
            self.encoder.timeouts(change)?;
        }
        let lines = self.encoder.take();
        let lines = self.under(&lines, None).unwrap_or(lines);
        self.put(&lines, &tally, lost, lost.records())
    }

    /// Writes lines. `lost` is what is lost if they can't be written; `told` counts the
    /// records that they report as lost.
    fn put(&mut self, lines: &[u8], tally: &Tally, lost: &Tally, told: u64) -> io::Result<()> {
        let queue = &self.queue;
        match self.target.write(lines, &mut |count| queue.wrote(count)) {
            Ok(()) => {
                self.queue.told(told.cast_signed());
                self.written.append(tally);
                if let Some(log) = &mut self.log {
                    log.wrote(lines.len() as u64, tally.clone(), lost.clone(), told);
                }
                Ok(())
            }
            Err(why) => self.recover(why, lost, told),
        }
    }

    /// Goes on after a full disk: what could not be written is lost.
    fn recover(&mut self, why: io::Error, lost: &Tally, told: u64) -> io::Result<()> {
        let Some(log) = self.log.as_ref().filter(|log| log.is_full(&why)) else {
            return Err(why);
        };
        log.cut(&self.target)?;
        self.queue.put_back_lost(lost.clone());
        if self.queue.is_ending() {
            // All that is left to write is reported together, and needs little room.
            self.queue.give_up_waiting();
            // Records that are a gap from now on; a gap itself does not get shorter.
            let is_shorter = told == 0 && lost.records() > 0;
            let has_room = self.make_room()? || is_shorter;
            self.failed.get_or_insert(why);
            return self.failed.take_if(|_| !has_room).map_or(Ok(()), Err);
        }
        self.wait_for_room(why);
        Ok(())
    }

    /// Gives up the last lines of the log for those that end it. Returns whether there
    /// were any.
    fn make_room(&mut self) -> io::Result<bool> {
        let Some(log) = &mut self.log else {
            return Ok(false);
        };
        let removed = log.make_room(&self.target)?;
        if removed.is_empty() {
            return Ok(false);
        }
        let mut lost = Tally::default();
        for it in &removed {
            self.written.remove(&it.lines);
            lost.append(&it.lost);
            self.queue.told(-it.told.cast_signed());
        }
        self.queue.put_back_lost(lost);
        Ok(true)
    }

    /// Writes the trailer. Returns whether it is written: if not, there is room now for
    /// what is to be written before it.
    fn write_trailer(&mut self) -> io::Result<bool> {
        self.encoder.trailer(&self.trailer(false))?;
        let lines = self.encoder.take();
        match self.target.write(&lines, &mut |_| {}) {
            Ok(()) => Ok(true),
            Err(why) => {
                let full = self.log.as_ref().filter(|log| log.is_full(&why));
                full.map_or(Ok(()), |log| log.cut(&self.target))?;
                if full.is_none() || !self.make_room()? {
                    return Err(why);
                }
                self.failed.get_or_insert(why);
                Ok(false)
            }
        }
    }

    fn trailer(&self, continued: bool) -> Trailer {
        Trailer {
            continued,
            ..Trailer::new(now(), &self.written)
        }
    }

    /// Continues the log in another file, if the current one is long or old enough, or no
    /// longer at its path.
    fn move_on(&mut self, more: usize) -> io::Result<()> {
        let moved = self.log.as_mut();
        match moved.and_then(|log| log.moved(&self.target, more as u64, Instant::now())) {
            Some(moved) => self.next_file(moved),
            None => Ok(()),
        }
    }

    /// Continues the log in a new file, if the current one is no longer at its path.
    fn reopen(&mut self) -> io::Result<()> {
        let moved = self.log.as_mut();
        match moved.and_then(|log| log.look(&self.target)) {
            Some(moved) => self.next_file(moved),
            None => Ok(()),
        }
    }

    fn next_file(&mut self, moved: Moved) -> io::Result<()> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let what = match moved {
            Moved::Rotated => None,
            Moved::Gone => Some("was removed or renamed"),
            Moved::Truncated => Some("was truncated"),
        };
        if let Some(what) = what {
            stderr::line(format_args!(
                "{} {what}: the log goes on in a new file",
                self.name
            ));
        }
        if moved == Moved::Truncated {
            log.start_over(Instant::now());
        } else {
            match log.next_file(moved, &self.target, Instant::now()) {
                Ok(target) => self.switch_to(target)?,
                Err(why) => {
                    stderr::line(format_args!(
                        "cannot open {} anew: {why}; the log goes on in the file that it had",
                        self.name
                    ));
                    return Ok(());
                }
            }
        }
        self.header = self.header.next_part();
        if let Some(change) = self.written.timeouts() {
            self.header.apply(change);
        }
        self.write_head()
    }

    /// Ends the current file, and continues in another one.
    fn switch_to(&mut self, next: Target) -> io::Result<()> {
        self.encoder.trailer(&self.trailer(true))?;
        let lines = self.encoder.take();
        // Where there is no room, the file lacks its trailer.
        let _ended = self.target.write(&lines, &mut |_| {});
        self.target = next;
        Ok(())
    }
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(since.map_or(0, |it| it.as_nanos().try_into().unwrap_or(i64::MAX)))
}
