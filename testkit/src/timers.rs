//! The sockets of this thread's network namespace and their timers, as /proc/net/tcp and
//! `ss -o` show them.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::clock::monotonic_ns;
use crate::package::Root;

/// By how much the times of two of them may differ: ticks of 10 ms, rounded, ms.
const SLACK_MS: u64 = 20;

/// Whether it is of AF_INET6; local and remote port.
pub type Key = (bool, u16, u16);

/// A socket as one of the two shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// As netstat names it.
    pub timer: &'static str,
    /// When it fires, CLOCK_MONOTONIC ms: between these.
    pub expires_ms: (u64, u64),
    /// How often the oldest segment was sent again, where that is shown.
    pub retransmits: Option<u64>,
    /// Unanswered probes, where that is shown.
    pub probes_out: Option<u64>,
    /// Bytes received and not read, bytes sent and not acknowledged.
    pub queues: (u64, u64),
}

/// All of them.
pub type Sightings = HashMap<Key, Sighting>;

impl Sighting {
    /// Whether nothing but time has passed: the timer was not set anew.
    pub fn is_steady(&self, later: &Self) -> bool {
        let counts = |it: &Self| (it.timer, it.retransmits, it.probes_out, it.queues);
        let (earliest, latest) = self.expires_with(later);
        counts(self) == counts(later) && earliest <= latest
    }

    /// When it fires, by what both say, give or take a tick.
    fn expires_with(&self, other: &Self) -> (u64, u64) {
        let earliest = self.expires_ms.0.max(other.expires_ms.0);
        let latest = self.expires_ms.1.min(other.expires_ms.1);
        (earliest.saturating_sub(SLACK_MS), latest + SLACK_MS)
    }

    /// Compares a timer's end: whether a time is when it fires.
    pub fn fires_at(&self, told_ms: u64) -> bool {
        let (earliest, latest) = self.expires_with(self);
        (earliest..=latest).contains(&told_ms)
    }

    /// Compares a row that was taken between this and a later one of the same.
    pub fn compare(&self, later: &Self, row: &Value) -> Result<()> {
        ensure!(row["timer"] == self.timer, "timer is not {}", self.timer);
        for (name, shown) in [
            ("retransmits", self.retransmits),
            ("probes_out", self.probes_out),
        ] {
            // A minisock has none.
            let told = row[name].as_u64().unwrap_or(0);
            ensure!(shown.is_none_or(|it| it == told), "{name}, not {shown:?}");
        }
        let queues = (row["recvq"].as_u64(), row["sendq"].as_u64());
        let (recvq, sendq) = self.queues;
        ensure!(
            queues == (Some(recvq), Some(sendq)) || row["state"] == "LISTEN",
            "queues, not {:?}",
            self.queues
        );
        let (earliest, latest) = self.expires_with(later);
        match expires_ms(row, "timer_ms") {
            Some(told) => ensure!(
                told >= earliest && (told <= latest || row["timer_ms"] == 0),
                "timer_ms: fires at {told}, not {earliest} to {latest}"
            ),
            None => ensure!(self.timer == "off", "no timer_ms"),
        }
        Ok(())
    }
}

/// When a timer of a row fires, by how long it has left, CLOCK_MONOTONIC ms.
pub fn expires_ms(row: &Value, left: &str) -> Option<u64> {
    let taken = row["mono_ns"].as_u64()? / 1_000_000;
    Some(taken + row[left].as_u64()?)
}

/// That of a row.
pub fn key(row: &Value) -> Result<Key> {
    let port = |name: &str| row[name].as_u64().and_then(|it| u16::try_from(it).ok());
    let ports = port("lport").zip(port("rport")).context("no ports")?;
    Ok((row["family"] == "inet6", ports.0, ports.1))
}

/// By /proc/net/tcp and tcp6.
pub fn by_proc() -> Result<Sightings> {
    let mut seen = Sightings::new();
    let before = now_ms();
    for (file, is_v6) in [("tcp", false), ("tcp6", true)] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        for line in text.lines().skip(1) {
            let (ports, sighting) = proc_line(line).with_context(|| line.to_owned())?;
            let twice = seen.insert((is_v6, ports.0, ports.1), sighting);
            ensure!(twice.is_none(), "twice: {line}");
        }
    }
    Ok(since(before, seen))
}

/// Sightings tell how long their timers have left, at least and at most, from then on, or
/// from now on: when those fire.
fn since(before: u64, mut seen: Sightings) -> Sightings {
    let now = now_ms();
    for Sighting { expires_ms, .. } in seen.values_mut() {
        let (least, most) = *expires_ms;
        // With nothing left it may be overdue.
        let earliest = if least == 0 { 0 } else { before + least };
        *expires_ms = (earliest, now + most);
    }
    seen
}

