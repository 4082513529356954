//! A log that kaprobe wrote: JSON lines, each as the schema says.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Error, Result, bail};
use serde_json::{Map, Value};

use crate::schema;

/// A log.
#[derive(Debug)]
pub struct Log {
    /// The records, in the order of the log.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Map<String, Value>);

/// Which connection, from the near end: network namespace, local and remote address.
pub type Connection = (u64, SocketAddr, SocketAddr);

impl Log {
    /// Parses lines, and checks each against the schema.
    pub fn parse(lines: &[impl Borrow<str>]) -> Result<Self> {
        let values = schema::check_log(&lines.join("\n")).map_err(Error::msg)?;
        let object = |value| match value {
            Value::Object(object) => Ok(Record(object)),
            _ => bail!("no object: {value}"),
        };
        let records = values.into_iter().map(object).collect::<Result<_>>()?;
        Ok(Self { records })
    }

    /// How many records are of one of these events.
    pub fn count(&self, events: &[&str]) -> u64 {
        self.records
            .iter()
            .filter(|r| events.contains(&r.event()))
            .count() as u64
    }

    /// How many events of one of these kinds are reported as lost.
    pub fn lost(&self, kinds: &[&str]) -> u64 {
        self.records
            .iter()
            .filter(|r| r.event() == "lost")
            .filter(|r| {
                r.text("lost_kind")
                    .is_some_and(|kind| kinds.contains(&kind))
            })
            .filter_map(|r| r.number("lost"))
            .sum()
    }

    /// The records of each connection, in the order of the log.
    pub fn by_connection(&self) -> Result<BTreeMap<Connection, Vec<&Record>>> {
        let mut connections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for record in self.records.iter().filter(|r| r.is_of_a_socket()) {
            connections
                .entry(record.connection()?)
                .or_default()
                .push(record);
        }
        Ok(connections)
    }
}

/// Local and remote address of what is told of a socket.
pub fn ends(told: &Map<String, Value>) -> Result<(SocketAddr, SocketAddr)> {
    let end = |addr, port| -> Result<SocketAddr> {
        let ip: IpAddr = get(told, addr)?.as_str().unwrap_or_default().parse()?;
        let port = get(told, port)?.as_u64().unwrap_or_default();
        Ok(SocketAddr::new(ip, u16::try_from(port)?))
    };
    Ok((end("laddr", "lport")?, end("raddr", "rport")?))
}

fn get<'a>(told: &'a Map<String, Value>, field: &str) -> Result<&'a Value> {
    told.get(field)
        .with_context(|| format!("no {field} in {told:?}"))
}

impl Record {
    /// Its event.
    pub fn event(&self) -> &str {
        self.text("event").unwrap_or_default()
    }

    /// Whether it tells of a socket: a loss is nobody's, and what answers a segment
    /// needs none.
    fn is_of_a_socket(&self) -> bool {
        self.number("sock").is_some()
    }

    /// A field that holds text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// A field that holds a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    /// A field that holds yes or no.
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.0.get(field)?.as_bool()
    }

    /// Its connection.
    pub fn connection(&self) -> Result<Connection> {
        let netns = get(&self.0, "netns")?.as_u64().context("netns")?;
        let (local, remote) = ends(&self.0)?;
        Ok((netns, local, remote))
    }

    /// The event, and what tells it from others of its name: `probe/2`,
    /// `timeout/probe_count`, `fin_wait2/reset`, `verdict/peer_unreachable`.
    pub fn told(&self) -> String {
        let event = self.event();
        let more = match event {
            "probe" | "answered" => self.number("probe").map(|n| n.to_string()),
            "timeout" => self.text("cause").map(Into::into),
            "fin_wait2" => self.text("to").map(Into::into),
            "verdict" => self.text("verdict").map(Into::into),
            _ => None,
        };
        more.map_or_else(|| event.to_owned(), |more| format!("{event}/{more}"))
    }

    /// Without the fields that depend on when a program ran, or on the trace.
    pub fn without(mut self, fields: &[&str]) -> Self {
        self.0.retain(|name, _| !fields.contains(&name.as_str()));
        self
    }
}
