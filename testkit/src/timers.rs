//! Reads the timers of this thread's network namespace from /proc/net/tcp and `ss -o`.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::clock::monotonic_ns;
use crate::package::Root;

/// The allowed difference between two times in ms: both are rounded to ticks of 10 ms.
const SLACK_MS: u64 = 20;

/// Identifies a socket: whether it is AF_INET6, local port, remote port.
pub type Key = (bool, u16, u16);

/// A socket's timer and queues, as /proc/net/tcp or `ss` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// netstat's name of the timer.
    pub timer: &'static str,
    /// Bounds for the time when the timer fires, CLOCK_MONOTONIC ms.
    pub expires_ms: (u64, u64),
    /// Retransmissions of the oldest segment, if shown.
    pub retransmits: Option<u64>,
    /// Unanswered probes, if shown.
    pub probes_out: Option<u64>,
    /// Bytes received but not read, and bytes sent but not acknowledged.
    pub queues: (u64, u64),
}

/// Sightings of all sockets.
pub type Sightings = HashMap<Key, Sighting>;

impl Sighting {
    /// Whether nothing changed up to a later sighting: the timer was not rearmed.
    pub fn is_unchanged(&self, later: &Self) -> bool {
        let counts = |it: &Self| (it.timer, it.retransmits, it.probes_out, it.queues);
        let (earliest, latest) = self.common_expiry(later);
        // A timer with no time left may be the same one, or one that was rearmed since and
        // is due again.
        let is_due = self.is_due() || later.is_due();
        counts(self) == counts(later) && earliest <= latest && !is_due
    }

    /// Whether the timer has no time left.
    fn is_due(&self) -> bool {
        self.timer != "off" && self.expires_ms.0 == 0
    }

    /// Bounds for the time when the timer fires, from both sightings, with slack.
    fn common_expiry(&self, other: &Self) -> (u64, u64) {
        let earliest = self.expires_ms.0.max(other.expires_ms.0);
        let latest = self.expires_ms.1.min(other.expires_ms.1);
        (earliest.saturating_sub(SLACK_MS), latest + SLACK_MS)
    }

    /// Whether the timer may fire at this time.
    pub fn may_fire_at(&self, time_ms: u64) -> bool {
        let (earliest, latest) = self.common_expiry(self);
        (earliest..=latest).contains(&time_ms)
    }

    /// Compares a row of kaprobe with the sightings of its socket before and after it.
    pub fn compare(&self, later: &Self, row: &Value) -> Result<()> {
        ensure!(row["timer"] == self.timer, "timer is not {}", self.timer);
        for (name, shown) in [
            ("retransmits", self.retransmits),
            ("probes_out", self.probes_out),
        ] {
            // A minisock has no such field.
            let count = row[name].as_u64().unwrap_or(0);
            ensure!(shown.is_none_or(|it| it == count), "{name}, not {shown:?}");
        }
        let queues = (row["recvq"].as_u64(), row["sendq"].as_u64());
        let (recvq, sendq) = self.queues;
        ensure!(
            queues == (Some(recvq), Some(sendq)) || row["state"] == "LISTEN",
            "queues, not {:?}",
            self.queues
        );
        let (earliest, latest) = self.common_expiry(later);
        match expires_ms(row, "timer_ms") {
            Some(time) => ensure!(
                time >= earliest && (time <= latest || row["timer_ms"] == 0),
                "timer_ms: fires at {time}, not {earliest} to {latest}"
            ),
            None => ensure!(self.timer == "off", "no timer_ms"),
        }
        Ok(())
    }
}

/// The time when a timer of a row fires, CLOCK_MONOTONIC ms. `field` is its time left.
pub fn expires_ms(row: &Value, field: &str) -> Option<u64> {
    let taken = row["mono_ns"].as_u64()? / 1_000_000;
    Some(taken + row[field].as_u64()?)
}

/// The key of a row's socket.
pub fn key(row: &Value) -> Result<Key> {
    let port = |name: &str| row[name].as_u64().and_then(|it| u16::try_from(it).ok());
    let ports = port("lport").zip(port("rport")).context("no ports")?;
    Ok((row["family"] == "inet6", ports.0, ports.1))
}

