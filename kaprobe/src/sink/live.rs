//! The outputs of a trace: the screen, and a log. Records are formatted once for each
//! format, on the calling thread. Each output has a thread that writes, and a queue: an
//! output that is slow, stuck or broken holds up neither the trace nor another output. It
//! reports itself what it lost.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

use crate::exit;
use crate::model::header::{Header, TimeoutsChange};
use crate::model::record::Record;
use crate::model::row::Row;
use crate::model::tally::Tally;
use crate::model::time::Instant as At;
use crate::sink::csv::CsvLines;
use crate::sink::digest::Digest;
use crate::sink::error::SinkError;
use crate::sink::interface::{Encoder, Head, Sink as _};
use crate::sink::json::JsonLines;
use crate::sink::log::WrittenLog;
use crate::sink::log_file::why;
use crate::sink::options::{
    Format, LogFile, Outputs, RecorderFolder, ScreenFormat, TextStyle, TimeFormat,
};
use crate::sink::queue::{Block, Queue};
use crate::sink::segments::{SegmentLog, SegmentWriter};
use crate::sink::status_line::StatusLine;
use crate::sink::target::Target;
use crate::sink::terminal::{colored_layout, has_status_line, is_colored, is_terminal, layout};
use crate::sink::text::TextLines;
use crate::sink::writer::Writer;
use crate::stop::Stop;
use crate::text::escape::Escaped;

/// Bytes that are passed on before the end of a batch.
///
/// Each block that is passed on wakes a thread, which may take the processor from this one.
const BLOCK: usize = 128 * 1024;
/// Most blocks whose memory a stream uses again once they are written. A block is large
/// enough for malloc to map it, so each new one is a mapping, page faults, and an unmapping.
const KEPT: usize = 8;
/// How long the outputs may take at the end to write what waits.
const TO_WRITE: Duration = Duration::from_millis(400);
/// How long a recorder may take for it, as long as it gets on: a slow or busy processor needs
/// longer to compress what waits.
const TO_COMPRESS: Duration = Duration::from_secs(5);
/// How long they may take then to report what they did not write.
const TO_TELL: Duration = Duration::from_millis(200);

/// How long they may take to write what waits if they are cut off.
const TO_CUT_OFF: Duration = Duration::from_millis(200);

/// Most bytes that wait for a recorder: the sums of all connections come at once.
const RECORDER_ROOM: usize = 64 * 1024 * 1024;

const STDOUT: &str = "standard output";

/// The outputs of a trace.
pub struct LiveSinks {
    header: Header,
    /// Requested when every output has ended.
    stop: Stop,
    streams: Vec<Stream>,
    /// Number of outputs that have not ended.
    alive: Arc<AtomicUsize>,
    has_digest: bool,
    /// Set once the segment of a recorder is to end.
    full_segment: Arc<AtomicBool>,
}

/// An encoder, and the outputs that take its lines.
struct Stream {
    encoder: Box<dyn Encoder>,
    /// What the lines in the encoder report.
    tally: Tally,
    outputs: Vec<Output>,
    /// The last blocks, oldest first.
    passed_on: VecDeque<Arc<Block>>,
}

/// An output, as the calling thread sees it.
struct Output {
    name: String,
    queue: Arc<Queue>,
    is_log: bool,
    /// How long it may take at the end to write what waits, as long as it gets on.
    to_write: Duration,
}

/// What an output has beside its lines.
enum Extra {
    None,
    /// It is a log.
    Log(WrittenLog),
    /// It is a terminal with a status line.
    Status(StatusLine),
}

/// How many records an output lost in a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputLosses {
    /// The output.
    pub name: String,
    /// Records that the output reports as lost.
    pub told: u64,
    /// Records that are neither in the output nor reported there.
    pub untold: u64,
}

/// Opens the log anew if it was renamed or removed, from any thread.
#[derive(Clone)]
pub struct Reopen(Arc<Queue>);

impl Reopen {
    /// Requests it.
    pub fn reopen(&self) {
        self.0.reopen();
    }
}

/// Tells how the outputs do, from any thread.
#[derive(Clone)]
pub struct OutputsWatch(Vec<Arc<Queue>>);

impl OutputsWatch {
    /// How often each writer has asked what to do next. It asks at least each second, unless it
    /// is stuck in a write.
    #[must_use]
    pub fn turns(&self) -> Vec<u64> {
        self.0.iter().map(|queue| queue.turns()).collect()
    }

