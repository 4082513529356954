//! The terminal: drawn on while `top` runs, and left as it was.

use std::io::{self, BufWriter, IsTerminal as _, Stdout};
use std::sync::Once;
use std::{env, panic};

use anyhow::{Context as _, Result};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Hide;
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::{exit, stderr};

/// Bytes of a frame that are written at once. Most frames are smaller.
const FRAME: usize = 64 * 1024;

/// Leaves the alternate screen, and shows the cursor.
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h";

/// How long a terminal may take until it takes what restores it.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// The terminal as `ratatui` draws on it.
pub(super) type Drawn = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// The terminal while it is drawn on. Dropping this restores it.
pub(super) struct DrawnTerminal(pub(super) Drawn);

impl DrawnTerminal {
    /// Begins to draw. Messages wait until the end.
    ///
    /// # Errors
    /// If standard output is no terminal that can be drawn on.
    pub(super) fn enter() -> Result<Self> {
        restore_on_panic();
        // Which colors are drawn is decided by `--color`, not by crossterm, which obeys NO_COLOR
        // alone.
        force_color_output(true);
        let out = BufWriter::with_capacity(FRAME, io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(out));
        let mut terminal = Self(terminal.context("cannot read the size of the terminal")?);
        terminal.resume().context("cannot draw on the terminal")?;
        Ok(terminal)
    }

    /// Draws on the terminal again after [`restore`].
    pub(super) fn resume(&mut self) -> io::Result<()> {
        stderr::hold();
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        self.redraw()
    }

    /// Clears the screen, so that all of it is drawn next.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        // `Terminal::clear` asks the terminal where the cursor is, and the thread that reads
        // keys would get the answer.
        let area = self.0.size()?.into();
        self.0.resize(area)
    }
}

impl Drop for DrawnTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Checks that standard output can be drawn on.
pub(super) fn check() -> Result<(), exit::Error> {
    let instead = "write kaprobe sockets (what is now) or kaprobe trace (what happens) there";
    if !io::stdout().is_terminal() {
        return Err(exit::Error::usage(format!(
            "standard output is not a terminal: {instead}"
        )));
    }
    if env::var_os("TERM").is_some_and(|it| it == "dumb") {
        return Err(exit::Error::usage(format!(
            "TERM=dumb: this terminal can't be drawn on: {instead}"
        )));
    }
    Ok(())
}

/// Restores the terminal, and writes the messages that have waited. Does not wait long for a
/// terminal that takes nothing.
pub(super) fn restore() {
    // There is nowhere left to report a failure to.
    let _unrestored = disable_raw_mode();
    let stdout = io::stdout();
    let mut fd = [PollFd::new(&stdout, PollFlags::OUT)];
    if poll(&mut fd, Some(&PATIENCE)).is_ok_and(|ready| ready > 0) {
        let _unrestored = rustix::io::write(&stdout, LEAVE);
    }
    stderr::release();
}

/// Restores the terminal before the message of a panic is written.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |why| {
            restore();
            before(why);
        }));
    });
}

/// Whether the terminal was hung up: its window or its connection is closed.
pub(super) fn is_gone() -> bool {
    let stdout = io::stdout();
    let mut fd = [PollFd::new(&stdout, PollFlags::empty())];
    let gone = PollFlags::HUP | PollFlags::ERR;
    // A failure tells nothing.
    let polled = poll(&mut fd, Some(&Timespec::default()));
    polled.is_ok() && fd[0].revents().intersects(gone)
}
