//! JSON lines: the log format, described by `schema/kaprobe-log.schema.json`.

use std::io::{self, Write};

use serde::Serialize;

use super::{Head, Sink};
use crate::record::{Header, HeaderLine, Record};

pub(super) struct Json<W> {
    out: W,
}

impl<W: Write> Json<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        head.headers.iter().try_for_each(|it| self.next_trace(it))
    }

    fn next_trace(&mut self, header: &Header) -> io::Result<()> {
        self.line(&HeaderLine { header })
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