fn now_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// `get_tcp4_sock`, net/ipv4/tcp_ipv4.c.
fn proc_line(line: &str) -> Result<((u16, u16), Sighting)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[
        _,
        local,
        remote,
        _,
        queues,
        timer,
        retransmits,
        _,
        probes,
        ..,
    ] = fields.as_slice()
    else {
        bail!("too short");
    };
    let hex = |text: &str| u64::from_str_radix(text, 16);
    let halves = |text: &'static str, of: &str| -> Result<(u64, u64)> {
        let (first, second) = of.rsplit_once(':').context(text)?;
        Ok((hex(first)?, hex(second)?))
    };
    let port = |of: &str| -> Result<u16> {
        let (_, port) = of.rsplit_once(':').context("no port")?;
        Ok(u16::from_str_radix(port, 16)?)
    };
    let (timer, ticks) = halves("no timer", timer)?;
    let names = ["off", "on", "keepalive", "timewait", "probe"];
    let (sendq, recvq) = halves("no queues", queues)?;
    let sighting = Sighting {
        timer: names.get(timer as usize).context("no such timer")?,
        // USER_HZ is 100.
        expires_ms: (ticks * 10, ticks * 10 + 10),
        retransmits: Some(hex(retransmits)?),
        // Decimal, unlike the others.
        probes_out: Some(probes.parse()?),
        queues: (recvq, sendq),
    };
    Ok(((port(local)?, port(remote)?), sighting))
}

/// By `ss`, of Debian's iproute2.
pub fn by_ss(iproute2: &Root) -> Result<Sightings> {
    let before = now_ms();
    let output = iproute2.run("usr/bin/ss", &["--tcp", "-Hano"])?;
    let text = String::from_utf8(output.stdout)?;
    let mut seen = Sightings::new();
    for line in text.lines() {
        let (key, sighting) = ss_line(line).with_context(|| line.to_owned())?;
        ensure!(seen.insert(key, sighting).is_none(), "twice: {line}");
    }
    Ok(since(before, seen))
}

fn ss_line(line: &str) -> Result<(Key, Sighting)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[state, recvq, sendq, local, remote, ref more @ ..] = fields.as_slice() else {
        bail!("too short");
    };
    let port = |of: &str| -> Result<u16> {
        match of.rsplit_once(':') {
            Some((_, "*")) => Ok(0),
            Some((_, port)) => Ok(port.parse()?),
            None => bail!("no port"),
        }
    };
    let is_v6 = local.starts_with('[') || local.starts_with('*');
    let timer = more.iter().find_map(|it| it.strip_prefix("timer:("));
    let timer = timer.map(|it| it.trim_end_matches(')'));
    let mut timer = timer.into_iter().flat_map(|it| it.split(','));
    let name = match timer.next() {
        // A delayed acknowledgement, from 7.2 on: iproute2 has no name for it.
        None | Some("unknown") => "off",
        Some("persist") => "probe",
        Some("timewait") => "timewait",
        Some("keepalive") => "keepalive",
        Some("on") => "on",
        Some(other) => bail!("timer {other}"),
    };
    let expires_ms = timer.next().map(span).transpose()?.unwrap_or_default();
    let count = timer.next().map(str::parse).transpose()?;
    let sighting = Sighting {
        timer: name,
        expires_ms,
        // Of a request ss shows how many answers were sent (`inet_req_diag_fill`,
        // net/ipv4/inet_diag.c), and not, as /proc does, how many were not acknowledged.
        retransmits: count.filter(|_| name == "on" && state != "SYN-RECV"),
        probes_out: count.filter(|_| matches!(name, "keepalive" | "probe")),
        queues: (recvq.parse()?, sendq.parse()?),
    };
    Ok(((is_v6, port(local)?, port(remote)?), sighting))
}

/// A time as ss shows it, such as `119min`, `1min59sec`, `59sec`, `5.432sec` (in older ones
/// `5.432ms`), `32ms`: at least so many ms, and less than so many (`print_ms_timer`,
/// misc/ss.c).
fn span(text: &str) -> Result<(u64, u64)> {
    let (minutes, rest) = text.split_once("min").unwrap_or(("0", text));
    let minutes: u64 = minutes.parse()?;
    let is_ms = rest.ends_with("ms");
    let number = rest.trim_end_matches("sec").trim_end_matches("ms");
    let (seconds, ms) = match number.split_once('.') {
        Some((seconds, ms)) => (seconds, Some(ms)),
        None if is_ms => ("0", Some(number)),
        None if number.is_empty() => ("0", None),
        None => (number, None),
    };
    let (seconds, part): (u64, u64) = (seconds.parse()?, ms.unwrap_or("0").parse()?);
    let grain = match (minutes, ms) {
        (10.., _) => 60_000,
        (_, Some(_)) => 1,
        _ => 1000,
    };
    let least = minutes * 60_000 + seconds * 1000 + part;
    Ok((least, least + grain))
}
