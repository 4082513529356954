//! Runs commands whose standard output or error is closed or full, and checks how they
//! end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, tcflow, tcgetwinsize, tcsetwinsize};

/// The other end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    /// A pipe with a reader.
    Reader,
    /// A pipe whose reader is gone.
    Gone,
    /// A full device.
    Full,
}

/// Standard output and error of the runs that [`check`] makes.
const RUNS: [(StreamEnd, StreamEnd); 4] = [
    (StreamEnd::Reader, StreamEnd::Gone),
    (StreamEnd::Gone, StreamEnd::Reader),
    (StreamEnd::Full, StreamEnd::Reader),
    (StreamEnd::Full, StreamEnd::Full),
];

/// The error message of a command whose standard output is full.
const NO_ROOM: &str =
    "kaprobe: cannot write standard output: No space left on device (os error 28)";

/// Runs a command with each of [`RUNS`]. It must exit with `code`. If it `writes` and
/// standard output is full, it must exit with 1 and print one line about that.
///
/// # Errors
/// The command cannot be started, or ends otherwise.
pub fn check(command: impl Fn() -> Command, code: i32, writes: bool) -> io::Result<()> {
    for (out, err) in RUNS {
        let mut command = command();
        command
            .stdin(Stdio::null())
            .stdout(stdio(out)?)
            .stderr(stdio(err)?);
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let run = format!("{command:?}, {out:?}, {err:?}: {}\n{stderr}", output.status);
        let fails = out == StreamEnd::Full && writes;
        let expected = if fails { 1 } else { code };
        let lines = stderr.lines().filter(|line| *line == NO_ROOM).count();
        let expected_lines = usize::from(fails && err == StreamEnd::Reader);
        let is_wrong = output.status.code() != Some(expected)
            || lines != expected_lines
            || stderr.contains("Broken pipe")
            || stderr.contains("panicked");
        if is_wrong {
            return Err(io::Error::other(format!("not exit code {expected}: {run}")));
        }
    }
    Ok(())
}

/// A terminal that was stopped, as by Ctrl-S: see [`terminal`].
///
/// # Errors
/// The kernel has no terminal left.
pub fn stopped_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let (master, terminal) = terminal()?;
    tcflow(&terminal, Action::OOff)?;
    Ok((master, terminal))
}

/// Both ends of a terminal: the one that nobody reads, which hangs it up when closed, and
/// the one to write to.
///
/// # Errors
/// The kernel has no terminal left.
pub fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(&*name, flags, Mode::empty())?;
    Ok((master, terminal))
}

/// Both ends of a terminal of this size: see [`terminal`].
///
/// # Errors
/// The kernel has no terminal left.
pub fn sized_terminal(columns: u16, rows: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let (master, terminal) = terminal()?;
    let mut size = tcgetwinsize(&terminal)?;
    (size.ws_row, size.ws_col) = (rows, columns);
    tcsetwinsize(&terminal, size)?;
    Ok((master, terminal))
}

/// What a command shows on a terminal of this width, on both streams, with plain line ends.
///
/// # Errors
/// The command can't be run, or shows what is not UTF-8.
pub fn shown_on_terminal(mut command: Command, columns: u16) -> io::Result<String> {
    let (master, terminal) = sized_terminal(columns, 24)?;
    command.stdout(terminal.try_clone()?).stderr(terminal);
    let mut child = command.stdin(Stdio::null()).spawn()?;
    // It holds the last copies of the terminal.
    drop(command);
    let mut shown = Vec::new();
    let read = File::from(master).read_to_end(&mut shown);
    child.wait()?;
    match read {
        // What a terminal says whose other end is closed.
        Err(why) if why.raw_os_error() != Some(libc::EIO) => Err(why),
        _ => {
            let shown = String::from_utf8(shown).map_err(io::Error::other)?;
            Ok(shown.replace("\r\n", "\n"))
        }
    }
}

fn stdio(end: StreamEnd) -> io::Result<Stdio> {
    Ok(match end {
        StreamEnd::Reader => Stdio::piped(),
        StreamEnd::Gone => io::pipe()?.1.into(),
        StreamEnd::Full => OpenOptions::new().write(true).open("/dev/full")?.into(),
    })
}
