//! Text for people: one line a record, `TIME PID COMM LADDR:LPORT RADDR:RPORT EVENT`
//! and its details, by the names that the fields have. Where there are several hosts, a
//! column after the time names them.
//!
//! Columns grow with what they hold, so that a line with short addresses fits in 80
//! columns. Every field is one word: a space in a command is written `\x20`.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::mem;

use jiff::tz::TimeZone;

use crate::model::advice::Advice;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::socket::{Endpoints, Transfer};
use crate::model::values::{Cause, Direction, Errno};
use crate::sink::clock::Clock;
use crate::sink::interface::{Encoder, Head, Sink};
use crate::sink::options::{TextStyle, TimeFormat};
use crate::sink::record_line::RecordLine;
use crate::sink::terminal::style;
use crate::text::cell::{self, NOTHING, put_endpoint, word};
use crate::text::columns::Column;
use crate::text::digits;
use crate::text::escape::Escaped;
use crate::text::units::{Ms, Put, Shown, Us};

/// Writes records as text.
pub(super) struct TextLines<W> {
    out: W,
    style: TextStyle,
    colored: bool,
    clock: Clock,
    columns: Columns,
    hosts: bool,
    line: RecordLine,
}

/// The columns before the event.
struct Columns {
    time: Column,
    host: Column,
    pid: Column,
    comm: Column,
    local: Column,
    remote: Column,
}

impl Columns {
    const fn new(style: TextStyle) -> Self {
        // An IPv4 address with its port has 21 characters at most; in brackets, an
        // IPv6 one 47.
        let (width, most) = if style.wide { (21, 47) } else { (15, 21) };
        let time = match style.time {
            TimeFormat::Clock => 12,
            TimeFormat::Rfc3339 => 30,
            TimeFormat::Unix => 20,
            TimeFormat::Mono => 16,
            TimeFormat::Relative => 10,
        };
        Self {
            time: Column::new("TIME", time).growing(30),
            host: Column::new("HOST", 8).growing(20),
            pid: Column::new("PID", 6).growing(10),
            comm: Column::new("COMM", 8).growing(15),
            local: Column::new("LADDR:LPORT", width).growing(most),
            remote: Column::new("RADDR:RPORT", width).growing(most),
        }
    }
}

impl<W: Write> TextLines<W> {
    /// A writer to `out` that shows the time of day in `zone`.
    pub(super) fn new(out: W, style: TextStyle, colored: bool, zone: TimeZone) -> Self {
        Self {
            out,
            style,
            colored,
            clock: Clock::new(style.time, zone),
            columns: Columns::new(style),
            hosts: false,
            line: RecordLine::default(),
        }
    }

    fn put_columns(&mut self, record: &Record) {
        let (line, columns, clock) = (&mut self.line, &mut self.columns, &mut self.clock);
        let hosts = self.hosts;
        columns.time.put(&mut line.text, |line| {
            clock.put(line, record.at(), hosts);
        });
        if line.begin_socket() {
            put_socket(&mut line.text, columns, record, hosts);
            line.end_socket();
        }
    }
}

/// Appends the columns that describe the socket.
fn put_socket(line: &mut String, columns: &mut Columns, record: &Record, hosts: bool) {
    if hosts {
        columns
            .host
            .put(line, |line| put_word(line, record.host.as_ref()));
    }
    let process = &record.process;
    columns.pid.put(line, |line| match process.pid {
        Some(pid) => digits::number(line, pid),
        None => line.push_str(NOTHING),
    });
    columns
        .comm
        .put(line, |line| put_word(line, process.comm.as_ref()));
    let endpoints = record.endpoints.as_ref();
    let mut put_end = |column: &mut Column, end: Option<_>| {
        column.put(line, |line| match end {
            Some(end) => put_endpoint(line, end),
            None => line.push_str(NOTHING),
        });
    };
    put_end(&mut columns.local, endpoints.map(Endpoints::local));
    put_end(&mut columns.remote, endpoints.map(Endpoints::remote));
}

/// Appends a text as one word, or [`NOTHING`].
fn put_word(line: &mut String, text: Option<&Escaped>) {
    match text {
        Some(text) => line.push_str(&word(text.as_str())),
        None => line.push_str(NOTHING),
    }
}