    /// Records that the outputs have lost, as far as they know by now.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.iter().map(|queue| queue.lost()).sum()
    }
}

/// Ends the outputs at once, from any thread.
pub struct CutOff(Vec<(String, Arc<Queue>)>);

impl CutOff {
    /// Cuts the outputs off: each has a moment to write what waits for it. A log that has not
    /// ended in order lacks its trailer. Returns what is to be said about that and about
    /// what the outputs lack.
    #[must_use]
    pub fn cut_off(&self) -> Vec<String> {
        let mut ends_in_order = true;
        for (_, queue) in &self.0 {
            ends_in_order &= queue.cut_off();
        }
        let deadline = Instant::now() + TO_CUT_OFF;
        let mut said = Vec::new();
        if !ends_in_order {
            said.push(CUT_OFF.to_owned());
        }
        for (name, queue) in &self.0 {
            queue.wait_until_ended(deadline);
            let untold = queue.untold();
            if untold > 0 {
                said.push(format!("{name}: {}", untold_text(untold)));
            }
        }
        said
    }
}

/// What is said about outputs that are cut off.
const CUT_OFF: &str =
    "ended by a second signal: events that were not read yet are lost, and a log has no trailer";

impl LiveSinks {
    /// Opens the outputs of a trace, and starts their threads. Requests `stop` when all
    /// have ended. This creates the log: call it last, when nothing else can fail.
    ///
    /// # Errors
    /// When an output can't be opened.
    pub fn open(outputs: &Outputs, header: &Header, stop: Stop) -> Result<Self> {
        let mut sinks = Self::new(header, stop);
        let colored = is_colored(outputs.text.color);
        if let Some(file) = &outputs.file {
            let mut encoder = encoder(file.format, outputs.text, false);
            let (log, target) = open_log(file, encoder.as_mut(), header)?;
            let name = Escaped::from_path(&file.path).to_string();
            sinks.start(encoder, name, target, Extra::Log(log))?;
        }
        let (screen, target) = (outputs.screen.on(is_terminal()), stdout()?);
        let is_same = |file: &LogFile| {
            screen.every() == Some(file.format) && !(file.format == Format::Text && colored)
        };
        if outputs.file.as_ref().is_some_and(is_same) {
            // Formatted once for both.
            let twin = sinks.streams[0].encoder.twin();
            let output = sinks.spawn_writer(twin, STDOUT.to_owned(), target, Extra::None)?;
            sinks.streams[0].outputs.push(output);
            return Ok(sinks);
        }
        let (encoder, extra) = match screen {
            ScreenFormat::Every(format) => (encoder(format, outputs.text, colored), Extra::None),
            ScreenFormat::Digest | ScreenFormat::Auto => {
                let status = has_status_line().then(StatusLine::default);
                let extra = status.map_or(Extra::None, Extra::Status);
                sinks.has_digest = true;
                (digest(outputs.text.time, colored), extra)
            }
        };
        sinks.start(encoder, STDOUT.to_owned(), target, extra)?;
        Ok(sinks)
    }

    /// Standard output alone, in the format of an encoder.
    ///
    /// # Errors
    /// When its thread can't be started.
    pub fn stdout(encoder: Box<dyn Encoder>, header: &Header, stop: Stop) -> Result<Self> {
        let mut sinks = Self::new(header, stop);
        sinks.start(encoder, STDOUT.to_owned(), stdout()?, Extra::None)?;
        Ok(sinks)
    }

    /// No output at all: records are only counted.
    #[must_use]
    pub fn none(header: &Header, stop: Stop) -> Self {
        Self::new(header, stop)
    }

    /// A folder alone that keeps the log in segments.
    ///
    /// # Errors
    /// When the folder can't be opened, or its thread can't be started.
    pub fn in_segments(to: &RecorderFolder, header: &Header, stop: Stop) -> Result<Self> {
        let mut sinks = Self::new(header, stop);
        let name = Escaped::from_path(&to.dir).to_string();
        let mut encoder = JsonLines::new(Vec::new());
        let log = SegmentLog::open(to, encoder.twin(), header.clone());
        let log =
            log.map_err(|why| exit::Error::failure(format!("cannot record in {name}: {why}")))?;
        let queue = Arc::new(Queue::with_room(RECORDER_ROOM));
        let full = Arc::clone(&sinks.full_segment);
        let writer = SegmentWriter::new(name.clone(), Arc::clone(&queue), log, full);
        sinks.spawn(&name, |alive, stop| writer.run(alive, stop))?;
        // Each segment has its own head.
        encoder.head(&Head::from(header))?;
        encoder.take();
        sinks.streams.push(Stream {
            encoder: Box::new(encoder),
            tally: Tally::default(),
            outputs: vec![Output {
                name,
                queue,
                is_log: true,
                to_write: TO_COMPRESS,
            }],
            passed_on: VecDeque::new(),
        });
        Ok(sinks)
    }

