//! A log in segments: each is a file of zstd frames, and a complete log by itself.
//!
//! A frame is written at once. A process that is killed leaves whole frames, and perhaps a
//! part of the last one, which readers leave out.

use std::fs::File;
use std::io::{self, Cursor, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use ruzstd::encoding::{CompressionLevel, FrameCompressor, MatchGeneratorDriver};

use crate::model::header::Header;
use crate::model::tally::Tally;
use crate::model::time::WallTime;
use crate::model::trailer::Trailer;
use crate::sink::interface::{Encoder, Head};
use crate::sink::options::RecorderFolder;
use crate::sink::segments::folder::SegmentFolder;

/// Room that is kept for the trailer of a segment, bytes.
const TRAILER_ROOM: u64 = 4 * 1024;

/// Time between two requests to the kernel to have a segment on the disk.
const SYNC: Duration = Duration::from_secs(60);

/// A change of the wall clock by more than this ends a segment, ns: the times in a segment
/// and in its name then agree.
const CLOCK_JUMP_NS: i128 = 2_000_000_000;

/// The current time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: WallTime,
    pub(super) mono: Instant,
}

/// A log in segments.
pub(in crate::sink) struct SegmentLog {
    folder: SegmentFolder,
    segment_size: u64,
    segment_age: Duration,
    encoder: Box<dyn Encoder>,
    compressor: Compressor,
    /// The header of the next segment.
    header: Header,
    open: Option<OpenSegment>,
    /// What was written since the header.
    written: Tally,
    /// What could not be written, and is not reported yet.
    lost: Tally,
}

/// The segment that is written.
struct OpenSegment {
    file: File,
    size: u64,
    began: Now,
    synced: Instant,
}

impl OpenSegment {
    /// Whether somebody removed the file.
    fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|it| it.nlink() == 0)
    }

    /// Writes a frame at the end, or nothing.
    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Err(why) = self.file.write_all(frame) {
            self.file.set_len(self.size)?;
            // The next write is behind the end otherwise.
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.size))?;
            return Err(why);
        }
        self.size += frame.len() as u64;
        Ok(())
    }
}

impl SegmentLog {
    /// Opens the folder. A segment begins with its first frame, or by [`Self::begin`].
    pub(in crate::sink) fn open(
        to: &RecorderFolder,
        encoder: Box<dyn Encoder>,
        header: Header,
    ) -> io::Result<Self> {
        Ok(Self {
            folder: SegmentFolder::open(&to.dir, to.max_size)?,
            segment_size: to.segment_size,
            segment_age: to.segment_age,
            encoder,
            compressor: Compressor::new(),
            header,
            open: None,
            written: Tally::default(),
            lost: Tally::default(),
        })
    }

    #[cfg(test)]
    pub(super) const fn set_segment_size(&mut self, bytes: u64) {
        self.segment_size = bytes;
    }

