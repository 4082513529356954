//! An open file that an output writes to: standard output, or the file of a log.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use memchr::memchr_iter;
use rustix::event::{PollFd, PollFlags, poll};

use crate::sink::log_file;

/// Bytes written at once.
const PIECE: usize = 64 * 1024;
/// `PIPE_BUF` (pipe(7)): a pipe takes pieces of this size whole or not at all. Its reader
/// gets whole lines, even if kaprobe ends in the middle of a write.
const PIPE_PIECE: usize = 4096;

/// An open file to write to.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    piece: usize,
}

impl Target {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let is_pipe = log_file::is_pipe(&file.metadata()?);
        let piece = if is_pipe { PIPE_PIECE } else { PIECE };
        Ok(Self { file, piece })
    }

    /// Standard output.
    pub(super) fn stdout() -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Self::new(stdout.into())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes whole lines. Calls `progress` with the number of lines written after each
    /// piece.
    ///
    /// # Errors
    /// When they cannot be written. Some may have been.
    pub(super) fn write(
        &mut self,
        mut lines: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(whole_lines(lines, self.piece));
            self.write_piece(piece)?;
            progress(memchr_iter(b'\n', piece).count() as u64);
            lines = rest;
        }
        Ok(())
    }

    /// Writes a piece. Waits if another process has made the file non-blocking.
    fn write_piece(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match self.file.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => piece = &piece[written..],
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    let mut fd = [PollFd::new(&self.file, PollFlags::OUT)];
                    poll(&mut fd, None)?;
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// The length of the whole lines at the start that fit in a piece; at least one line.
fn whole_lines(lines: &[u8], piece: usize) -> usize {
    if lines.len() <= piece {
        return lines.len();
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let fitting = lines[..piece].iter().rposition(is_end);
    let end = fitting.or_else(|| lines.iter().position(is_end));
    end.map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn pieces_are_whole_lines() {
        let rows: [(&str, usize, &[&str]); 4] = [
            ("", 4, &[]),
            ("a\nb\nc\n", 4, &["a\nb\n", "c\n"]),
            ("long line\nb\n", 4, &["long line\n", "b\n"]),
            ("a\nbcd", 4, &["a\n", "bcd"]),
        ];
        for (text, piece, expected) in rows {
            let (mut lines, mut pieces) = (text.as_bytes(), Vec::new());
            while !lines.is_empty() {
                let (piece, rest) = lines.split_at(whole_lines(lines, piece));
                pieces.push(String::from_utf8_lossy(piece).into_owned());
                lines = rest;
            }
            assert_eq!(pieces, expected, "{text:?}");
        }
    }

    #[test]
    fn a_non_blocking_pipe_gets_everything() -> io::Result<()> {
        let (mut from, to) = io::pipe()?;
        let to = File::from(std::os::fd::OwnedFd::from(to));
        rustix::io::ioctl_fionbio(&to, true)?;
        let lines = "a line of some bytes\n".repeat(20_000);
        let expected = lines.len();
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            from.read_to_end(&mut read).map(|_| read)
        });
        let mut count = 0;
        Target::new(to)?.write(lines.as_bytes(), &mut |written| count += written)?;
        let read = reader.join().map_err(|_| io::Error::other("panicked"))??;
        assert_eq!((read.len(), count), (expected, 20_000));
        Ok(())
    }
}
