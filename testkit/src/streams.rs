//! Standard output and error that nobody reads, or that are full, and how a command ends
//! with them.

use std::fs::OpenOptions;
use std::io;
use std::process::{Command, Stdio};

/// What is at the other end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A reader.
    Reader,
    /// A pipe whose reader has gone.
    Gone,
    /// A device without room.
    Full,
}

/// Standard output and error of the runs that [`check`] makes.
const RUNS: [(End, End); 4] = [
    (End::Reader, End::Gone),
    (End::Gone, End::Reader),
    (End::Full, End::Reader),
    (End::Full, End::Full),
];

/// The one line of a command whose standard output is full.
const NO_ROOM: &str =
    "kaprobe: cannot write standard output: No space left on device (os error 28)";

/// Runs a command with all of [`RUNS`]. It has to end with `code`, or with 1 where what it
/// `writes` to standard output has no room, and to say so in a line.
///
/// # Errors
/// When it can't be started, or ends otherwise.
pub fn check(command: impl Fn() -> Command, code: i32, writes: bool) -> io::Result<()> {
    for (out, err) in RUNS {
        let mut command = command();
        command
            .stdin(Stdio::null())
            .stdout(stdio(out)?)
            .stderr(stdio(err)?);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let told = format!("{command:?}, {out:?}, {err:?}: {}\n{said}", output.status);
        let fails = out == End::Full && writes;
        let expected = if fails { 1 } else { code };
        let lines = said.lines().filter(|line| *line == NO_ROOM).count();
        let expected_lines = usize::from(fails && err == End::Reader);
        let is_wrong = output.status.code() != Some(expected)
            || lines != expected_lines
            || said.contains("Broken pipe")
            || said.contains("panicked");
        if is_wrong {
            return Err(io::Error::other(format!(
                "not exit code {expected}: {told}"
            )));
        }
    }
    Ok(())
}

fn stdio(end: End) -> io::Result<Stdio> {
    Ok(match end {
        End::Reader => Stdio::piped(),
        End::Gone => io::pipe()?.1.into(),
        End::Full => OpenOptions::new().write(true).open("/dev/full")?.into(),
    })
}
