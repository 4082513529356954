//! Writes to standard error. No other module does.
//!
//! A message is one line, prefixed with the program's name and escaped. A standard error
//! that is closed or full is not a reason to fail: what cannot be written there is lost.

use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};

use crate::text::escape;

/// What each line starts with.
const PREFIX: &str = "kaprobe: ";

/// Writes a message.
pub fn line(message: impl Display) {
    lines([message]);
}

/// Writes messages, a line each, all at once.
pub fn lines(messages: impl IntoIterator<Item = impl Display>) {
    let text: String = messages.into_iter().map(text).collect();
    // There is nowhere left to report a failure to.
    let _unwritten = io::stderr().write_all(text.as_bytes());
}

/// Writes what another kaprobe writes to its standard error, until that is closed. Its
/// lines keep their one prefix.
///
/// # Errors
/// When it cannot be read.
pub fn pass_on(from: impl Read) -> io::Result<()> {
    for message in BufReader::new(from).split(b'\n') {
        let message = message?;
        let message = String::from_utf8_lossy(&message);
        line(message.strip_prefix(PREFIX).unwrap_or(&message));
    }
    Ok(())
}

fn text(message: impl Display) -> String {
    format!("{PREFIX}{}\n", escape::message(&message.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_escaped_line() {
        assert_eq!(text("no such file"), "kaprobe: no such file\n");
        assert_eq!(text("one\ntwo\u{1b}[2J"), "kaprobe: one\\ntwo\\u{1b}[2J\n");
        let escaped = "a\\nb";
        assert_eq!(text(escaped), "kaprobe: a\\nb\n", "not escaped twice");
    }
}
