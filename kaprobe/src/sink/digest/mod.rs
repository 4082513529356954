//! The digest: what a person has to know, and nothing else. Problems are told as they happen,
//! the same one once; all that is well is counted in a status line.
//!
//! Time comes from records, and from [`Encoder::tick`] while there are none.

mod health;
pub(crate) mod layout;
pub(crate) mod problem;
mod told;

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::model::peer_group::Listeners;
use crate::model::peers::Peers;
use crate::model::record::{EventName, Record};
use crate::model::row::Row;
use crate::model::time::Instant;
use crate::sink::clock::Clock;
use crate::sink::digest::health::Health;
use crate::sink::digest::layout::Layout;
use crate::sink::digest::problem::Problem;
use crate::sink::digest::told::{ToldProblem, ToldProblems};
use crate::sink::interface::{Encoder, Head, Sink};
use crate::sink::options::TimeFormat;
use crate::text::wrap::broken;

/// Writes a digest of records.
pub(super) struct Digest<W> {
    out: W,
    /// How the screen is now: its width may change.
    layout: fn() -> Layout,
    clock: Clock,
    hosts: bool,
    told: ToldProblems,
    health: Health,
    listeners: Listeners,
    /// A problem that the next record may explain.
    held: Option<Record>,
    last: Instant,
    /// The last status line.
    shown: Arc<str>,
    /// The same, until it is taken.
    status: Option<Arc<str>>,
}

impl<W: Write> Digest<W> {
    /// A writer to `out` that shows the time of day in `zone`.
    pub(super) fn new(out: W, layout: fn() -> Layout, time: TimeFormat, zone: TimeZone) -> Self {
        Self::with_clock(out, layout, Clock::new(time, zone))
    }

    fn with_clock(out: W, layout: fn() -> Layout, clock: Clock) -> Self {
        Self {
            out,
            layout,
            clock,
            hosts: false,
            told: ToldProblems::new(),
            health: Health::new(),
            listeners: Listeners::default(),
            held: None,
            last: Instant {
                mono_ns: 0,
                wall_ns: 0,
            },
            shown: Arc::default(),
            status: None,
        }
    }

    /// Tells the problem that is held.
    fn tell_held(&mut self) -> io::Result<()> {
        match self.held.take() {
            Some(record) => self.tell(&record),
            None => Ok(()),
        }
    }

    /// Tells the problem that a record shows, if it is the first of its kind.
    fn tell(&mut self, record: &Record) -> io::Result<()> {
        let Some(mut problem) = Problem::of(record) else {
            return Ok(());
        };
        // The ports alone do not tell which end is the service if both are a client's.
        problem.service = record.endpoints.as_ref().map(|it| {
            let accepted = self.listeners.accepted(it) || it.seem_accepted();
            Peers::of(it, accepted)
        });
        let at = self.time_of(record);
        if !self.told.count(&problem, at) {
            return Ok(());
        }
        let head = self.head(at);
        let text = (self.layout)().problem(&head, &problem);
        self.out.write_all(text.as_bytes())
    }

    /// Tells the counts that are due.
    fn tell_counts(&mut self, now: Instant) -> io::Result<()> {
        let due = self.told.due(now);
        self.put_counts(now, &due)
    }

    fn put_counts(&mut self, now: Instant, counted: &[ToldProblem]) -> io::Result<()> {
        for it in counted {
            let (head, last) = (self.head(now), self.head(it.last));
            let last = last.trim_end();
            let text = (self.layout)().count(&head, &it.problem, it.count, last);
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// The time of a record. Hosts share no clock but the wall clock.
    fn time_of(&self, record: &Record) -> Instant {
        let at = record.at();
        let mono_ns = if self.hosts {
            u64::try_from(at.wall_ns).unwrap_or_default()
        } else {
            at.mono_ns
        };
        Instant { mono_ns, ..at }
    }

    fn head(&mut self, at: Instant) -> String {
        let mut head = String::new();
        self.clock.put_brief(&mut head, at, self.hosts);
        head.push(' ');
        head
    }
}

/// Whether a record is explained by a verdict that follows it at once.
fn may_be_explained(record: &Record) -> bool {
    matches!(
        record.event,
        EventName::Timeout | EventName::RstReceived | EventName::Stalled | EventName::Aborted
    )
}

/// Whether a verdict is on a record.
fn explains(verdict: &Record, record: &Record) -> bool {
    verdict.event == EventName::Verdict
        && (verdict.mono_ns, verdict.sock, &verdict.endpoints)
            == (record.mono_ns, record.sock, &record.endpoints)
}

impl<W: Write + Send> Sink for Digest<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.hosts = head.hosts;
        head.headers.iter().for_each(|it| self.health.header(it));
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match self.held.take() {
            Some(held) if !explains(record, &held) => self.tell(&held)?,
            Some(_) | None => {}
        }
        // A connection is told once of the probes that it does not answer, whoever's it is.
        let is_known = record.event == EventName::Probe && self.health.is_unanswered(record);
        self.health.record(record);
        self.last = self.last.max(self.time_of(record));
        if may_be_explained(record) {
            self.held = Some(record.clone());
        } else if !is_known {
            self.tell(record)?;
        }
        self.tell_counts(self.last)
    }

    fn end(&mut self) -> io::Result<()> {
        self.tell_held()?;
        let untold = self.told.untold(self.last);
        self.put_counts(self.last, &untold)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tell_held()?;
        self.out.flush()
    }
}

impl Encoder for Digest<Vec<u8>> {
    fn size(&self) -> usize {
        self.out.len()
    }

    fn swap(&mut self, next: Vec<u8>) -> Vec<u8> {
        // The verdict on a record follows it before the lines are taken. Writing to a vector
        // can't fail.
        let _ = self.tell_held();
        mem::replace(&mut self.out, next)
    }

    fn twin(&self) -> Box<dyn Encoder> {
        let clock = self.clock.twin();
        Box::new(Self::with_clock(Vec::new(), self.layout, clock))
    }

    fn existing(&mut self, row: &Row) {
        self.listeners.see(row);
        self.health.row(row);
    }

    fn watching(&mut self, now: Instant, is_filtered: bool) -> io::Result<()> {
        let head = self.head(now);
        let text = self.health.watching(now, is_filtered);
        let text = broken(&head, &text, (self.layout)().columns);
        writeln!(self.out, "{text}")
    }

    fn tick(&mut self, now: Instant) -> io::Result<()> {
        self.last = self.last.max(now);
        let status = self.health.status(now);
        if *status != *self.shown {
            self.shown = status.into();
            self.status = Some(Arc::clone(&self.shown));
        }
        self.tell_counts(now)
    }

    fn status(&mut self) -> Option<Arc<str>> {
        self.status.take()
    }
}

#[cfg(test)]
mod tests;
