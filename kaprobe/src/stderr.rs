//! Writes to standard error. No other module does.
//!
//! A message is one line, prefixed with the program's name and escaped. A standard error
//! that is closed or full is not a reason to fail: what cannot be written there is lost. A
//! trace does not wait for the reader of its messages: see [`never_wait`].

use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::text::escape;

/// What each line starts with.
pub const PREFIX: &str = "kaprobe: ";
/// Most messages that wait to be written.
const QUEUE: usize = 256;
/// How long [`finish`] waits for the reader.
const LAST: Duration = Duration::from_millis(200);

/// The thread that writes, once there is one.
static WRITER: OnceLock<Writer> = OnceLock::new();

struct Writer {
    queue: Mutex<Option<SyncSender<String>>>,
    done: Mutex<Receiver<()>>,
}

/// Writes a message.
pub fn line(message: impl Display) {
    lines([message]);
}

/// Writes messages, a line each, all at once.
pub fn lines(messages: impl IntoIterator<Item = impl Display>) {
    let text: String = messages.into_iter().map(text).collect();
    let queue = WRITER.get().map(|it| lock(&it.queue));
    match queue.as_deref() {
        Some(Some(queue)) => match queue.try_send(text) {
            // The reader has stopped reading: this is lost.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        },
        Some(None) | None => write(&text),
    }
}

/// From now on no message waits until the reader of standard error reads: another thread
/// waits. If there can be none, messages wait as before. Call [`finish`] at the end.
pub fn never_wait() {
    let (queue, messages) = sync_channel::<String>(QUEUE);
    let (ended, done) = sync_channel(1);
    let writer = thread::Builder::new().name("stderr".to_owned());
    let started = writer.spawn(move || {
        messages.iter().for_each(|text| write(&text));
        // Nobody may wait any more.
        let _unheard = ended.send(());
    });
    if started.is_ok() {
        let _first = WRITER.get_or_init(|| Writer {
            queue: Mutex::new(Some(queue)),
            done: Mutex::new(done),
        });
    }
}

/// Waits until the messages are written, but not for long.
pub fn finish() {
    if let Some(writer) = WRITER.get() {
        lock(&writer.queue).take();
        // A message that is not written by now is lost.
        let _lost = lock(&writer.done).recv_timeout(LAST);
    }
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

fn write(text: &str) {
    // There is nowhere left to report a failure to.
    let _unwritten = io::stderr().write_all(text.as_bytes());
}

fn text(message: impl Display) -> String {
    format!("{PREFIX}{}\n", escape::message(&message.to_string()))
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic leaves it consistent.
    it.lock().unwrap_or_else(PoisonError::into_inner)
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
