//! Keepalive probes of a peer count as heard.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use anyhow::{Context as _, Error, Result, ensure};
use kaprobe::model::time::TICK_MS;
use kaprobe::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::log::TraceLog;
use kaprobe_testkit::snapshot::inode;
use kaprobe_testkit::traffic::ends::set_far_keepalive;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, netns, schema, snapshot};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// A probe each second.
const EACH_SECOND: Keepalive = Keepalive::new(1, 1, 100);

/// The difference of two times that are read from ages of the same tick.
const SLACK_MS: u64 = 2 * TICK_MS;

/// The end that is probed shows when the last probe came: when the prober has its answer. An
/// audit counts that.
pub fn probes_of_the_peer_are_heard() -> Result<()> {
    netns::enter_new()?;
    let mut pairs = Vec::new();
    for path in Path::ALL {
        for side in [Side::Client, Side::Server] {
            pairs.push(Planned::bind(path)?.connect(side, EACH_SECOND)?);
        }
    }
    // Without data for twice the timeout below.
    wait_until("each end shows the last probe of its peer", || {
        let rows = snapshot::by_inode(snapshot::here()?)?;
        let seen = pairs.iter().map(|pair| shows_last_probe(&rows, pair));
        Ok(seen.collect::<Result<Vec<_>>>()?.iter().all(|&it| it))
    })?;

    let (code, fates) = audit(&["--idle-timeout", "60s"])?;
    expect(&pairs, &fates, "kept_by_peer")?;
    ensure!(code == Some(0), "exit code {code:?}");
    // One moment does not show that there is a probe each second, but that there was one.
    let (code, fates) = audit(&["--idle-timeout", "4s"])?;
    expect(&pairs, &fates, "unprotected")?;
    ensure!(code == Some(5), "exit code {code:?}");
    let (_, fates) = audit(&["--idle-timeout", "4s", "--observe", "6s"])?;
    expect(&pairs, &fates, "kept_by_peer")
}

/// Whether the far end was heard when the near end has an answer to its last probe, and
/// nothing else was received for 8 s.
fn shows_last_probe(rows: &HashMap<u64, Value>, pair: &Pair) -> Result<bool> {
    let row = |inode| rows.get(&inode).context("an end is not shown");
    let (near, far) = (row(inode(pair.near()?)?)?, row(inode(pair.far()?)?)?);
    let number = |row: &Value, name| row[name].as_u64().with_context(|| format!("{name}: {row}"));
    let at_ms = |row, age| Ok::<_, Error>(number(row, "mono_ns")? / 1_000_000 - number(row, age)?);
    let (probed_ms, answered_ms) = (at_ms(far, "heard_ms")?, at_ms(near, "lastack_ms")?);
    ensure!(number(far, "heard_ms")? <= number(far, "idle_ms")?, "{far}");
    Ok(number(far, "idle_ms")? >= 8_000 && probed_ms.abs_diff(answered_ms) <= SLACK_MS)
}

/// The exit code of an audit, and the connections by inode.
fn audit(arguments: &[&str]) -> Result<(Option<i32>, HashMap<u64, Value>)> {
    let output = command::run(&[&["audit", "--loopback", "--json"], arguments].concat())?;
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    let mut connections = HashMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let value = schema::check(&validator, line).map_err(Error::msg)?;
        if let Some(inode) = value["inode"].as_u64() {
            connections.insert(inode, value);
        }
    }
    Ok((output.status.code(), connections))
}

/// Checks that each probed end has this fate, and that each prober is safe.
fn expect(pairs: &[Pair], fates: &HashMap<u64, Value>, fate: &str) -> Result<()> {
    for pair in pairs {
        let of = |inode| fates.get(&inode).context("an end is not in the audit");
        let (near, far) = (of(inode(pair.near()?)?)?, of(inode(pair.far()?)?)?);
        ensure!(near["fate"] == "safe", "{near}");
        ensure!(far["fate"] == fate, "not {fate}: {far}");
    }
    Ok(())
}

/// A peer that answers no probe, but sends its own, is there: the connection is no zombie. Its
/// own end, to which nothing comes, is one.
pub fn a_peer_that_probes_is_no_zombie() -> Result<()> {
    netns::enter_new()?;
    let mut pairs = Vec::new();
    for path in Path::ALL {
        let pair = Planned::bind(path)?.connect(Side::Client, EACH_SECOND)?;
        set_far_keepalive(&pair, EACH_SECOND)?;
        pair.silence()?;
        pairs.push(pair);
    }
    wait_until("both ends have probes out", || {
        let rows = snapshot::by_inode(snapshot::here()?)?;
        let out = |inode| rows.get(&inode).and_then(|row| row["probes_out"].as_u64());
        let mut ends = Vec::new();
        for pair in &pairs {
            ends.extend([out(inode(pair.near()?)?), out(inode(pair.far()?)?)]);
        }
        // Long enough that they are no outage that passes.
        Ok(ends.iter().all(|&it| it >= Some(7)))
    })?;
    let log = trace_of_snapshot()?;
    let expected: Vec<_> = pairs.iter().map(|it| (it.remote, it.local)).collect();
    let mut found = Vec::new();
    for record in log.records.iter().filter(|it| it.event() == "zombie") {
        let (_, local, remote) = record.connection()?;
        found.push((local, remote));
    }
    for ends in &expected {
        ensure!(found.contains(ends), "{ends:?} is not among {found:?}");
    }
    ensure!(
        found.len() == expected.len(),
        "more than {expected:?}: {found:?}"
    );
    Ok(())
}

/// The zombies of a snapshot, by a trace that ends after it.
fn trace_of_snapshot() -> Result<TraceLog> {
    let mut child = command::kaprobe()?
        .args(["trace", "--json", "-e", "zombie"])
        .args(["--netns", "/proc/self/ns/net"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Killed)?;
    let mut err = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut line = String::new();
    while !line.starts_with("kaprobe: snapshot: ") {
        line.clear();
        ensure!(
            err.read_line(&mut line)? > 0,
            "kaprobe ended before its snapshot"
        );
    }
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let mut stdout = child.stdout.take().context("no stdout")?;
    let mut text = String::new();
    stdout.read_to_string(&mut text)?;
    TraceLog::parse(&text.lines().collect::<Vec<_>>()).context(line)
}
