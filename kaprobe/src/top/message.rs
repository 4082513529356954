//! Messages from the other threads of `top` to the thread that draws.

use std::io;

use anyhow::Result;
use ratatui::crossterm::event::Event;

use crate::census::sums::Census;

/// A message to the thread that draws.
pub(super) enum ScreenMessage {
    /// A key, or another size of the terminal.
    Input(Event),
    /// The terminal can't be read any more.
    InputFailed(io::Error),
    /// A snapshot has ended or failed.
    Census(Result<Box<Census>>),
    /// The trace has ended.
    TraceEnded(Result<()>),
}
