//! A recorder of one host: turns events into records, and writes them in segments.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use kaprobe::condense::Condenser;
use kaprobe::correlate::Correlator;
use kaprobe::filter::events::EventSet;
use kaprobe::filter::{Filter, RecordFilter};
use kaprobe::model::event::Event;
use kaprobe::model::header::{Header, VERSION};
use kaprobe::model::host_timeout::HostTimeouts;
use kaprobe::model::limits::MAX_SOCKETS;
use kaprobe::model::named::Named as _;
use kaprobe::model::record::Record;
use kaprobe::model::segment::SegmentName;
use kaprobe::model::tally::Tally;
use kaprobe::model::time::{Instant, WallTime};
use kaprobe::model::trailer::Trailer;
use kaprobe::sink::options::Format;
use kaprobe::sink::{self, Head, Sink};
use kaprobe::text::escape::Escaped;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::fixtures::NARROW;
use crate::fleet::truth::Truth;
use crate::fleet::world::SECOND;

/// `--alive-interval`, ns.
const ALIVE_NS: u64 = 3_600 * SECOND;

/// `--segment-age`, ns.
const SEGMENT_NS: u64 = 6 * 3_600 * SECOND;

/// Bytes of lines that make a frame, as a recorder writes them.
const FRAME: usize = 1 << 20;

/// What the clocks of a host show when the logs begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// CLOCK_MONOTONIC, ns.
    pub(super) mono_ns: u64,
    /// Wall clock, ns since 1970.
    pub(super) wall_ns: i64,
}

impl Clocks {
    /// The time on this host, so many ns after the logs begin.
    fn at(self, ns: u64) -> Instant {
        Instant {
            mono_ns: self.mono_ns + ns,
            wall_ns: self.wall_ns + ns.cast_signed(),
        }
    }

    /// Gives an event the times of this host.
    fn set(self, event: &mut Event) {
        let at = |it: &mut Instant| *it = self.at(it.mono_ns);
        match event {
            Event::Socket(event) => {
                at(&mut event.at);
                event.firing_ns = event.firing_ns.map(|it| self.mono_ns + it);
            }
            Event::PassiveReset(reset) => at(&mut reset.at),
            Event::Lost(lost) => at(&mut lost.at),
            Event::Snapshot(_) | Event::SnapshotEnd => {}
        }
    }
}

/// A running recorder.
pub(super) struct Recorder<'a> {
    clocks: Clocks,
    correlator: Correlator,
    pipeline: Pipeline,
    condenser: Condenser,
    log: SegmentWriter<'a>,
    /// When all sums end, and when the segment does, ns after the logs begin.
    sums_ns: u64,
    segment_ns: u64,
}

impl<'a> Recorder<'a> {
    /// Starts a recorder, so many ns after the logs begin.
    pub(super) fn start(
        host: &str,
        folder: &Path,
        clocks: Clocks,
        at: u64,
        observe: &'a dyn Fn(&Record),
    ) -> Result<Self> {
        let log = SegmentWriter {
            folder: folder.to_owned(),
            number: 0,
            header: header(host, clocks, at),
            sink: None,
            lines: SharedLines::default(),
            file: Vec::new(),
            tally: Tally::default(),
            bytes: 0,
            compressed: 0,
            records: 0,
            observe,
        };
        Self::with(log, clocks, at)
    }

    fn with(mut log: SegmentWriter<'a>, clocks: Clocks, at: u64) -> Result<Self> {
        log.begin(clocks.at(at))?;
        let filter = Filter::new(RecordFilter {
            events: EventSet::Default.names().collect(),
            ..RecordFilter::default()
        });
        let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
        Ok(Self {
            clocks,
            correlator: Correlator::new(MAX_SOCKETS),
            pipeline: Pipeline::new(filter, judge),
            condenser: Condenser::new(MAX_SOCKETS),
            log,
            sums_ns: at + ALIVE_NS,
            segment_ns: at + SEGMENT_NS,
        })
    }

    /// Takes the next event, so many ns after the logs begin.
    pub(super) fn event(&mut self, at: u64, mut event: Event) -> Result<()> {
        while self.sums_ns.min(self.segment_ns) <= at {
            self.end_sums()?;
        }
        self.clocks.set(&mut event);
        let Self {
            correlator,
            pipeline,
            condenser,
            log,
            ..
        } = self;
        let mut outcome = Ok(());
        correlator.push(&event, &mut |record| {
            pipeline.push(0, record, |record| {
                condenser.push(record, &mut |record| log.put(record, &mut outcome));
            });
        });
        Ok(outcome?)
    }

    /// Ends the sums that are due, and the segment if it is old enough.
    fn end_sums(&mut self) -> Result<()> {
        let at = self.sums_ns.min(self.segment_ns);
        let now = self.clocks.at(at);
        let mut outcome = Ok(());
        let log = &mut self.log;
        self.condenser
            .end_sums(now, &mut |record| log.put(record, &mut outcome));
        outcome?;
        if self.sums_ns == at {
            self.sums_ns += ALIVE_NS;
        }
        if self.segment_ns == at {
            self.segment_ns += SEGMENT_NS;
            log.end(now, true)?;
            log.header = log.header.next_part();
            log.begin(now)?;
        }
        Ok(())
    }