impl<W: Write + Send> Sink for TextLines<W> {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        self.hosts = head.hosts;
        if !self.style.heading {
            return Ok(());
        }
        self.line.begin();
        let Columns {
            time,
            host,
            pid,
            comm,
            local,
            remote,
        } = &mut self.columns;
        for column in [time, host, pid, comm, local, remote] {
            if self.hosts || column.heading != "HOST" {
                column.put_heading(&mut self.line.text);
            }
        }
        self.line.text.push_str("EVENT\n");
        self.out.write_all(self.line.text.as_bytes())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.line.begin_record(record);
        self.put_columns(record);
        let line = &mut self.line.text;
        if self.colored {
            let style = style(record.event);
            // Writing to a String cannot fail.
            let _ = write!(line, "{style}{}{style:#}", record.event.name());
        } else {
            line.push_str(record.event.name());
        }
        let mut words = Words(line);
        detail(&mut words, record);
        if self.style.wide {
            more(&mut words, record);
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Encoder for TextLines<Vec<u8>> {
    fn size(&self) -> usize {
        self.out.len()
    }

    fn swap(&mut self, next: Vec<u8>) -> Vec<u8> {
        mem::replace(&mut self.out, next)
    }

    fn twin(&self) -> Box<dyn Encoder> {
        Box::new(Self {
            clock: self.clock.twin(),
            ..Self::new(Vec::new(), self.style, self.colored, TimeZone::UTC)
        })
    }
}

/// Appends words, with a space before each.
struct Words<'a>(&'a mut String);

impl Words<'_> {
    fn add(&mut self, word: impl Put) {
        self.0.push(' ');
        word.put(self.0);
    }

    /// Appends a name and a value, where there is one.
    fn pair(&mut self, name: &str, value: Option<impl Put>) {
        if let Some(value) = value {
            self.add(name);
            self.add(value);
        }
    }

    /// Appends a word, where there is one.
    fn some(&mut self, word: Option<&str>) {
        if let Some(word) = word {
            self.add(word);
        }
    }

    /// Appends a number, and the number that it counts towards.
    fn of(&mut self, number: u32, all: u64) {
        self.add(number);
        self.0.push('/');
        all.put(self.0);
    }
}

/// The name of the event of a record, and its details, as in a line of text.
pub(crate) fn event_text(record: &Record) -> String {
    let mut text = record.event.name().to_owned();
    detail(&mut Words(&mut text), record);
    text
}