    /// Begins a segment, if none is open: a reader sees then that something was to follow.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn begin(&mut self, now: Now) -> io::Result<()> {
        self.write(&[], now)
    }

    /// Whether the segment is long or old enough, or the clock was set meanwhile.
    pub(super) fn is_full(&self, now: Now) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let age = now.mono.saturating_duration_since(open.began.mono);
            let passed = i128::from(now.wall.0) - i128::from(open.began.wall.0);
            let jump = passed - i128::try_from(age.as_nanos()).unwrap_or(i128::MAX);
            open.size >= self.segment_size || age >= self.segment_age || jump.abs() > CLOCK_JUMP_NS
        })
    }

    /// What could not be written, and is not reported yet.
    pub(super) const fn lost(&self) -> &Tally {
        &self.lost
    }

    /// Adds records that are lost to this log. The next frame reports them.
    pub(super) fn lose(&mut self, lost: &Tally) {
        self.lost.append(lost);
    }

    /// Writes lines as a frame, after a report of what was lost before. If that fails, they
    /// are lost.
    ///
    /// # Errors
    /// When they can't be written.
    pub(super) fn put(&mut self, lines: &[u8], tally: &Tally, now: Now) -> io::Result<()> {
        let mut reported = self.report_lost()?;
        let frame = [&self.encoder.take(), lines].concat();
        if frame.is_empty() {
            return Ok(());
        }
        let frame = self.compressor.frame(frame);
        let outcome = self.write(&frame, now);
        if outcome.is_err() {
            self.lost.append(tally);
            return outcome;
        }
        reported.append(tally);
        self.written.append(&reported);
        self.lost = Tally::default();
        Ok(())
    }

    /// Encodes what was lost. Returns what these lines report.
    fn report_lost(&mut self) -> io::Result<Tally> {
        let mut reported = Tally::default();
        for record in self.lost.as_lost() {
            reported.count(&record);
            self.encoder.record(&record)?;
        }
        // Verdicts that follow depend on it.
        if let Some(change) = self.lost.timeouts() {
            reported.change(change);
            self.encoder.timeouts(change)?;
        }
        Ok(reported)
    }

    /// Ends the segment, if there is one. `continued` says that another one follows.
    ///
    /// # Errors
    /// When its trailer can't be written.
    pub(super) fn end_segment(&mut self, continued: bool, now: Now) -> io::Result<()> {
        if self.open.is_none() {
            return Ok(());
        }
        self.encoder.trailer(&Trailer {
            continued,
            ..Trailer::new(now.wall, &self.written)
        })?;
        let trailer = self.compressor.frame(self.encoder.take());
        let outcome = self.write(&trailer, now);
        self.close();
        outcome
    }

    /// The next frame begins a segment.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        // If it fails, a power failure may take the end of the segment.
        let _synced = open.file.sync_data();
        self.header = self.header.next_part();
        if let Some(change) = self.written.timeouts() {
            self.header.apply(change);
        }
        self.written = Tally::default();
    }

    /// Writes a frame. On a full disk, the oldest segments make room for it.
    fn write(&mut self, frame: &[u8], now: Now) -> io::Result<()> {
        loop {
            let Err(why) = self.try_write(frame, now) else {
                return Ok(());
            };
            if !is_full_disk(&why) {
                // The next frame begins a new segment.
                self.close();
                return Err(why);
            }
            if !self.folder.remove_oldest(self.open.is_some())? {
                return Err(why);
            }
        }
    }

    fn try_write(&mut self, frame: &[u8], now: Now) -> io::Result<()> {
        if self.open.as_ref().is_some_and(OpenSegment::is_removed) {
            // What was in it is gone. The next one shows that one is missing.
            self.close();
        }
        if self.open.is_none() {
            self.begin_segment(now)?;
        }
        let more = (frame.len() as u64).saturating_add(TRAILER_ROOM);
        if !self.folder.make_room(more, true)? {
            return Err(io::Error::other("a frame is larger than the folder may be"));
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.write(frame)?;
        if now.mono.saturating_duration_since(open.synced) >= SYNC {
            open.synced = now.mono;
            // If it fails, a power failure takes more.
            let _synced = open.file.sync_data();
        }
        self.folder.note_size(open.size);
        Ok(())
    }

    /// Makes a segment, and writes its header.
    fn begin_segment(&mut self, now: Now) -> io::Result<()> {
        self.encoder.head(&Head::from(&self.header))?;
        let header = self.compressor.frame(self.encoder.take());
        let more = (header.len() as u64).saturating_add(TRAILER_ROOM);
        self.folder.make_room(more, false)?;
        let file = self.folder.create(now.wall)?;
        let mut open = OpenSegment {
            file,
            size: 0,
            began: now,
            synced: now.mono,
        };
        if let Err(why) = open.write(&header) {
            self.folder.remove_newest();
            return Err(why);
        }
        self.folder.note_size(open.size);
        self.open = Some(open);
        Ok(())
    }
}

/// Makes frames. Uses its memory again: to map more than 1 MiB for each frame, page by page, takes
/// as long as to compress it.
struct Compressor(FrameCompressor<Cursor<Vec<u8>>, Vec<u8>, MatchGeneratorDriver>);

impl Compressor {
    fn new() -> Self {
        Self(FrameCompressor::new(CompressionLevel::Fastest))
    }

    /// Compresses whole lines to a frame, with a checksum.
    fn frame(&mut self, lines: Vec<u8>) -> Vec<u8> {
        self.0.set_source(Cursor::new(lines));
        self.0.set_drain(Vec::new());
        self.0.compress();
        self.0.take_source();
        self.0.take_drain().unwrap_or_default()
    }
}

fn is_full_disk(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ruzstd::decoding::StreamingDecoder;

    use super::*;

    /// A frame is read without those before it, whatever their sizes were.
    #[test]
    fn frames_are_independent() -> Result<(), Box<dyn std::error::Error>> {
        let mut compressor = Compressor::new();
        for length in [1, 300_000, 10, 131_072, 5_000, 131_073] {
            let letter = |it: u32| b"{\"event\":1,}\n0"[(it.wrapping_mul(it) % 131 % 14) as usize];
            let lines: Vec<_> = (0..length).map(letter).collect();
            let frame = compressor.frame(lines.clone());
            assert!(length < 1_000 || frame.len() < lines.len(), "{length}");
            let mut read = Vec::new();
            StreamingDecoder::new(frame.as_slice())?.read_to_end(&mut read)?;
            assert!(read == lines, "{length}");
        }
        Ok(())
    }
}