    /// Kills the recorder, and starts another on its folder.
    pub(super) fn restart(self, at: u64) -> Result<Self> {
        let Self {
            clocks, mut log, ..
        } = self;
        log.kill()?;
        log.header = header(log.header.host.as_str(), clocks, at);
        Self::with(log, clocks, at)
    }

    /// Ends the recorder.
    pub(super) fn end(mut self, at: u64, truth: &mut Truth) -> Result<()> {
        while self.sums_ns.min(self.segment_ns) < at {
            self.end_sums()?;
        }
        let now = self.clocks.at(at);
        let Self { condenser, log, .. } = &mut self;
        let mut outcome = Ok(());
        condenser.finish(now, &mut |record| log.put(record, &mut outcome));
        outcome?;
        log.end(now, false)?;
        truth.records += log.records;
        truth.bytes += log.bytes;
        truth.compressed += log.compressed;
        Ok(())
    }
}

fn header(host: &str, clocks: Clocks, at: u64) -> Header {
    let now = clocks.at(at);
    let events = EventSet::Default.names().map(|it| it.name().to_owned());
    let hooks = [
        "tcp_keepalive_timer",
        "tcp_receive_reset",
        "tcp_v4_send_reset",
    ];
    let fentry = |hook: &str| (hook.to_owned(), "fentry".to_owned());
    Header {
        version: VERSION.to_owned(),
        host: Escaped::from(host),
        kernel: Escaped::from("6.12.0"),
        kaprobe: env!("CARGO_PKG_VERSION").to_owned(),
        started: WallTime(now.wall_ns),
        clock_offset_ns: now.wall_ns - now.mono_ns.cast_signed(),
        hz: 250,
        hooks: hooks.map(fentry).into(),
        filters: BTreeMap::from([("events".to_owned(), events.collect())]),
        alive_ms: Some(ALIVE_NS / 1_000_000),
        ..Header::default()
    }
}

/// Lines that a sink has written.
#[derive(Clone, Default)]
struct SharedLines(Arc<Mutex<Vec<u8>>>);

impl SharedLines {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for SharedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|lines| lines.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the segments of a folder.
struct SegmentWriter<'a> {
    folder: PathBuf,
    /// The number of the last segment.
    number: u64,
    header: Header,
    sink: Option<(Box<dyn Sink>, WallTime)>,
    lines: SharedLines,
    /// The frames of the segment.
    file: Vec<u8>,
    tally: Tally,
    /// Bytes of all lines.
    bytes: u64,
    /// Bytes of all segments.
    compressed: u64,
    records: u64,
    observe: &'a dyn Fn(&Record),
}

impl SegmentWriter<'_> {
    fn begin(&mut self, now: Instant) -> io::Result<()> {
        let lines = self.lines.clone();
        let mut sink = sink::to(lines, Format::Json, NARROW, false);
        sink.head(&Head::from(&self.header))?;
        sink.flush()?;
        self.sink = Some((sink, WallTime(now.wall_ns)));
        self.number += 1;
        self.end_frame();
        Ok(())
    }

    /// Writes a record, unless there was an error.
    fn put(&mut self, record: &Record, outcome: &mut io::Result<()>) {
        if outcome.is_ok() {
            *outcome = self.record(record);
        }
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        (self.observe)(record);
        self.tally.count(record);
        self.records += 1;
        let Some((sink, _)) = &mut self.sink else {
            return Ok(());
        };
        sink.record(record)?;
        if self.records.is_multiple_of(1_000) {
            sink.flush()?;
            if self.lines.with(|lines| lines.len()) >= FRAME {
                self.end_frame();
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        let lines = self.lines.with(mem::take);
        if !lines.is_empty() {
            self.bytes += lines.len() as u64;
            self.file
                .extend(compress_to_vec(lines.as_slice(), CompressionLevel::Fastest));
        }
    }

    fn end(&mut self, now: Instant, continued: bool) -> io::Result<()> {
        let Some((mut sink, began)) = self.sink.take() else {
            return Ok(());
        };
        sink.flush()?;
        self.end_frame();
        sink.trailer(&Trailer {
            continued,
            ..Trailer::new(WallTime(now.wall_ns), &mem::take(&mut self.tally))
        })?;
        sink.flush()?;
        self.write(began)
    }

    /// Ends the segment without a trailer.
    fn kill(&mut self) -> io::Result<()> {
        let Some((mut sink, began)) = self.sink.take() else {
            return Ok(());
        };
        sink.flush()?;
        self.tally = Tally::default();
        self.write(began)
    }

    fn write(&mut self, began: WallTime) -> io::Result<()> {
        self.end_frame();
        let name = SegmentName {
            number: self.number,
            began,
        }
        .to_string();
        self.compressed += self.file.len() as u64;
        fs::write(self.folder.join(name), mem::take(&mut self.file))
    }
}
