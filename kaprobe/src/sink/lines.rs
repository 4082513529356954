//! A writer that passes on only whole lines. A truncated log then has whole lines, and
//! two writers on one terminal don't mix within a line.

use std::io::{self, Write};

/// The number of buffered bytes that starts a write without a flush.
const ENOUGH: usize = 64 * 1024;

/// Passes on only whole lines.
#[derive(Debug)]
pub(super) struct Lines<W> {
    out: W,
    waiting: Vec<u8>,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            waiting: Vec::new(),
        }
    }

    /// Passes on the whole lines.
    fn pass_on(&mut self) -> io::Result<()> {
        let Some(end) = self.waiting.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(());
        };
        let (lines, _) = self.waiting.split_at(end + 1);
        let outcome = self.out.write_all(lines);
        // A failed write is not retried.
        self.waiting.drain(..=end);
        outcome
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= ENOUGH {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps each write apart.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_whole_lines_are_passed_on() -> io::Result<()> {
        let mut lines = Lines::new(Writes::default());
        lines.write_all(b"one\ntwo")?;
        assert!(lines.out.0.is_empty());
        lines.flush()?;
        lines.flush()?;
        lines.write_all(b" more\n")?;
        lines.flush()?;
        assert_eq!(lines.out.0, [b"one\n".to_vec(), b"two more\n".to_vec()]);

        for _ in 0..ENOUGH {
            lines.write_all(b"line\n")?;
        }
        let writes = &lines.out.0;
        assert!(writes.len() > 3 && writes.iter().all(|write| write.ends_with(b"\n")));
        Ok(())
    }
}
