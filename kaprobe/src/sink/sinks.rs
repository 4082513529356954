//! The outputs of a command: the screen, and a log.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use jiff::tz::TimeZone;

use crate::exit;
use crate::model::header::{Header, TimeoutsChange};
use crate::model::record::Record;
use crate::model::trailer::Trailer;
use crate::sink::csv::CsvLines;
use crate::sink::digest::Digest;
use crate::sink::error::SinkError;
use crate::sink::interface::{Head, Sink};
use crate::sink::json::JsonLines;
use crate::sink::lines::Lines;
use crate::sink::log_file::{self, why};
use crate::sink::options::{Existing, Format, Outputs, ScreenFormat, TextStyle, TimeFormat};
use crate::sink::terminal::{colored_layout, is_colored, is_terminal, layout};
use crate::sink::text::TextLines;
use crate::text::escape::Escaped;

/// The screen, and the log where there is one.
pub struct Sinks(Vec<NamedSink>);

/// A sink, and what errors call it.
struct NamedSink {
    name: String,
    sink: Box<dyn Sink>,
}

/// Opens the outputs of a plan. This creates the log: open them last, when nothing else
/// can fail.
///
/// # Errors
/// When the log cannot be created, or exists and may not be overwritten.
pub fn open(outputs: &Outputs) -> Result<Sinks, exit::Error> {
    let mut open = Vec::new();
    if let Some(log) = &outputs.file {
        let (name, file) = open_file(&log.path, log.existing, log.format)?;
        open.push(NamedSink {
            name,
            sink: to(file, log.format, outputs.text, false),
        });
    }
    let colored = is_colored(outputs.text.color);
    let screen = match outputs.screen.on(is_terminal()) {
        ScreenFormat::Every(format) => to(io::stdout(), format, outputs.text, colored),
        ScreenFormat::Digest | ScreenFormat::Auto => digest(outputs.text.time, colored),
    };
    open.push(NamedSink {
        name: "standard output".to_owned(),
        sink: screen,
    });
    Ok(Sinks(open))
}

/// Opens a file for writing, for its owner only. Returns its name in messages too.
///
/// # Errors
/// When it cannot be created, or exists and may not be overwritten.
pub(crate) fn open_file(
    path: &Path,
    existing: Existing,
    format: Format,
) -> Result<(String, File), exit::Error> {
    let name = Escaped::from_path(path).to_string();
    let file = log_file::open(path, existing, format, &[]);
    let file = file.map_err(|error| {
        exit::Error::failure(format!("cannot write {name}: {}", why(&error, path)))
    })?;
    Ok((name, file))
}

impl Sinks {
    /// A single sink, and what errors call it.
    #[cfg(test)]
    pub(super) fn one(name: &str, sink: Box<dyn Sink>) -> Self {
        Self(vec![NamedSink {
            name: name.to_owned(),
            sink,
        }])
    }

    /// Writes the head of the output to each sink.
    ///
    /// # Errors
    /// If a write fails.
    pub fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        self.each(|sink| sink.head(head))
    }

    /// Writes the header of the next trace to each sink that has headers.
    ///
    /// # Errors
    /// If a write fails.
    pub fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        self.each(|sink| sink.next_trace(header))
    }

    /// Writes a change of the host's idle timeouts to each sink that has them.
    ///
    /// # Errors
    /// If a write fails.
    pub fn timeouts(&mut self, change: &TimeoutsChange) -> Result<(), SinkError> {
        self.each(|sink| sink.timeouts(change))
    }

    /// Writes the trailer of a trace to each sink that has trailers.
    ///
    /// # Errors
    /// If a write fails.
    pub fn trailer(&mut self, trailer: &Trailer) -> Result<(), SinkError> {
        self.each(|sink| sink.trailer(trailer))
    }

    /// Writes a record to each sink.
    ///
    /// # Errors
    /// If a write fails.
    pub fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        self.each(|sink| sink.record(record))
    }

    /// Writes what is left to write once there are no more records.
    ///
    /// # Errors
    /// If a write fails.
    pub fn end(&mut self) -> Result<(), SinkError> {
        self.each(|sink| sink.end().and_then(|()| sink.flush()))
    }

    /// Writes out buffered lines. Call it whenever no more records are available.
    ///
    /// # Errors
    /// If a write fails.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        self.each(|sink| sink.flush())
    }

    /// Calls `act` with each, even when one fails: the log goes on when the screen can show
    /// nothing more.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        for output in &mut self.0 {
            if let Err(error) = act(output.sink.as_mut()) {
                outcome = outcome.and(Err(SinkError::new(&output.name, error)));
            }
        }
        outcome
    }
}

fn digest(time: TimeFormat, colored: bool) -> Box<dyn Sink> {
    let layout = if colored { colored_layout } else { layout };
    let out = Lines::new(io::stdout());
    Box::new(Digest::new(out, layout, time, TimeZone::system()))
}

/// Makes a sink that writes this format to `out`.
pub fn to(
    out: impl Write + Send + 'static,
    format: Format,
    style: TextStyle,
    colored: bool,
) -> Box<dyn Sink> {
    let out = Lines::new(out);
    match format {
        Format::Text => Box::new(TextLines::new(out, style, colored, TimeZone::system())),
        Format::Json => Box::new(JsonLines::new(out)),
        Format::Csv => Box::new(CsvLines::new(out, style.heading)),
    }
}
