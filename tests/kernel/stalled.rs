//! `kaprobe sockets` and `kaprobe audit` show a connection that is not answered, and when the
//! kernel gives up on it. The kernel confirms it.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Error, Result, ensure};
use kaprobe::model::time::TICK_MS;
use kaprobe::traffic::pair::Path;
use kaprobe_testkit::log::{self, LogFile, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::snapshot::{self, SocketsWatch};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, schema};
use serde_json::Value;

use crate::endings::{
    Ending, Ends, send_byte, shut_window, shut_window_of_orphan, unanswered, unanswered_orphan,
};

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// A connection that is not answered: its name, how to make one, and what ends it.
type StalledCase = (&'static str, fn(Path) -> Result<Ending>, &'static str);

/// Connections that live for at least a minute, and why an audit calls them dying.
const LIVING: [(StalledCase, &str); 4] = [
    (
        ("data", |path| unanswered(path, 0), "retransmission"),
        "unacknowledged",
    ),
    (
        (
            "data and TCP_USER_TIMEOUT",
            |path| unanswered(path, 60_000),
            "user_timeout",
        ),
        "unacknowledged",
    ),
    (
        ("shut window", |path| shut_window(path, 0), "zero_window"),
        "zero_window",
    ),
    (
        (
            "shut window and TCP_USER_TIMEOUT",
            |path| shut_window(path, 60_000),
            "user_timeout",
        ),
        "zero_window",
    ),
];

/// Each connection has its state, its timer and its end in `sockets`, and is dying in `audit`.
/// One that was answered is not.
pub fn dying_connections_are_shown() -> Result<()> {
    netns::enter_new()?;
    let answered = Ends::open(Path::V4)?;
    send_byte(&answered.near)?;
    let mut made = Vec::new();
    for ((name, make, ends_by), why) in LIVING {
        for path in Path::ALL {
            made.push((name, ends_by, why, make(path)?));
        }
    }
    let mut rows = HashMap::new();
    wait_until("everything was sent again several times", || {
        rows = by_ends(snapshot::here()?)?;
        let row = |it: &Ending| rows.get(&(it.local, it.remote)).context("not shown");
        let mut again = Vec::new();
        for (.., ending) in &made {
            let row = row(ending)?;
            again.push(row["retransmits"].as_u64().max(row["probes_out"].as_u64()));
        }
        Ok(again.iter().all(|times| *times >= Some(3)))
    })?;
    for (name, ends_by, why, ending) in &made {
        let row = &rows[&(ending.local, ending.remote)];
        check(row, ends_by, why).with_context(|| format!("{name}: {row}"))?;
    }
    let near = &rows[&(answered.local, answered.remote)];
    ensure!(
        near["stalled_ms"].is_null() && near["dead_in_ms"].is_null(),
        "{near}"
    );

    let output = command::run(&["audit", "--loopback", "--json", "--idle-timeout", "350s"])?;
    ensure!(output.status.code() == Some(5), "{:?}", output.status);
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    let lines = String::from_utf8(output.stdout)?;
    let lines = lines
        .lines()
        .map(|it| schema::check(&validator, it).map_err(Error::msg));
    let mut lines: Vec<_> = lines.collect::<Result<_>>()?;
    let summary = lines.pop().context("no summary")?;
    ensure!(summary["summary"]["dying"] == made.len(), "{summary}");
    let fates = by_ends(lines)?;
    for (name, _, why, ending) in &made {
        let it = &fates[&(ending.local, ending.remote)];
        ensure!(it["fate"] == "dying" && it["why"] == *why, "{name}: {it}");
        ensure!(
            it["dead_in_ms"].is_u64() && it["set"].is_null(),
            "{name}: {it}"
        );
    }
    let it = &fates[&(answered.local, answered.remote)];
    ensure!(it["fate"] == "unprotected", "{it}");
    Ok(())
}

/// Checks the row of a connection that is not answered. The kernel gives up after 15 minutes,
/// or after the user timeout; its timers are late by an eighth at most.
fn check(row: &Value, ends_by: &str, why: &str) -> Result<()> {
    let number = |name| row[name].as_u64().with_context(|| format!("no {name}"));
    let is_shut = why == "zero_window";
    ensure!(
        row["timer"] == if is_shut { "probe" } else { "on" },
        "timer"
    );
    ensure!(row["dead_by"] == ends_by, "dead_by");
    let all_ms = number("stalled_ms")? + number("dead_in_ms")?;
    let expected = match ends_by {
        "user_timeout" => 60_000..=60_000 * 9 / 8 + 1_000,
        "zero_window" => 804_000..=924_600 * 9 / 8 + 2_000,
        _ => 924_600..=(924_600 + 120_000) * 9 / 8,
    };
    ensure!(
        expected.contains(&all_ms),
        "{all_ms} is not in {expected:?}"
    );
    let (unacked, unsent) = (number("unacked_bytes")?, number("unsent_bytes")?);
    ensure!((unacked > 0) != is_shut && (unsent > 0) == is_shut, "bytes");
    ensure!(row["silent_ms"].is_null() == is_shut, "silent_ms");
    Ok(())
}

