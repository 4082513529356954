//! Where records go, and how they look there.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Format of standard output.
    pub screen: ScreenFormat,
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
    /// What happens to a file that exists.
    pub existing: Existing,
    /// When the log is continued in a new file.
    pub rotation: Rotation,
}

/// What happens to a file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is left alone: an error.
    Refuse,
    /// A log of the same format is continued; another file is an error.
    Append,
    /// It is overwritten.
    Overwrite,
}

/// A folder that keeps a log in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderFolder {
    /// The folder.
    pub dir: PathBuf,
    /// Most bytes of all segments. The oldest are removed before there are more.
    pub max_size: u64,
    /// A segment ends once it is this long, bytes.
    pub segment_size: u64,
    /// A segment ends once it is this old.
    pub segment_age: Duration,
}

/// When a log is continued in a new file. The files before it are renamed: `LOG.1` is the
/// latest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Before the file is longer than this, bytes.
    pub size: Option<u64>,
    /// Once the file is older than this.
    pub age: Option<Duration>,
    /// Number of older files that are kept.
    pub keep: u32,
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

/// Form of the records on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenFormat {
    /// The digest on a terminal, else text.
    Auto,
    /// Problems as they happen; what is well is counted in a status line.
    Digest,
    /// Every record.
    Every(Format),
}

impl ScreenFormat {
    /// The form on a terminal, or on another standard output.
    #[must_use]
    pub const fn on(self, is_terminal: bool) -> Self {
        match (self, is_terminal) {
            (Self::Auto, true) => Self::Digest,
            (Self::Auto, false) => Self::Every(Format::Text),
            (chosen, _) => chosen,
        }
    }

    /// The form of a file that is given the same name.
    #[must_use]
    pub const fn every(self) -> Option<Format> {
        match self {
            Self::Every(format) => Some(format),
            Self::Auto | Self::Digest => None,
        }
    }
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
