//! A temporary folder for the output of a subject.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Read as _, Seek as _, SeekFrom, Take};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, anyhow};
use tempfile::TempDir;

/// A temporary folder. Removed when dropped.
pub struct OutputFolder(TempDir);

impl OutputFolder {
    /// Creates an empty folder.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> Result<String> {
        let path = self.0.path().join(name).into_os_string();
        path.into_string()
            .map_err(|_| anyhow!("the folder's path is not UTF-8"))
    }

    fn output(&self) -> PathBuf {
        self.0.path().join("output")
    }

    /// An empty file for a subject's standard output.
    pub fn stdout(&self) -> Result<Stdio> {
        Ok(File::create(self.output())?.into())
    }

    fn open(&self) -> Result<File> {
        Ok(File::open(self.output())?)
    }

    /// The number of bytes that the subject has written.
    pub fn written(&self) -> Result<u64> {
        Ok(self.open()?.metadata()?.len())
    }

    /// The whole output of the subject. For small outputs.
    pub fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(self.output())?)
    }

    /// The lines in a byte range of the output.
    pub fn lines(&self, part: Range<u64>) -> Result<Lines<BufReader<Take<File>>>> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(part.start))?;
        Ok(BufReader::new(file.take(part.end - part.start)).lines())
    }

    /// The number of lines in a byte range that contain a text.
    pub fn lines_with(&self, text: &str, part: Range<u64>) -> Result<usize> {
        let mut count = 0;
        for line in self.lines(part)? {
            count += usize::from(line?.contains(text));
        }
        Ok(count)
    }
}
