//! Reads a file that may be compressed by gzip or zstd: its first bytes tell, not its name.
//!
//! Memory is bounded, whatever the file holds: gzip needs 32 KiB, zstd at most
//! [`MAX_WINDOW`], and a segment of a recorder [`MAX_FRAME`] more.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// The first bytes of a gzip member with deflate, the only method (RFC 1952).
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// The first bytes of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The largest window of a zstd frame, bytes. `zstd -19` uses half of it, `--long` more.
const MAX_WINDOW: u64 = 16 << 20;

/// The largest frame in a segment of a recorder, bytes of text. One has about a megabyte, or the
/// longest header.
const MAX_FRAME: usize = 8 << 20;

/// A file whose first bytes were read already.
pub struct Started {
    start: Vec<u8>,
    file: File,
}

impl Read for Started {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.start.len().min(into.len());
        let (first, rest) = into.split_at_mut(len);
        first.copy_from_slice(&self.start[..len]);
        self.start.drain(..len);
        match self.file.read(rest) {
            // Another read fails in the same way.
            Err(_) if len > 0 => Ok(len),
            read => Ok(len + read?),
        }
    }
}

/// Reads a file, and decompresses it if it is compressed.
pub enum LogReader {
    /// Not compressed.
    Plain(Started),
    /// Compressed by gzip, one member or more.
    Gzip(Box<MultiGzDecoder<BufReader<Started>>>),
    /// Compressed by zstd.
    Zstd(Box<ZstdReader<BufReader<Started>>>),
}

impl LogReader {
    /// Reads the first bytes of a file. Waits for them.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn new(file: File) -> io::Result<Self> {
        Self::open(file, false)
    }

    /// Reads the first bytes of a segment of a recorder. Nothing of a zstd frame is passed on
    /// before its checksum is right. If a recorder that was killed left a part of a frame, the
    /// segment ends before it.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn segment(file: File) -> io::Result<Self> {
        Self::open(file, true)
    }

    fn open(mut file: File, is_segment: bool) -> io::Result<Self> {
        let start = start(&mut file)?;
        let (is_gzip, is_zstd) = (start.starts_with(&GZIP), start.starts_with(&ZSTD));
        let whole = Started { start, file };
        Ok(if is_gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(whole))))
        } else if is_zstd {
            Self::Zstd(Box::new(ZstdReader::new(BufReader::new(whole), is_segment)))
        } else {
            Self::Plain(whole)
        })
    }
}

impl Read for LogReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(into),
            Self::Gzip(file) => file.read(into),
            Self::Zstd(file) => file.read(into),
        }
    }
}

/// The first bytes of a file, as many as tell how it is compressed. A live log is shown line
/// by line, so this waits for no more of it than its first byte.
fn start(file: &mut File) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(ZSTD.len());
    let may_be = |start: &[u8]| GZIP.starts_with(start) || ZSTD.starts_with(start);
    while start.len() < ZSTD.len() && may_be(&start) {
        if file.take(1).read_to_end(&mut start)? == 0 {
            break;
        }
    }
    Ok(start)
}