    /// Whether the segment of a recorder is long or old enough to end; true once. Then pass on
    /// what is to be in it, and call [`LiveSinks::end_segment`].
    #[must_use]
    pub fn is_segment_full(&self) -> bool {
        self.full_segment.swap(false, Ordering::Relaxed)
    }

    /// Ends the segment of a recorder after what was passed on.
    pub fn end_segment(&mut self) {
        self.streams.iter_mut().for_each(|it| it.pass_on(true));
    }

    fn new(header: &Header, stop: Stop) -> Self {
        Self {
            header: header.clone(),
            stop,
            streams: Vec::new(),
            alive: Arc::default(),
            has_digest: false,
            full_segment: Arc::default(),
        }
    }

    /// Starts an output with an encoder of its own.
    fn start(
        &mut self,
        mut encoder: Box<dyn Encoder>,
        name: String,
        target: Target,
        extra: Extra,
    ) -> Result<()> {
        let output = self.spawn_writer(encoder.twin(), name, target, extra)?;
        // The output writes its own head.
        encoder.head(&Head::from(&self.header))?;
        encoder.take();
        self.streams.push(Stream {
            encoder,
            tally: Tally::default(),
            outputs: vec![output],
            passed_on: VecDeque::new(),
        });
        Ok(())
    }

    fn spawn_writer(
        &self,
        encoder: Box<dyn Encoder>,
        name: String,
        target: Target,
        extra: Extra,
    ) -> Result<Output> {
        let (log, status) = match extra {
            Extra::None => (None, None),
            Extra::Log(log) => (Some(log), None),
            Extra::Status(status) => (None, Some(status)),
        };
        let output = Output {
            name,
            queue: Arc::default(),
            is_log: log.is_some(),
            to_write: TO_WRITE,
        };
        let writer = Writer {
            name: output.name.clone(),
            queue: Arc::clone(&output.queue),
            encoder,
            header: self.header.clone(),
            target,
            log,
            status,
            written: Tally::default(),
            failed: None,
        };
        self.spawn(&output.name, |alive, stop| writer.run(alive, stop))?;
        Ok(output)
    }

