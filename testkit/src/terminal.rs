//! A terminal: a pseudo-terminal, whose screen is kept as a real one would show it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::child::Killed;
use crate::wait::wait_until;

/// Lines that have left the screen and are kept.
const SCROLLBACK: usize = 10_000;

/// A program on a terminal. It is killed when dropped.
pub struct Terminal {
    child: Killed,
    controller: File,
    screen: Arc<Mutex<Screen>>,
    height: NonZeroU16,
}

/// What the terminal has received.
struct Screen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub fn start(mut command: Command, width: NonZeroU16, height: NonZeroU16) -> Result<Self> {
        let (controller, user) = open()?;
        resize(&controller, width, height)?;
        let stream = || user.try_clone().map(Stdio::from);
        command
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env_remove("LC_ALL")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(stream()?)
            .stderr(stream()?);
        let child = Killed(command.spawn().with_context(|| format!("{command:?}"))?);
        // The terminal is hung up once the program, which has it alone, ends.
        drop(command);
        drop(user);
        let screen = Arc::new(Mutex::new(Screen {
            parser: vt100::Parser::new(height, width, SCROLLBACK),
            bytes: Vec::new(),
        }));
        let (reader, to) = (controller.try_clone()?, Arc::clone(&screen));
        thread::spawn(move || read(reader, &to));
        Ok(Self {
            child,
            controller,
            screen,
            height,
        })
    }

    /// Tells the program of another width. The screen itself stays as wide as it was.
    pub fn set_width(&self, width: NonZeroU16) -> Result<()> {
        resize(&self.controller, width, self.height)
    }

    /// The lines of the screen, without spaces at their ends.
    #[must_use]
    pub fn screen(&self) -> Vec<String> {
        let screen = lock(&self.screen);
        let text = screen.parser.screen().contents();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Whether a line was wider than the screen, and went on in the next one.
    #[must_use]
    pub fn is_wrapped(&self) -> bool {
        let screen = lock(&self.screen);
        let screen = screen.parser.screen();
        (0..self.height.get()).any(|row| screen.row_wrapped(row))
    }

    /// All bytes that the program has written.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.screen).bytes.clone()
    }

    /// Waits until a line of the screen has these words.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        let what = format!("the screen shows {words:?}");
        let (child, screen) = (&mut self.child, &self.screen);
        wait_until(&what, || {
            let text = lock(screen).parser.screen().contents();
            if text.contains(words) {
                return Ok(true);
            }
            match child.try_wait()? {
                Some(status) => bail!("it has ended, {status}:\n{text}"),
                None => Ok(false),
            }
        })
        .with_context(|| self.screen().join("\n"))
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until the program has ended, and the screen shows all that it has written.
    pub fn finish(&mut self) -> Result<ExitStatus> {
        let mut ended = None;
        let child = &mut self.child;
        wait_until("the program ends", || {
            ended = child.try_wait()?;
            Ok(ended.is_some())
        })?;
        // The reader is the last to hold the screen beside this.
        let screen = &self.screen;
        wait_until("the terminal is hung up", || {
            Ok(Arc::strong_count(screen) == 1)
        })?;
        ended.context("no status")
    }
}

/// Opens a pseudo-terminal: the end that shows, and the end of the program.
fn open() -> Result<(File, OwnedFd)> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?.into_string()?;
    let user = OpenOptions::new().read(true).write(true).open(&name);
    Ok((controller.into(), user.context(name)?.into()))
}

fn resize(controller: &File, width: NonZeroU16, height: NonZeroU16) -> Result<()> {
    let size = Winsize {
        ws_row: height.get(),
        ws_col: width.get(),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(controller.as_fd(), size)?)
}

/// Shows what the program writes until it has ended: then a read fails with EIO.
fn read(mut from: File, to: &Mutex<Screen>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes)?;
        let mut screen = lock(to);
        screen.parser.process(&bytes[..count]);
        screen.bytes.extend_from_slice(&bytes[..count]);
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    // A panic leaves it consistent.
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