/// Decompresses zstd frames, one after the other. The crate decodes one frame.
pub struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
    /// The number of frames that began.
    frames: u64,
    /// A segment of a recorder: each frame is read and checked before it is passed on, and the
    /// data may break off.
    is_segment: bool,
    /// What is left of a frame that was checked.
    checked: io::Cursor<Vec<u8>>,
    /// The data breaks off.
    is_cut: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R, is_segment: bool) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            source,
            decoder,
            is_in_frame: false,
            frames: 0,
            is_segment,
            checked: io::Cursor::default(),
            is_cut: false,
        }
    }

    /// Begins the next frame. Returns whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            self.frames += 1;
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.is_in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
                    return Err(io::Error::other(format!(
                        "its zstd window is {} MiB, more than kaprobe keeps in memory: \
                         decompress it first",
                        requested >> 20
                    )));
                }
                Err(why) => return self.broken(&why).map(|()| false),
            }
        }
        // A decoder that is done takes no memory.
        self.decoder = FrameDecoder::new();
        Ok(false)
    }

    /// Ends the data if it breaks off and may do so, and fails otherwise.
    fn broken(&mut self, why: &FrameDecoderError) -> io::Result<()> {
        match (breaks_off(why), self.is_segment) {
            (true, true) => self.is_cut = true,
            (true, false) => return Err(self.damaged("it breaks off")),
            (false, _) => return Err(self.damaged("it is no zstd data")),
        }
        Ok(())
    }

    /// The error of the frame that is read. The crate's own texts are for programmers.
    fn damaged(&self, why: &str) -> io::Error {
        io::Error::other(format!("zstd frame {} is damaged: {why}", self.frames))
    }

    /// Decodes until there is something to read, or the frame has ended or breaks off.
    fn decode(&mut self) -> io::Result<()> {
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() && !self.is_cut {
            let decoded = self.decoder.decode_blocks(&mut self.source, UptoBlocks(1));
            if let Err(why) = decoded {
                self.broken(&why)?;
            }
        }
        Ok(())
    }

    /// Ends a frame, and checks its checksum if it has one.
    fn end(&mut self) -> io::Result<()> {
        self.is_in_frame = false;
        match self.decoder.get_checksum_from_data() {
            None if self.is_segment => Err(self.damaged("it has no checksum")),
            it if it.is_some() && it != self.decoder.get_calculated_checksum() => {
                Err(self.damaged("its checksum differs"))
            }
            _ => Ok(()),
        }
    }

    /// Reads a whole frame, and checks it. If it breaks off, nothing of it is kept.
    fn read_frame(&mut self) -> io::Result<()> {
        let mut text = mem::take(&mut self.checked).into_inner();
        text.clear();
        loop {
            self.decode()?;
            if self.is_cut {
                return Ok(());
            }
            let room = MAX_FRAME as u64 + 1;
            if (&mut self.decoder).take(room).read_to_end(&mut text)? == 0 {
                break;
            }
            if text.len() > MAX_FRAME {
                return Err(self.damaged("it is longer than a recorder writes"));
            }
        }
        self.end()?;
        self.checked = io::Cursor::new(text);
        Ok(())
    }

    /// Reads of a segment: of frames that were checked.
    fn read_checked(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.checked.read(into)?;
            if read > 0 || into.is_empty() || self.is_cut || !self.begin()? {
                return Ok(read);
            }
            self.read_frame()?;
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.is_segment {
            return self.read_checked(into);
        }
        while self.is_in_frame || self.begin()? {
            self.decode()?;
            let read = self.decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            self.end()?;
        }
        Ok(0)
    }
}

