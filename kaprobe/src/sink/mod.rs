//! Where records go. Sinks know records and nothing else.

mod csv;
mod json;
mod lines;
pub mod options;
mod text;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use jiff::tz::TimeZone;

use crate::exit;
use crate::model::header::Header;
use crate::model::record::Record;
use crate::sink::options::{ColorWhen, Format, LogFile, Outputs, TextStyle};
use crate::text::escape::Escaped;
use crate::text::histogram::Bars;

pub(crate) use crate::sink::csv::field_text;
use crate::sink::lines::Lines;
pub(crate) use crate::sink::text::style;

/// Writes records in one format. What is written reaches its place in whole lines, at
/// [`Sink::flush`] at the latest.
pub trait Sink: Send {
    /// Takes what heads the output, before any record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn head(&mut self, head: &Head<'_>) -> io::Result<()>;

    /// Takes the header of a trace whose records follow on those of another.
    ///
    /// # Errors
    /// When it cannot be written.
    fn next_trace(&mut self, _: &Header) -> io::Result<()> {
        Ok(())
    }

    /// Takes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn record(&mut self, record: &Record) -> io::Result<()>;

    /// Writes out what waits.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

/// What heads an output.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The header of each trace that it is made of, where there is one.
    pub headers: &'a [Header],
    /// Records name their host, since there are several.
    pub hosts: bool,
}

impl<'a> From<&'a Header> for Head<'a> {
    fn from(header: &'a Header) -> Self {
        Self {
            headers: std::slice::from_ref(header),
            hosts: false,
        }
    }
}

/// Why no more records can be written.
#[derive(Debug)]
pub enum SinkError {
    /// Whoever read has gone: the end of the work, not a failure.
    Closed,
    /// It failed.
    Failed(exit::Error),
}

/// The screen, and the log where there is one.
pub struct Sinks(Vec<Output>);

struct Output {
    name: String,
    sink: Box<dyn Sink>,
}

/// Opens what the plan asks for. The log is created here: open it last, once all else
/// that can fail has not.
///
/// # Errors
/// When the log cannot be created, or is there and may not be overwritten.
pub fn open(outputs: &Outputs) -> Result<Sinks, exit::Error> {
    let mut open = Vec::new();
    if let Some(log) = &outputs.file {
        let name = Escaped::from_bytes(log.path.as_os_str().as_encoded_bytes()).to_string();
        let file = create(log).map_err(|error| {
            exit::Error::failure(format!("cannot write {name}: {}", why(&error, &log.path)))
        })?;
        open.push(Output {
            name,
            sink: to(file, log.format, outputs.text, false),
        });
    }
    let colored = is_colored(outputs.text.color);
    let screen = to(io::stdout(), outputs.screen, outputs.text, colored);
    open.push(Output {
        name: "standard output".to_owned(),
        sink: screen,
    });
    Ok(Sinks(open))
}

impl Sinks {
    /// One sink that is not of a plan's making, by the name that errors shall give it.
    #[must_use]
    pub fn one(name: &str, sink: impl Sink + 'static) -> Self {
        Self(vec![Output {
            name: name.to_owned(),
            sink: Box::new(sink),
        }])
    }

    /// Writes what heads the output to each.
    ///
    /// # Errors
    /// When one of them can take no more.
    pub fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        self.each(|sink| sink.head(head))
    }

    /// Writes the header of a trace that follows on another to each that has headers.
    ///
    /// # Errors
    /// When one of them can take no more.
    pub fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        self.each(|sink| sink.next_trace(header))
    }

    /// Writes a record to each.
    ///
    /// # Errors
    /// When one of them can take no more.
    pub fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        self.each(|sink| sink.record(record))
    }

    /// Writes out what waits; to be called whenever no more records are at hand.
    ///
    /// # Errors
    /// When one of them can take no more.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        self.each(|sink| sink.flush())
    }

    /// Does it to all of them, even when one fails: the log shall hold what the
    /// screen can no longer show.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        for output in &mut self.0 {
            if let Err(error) = act(output.sink.as_mut()) {
                outcome = outcome.and(Err(match error.kind() {
                    io::ErrorKind::BrokenPipe => SinkError::Closed,
                    _ => SinkError::Failed(exit::Error::failure(format!(
                        "cannot write {}: {error}",
                        output.name
                    ))),
                }));
            }
        }
        outcome
    }
}

/// A sink of this format, wherever it goes.
pub fn to(
    out: impl Write + Send + 'static,
    format: Format,
    style: TextStyle,
    colored: bool,
) -> Box<dyn Sink> {
    let out = Lines::new(out);
    match format {
        Format::Text => Box::new(text::Text::new(out, style, colored, TimeZone::system())),
        Format::Json => Box::new(json::Json::new(out)),
        Format::Csv => Box::new(csv::Csv::new(out, style.heading)),
    }
}

/// Creates the log with the permissions that the umask leaves: it tells no more than
/// /proc and `ss` tell everyone. Without `overwrite` nothing that is there, a link
/// included, is opened.
fn create(log: &LogFile) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if log.overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(&log.path)
}

fn why(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory if path.is_dir() => {
            "it is a directory".to_owned()
        }
        io::ErrorKind::AlreadyExists => "it exists; --force overwrites it".to_owned(),
        _ => error.to_string(),
    }
}

pub(crate) fn is_colored(when: ColorWhen) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        // On a terminal, and neither NO_COLOR nor TERM=dumb says otherwise.
        ColorWhen::Auto => {
            io::stdout().is_terminal()
                && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
        }
    }
}

/// What bars are drawn with on standard output: blocks where it is a terminal that
/// shows UTF-8. A pipe or a file may end up anywhere.
#[must_use]
pub fn bars() -> Bars {
    if io::stdout().is_terminal() && supports_unicode::supports_unicode() {
        Bars::Unicode
    } else {
        Bars::Ascii
    }
}

#[cfg(test)]
mod tests;