/// Reads sightings from /proc/net/tcp and /proc/net/tcp6.
pub fn from_proc() -> Result<Sightings> {
    let mut sightings = Sightings::new();
    let before = now_ms();
    for (file, is_v6) in [("tcp", false), ("tcp6", true)] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
        for line in text.lines().skip(1) {
            let (ports, sighting) = proc_line(line).with_context(|| line.to_owned())?;
            let duplicate = sightings.insert((is_v6, ports.0, ports.1), sighting);
            ensure!(duplicate.is_none(), "socket seen twice: {line}");
        }
    }
    Ok(with_absolute_times(before, sightings))
}

/// Turns times left, which were read between `before` and now, into absolute times.
fn with_absolute_times(before: u64, mut sightings: Sightings) -> Sightings {
    let now = now_ms();
    for Sighting { expires_ms, .. } in sightings.values_mut() {
        let (least, most) = *expires_ms;
        // A timer with no time left may be overdue.
        let earliest = if least == 0 { 0 } else { before + least };
        *expires_ms = (earliest, now + most);
    }
    sightings
}

fn now_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// Parses a line of /proc/net/tcp (`get_tcp4_sock`, net/ipv4/tcp_ipv4.c).
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
    let halves = |error: &'static str, field: &str| -> Result<(u64, u64)> {
        let (first, second) = field.rsplit_once(':').context(error)?;
        Ok((hex(first)?, hex(second)?))
    };
    let port = |address: &str| -> Result<u16> {
        let (_, port) = address.rsplit_once(':').context("no port")?;
        Ok(u16::from_str_radix(port, 16)?)
    };
    let (timer, ticks) = halves("no timer", timer)?;
    let names = ["off", "on", "keepalive", "timewait", "probe"];
    let (sendq, recvq) = halves("no queues", queues)?;
    let sighting = Sighting {
        timer: names.get(timer as usize).context("unknown timer")?,
        // USER_HZ is 100.
        expires_ms: (ticks * 10, ticks * 10 + 10),
        retransmits: Some(hex(retransmits)?),
        // Decimal, unlike the other fields.
        probes_out: Some(probes.parse()?),
        queues: (recvq, sendq),
    };
    Ok(((port(local)?, port(remote)?), sighting))
}

/// Reads sightings from `ss` of Debian's iproute2.
pub fn from_ss(iproute2: &Root) -> Result<Sightings> {
    let before = now_ms();
    let output = iproute2.run("usr/bin/ss", &["--tcp", "-Hano"])?;
    let text = String::from_utf8(output.stdout)?;
    let mut sightings = Sightings::new();
    for line in text.lines() {
        let (key, sighting) = ss_line(line).with_context(|| line.to_owned())?;
        let duplicate = sightings.insert(key, sighting);
        ensure!(duplicate.is_none(), "socket seen twice: {line}");
    }
    Ok(with_absolute_times(before, sightings))
}

fn ss_line(line: &str) -> Result<(Key, Sighting)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[state, recvq, sendq, local, remote, ref more @ ..] = fields.as_slice() else {
        bail!("too short");
    };
    let port = |address: &str| -> Result<u16> {
        match address.rsplit_once(':') {
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
        // A delayed acknowledgement, since 7.2. iproute2 has no name for it.
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
        // For a request socket, ss shows the SYN-ACKs sent (`inet_req_diag_fill`,
        // net/ipv4/inet_diag.c). /proc shows those that were not acknowledged.
        retransmits: count.filter(|_| name == "on" && state != "SYN-RECV"),
        probes_out: count.filter(|_| matches!(name, "keepalive" | "probe")),
        queues: (recvq.parse()?, sendq.parse()?),
    };
    Ok(((is_v6, port(local)?, port(remote)?), sighting))
}

/// Parses a time of ss: `119min`, `1min59sec`, `59sec`, `5.432sec` (older versions print
/// `5.432ms`), `32ms`. Returns a lower bound and an exclusive upper bound in ms
/// (`print_ms_timer`, misc/ss.c).
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