/// Rows or connections by their ends. Both ends of a connection are shown.
fn by_ends(rows: Vec<Value>) -> Result<HashMap<(SocketAddr, SocketAddr), Value>> {
    let mut found = HashMap::new();
    for row in rows {
        let ends = log::addresses(row.as_object().context("not an object")?)?;
        found.insert(ends, row);
    }
    Ok(found)
}

/// Connections that end soon.
const ENDING: [StalledCase; 7] = [
    ("data", |path| unanswered(path, 0), "retransmission"),
    (
        "data and TCP_USER_TIMEOUT",
        |path| unanswered(path, 3_000),
        "user_timeout",
    ),
    ("shut window", |path| shut_window(path, 0), "zero_window"),
    (
        "shut window and TCP_USER_TIMEOUT",
        |path| shut_window(path, 2_000),
        "user_timeout",
    ),
    ("data of an orphan", unanswered_orphan, "retransmission"),
    (
        "FIN of an orphan",
        |path| Ok(Ends::unanswered(path)?.closed()),
        "retransmission",
    ),
    (
        "shut window of an orphan",
        shut_window_of_orphan,
        "zero_window",
    ),
];

/// By how much the timers of a busy machine may be late in all, ms.
const LATE_MS: u64 = 1_000;

/// For several limits, whatever row of a connection that is not answered says the same end, and
/// the kernel gives up then.
pub fn ends_are_foretold() -> Result<()> {
    // With fewer, a late timer gives up before data is retransmitted for the third time.
    for (retries, of_orphans) in [(3, 4), (4, 3), (5, 4)] {
        // What is left of a connection may give up later, and be counted then.
        netns::enter_new()?;
        netns::set_ipv4_sysctl("tcp_retries2", retries)?;
        netns::set_ipv4_sysctl("tcp_orphan_retries", of_orphans)?;
        all_end_as_foretold().with_context(|| format!("tcp_retries2 {retries}"))?;
    }
    Ok(())
}

fn all_end_as_foretold() -> Result<()> {
    let _any = TcpListener::bind("127.0.0.1:0")?;
    let file = LogFile::new()?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-o", &file.path])?.ready()?;
    let watch = SocketsWatch::start()?;
    let mut made = Vec::new();
    for (name, make, cause) in ENDING {
        for path in Path::ALL {
            made.push((name, path, cause, make(path)?));
        }
    }
    wait_until("the kernel gave up on each connection", || {
        let log = file.log()?;
        let is_told = |ending: &Ending| {
            let mut ended = log.records.iter().filter(|it| it.event() == "timeout");
            ended.any(|it| ending.is_of(it))
        };
        Ok(made.iter().all(|(_, _, _, ending)| is_told(ending)))
    })?;
    let (rows, log) = (watch.end()?, kaprobe.stop()?);
    for (name, path, cause, ending) in &made {
        let ended = log.records.iter().filter(|it| it.event() == "timeout");
        let ended: Vec<_> = ended.filter(|it| ending.is_of(it)).collect();
        let [ended] = ended[..] else {
            anyhow::bail!("{name} {path:?}: {ended:?}");
        };
        // No tracepoint sees a window probe: `tcp_write_wakeup`, net/ipv4/tcp_output.c.
        let stalled = log.records.iter().filter(|it| it.event() == "stalled");
        let stalls = stalled.filter(|it| ending.is_of(it)).count();
        let expected = usize::from(!name.contains("window"));
        ensure!(stalls == expected, "{name} {path:?}: {stalls} stalls");
        let ends = (ending.local, ending.remote);
        let rows = rows.iter().filter(|row| {
            let addresses = row.as_object().map(log::addresses);
            let is_its = addresses.and_then(Result::ok) == Some(ends);
            // An orphan has other limits than it had before.
            is_its && row["dead_in_ms"].is_u64() && row["orphan"].as_bool() == ended.flag("orphan")
        });
        let rows: Vec<_> = rows.collect();
        ensure!(rows.len() >= 5, "{name} {path:?}: {} rows", rows.len());
        for row in rows {
            compare(row, ended, cause).with_context(|| format!("{name} {path:?}: {row}"))?;
        }
    }
    Ok(())
}

/// Compares a row with the record of the end.
fn compare(row: &Value, ended: &Record, cause: &str) -> Result<()> {
    let by = (row["dead_by"].as_str(), ended.text("cause"));
    ensure!(by == (Some(cause), Some(cause)), "{by:?}, not {cause}");
    let number = |name| row[name].as_u64().with_context(|| format!("no {name}"));
    let dead_in_ms = number("dead_in_ms")?;
    let end_ns = ended.number("mono_ns").context("no time")?;
    let took_ms = end_ns.saturating_sub(number("mono_ns")?) / 1_000_000;
    let expected = dead_in_ms.saturating_sub(5 * TICK_MS)..=dead_in_ms + LATE_MS;
    ensure!(
        expected.contains(&took_ms),
        "gave up after {took_ms} ms: {ended:?}"
    );
    Ok(())
}