    /// Starts the thread that writes an output.
    fn spawn(
        &self,
        name: &str,
        write: impl FnOnce(&AtomicUsize, &Stop) + Send + 'static,
    ) -> Result<()> {
        self.alive.fetch_add(1, Ordering::Relaxed);
        let (alive, stop) = (Arc::clone(&self.alive), self.stop.clone());
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write(&alive, &stop))
            .with_context(|| format!("cannot start the thread that writes {name}"))?;
        Ok(())
    }

    /// Whether the screen shows a digest.
    #[must_use]
    pub const fn has_digest(&self) -> bool {
        self.has_digest
    }

    /// A handle that opens the log anew, if there is one.
    #[must_use]
    pub fn reopen(&self) -> Option<Reopen> {
        let mut logs = self.outputs().filter(|output| output.is_log);
        logs.next().map(|log| Reopen(Arc::clone(&log.queue)))
    }

    /// A handle that tells how the outputs do.
    #[must_use]
    pub fn watch(&self) -> OutputsWatch {
        OutputsWatch(self.outputs().map(|it| Arc::clone(&it.queue)).collect())
    }

    /// A handle that ends the outputs at once.
    #[must_use]
    pub fn cut_off(&self) -> CutOff {
        let all = self.outputs();
        CutOff(
            all.map(|it| (it.name.clone(), Arc::clone(&it.queue)))
                .collect(),
        )
    }

    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.streams.iter().flat_map(|stream| &stream.outputs)
    }

    /// Passes a record to each output. Never waits.
    ///
    /// # Errors
    /// When it can't be formatted.
    pub fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        for stream in &mut self.streams {
            let put = stream.encoder.record(record);
            put.map_err(|why| SinkError::new(&stream.outputs[0].name, why))?;
            stream.tally.count(record);
        }
        Ok(())
    }

    /// Passes a socket that exists when the trace begins to each output that watches them.
    pub fn existing(&mut self, row: &Row) {
        for stream in &mut self.streams {
            stream.encoder.existing(row);
        }
    }

    /// Tells each output that all existing sockets are known. `is_filtered`: a filter selects
    /// some of them.
    ///
    /// # Errors
    /// When it can't be formatted.
    pub fn watching(&mut self, now: At, is_filtered: bool) -> Result<(), SinkError> {
        self.each(|encoder| encoder.watching(now, is_filtered))?;
        self.flush();
        Ok(())
    }

    /// Tells each output the time. Call it about once a second.
    ///
    /// # Errors
    /// When it can't be formatted.
    pub fn tick(&mut self, now: At) -> Result<(), SinkError> {
        self.each(|encoder| encoder.tick(now))?;
        self.flush();
        Ok(())
    }

    fn each(&mut self, act: impl Fn(&mut dyn Encoder) -> io::Result<()>) -> Result<(), SinkError> {
        for stream in &mut self.streams {
            let acted = act(stream.encoder.as_mut());
            acted.map_err(|why| SinkError::new(&stream.outputs[0].name, why))?;
        }
        Ok(())
    }

    /// Passes a change of the host's idle timeouts to each output that has them.
    ///
    /// # Errors
    /// When it can't be formatted.
    pub fn timeouts(&mut self, change: &TimeoutsChange) -> Result<(), SinkError> {
        // In a block of its own: its line is no record.
        self.flush();
        for stream in &mut self.streams {
            let put = stream.encoder.timeouts(change);
            put.map_err(|why| SinkError::new(&stream.outputs[0].name, why))?;
            stream.tally.change(change);
        }
        self.flush();
        Ok(())
    }

    /// Passes on what was formatted, if it is much. Call it between events: a verdict stays
    /// in the block of the record that it follows from, so a log is not rotated between
    /// them, and its replay is the same.
    pub fn flush_if_full(&mut self) {
        let full = |stream: &&mut Stream| stream.encoder.size() >= BLOCK;
        self.streams
            .iter_mut()
            .filter(full)
            .for_each(|it| it.pass_on(false));
    }

    /// Passes on what was formatted. Call it whenever no more records are available.
    pub fn flush(&mut self) {
        self.streams.iter_mut().for_each(|it| it.pass_on(false));
    }

    /// Ends the outputs, and waits until they have written what they were given, but not
    /// for long. Returns what each lost, and the first error of one.
    pub fn finish(mut self) -> (Vec<OutputLosses>, Result<()>) {
        // Encoders keep what they write in memory, which can't fail.
        let _ended = self.each(|encoder| encoder.end());
        self.flush();
        self.outputs().for_each(|output| output.queue.close());
        self.wait_to_write();
        for output in self.outputs() {
            output.queue.give_up_waiting();
        }
        let deadline = Instant::now() + TO_TELL;
        for output in self.outputs() {
            output.queue.wait_until_ended(deadline);
        }
        let mut losses = Vec::new();
        let mut errors = Vec::new();
        for output in self.outputs() {
            let (lost, error) = output.end();
            losses.push(lost);
            errors.extend(error);
        }
        // That a reader has gone is the least of the errors.
        errors.sort_by_key(is_unread);
        (losses, errors.into_iter().next().map_or(Ok(()), Err))
    }

    fn wait_to_write(&self) {
        let begun = Instant::now();
        for output in self.outputs() {
            let mut deadline = begun + TO_WRITE;
            let mut progress = output.queue.progress();
            while !output.queue.wait_until_ended(deadline) {
                let last = mem::replace(&mut progress, output.queue.progress());
                if progress == last || begun.elapsed() >= output.to_write {
                    break;
                }
                deadline = Instant::now() + TO_WRITE;
            }
        }
    }
}

