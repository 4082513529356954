//! Reads a log of kaprobe: JSON lines that follow the schema.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::harness::Inconclusive;
use crate::schema;
use crate::wait::wait_until;

/// A parsed log.
#[derive(Debug)]
pub struct TraceLog {
    /// The records, in the order of the log.
    pub records: Vec<Record>,
}

/// A record of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Map<String, Value>);

/// Identifies a connection: network namespace, local address, remote address.
pub type ConnectionId = (u64, SocketAddr, SocketAddr);

impl TraceLog {
    /// Parses lines and checks each against the schema.
    pub fn parse(lines: &[impl Borrow<str>]) -> Result<Self> {
        let values = schema::check_log(&lines.join("\n")).map_err(Error::msg)?;
        let object = |value| match value {
            Value::Object(object) => Ok(Record(object)),
            _ => bail!("not an object: {value}"),
        };
        let records = values.into_iter().map(object).collect::<Result<_>>()?;
        Ok(Self { records })
    }

    /// The number of records with one of these events.
    pub fn count(&self, events: &[&str]) -> u64 {
        self.records
            .iter()
            .filter(|r| events.contains(&r.event()))
            .count() as u64
    }

    /// The number of connections that the log shows to go from ESTABLISHED or CLOSE_WAIT to
    /// CLOSE. The kernel counts them in `EstabResets`.
    pub fn ended_open_connections(&self) -> u64 {
        let ends = |it: &&Record| match it.event() {
            "rst_received" | "timeout" | "aborted" => true,
            // The record of a firing is that of its reset too.
            "rst_sent" => {
                it.text("direction") == Some("active") && it.number("firing_ns").is_none()
            }
            _ => false,
        };
        let was_open = |it: &&Record| {
            let state = it.text("state_before").or_else(|| it.text("state"));
            matches!(state, Some("ESTABLISHED" | "CLOSE_WAIT"))
        };
        self.records.iter().filter(ends).filter(was_open).count() as u64
    }

    /// Whether this log has what all of kaprobe's hooks were to see, so that it can be
    /// compared with the kernel's counters.
    ///
    /// The kernel skips a program that would interrupt itself, and a kprobe that is hit while
    /// any process's kprobe is handled on that processor, and counts it (kernel/missed.rs of
    /// kaprobe). `hook` restricts this to one hook.
    ///
    /// # Errors
    /// [`Inconclusive`] when the kernel skipped a hook.
    pub fn nothing_was_skipped(&self, hook: Option<&str>) -> Result<()> {
        let skipped = self.losses().into_iter().find(|it| {
            it.text("lost_why") == Some("missed") && (hook.is_none() || it.text("hook") == hook)
        });
        skipped.map_or(Ok(()), |it| {
            let why = format!("the kernel skipped a hook: {it:?}");
            Err(Inconclusive(why).into())
        })
    }

    /// The records of losses.
    pub fn losses(&self) -> Vec<&Record> {
        let records = self.records.iter();
        records.filter(|it| it.event() == "lost").collect()
    }

    /// How often the retransmission timer of a connection fired that the kernel gave up. The
    /// kernel counts each firing in `TCPTimeouts`, before it looks whether to give up
    /// (`tcp_retransmit_timer`, net/ipv4/tcp_timer.c): one for each retransmission, and the
    /// last. A window that is shut has another timer.
    ///
    /// Data that is acknowledged after a retransmission or two has no record: where segments
    /// are lost and sent again, no sum of records equals the counter.
    pub fn retransmission_timers(&self) -> u64 {
        let gave_up = self.records.iter().filter(|it| it.event() == "timeout");
        let retransmitted = gave_up.filter(|it| {
            let waits = it.number("unsent_bytes") > Some(0);
            it.number("firing_ns").is_none()
                && it.number("unacked_bytes").is_some()
                && !(waits && it.number("unacked_bytes") == Some(0))
        });
        retransmitted
            .filter_map(|it| Some(it.number("retransmits")? + 1))
            .sum()
    }

