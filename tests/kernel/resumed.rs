//! A stall that ends is told while the connection is silent.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use kaprobe::model::time::TICK_MS;
use kaprobe::traffic::pair::{Path, deafen};
use kaprobe_testkit::command::run;
use kaprobe_testkit::log::{LogFile, Record, TraceLog};
use kaprobe_testkit::snapshot::inode;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{netns, snapshot};

use crate::endings::{Ends, send_byte};

/// Data is received late, in another network namespace than kaprobe's. Nothing else happens on
/// these connections: only a look at them tells. The time is that of the acknowledgement, and a
/// replay shows the same.
pub fn the_end_of_a_stall_is_told() -> Result<()> {
    netns::enter_new()?;
    let file = LogFile::new()?;
    let kaprobe = Kaprobe::trace(&["-e", "stalled,resumed,timeout", "-o", &file.path])?.ready()?;
    netns::enter_new()?;
    let mut pairs = Vec::new();
    for path in Path::ALL {
        for _ in 0..2 {
            let pair = Ends::open(path)?;
            deafen(&pair.far)?;
            send_byte(&pair.near)?;
            pairs.push(pair);
        }
    }
    let has = |step, event| {
        let records = records(&file.log()?)?;
        let of = |pair: &Ends| records.get(&(pair.local, pair.remote));
        let is_told = |pair| of(pair).is_some_and(|all| all.iter().any(|it| it.event() == event));
        Ok(pairs.iter().step_by(step).all(is_told))
    };
    wait_until("all have stalled", || has(1, "stalled"))?;
    // Every second one is received at last.
    for pair in pairs.iter().step_by(2) {
        pair.far.detach_filter()?;
    }
    wait_until("these have resumed", || has(2, "resumed"))?;
    let rows = snapshot::by_inode(snapshot::here()?)?;
    let live = kaprobe.stop()?;
    let of_pair = |pair: &Ends| {
        let records = live.records.iter();
        let is_its = |it: &&Record| {
            let ends = it.connection().map(|(_, local, remote)| (local, remote));
            ends.is_ok_and(|ends| ends == (pair.local, pair.remote))
        };
        records.filter(is_its).collect::<Vec<_>>()
    };
    for (number, pair) in pairs.iter().enumerate() {
        let records = of_pair(pair);
        let events: Vec<_> = records.iter().map(|it| it.event()).collect();
        if number % 2 == 1 {
            ensure!(events == ["stalled"], "{records:?}");
            continue;
        }
        ensure!(events == ["stalled", "resumed"], "{records:?}");
        let row = rows.get(&inode(&pair.near)?).context("not shown")?;
        let (at, age) = (row["mono_ns"].as_u64(), row["lastack_ms"].as_u64());
        let (at, age) = at.zip(age).context("no age")?;
        let acked_ms = at / 1_000_000 - age;
        let told_ms = records[1].number("mono_ns").context("no time")? / 1_000_000;
        ensure!(
            told_ms.abs_diff(acked_ms) <= 2 * TICK_MS,
            "{acked_ms}: {records:?}"
        );
        let [began, resumed] = [records[0], records[1]].map(|it| it.number("stalled_ms"));
        ensure!(resumed > began, "{records:?}");
    }
    let replayed = run(&["replay", &file.path, "--json"])?;
    ensure!(
        replayed.stdout == file.text()?.into_bytes(),
        "a replay differs"
    );
    Ok(())
}

/// The records of each connection in a log that is being written.
fn records(log: &TraceLog) -> Result<HashMap<(SocketAddr, SocketAddr), Vec<Record>>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for ((_, local, remote), records) in log.by_connection()? {
        let records = records.into_iter().cloned();
        found.entry((local, remote)).or_default().extend(records);
    }
    Ok(found)
}