impl Stream {
    fn pass_on(&mut self, ends_segment: bool) {
        let status = self.encoder.status();
        let is_empty = self.tally.is_empty() && self.encoder.size() == 0;
        if is_empty && status.is_none() && !ends_segment {
            return;
        }
        let next = self.spare();
        let block = Arc::new(Block {
            lines: self.encoder.swap(next),
            tally: mem::take(&mut self.tally),
            status,
            ends_segment,
        });
        for output in &self.outputs {
            output.queue.push(&block);
        }
        self.passed_on.push_back(block);
        if self.passed_on.len() > KEPT {
            self.passed_on.pop_front();
        }
    }

    /// The memory of a block that every output has written, if there is one.
    fn spare(&mut self) -> Vec<u8> {
        let is_written = |block: &Arc<Block>| Arc::strong_count(block) == 1;
        let oldest = self.passed_on.iter().position(is_written);
        let oldest = oldest.and_then(|at| self.passed_on.remove(at));
        let written = oldest.and_then(Arc::into_inner);
        let mut lines = written.map(|block| block.lines).unwrap_or_default();
        lines.clear();
        lines
    }
}

impl Output {
    /// What it lost, and why it failed.
    fn end(&self) -> (OutputLosses, Option<anyhow::Error>) {
        let ended = self.queue.take_end();
        let losses = OutputLosses {
            name: self.name.clone(),
            told: ended.told,
            untold: ended.untold,
        };
        let error = match ended.failure {
            // A log is not like a screen: that nobody reads it any more is a failure.
            Some(why) if self.is_log => {
                let failed = format!("cannot write {}: {why}", self.name);
                Some(exit::Error::failure(failed).into())
            }
            Some(why) => Some(SinkError::new(&self.name, why).into()),
            None if ended.done => None,
            None => {
                let stuck = format!("{} takes no more: {}", self.name, losses.untold_text());
                Some(exit::Error::failure(stuck).into())
            }
        };
        (losses, error)
    }
}

impl OutputLosses {
    /// Says how many records are not in the output.
    #[must_use]
    pub fn untold_text(&self) -> String {
        untold_text(self.untold)
    }
}

fn untold_text(untold: u64) -> String {
    match untold {
        1 => "1 record is not in it".to_owned(),
        untold => format!("{untold} records are not in it"),
    }
}