    /// The number of events of these kinds that are reported as lost.
    pub fn lost(&self, kinds: &[&str]) -> u64 {
        self.losses()
            .into_iter()
            .filter(|r| {
                r.text("lost_kind")
                    .is_some_and(|kind| kinds.contains(&kind))
            })
            .filter_map(|r| r.number("lost"))
            .sum()
    }

    /// The records of each connection, in the order of the log.
    pub fn by_connection(&self) -> Result<BTreeMap<ConnectionId, Vec<&Record>>> {
        let mut connections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for record in self.records.iter().filter(|r| r.has_socket()) {
            connections
                .entry(record.connection()?)
                .or_default()
                .push(record);
        }
        Ok(connections)
    }
}

/// A file that kaprobe writes its log to. It goes when this is dropped.
#[derive(Debug)]
pub struct LogFile {
    /// The path, for `-o`.
    pub path: String,
    _folder: TempDir,
}

impl LogFile {
    /// Makes a folder for the file, and not the file.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.jsonl");
        Ok(Self {
            path: path.to_str().context("the path is not UTF-8")?.to_owned(),
            _folder: folder,
        })
    }

    /// What is in the file.
    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)?)
    }

    /// The complete lines so far. Waits for the first: the header is written a moment after the
    /// hooks are attached.
    pub fn log(&self) -> Result<TraceLog> {
        let mut text = String::new();
        wait_until("the log has a header", || {
            text = self.text()?;
            Ok(text.contains('\n'))
        })?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        TraceLog::parse(&whole.lines().collect::<Vec<_>>())
    }
}

/// The local and the remote address of a record or a row.
pub fn addresses(object: &Map<String, Value>) -> Result<(SocketAddr, SocketAddr)> {
    let address = |addr, port| -> Result<SocketAddr> {
        let ip: IpAddr = get(object, addr)?.as_str().unwrap_or_default().parse()?;
        let port = get(object, port)?.as_u64().unwrap_or_default();
        Ok(SocketAddr::new(ip, u16::try_from(port)?))
    };
    Ok((address("laddr", "lport")?, address("raddr", "rport")?))
}

fn get<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a Value> {
    object
        .get(field)
        .with_context(|| format!("no {field} in {object:?}"))
}

impl Record {
    /// The name of the event.
    pub fn event(&self) -> &str {
        self.text("event").unwrap_or_default()
    }

    /// Whether the record belongs to a socket. A loss does not, and a reset in answer to
    /// a segment may not.
    fn has_socket(&self) -> bool {
        self.number("sock").is_some()
    }

    /// The value of a text field.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// The value of a number field.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    /// The value of a boolean field.
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.0.get(field)?.as_bool()
    }

    /// The connection of the record.
    pub fn connection(&self) -> Result<ConnectionId> {
        let netns = get(&self.0, "netns")?.as_u64().context("netns")?;
        let (local, remote) = addresses(&self.0)?;
        Ok((netns, local, remote))
    }

    /// The event with its main detail: `probe/2`, `timeout/probe_count`,
    /// `fin_wait2/reset`, `verdict/peer_unreachable`.
    pub fn label(&self) -> String {
        let event = self.event();
        let detail = match event {
            "probe" | "answered" => self.number("probe").map(|n| n.to_string()),
            "timeout" => self.text("cause").map(Into::into),
            "fin_wait2" => self.text("to").map(Into::into),
            "verdict" => self.text("verdict").map(Into::into),
            _ => None,
        };
        detail.map_or_else(|| event.to_owned(), |detail| format!("{event}/{detail}"))
    }

    /// The record without these fields.
    pub fn without(mut self, fields: &[&str]) -> Self {
        self.0.retain(|name, _| !fields.contains(&name.as_str()));
        self
    }
}

/// Checks a verdict, its confidence and words of its advice.
pub fn check(verdict: &Record, expected: [&str; 2], words: &[&str]) -> Result<()> {
    let found = ["verdict", "confidence"].map(|name| verdict.text(name).unwrap_or_default());
    ensure!(found == expected, "{verdict:#?}");
    let advice = verdict.text("advice").unwrap_or_default();
    for part in words {
        ensure!(advice.contains(part), "{part:?} is missing: {advice}");
    }
    Ok(())
}
