//! Writes to standard error. No other module does.
//!
//! A message is one line, prefixed with the program's name and escaped. A standard error
//! that is closed or full is not a reason to fail: what cannot be written there is lost. A
//! trace does not wait for the reader of its messages: see [`never_wait`]. On a terminal, a
//! message is broken between words.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use terminal_size::{Width, terminal_size_of};

use crate::text::escape;
use crate::text::wrap::wrapped;

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

/// Messages that wait for [`release`], and how many older ones were dropped.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Default)]
struct Held {
    messages: VecDeque<String>,
    dropped: u64,
}

/// From now on messages wait for [`release`]: another part of kaprobe draws on the terminal,
/// and shows the last one itself.
pub fn hold() {
    lock(&HELD).get_or_insert_default();
}

/// The last message that waits, without the program's name.
#[must_use]
pub fn last_held() -> Option<String> {
    let held = lock(&HELD);
    let last = held.as_ref()?.messages.back()?;
    Some(last.trim_start_matches(PREFIX).trim_end().to_owned())
}

/// Writes the messages that wait. From now on none waits.
pub fn release() {
    let Some(held) = lock(&HELD).take() else {
        return;
    };
    if held.dropped > 0 {
        line(format_args!(
            "{} older messages are not shown",
            held.dropped
        ));
    }
    write_or_queue(held.messages.into_iter().collect());
}

/// Keeps messages if they wait. Returns them otherwise.
fn keep(messages: Vec<String>) -> Option<Vec<String>> {
    let mut held = lock(&HELD);
    let Some(held) = held.as_mut() else {
        return Some(messages);
    };
    for message in messages {
        if held.messages.len() == QUEUE {
            held.messages.pop_front();
            held.dropped += 1;
        }
        held.messages.push_back(message);
    }
    None
}

/// Writes a message.
pub fn line(message: impl Display) {
    lines([message]);
}

/// Writes messages, a line each, all at once.
pub fn lines(messages: impl IntoIterator<Item = impl Display>) {
    if let Some(messages) = keep(messages.into_iter().map(text).collect()) {
        write_or_queue(messages.concat());
    }
}

fn write_or_queue(text: String) {
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

/// Erases a status line and the blank line above it: goes to the first column (CR), a line up
/// (ECMA-48: CUU), and erases to the end of the screen (ED).
///
/// A terminal that is made narrower may break the status line into two. Then this erases both
/// halves. Without the blank line it would erase the line above on a terminal that breaks none.
pub const ERASE: &str = "\r\x1b[A\x1b[J";

/// Whether a status line is drawn where the next message begins.
static STATUS_LINE: AtomicBool = AtomicBool::new(false);

/// Notes that a status line is drawn on the terminal, or is not any more.
pub fn status_line_is_drawn(is_drawn: bool) {
    STATUS_LINE.store(is_drawn, Ordering::Relaxed);
}

/// Whether the status line is still there: a message erases it.
#[must_use]
pub fn is_status_line_drawn() -> bool {
    STATUS_LINE.load(Ordering::Relaxed)
}

/// Erases the status line of a terminal, if there is one. Does not wait for a terminal that
/// takes nothing.
pub fn erase_status_line() {
    let stdout = io::stdout();
    let mut fd = [PollFd::new(&stdout, PollFlags::OUT)];
    let is_ready = poll(&mut fd, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    if is_ready && STATUS_LINE.swap(false, Ordering::Relaxed) {
        // There is nowhere left to report a failure to.
        let _unerased = rustix::io::write(&stdout, ERASE.as_bytes());
    }
}

fn write(text: &str) {
    let mut stderr = io::stderr();
    let mut shown = String::new();
    if stderr.is_terminal() && STATUS_LINE.swap(false, Ordering::Relaxed) {
        shown.push_str(ERASE);
    }
    match terminal_size_of(&stderr) {
        Some((Width(columns), _)) if columns > 0 => shown.push_str(&broken(text, columns.into())),
        _ => shown.push_str(text),
    }
    // There is nowhere left to report a failure to.
    let _unwritten = stderr.write_all(shown.as_bytes());
}

/// Breaks messages between words, so that each line fits a terminal.
fn broken(messages: &str, columns: usize) -> String {
    let lines = messages.lines().map(|message| {
        let (head, message) = match message.strip_prefix(PREFIX) {
            Some(message) => (PREFIX, message),
            None => ("", message),
        };
        wrapped(head, message, columns) + "\n"
    });
    lines.collect()
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

    #[test]
    fn a_message_on_a_terminal_is_broken_between_words() {
        let messages = ["no room for UNIT: -w shows it", "short"];
        let text: String = messages.iter().map(text).collect();
        assert_eq!(
            broken(&text, 24),
            "kaprobe: no room for\n         UNIT: -w shows\n         it\nkaprobe: short\n"
        );
        assert_eq!(broken(&text, 80), text);
    }

    #[test]
    fn messages_that_wait_are_kept_and_the_oldest_dropped() {
        assert_eq!(
            keep(vec!["kaprobe: at once".to_owned()]).map(|it| it.len()),
            Some(1)
        );
        assert_eq!(last_held(), None);
        hold();
        let many = (0..QUEUE + 3).map(|n| text(format_args!("message {n}")));
        assert_eq!(keep(many.collect()), None);
        assert_eq!(last_held().as_deref(), Some("message 258"));
        let held = lock(&HELD).take();
        let held = held.map(|it| (it.messages.len(), it.dropped));
        assert_eq!(held, Some((QUEUE, 3)));
    }
}