fn is_unread(error: &anyhow::Error) -> bool {
    let mut errors = error
        .chain()
        .filter_map(|it| it.downcast_ref::<io::Error>());
    errors.any(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

fn stdout() -> Result<Target, SinkError> {
    Target::stdout().map_err(SinkError::stdout)
}

/// Opens the log of a plan.
fn open_log(
    file: &LogFile,
    encoder: &mut dyn Encoder,
    header: &Header,
) -> Result<(WrittenLog, Target), exit::Error> {
    let heading = match file.format {
        Format::Json => Ok(Vec::new()),
        Format::Text | Format::Csv => encoder.head(&Head::from(header)).map(|()| encoder.take()),
    };
    heading
        .and_then(|heading| WrittenLog::open(file, heading, Instant::now()))
        .map_err(|error| {
            let name = Escaped::from_path(&file.path);
            exit::Error::failure(format!("cannot write {name}: {}", why(&error, &file.path)))
        })
}

fn digest(time: TimeFormat, colored: bool) -> Box<dyn Encoder> {
    let layout = if colored { colored_layout } else { layout };
    Box::new(Digest::new(Vec::new(), layout, time, TimeZone::system()))
}

fn encoder(format: Format, style: TextStyle, colored: bool) -> Box<dyn Encoder> {
    let out = Vec::new();
    match format {
        Format::Text => Box::new(TextLines::new(out, style, colored, TimeZone::system())),
        Format::Json => Box::new(JsonLines::new(out)),
        Format::Csv => Box::new(CsvLines::new(out, style.heading)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::*;
    use crate::model::header::{HeaderLine, TimeoutsLine};
    use crate::model::host_timeout::{HostTimeout, HostTimeouts, NetnsTimeouts};
    use crate::model::record::EventName;
    use crate::model::timeouts_change;
    use crate::model::trailer::{Trailer, TrailerLine};
    use crate::sample;
    use crate::sink::options::{ColorWhen, Existing, Rotation};

    const STYLE: TextStyle = TextStyle {
        time: TimeFormat::Relative,
        wide: false,
        heading: true,
        color: ColorWhen::Never,
    };

    /// The records that an output has or reports as lost: lines of other events than
    /// `lost`, and what `lost` lines count.
    fn reported(format: Format, text: &str) -> u64 {
        let lines = text
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("{\"trailer\""));
        let count = |line: &str| match format {
            Format::Json => {
                let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
                line["lost"].as_u64()
            }
            Format::Csv => None,
            Format::Text => {
                let (_, words) = line.split_once(" lost ")?;
                words.split(' ').next()?.parse().ok()
            }
        };
        lines.map(|line| count(line).unwrap_or(1)).sum()
    }

    /// Starts a log.
    fn start_log(
        sinks: &mut LiveSinks,
        path: &Path,
        format: Format,
        rotation: Rotation,
    ) -> Result<()> {
        let log = LogFile {
            path: path.to_owned(),
            format,
            existing: Existing::Append,
            rotation,
        };
        let mut own = encoder(format, STYLE, false);
        let (log, target) = open_log(&log, own.as_mut(), &Header::default())?;
        sinks.start(own, "log".to_owned(), target, Extra::Log(log))
    }

    /// Blocks that are written give their memory to later ones.
    #[test]
    fn memory_is_used_again() -> Result<()> {
        let record = sample::records(&[sample::of(sample::probe(0, 1, 3_004))]).remove(0);
        let mut stream = Stream {
            encoder: encoder(Format::Json, STYLE, false),
            tally: Tally::default(),
            outputs: Vec::new(),
            passed_on: VecDeque::new(),
        };
        let mut memory = Vec::new();
        for _ in 0..6 {
            stream.encoder.record(&record)?;
            stream.tally.count(&record);
            stream.pass_on(false);
            let block = stream.passed_on.back().context("no block")?;
            assert_eq!(block.lines.iter().filter(|it| **it == b'\n').count(), 1);
            memory.push(block.lines.as_ptr());
        }
        assert_eq!(memory[..2], memory[2..4]);
        assert_eq!(memory[..2], memory[4..]);
        // An output has not written this one: it keeps its lines.
        let unwritten = stream.passed_on.front().map(Arc::clone);
        assert_eq!(stream.spare().capacity(), 0);
        assert!(unwritten.is_some_and(|block| !block.lines.is_empty()));
        Ok(())
    }

    /// An output that is not read at first loses records, and reports them. One that fails
    /// ends alone. Neither costs another output anything.
    #[test]
    fn outputs_are_independent() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let record = sample::records(&[sample::of(sample::probe(0, 1, 3_004))]).remove(0);
        for format in [Format::Text, Format::Json] {
            let stop = Stop::new()?;
            let mut sinks = LiveSinks::new(&Header::default(), stop.clone());
            let path = dir.path().join(format!("{format:?}"));
            start_log(&mut sinks, &path, format, Rotation::default())?;
            let pipe = |to: io::PipeWriter| Target::new(File::from(OwnedFd::from(to)));
            let (mut slow, to) = io::pipe()?;
            sinks.start(
                encoder(format, STYLE, false),
                "slow".to_owned(),
                pipe(to)?,
                Extra::None,
            )?;
            let (gone, to) = io::pipe()?;
            drop(gone);
            sinks.start(
                encoder(format, STYLE, false),
                "gone".to_owned(),
                pipe(to)?,
                Extra::None,
            )?;

            // More than a pipe and a queue take.
            let most: u64 = if format == Format::Json {
                15_000
            } else {
                120_000
            };
            let most_bytes = (most / 100) as usize;
            for seq in 1..=most {
                sinks.record(&Record {
                    seq,
                    ..record.clone()
                })?;
                if (seq as usize).is_multiple_of(most_bytes) {
                    sinks.flush();
                    // The log keeps up: only the others are slow.
                    while fs::metadata(&path)?.len() == 0 {
                        thread::yield_now();
                    }
                }
            }
            let reader = thread::spawn(move || {
                let mut text = String::new();
                slow.read_to_string(&mut text).map(|_| text)
            });
            assert!(!stop.wait(Duration::ZERO)?, "one has ended, not all");
            let (losses, result) = sinks.finish();
            let slow = reader.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            let [of_log, of_slow, of_gone] = losses.as_slice() else {
                unreachable!("there are three");
            };
            let written = fs::read_to_string(&path)?;
            assert_eq!(reported(format, &written) + of_log.untold, most);
            assert!(of_slow.told + of_slow.untold > 0, "{of_slow:?}");
            assert_eq!(
                reported(format, &slow) + of_slow.untold,
                most,
                "{of_slow:?}"
            );
            assert_eq!(of_gone.untold, most, "{of_gone:?}");
            assert!(slow.ends_with('\n'));
            let error = result.err().context("the reader has gone")?;
            assert_eq!(
                is_unread(&error),
                of_slow.untold + of_log.untold == 0,
                "{error:#}"
            );
            assert_eq!(record.event, EventName::Probe);
        }
        Ok(())
    }

    /// Outputs that are cut off write what they can, and lose nothing without a word.
    #[test]
    fn a_cut_off_tells_what_is_lost() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("log.jsonl");
        let mut sinks = LiveSinks::new(&Header::default(), Stop::new()?);
        start_log(&mut sinks, &path, Format::Json, Rotation::default())?;
        let (unread, to) = io::pipe()?;
        let target = Target::new(File::from(OwnedFd::from(to)))?;
        let json = || encoder(Format::Json, STYLE, false);
        sinks.start(json(), "unread".to_owned(), target, Extra::None)?;
        let record = sample::records(&[sample::of(sample::probe(0, 1, 3_004))]).remove(0);
        let count = 1_000;
        for seq in 1..=count {
            sinks.record(&Record {
                seq,
                ..record.clone()
            })?;
        }
        sinks.flush();
        let is_written = || {
            let log = fs::read_to_string(&path).unwrap_or_default();
            log.ends_with('\n') && reported(Format::Json, &log) == count
        };
        while !is_written() {
            thread::yield_now();
        }

        let said = sinks.cut_off().cut_off();
        assert!(!fs::read_to_string(&path)?.contains("trailer"));
        // More than a pipe takes.
        let lacks = |it: &String| {
            let lacks = it.strip_prefix("unread: ")?;
            let lacks = lacks.strip_suffix(" records are not in it")?;
            lacks.parse().ok()
        };
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0], CUT_OFF);
        let lacks: Option<u64> = said.get(1).and_then(lacks);
        assert!(
            lacks.is_some_and(|it| (1..=count).contains(&it)),
            "{said:?}"
        );
        drop(unread);
        Ok(())
    }

    /// Each file of a rotated log starts with the host's idle timeouts as they are then.
    #[test]
    fn a_new_file_has_the_timeouts_of_now() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("log.jsonl");
        let rotation = Rotation {
            size: Some(1),
            age: None,
            keep: 20,
        };
        let mut sinks = LiveSinks::new(&Header::default(), Stop::new()?);
        start_log(&mut sinks, &path, Format::Json, rotation)?;
        let record = sample::records(&[sample::of(sample::probe(0, 1, 3_004))]).remove(0);
        let change = |netns, seconds| TimeoutsChange {
            namespaces: vec![NetnsTimeouts {
                netns,
                timeouts: vec![HostTimeout {
                    netns,
                    seconds,
                    ..HostTimeout::default()
                }],
                routes: None,
            }],
            ..TimeoutsChange::default()
        };
        for change in [change(1, 10), change(2, 20), change(1, 11)] {
            sinks.record(&record)?;
            sinks.timeouts(&change)?;
        }
        sinks.record(&record)?;
        sinks.finish().1?;

        let (mut now, mut records, mut files) = (HostTimeouts::default(), 0, 0);
        for number in (0..20).rev() {
            let name = match number {
                0 => "log.jsonl".to_owned(),
                _ => format!("log.jsonl.{number}"),
            };
            let Ok(text) = fs::read_to_string(dir.path().join(name)) else {
                continue;
            };
            let mut lines = text.lines();
            let head: HeaderLine = serde_json::from_str(lines.next().context("empty")?)?;
            assert_eq!(head.header.host_timeouts(), now, "{text}");
            for line in lines {
                if let Ok(TimeoutsLine::<TimeoutsChange> { timeouts }) = serde_json::from_str(line)
                {
                    timeouts_change::apply(&mut now, &timeouts.namespaces);
                }
                if let Ok(TrailerLine::<Trailer> { trailer }) = serde_json::from_str(line) {
                    records += trailer.records;
                }
            }
            files += 1;
        }
        let timeouts = now.timeouts.iter().map(|it| (it.netns, it.seconds));
        assert_eq!(timeouts.collect::<Vec<_>>(), [(1, 11), (2, 20)]);
        assert_eq!(records, 4);
        assert!(files >= 7, "one for each block: {files}");
        Ok(())
    }
}
