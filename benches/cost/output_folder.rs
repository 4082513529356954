//! A folder for what a subject writes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Read as _, Seek as _, SeekFrom, Take};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, anyhow};
use tempfile::TempDir;

/// Gone when dropped.
pub struct OutputFolder(TempDir);

impl OutputFolder {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> Result<String> {
        let path = self.0.path().join(name).into_os_string();
        path.into_string().map_err(|_| anyhow!("a strange folder"))
    }

    fn output(&self) -> PathBuf {
        self.0.path().join("output")
    }

    /// A standard output for a subject, empty.
    pub fn stdout(&self) -> Result<Stdio> {
        Ok(File::create(self.output())?.into())
    }

    fn open(&self) -> Result<File> {
        Ok(File::open(self.output())?)
    }

    /// How many bytes it has written.
    pub fn written(&self) -> Result<u64> {
        Ok(self.open()?.metadata()?.len())
    }

    /// What it has written, while that is little.
    pub fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(self.output())?)
    }

    /// The lines between two places of what it has written.
    pub fn lines(&self, part: Range<u64>) -> Result<Lines<BufReader<Take<File>>>> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(part.start))?;
        Ok(BufReader::new(file.take(part.end - part.start)).lines())
    }

    /// How many of them have a text in them.
    pub fn lines_with(&self, text: &str, part: Range<u64>) -> Result<usize> {
        let mut count = 0;
        for line in self.lines(part)? {
            count += usize::from(line?.contains(text));
        }
        Ok(count)
    }
}
