//! The abilities of standard output: colors, width and block characters.

use std::env;
use std::io::{self, IsTerminal as _};

use anstyle::{AnsiColor, Style};
use terminal_size::{Width, terminal_size_of};

use crate::model::record::EventName;
use crate::sink::digest::layout::Layout;
use crate::sink::options::ColorWhen;
use crate::text::columns::Screen;
use crate::text::histogram::Bars;

/// Whether to color standard output.
pub(crate) fn is_colored(when: ColorWhen) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        // On a terminal, unless NO_COLOR or TERM=dumb is set.
        ColorWhen::Auto => {
            io::stdout().is_terminal()
                && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
        }
    }
}

/// The screen, if standard output is a terminal. COLUMNS comes before what the terminal says,
/// as in POSIX; one that says nothing has 80 columns.
#[must_use]
pub fn screen() -> Option<Screen> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let columns = env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
    let size = || terminal_size_of(io::stdout()).map(|(Width(width), _)| width.into());
    let width = columns.or_else(size).filter(|&it| it > 0).unwrap_or(80);
    Some(Screen {
        width,
        ellipsis: bars().ellipsis(),
    })
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The characters for bars on standard output: blocks on a terminal that shows UTF-8. A
/// pipe or file gets ASCII, because it may be read anywhere.
#[must_use]
pub fn bars() -> Bars {
    if is_unicode() {
        Bars::Unicode
    } else {
        Bars::Ascii
    }
}

/// Whether standard output is a terminal that shows more than ASCII.
pub(crate) fn is_unicode() -> bool {
    io::stdout().is_terminal() && supports_unicode::supports_unicode()
}

/// The width of text if standard output is not a terminal, or does not tell its width.
const COLUMNS: usize = 80;

/// The width of standard output.
pub(crate) fn columns() -> usize {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(COLUMNS, |(columns, _)| usize::from(columns.0).max(1))
}

/// Whether standard output is a terminal on which a line can be erased.
pub(super) fn has_status_line() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|it| it.is_empty() || it == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// How text is laid out on standard output as it is now, without colors.
pub(crate) fn layout() -> Layout {
    Layout {
        columns: columns(),
        colored: false,
        unicode: is_unicode(),
    }
}

/// The same with colors.
pub(crate) fn colored_layout() -> Layout {
    Layout {
        colored: true,
        ..layout()
    }
}

/// The style of an event on a colored screen.
pub(crate) fn style(event: EventName) -> Style {
    match event {
        EventName::Answered | EventName::Alive | EventName::Resumed => {
            AnsiColor::Green.on_default()
        }
        EventName::Timeout | EventName::Zombie => AnsiColor::Red.on_default().bold(),
        EventName::RstSent | EventName::RstReceived | EventName::Stalled | EventName::Aborted => {
            AnsiColor::Red.on_default()
        }
        EventName::Verdict => AnsiColor::Magenta.on_default().bold(),
        EventName::Lost => AnsiColor::Yellow.on_default().bold(),
        EventName::ProbeCongested | EventName::Unclassified | EventName::ChangedMeanwhile => {
            AnsiColor::Yellow.on_default()
        }
        EventName::Probe => AnsiColor::Cyan.on_default(),
        EventName::Early
        | EventName::DataPending
        | EventName::Busy
        | EventName::FinWait2
        | EventName::NotRearmed
        | EventName::FinReceived
        | EventName::FinSent
        | EventName::Closed => Style::new().dimmed(),
    }
}
