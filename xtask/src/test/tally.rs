//! Counts tests from the output of test programs.

use std::fmt;
use std::io::{self, Write};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The numbers of passed, failed and skipped tests, and of those left for a full run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    pub left: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.left += other.left;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
            left,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        if *left > 0 {
            write!(f, ", {left} left for --full")?;
        }
        Ok(())
    }
}

/// A test, and the time that it took by this host's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedTest {
    pub name: String,
    pub time: Duration,
}

/// What the output of tests tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub tally: Tally,
    /// The time from the end of the test before, which is that of the test if they run one
    /// after another.
    pub times: Vec<TimedTest>,
}

/// Counts the tests in their output, and drops the lines of passed tests and of those left.
pub struct OutputFilter<W> {
    to: W,
    prefix: String,
    line: Vec<u8>,
    counted: Counted,
    /// When the last test ended, or the first began.
    since: Instant,
}

impl<W: Write> OutputFilter<W> {
    /// A filter that writes each line to `to`, after `prefix`.
    pub fn new(to: W, prefix: &str) -> Self {
        Self {
            to,
            prefix: prefix.to_owned(),
            line: Vec::new(),
            counted: Counted::default(),
            since: Instant::now(),
        }
    }

    /// Ends the last line, and returns what was counted.
    pub fn finish(mut self) -> Result<Counted> {
        if !self.line.is_empty() {
            self.end_line()
                .context("cannot pass on the tests' output")?;
        }
        Ok(self.counted)
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line);
        let left = left(&line);
        self.counted.tally += summary(&line).or(left).unwrap_or_default();
        let test = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... "));
        let now = Instant::now();
        if let Some((name, _)) = test {
            self.counted.times.push(TimedTest {
                name: name.trim_end().to_owned(),
                time: now - self.since,
            });
        }
        if test.is_some() || line.starts_with("running ") {
            self.since = now;
        }
        let passed = test.is_some_and(|(_, result)| result.trim_end() == "ok");
        if !passed && left.is_none() {
            // One write per line: other guests may write there too.
            let line = [self.prefix.as_bytes(), &self.line].concat();
            self.to.write_all(&line)?;
        }
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for OutputFilter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The counts in `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn summary(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split(';') {
        match count.trim().split_once(' ') {
            Some((number, "passed")) => tally.passed = number.parse().ok()?,
            Some((number, "failed")) => tally.failed = number.parse().ok()?,
            Some((number, "ignored")) => tally.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// The count in `30 tests are left for a full run`.
fn left(line: &str) -> Option<Tally> {
    let (left, _) = line.split_once(" tests are left for a full run")?;
    Some(Tally {
        left: left.parse().ok()?,
        ..Tally::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_and_passed_tests_are_dropped() -> Result<()> {
        let output = "30 tests are left for a full run\n\
                      running 3 tests\n\
                      test a   ... ok\n\
                      test b ... ignored, no kprobes here\n\
                      test c ... FAILED\n\
                      \n\
                      test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; finished in 0.1s\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out\n\
                      the end";
        let mut kept = Vec::new();
        let mut filter = OutputFilter::new(&mut kept, "");
        for byte in output.as_bytes() {
            filter.write_all(&[*byte])?;
        }
        let counted = filter.finish()?;
        let names = counted.times.iter().map(|it| it.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(
            counted.tally,
            Tally {
                passed: 5,
                failed: 1,
                skipped: 1,
                left: 30
            }
        );
        assert_eq!(
            String::from_utf8(kept)?,
            output
                .replace("test a   ... ok\n", "")
                .replace("30 tests are left for a full run\n", "")
        );
        Ok(())
    }
}