/// Whether the data ended where more of it was expected.
fn breaks_off(why: &FrameDecoderError) -> bool {
    let mut why: Option<&dyn Error> = Some(why);
    while let Some(it) = why {
        let io = it.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        why = it.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text)?;
        encoder.finish()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    /// What is read of a file with these bytes, or why it can't be.
    fn read(bytes: &[u8]) -> Result<String, String> {
        read_by(bytes, LogReader::new)
    }

    fn read_by(bytes: &[u8], open: fn(File) -> io::Result<LogReader>) -> Result<String, String> {
        let read = || {
            let mut file = tempfile::tempfile()?;
            file.write_all(bytes)?;
            file.rewind()?;
            io::read_to_string(open(file)?)
        };
        read().map_err(|why: io::Error| why.to_string())
    }

    #[test]
    fn files_are_read_however_they_are_compressed() -> io::Result<()> {
        let (one, two) = ("{\"one\":1}\n".repeat(50_000), "{\"two\":2}\n");
        let both = format!("{one}{two}");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        for (bytes, text) in [
            (both.clone().into_bytes(), &*both),
            (gzip(both.as_bytes())?, &both),
            (
                [gzip(one.as_bytes())?, gzip(two.as_bytes())?].concat(),
                &both,
            ),
            (zstd(both.as_bytes()), &both),
            ([zstd(one.as_bytes()), zstd(two.as_bytes())].concat(), &both),
            (
                [zstd(one.as_bytes()), skippable.into(), zstd(two.as_bytes())].concat(),
                &both,
            ),
            (zstd(b""), ""),
            (gzip(b"")?, ""),
            (Vec::new(), ""),
            (vec![b'{'], "{"),
            (ZSTD[..3].to_vec(), "\u{fffd}"),
        ] {
            let text = Some(text).filter(|it| !it.contains('\u{fffd}'));
            assert_eq!(
                read(&bytes).ok().as_deref(),
                text,
                "{:x?}",
                &bytes[..bytes.len().min(20)]
            );
        }
        Ok(())
    }

    #[test]
    fn broken_data_is_an_error_after_what_is_whole() -> io::Result<()> {
        let text = "{\"line\":1}\n".repeat(100_000);
        for whole in [gzip(text.as_bytes())?, zstd(text.as_bytes())] {
            let mut flipped = whole.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0x55;
            let trailing = [&whole[..], b"garbage"].concat();
            for bytes in [&whole[..whole.len() - 5], &flipped, &trailing] {
                assert!(read(bytes).is_err());
            }
        }
        Ok(())
    }

    /// A recorder that is killed leaves whole frames, and a part of the next.
    #[test]
    fn a_segment_that_breaks_off_ends_after_the_last_whole_frame() -> io::Result<()> {
        let (one, two) = (zstd(b"{\"line\":1}\n"), zstd(b"{\"line\":2}\n"));
        let both = [&one[..], &two].concat();
        for end in ZSTD.len()..=both.len() {
            let expected = match end {
                end if end < one.len() => "",
                end if end < both.len() => "{\"line\":1}\n",
                _ => "{\"line\":1}\n{\"line\":2}\n",
            };
            let read = read_by(&both[..end], LogReader::segment);
            assert_eq!(read.as_deref(), Ok(expected), "{end}");
        }
        Ok(())
    }

    /// Damage in a segment is an error before anything of its frame is read.
    #[test]
    fn nothing_of_a_damaged_frame_of_a_segment_is_read() -> io::Result<()> {
        // Several blocks, of which the first can be decoded before the others are read.
        let mut text = Vec::new();
        let mut number = 7_u32;
        for _ in 0..40_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend(number.to_string().into_bytes());
            text.push(b'\n');
        }
        let (first, second) = (zstd(b"{\"line\":1}\n"), zstd(&text));
        // The flag of the checksum in the frame's header (RFC 8878, 3.1.1.1.1).
        let mut unchecked = second[..second.len() - 4].to_vec();
        unchecked[ZSTD.len()] &= !4;
        let flipped = |at: usize| {
            let mut bytes = second.clone();
            bytes[at] ^= 0x55;
            bytes
        };
        let ends = [second.len() - 1, second.len() - 4, second.len() - 60];
        let mut rows: Vec<_> = ends.map(flipped).into();
        rows.push(unchecked);
        for damaged in rows {
            let mut file = tempfile::tempfile()?;
            file.write_all(&[&first[..], &damaged, &first].concat())?;
            file.rewind()?;
            let mut reader = LogReader::segment(file)?;
            let mut read = Vec::new();
            let why = reader.read_to_end(&mut read).err();
            assert_eq!(read, b"{\"line\":1}\n", "{why:?}");
            let why = why.map(|it| it.to_string()).unwrap_or_default();
            assert!(why.starts_with("zstd frame 2 is damaged: "), "{why}");
        }
        Ok(())
    }

    /// Messages are for people: no text of the decoder's own types.
    #[test]
    fn damage_is_named_in_words() {
        let whole = zstd(&b"{\"line\":1}\n".repeat(1_000));
        let cut = &whole[..whole.len() - 9];
        let trailing = [&whole[..], b"garbage"].concat();
        let mut flipped = whole.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        for (bytes, expected) in [
            (cut, "zstd frame 1 is damaged: it breaks off"),
            (&trailing, "zstd frame 2 is damaged: it is no zstd data"),
            (&flipped, "zstd frame 1 is damaged: its checksum differs"),
        ] {
            assert_eq!(read(bytes).err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        // A frame that declares a window of 1 GiB: exponent 20 above 1 KiB.
        let frame = [&ZSTD[..], &[0, 20 << 3, 1, 0, 0]].concat();
        let why = read(&frame).err().unwrap_or_default();
        assert!(why.starts_with("its zstd window is 1024 MiB"), "{why}");
    }
}
