//! Where records go, and how they look there.

use std::path::PathBuf;

use clap::ValueEnum;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Format of standard output.
    pub screen: Format,
    /// The log, where one is wanted.
    pub file: Option<LogFile>,
    /// How text looks, on the screen and in a file; a file is never colored.
    pub text: TextStyle,
}

/// A log to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Where.
    pub path: PathBuf,
    /// In which format.
    pub format: Format,
    /// Overwrite a file that exists.
    pub overwrite: bool,
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// Clock in the first column.
    pub time: TimeFormat,
    /// Long lines with every detail.
    pub wide: bool,
    /// A heading above the columns, also in CSV.
    pub heading: bool,
    /// Color on the screen.
    pub color: ColorWhen,
}

/// Form of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line; of a trace, the log that can be replayed.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Clock of text lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeFormat {
    /// Local time of day, to the ms.
    Clock,
    /// Date and time in UTC, to the ns.
    Rfc3339,
    /// Seconds since 1970 in UTC.
    Unix,
    /// Seconds of CLOCK_MONOTONIC.
    Mono,
    /// Seconds since the first line.
    Relative,
}

/// When to color text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