/// Appends the details of a record, as short as possible.
fn detail(words: &mut Words<'_>, record: &Record) {
    match record.event {
        EventName::Probe | EventName::ProbeCongested => {
            if let (Some(probe), Some(of)) = (record.probe, record.settings.keepalive_probes) {
                words.of(probe, of);
            }
            silence(words, record);
        }
        EventName::Answered => {
            let Some(probe) = record.probe else { return };
            words.add(probe);
            if let Some(rtt) = record.rtt_us {
                words.pair("in", Some(Us(rtt)));
                words.pair("ttl", record.ttl);
            } else if let Some(after) = record.answered_after_ms {
                words.add("in <");
                Ms(after.saturating_add(GRAIN_MS)).put(words.0);
            }
        }
        EventName::Timeout => {
            if let (Some(cause), Some(probes)) = (record.cause, record.probes_out) {
                gave_up(words, record, cause, probes);
            }
            silence(words, record);
            let err = record.err.filter(|err| *err != Errno::TIMED_OUT);
            words.pair("err", err.map(Shown));
        }
        EventName::Early => {
            silence(words, record);
            words.pair("next", record.next_ms.map(Ms));
        }
        EventName::DataPending => words.pair("unacked", record.unacked),
        EventName::FinWait2 => words.pair("to", record.to.map(|to| to.name())),
        EventName::RstSent => sent(words, record),
        EventName::FinReceived | EventName::FinSent => {
            words.some(record.state.map(|state| state.name()));
            silence(words, record);
            if let Some(sent) = record.ages.lastsnd_ms {
                words.pair("sent", Some(Ms(sent)));
                words.add("ago");
            }
            actor(words, record);
        }
        EventName::Stalled => {
            words.pair("for", record.transfer.stalled_ms.map(Ms));
            words.pair("bytes", record.transfer.unacked_bytes);
            words.pair("retransmits", record.retransmits);
            words.pair("silent before", record.transfer.silent_ms.map(Ms));
            words.pair("err", record.transfer.err_soft.map(Shown));
            words.pair("dead in", record.dead_in_ms.map(Ms));
            words.pair("by", record.dead_by.map(|by| by.name()));
        }
        EventName::Resumed => {
            words.pair("after", record.transfer.stalled_ms.map(Ms));
            words.pair("retransmits", record.retransmits);
        }
        EventName::Aborted => {
            words.some(record.state.map(|state| state.name()));
            words.pair("err", record.err.map(Shown));
            actor(words, record);
        }
        EventName::RstReceived => {
            words.some(record.state.map(|state| state.name()));
            silence(words, record);
            if let Some(sent) = record.ages.lastsnd_ms {
                words.pair("sent", Some(Ms(sent)));
                words.add("ago");
            }
            words.pair("probes", record.probes_out.filter(|&out| out > 0));
            words.pair("unacked", record.unacked.filter(|&unacked| unacked > 0));
            words.pair("ttl", record.ttl);
            let other_ttl = record.peer_ttl.filter(|&ttl| Some(ttl) != record.ttl);
            words.pair("peer's ttl", other_ttl);
            if record.from_this_host == Some(true) {
                words.add("from this host");
            }
            if record.data_received == Some(false) {
                words.add("before any data of the peer");
            }
        }
        EventName::Verdict => verdict(words, record),
        EventName::Zombie => {
            words.some(record.why.map(|why| why.name()));
            if let Some((out, of)) = record.probes_out.zip(record.settings.keepalive_probes)
                && out > 0
            {
                words.of(out.into(), of);
            }
            silence(words, record);
            words.pair("dead in", record.dead_in_ms.map(Ms));
        }
        EventName::Alive => alive(words, record),
        EventName::ChangedMeanwhile => {
            words.some(record.state.map(|state| state.name()));
            words.pair("err", record.err.map(Shown));
        }
        EventName::NotRearmed | EventName::Unclassified => {
            words.some(record.state.map(|state| state.name()));
            if record.settings.keepalive == Some(false) {
                words.add("keepalive off");
            }
        }
        EventName::Lost => {
            match record.lost {
                Some(count) => words.add(count),
                None => words.add("unknown"),
            }
            words.add(record.lost_kind.map_or("events", |kind| kind.name()));
            words.pair("of", record.hook.map(|hook| hook.name()));
            words.pair("by", record.lost_why.map(|why| why.name()));
        }
        EventName::Busy | EventName::Closed => {}
    }
}

/// Appends how many probes were answered, how soon, and the longest idle time survived.
fn alive(words: &mut Words<'_>, record: &Record) {
    let Some(alive) = record.alive.as_deref() else {
        return;
    };
    words.add(alive.probes_answered);
    words.add(if alive.probes_answered == 1 {
        "probe answered"
    } else {
        "probes answered"
    });
    match (alive.rtt_min_us, alive.rtt_max_us, alive.answered_max_ms) {
        (Some(least), Some(most), _) => {
            words.pair("in", Some(Us(least)));
            words.pair("to", Some(Us(most)));
        }
        (.., Some(most)) => {
            words.add("in <");
            Ms(most.saturating_add(GRAIN_MS)).put(words.0);
        }
        _ => {}
    }
    let since_ns = record.mono_ns.saturating_sub(alive.since_ns);
    words.pair("over", Some(Ms(since_ns / 1_000_000)));
    let survived = alive.survived_ages_ms.0.last();
    words.pair("survived", survived.map(|&ms| Ms(ms)));
}

/// Appends for how long nothing was received; and when a probe of the peer was, if one was
/// meanwhile.
fn silence(words: &mut Words<'_>, record: &Record) {
    words.pair("idle", record.ages.idle_ms.map(Ms));
    words.pair("heard", record.ages.probed_ms().map(Ms));
}

/// Appends how the kernel gave up.
fn gave_up(words: &mut Words<'_>, record: &Record, cause: Cause, probes: u8) {
    words.add(cause.name());
    let is_keepalive = record.transfer == Transfer::default();
    if is_keepalive {
        words.pair("after", Some(probes));
        words.add(if probes == 1 { "probe" } else { "probes" });
        return;
    }
    words.some(record.state.map(|state| state.name()));
    words.pair("after", record.transfer.stalled_ms.map(Ms));
    words.pair("bytes", record.transfer.unacked_bytes.filter(|&it| it > 0));
    words.pair("unsent", record.transfer.unsent_bytes.filter(|&it| it > 0));
    words.pair("retransmits", record.retransmits.filter(|&it| it > 0));
    words.pair("probes", Some(probes).filter(|&it| it > 0));
}

