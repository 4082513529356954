//! Writes records as text, JSON lines and CSV. A sink knows records and nothing else.

mod clock;
mod csv;
mod digest;
mod error;
mod interface;
mod json;
mod lines;
mod live;
mod log;
mod log_file;
pub mod options;
mod queue;
mod record_line;
mod segments;
mod sinks;
mod status_line;
mod target;
mod terminal;
mod text;
mod writer;

pub(crate) use crate::sink::csv::CsvLines;
pub(crate) use crate::sink::digest::layout::Layout;
pub(crate) use crate::sink::digest::problem::Problem;
pub use crate::sink::error::SinkError;
pub use crate::sink::interface::{Encoder, Head, Sink};
pub(crate) use crate::sink::json::JsonLines;
pub use crate::sink::live::{CutOff, LiveSinks, OutputLosses, OutputsWatch, Reopen};
pub(crate) use crate::sink::sinks::open_file;
pub use crate::sink::sinks::{Sinks, open, to};
pub use crate::sink::terminal::{bars, screen};
pub(crate) use crate::sink::terminal::{colored_layout, is_colored, layout, style};
pub(crate) use crate::sink::text::event_text;

#[cfg(test)]
mod tests;