/// Appends the process that closed or reset the connection.
fn actor(words: &mut Words<'_>, record: &Record) {
    let (Some(pid), Some(comm)) = (record.actor.by_pid, &record.actor.by_comm) else {
        return;
    };
    words.pair("by", Some(&*word(comm.as_str())));
    words.0.push('[');
    digits::number(words.0, pid);
    words.0.push(']');
    if record.actor.by_exiting == Some(true) {
        words.add("exiting");
    }
}

/// Appends the details of a reset that this host sent.
fn sent(words: &mut Words<'_>, record: &Record) {
    words.some(record.direction.map(|direction| direction.name()));
    if record.direction == Some(Direction::Passive) {
        words.pair("to", record.flags.map(Shown));
        words.pair("len", record.len);
        words.pair("ttl", record.ttl);
        words.pair("met", record.met.map(|met| met.name()));
    }
    words.some(record.state.map(|state| state.name()));
    if let Some(reason) = &record.reason {
        words.add(&*word(reset_reason(reason.as_str())));
    }
    actor(words, record);
}

/// Appends a verdict, and what to do.
fn verdict(words: &mut Words<'_>, record: &Record) {
    words.some(record.verdict.map(|verdict| verdict.name()));
    words.pair("idle", record.ages.idle_ms.map(Ms));
    if let Some(confidence) = record.confidence {
        words.add(Shown(format_args!("({})", confidence.name())));
    }
    words.pair("fits", record.middlebox.as_ref().map(Escaped::as_str));
    let advice = record.advice.as_deref().map(Advice::text);
    for (before, text) in [(": ", advice), ("; all hosts: ", record.story.as_ref())] {
        if let Some(text) = text {
            words.0.push_str(before);
            words.0.push_str(text.as_str());
        }
    }
}

/// Appends all else that is known of the socket.
fn more(words: &mut Words<'_>, record: &Record) {
    if record.event != EventName::Early {
        words.pair("next", record.next_ms.map(Ms));
    }
    words.pair("late", record.late_ms.map(Ms));
    words.pair("ka", Settings::of(record).map(Shown));
    words.pair(
        "ut",
        record.settings.user_timeout_ms.map(|ms| Ms(ms.into())),
    );
    words.pair("state", record.state.map(|state| state.name()));
    words.pair("uid", record.identity.uid);
    let name = record.netns_name.as_ref();
    let netns = record.endpoints.map(|it| cell::netns(name, it.netns));
    words.pair("netns", netns.map(Shown));
    let workload = record.process.workload().name();
    let workload = workload.as_deref().map(word);
    words.pair("in", workload.as_deref().map(Shown));
    words.pair("cgroup", record.identity.cgroup);
    words.pair("inode", record.identity.inode);
    words.pair("cookie", record.identity.cookie);
    words.pair("sock", record.sock);
}

/// The keepalive settings in force, and who set each.
struct Settings {
    values: (u64, u64, u64),
    from: [&'static str; 3],
}

impl Settings {
    fn of(record: &Record) -> Option<Self> {
        let values = (
            record.settings.keepalive_time_ms?,
            record.settings.keepalive_intvl_ms?,
            record.settings.keepalive_probes?,
        );
        let from = [
            record.settings.keepalive_time_from?,
            record.settings.keepalive_intvl_from?,
            record.settings.keepalive_probes_from?,
        ];
        Some(Self {
            values,
            from: from.map(|origin| origin.name()),
        })
    }
}

impl Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, intvl, probes) = self.values;
        write!(
            f,
            "{}/{}/{probes} ({})",
            Ms(time),
            Ms(intvl),
            self.from.join("/")
        )
    }
}

/// The coarsest tick, HZ = 100. An answer came at most one tick after the time of the
/// last acknowledgement, and possibly long before.
const GRAIN_MS: u64 = 10;

/// The kernel's name of a reason, without the prefix that all of them have.
fn reset_reason(name: &str) -> &str {
    name.strip_prefix("SK_RST_REASON_").unwrap_or(name)
}
