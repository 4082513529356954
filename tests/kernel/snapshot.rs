//! A trace starts with a snapshot of the existing sockets: it reports zombies at once,
//! and the first event of every other socket is complete. No trace waits for its
//! snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path, Planned, Side};
use kaprobe::traffic::script::Scenario;
use kaprobe_testkit::command::run;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::log::{ConnectionId, LogFile, Record, TraceLog};
use kaprobe_testkit::netns;
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::traffic::lock::LockHeld;
use kaprobe_testkit::traffic::scenarios;
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

const HERE: [&str; 2] = ["--netns", "/proc/self/ns/net"];

/// The sysctl for the interval, s.
const INTVL: u32 = 2;

/// Starts a process and waits until it has played scenarios. It still holds its sockets.
fn start_old(plays: &[Scenario]) -> Result<Process> {
    netns::set_ipv4_sysctl("tcp_keepalive_intvl", INTVL)?;
    let mut process = Process::start(Task::new("old", plays))?;
    process.go()?;
    process.wait_played()?;
    Ok(process)
}

/// Another process has older connections: with a silent peer, with unacknowledged data,
/// and with a peer that answers.
pub fn sees_existing_sockets() -> Result<()> {
    netns::enter_new()?;
    let process = start_old(&[scenarios::ZOMBIE, scenarios::ENDLESS, scenarios::STUCK])?;
    let file = LogFile::new()?;
    let kaprobe =
        Kaprobe::trace_from_snapshot(&[&HERE, &["-e", "all", "-o", &file.path][..]].concat())?;
    let kaprobe = kaprobe.ready()?;
    let all = |scenario: Scenario| {
        process
            .connections
            .iter()
            .filter(move |it| it.0 == scenario.name)
    };
    wait_until(
        "each connection has a record, and each zombie also a probe",
        || {
            let log = file.log()?;
            let by_connection = log.by_connection()?;
            let zombies = all(scenarios::ZOMBIE).all(|(_, it)| {
                by_connection.get(it).is_some_and(|records| {
                    records.iter().any(|it| it.event() == "probe")
                        && records.iter().any(|it| it.event() == "zombie")
                })
            });
            Ok(zombies
                && process
                    .connections
                    .iter()
                    .all(|(_, it)| by_connection.contains_key(it)))
        },
    )?;
    let log = kaprobe.stop()?;
    let by_connection = log.by_connection()?;
    for (name, connection) in &process.connections {
        let records = by_connection.get(connection).context("no record")?;
        check(name, records, &process).with_context(|| format!("{name}: {records:?}"))?;
    }
    check_replay(&file)?;
    process.dismiss()
}

fn check(name: &str, records: &[&Record], process: &Process) -> Result<()> {
    for record in records {
        ensure!(record.number("pid") == Some(process.pid().into()), "pid");
        ensure!(record.text("comm") == Some("old"), "comm");
        ensure!(
            record.number("sock") == records.first().and_then(|it| it.number("sock")),
            "sock"
        );
        check_settings(name, record)?;
    }
    let zombies: Vec<_> = records.iter().filter(|it| it.event() == "zombie").collect();
    let zombie = match (name, zombies.as_slice()) {
        ("zombie", [zombie]) => zombie,
        (_, []) => return Ok(()),
        _ => anyhow::bail!("{} zombies", zombies.len()),
    };
    ensure!(zombie.text("why") == Some("probes_unanswered"), "why");
    ensure!(zombie.text("dead_by") == Some("probe_count"), "dead_by");
    let number = |field| zombie.number(field).context(field);
    let (out, intvl) = (number("probes_out")?, u64::from(INTVL) * 1_000);
    ensure!(out >= 2, "{out} probes out");
    ensure!(number("idle_ms")? >= 1_000 + intvl * (out - 1), "idle");
    let end = number("next_ms")? + (100 - out) * intvl;
    ensure!(number("dead_in_ms")? == end, "dead in {end}");
    Ok(())
}

/// Checks that a record has the settings of a scenario, with their origins.
fn check_settings(name: &str, record: &Record) -> Result<()> {
    let intvl = u64::from(INTVL) * 1_000;
    let (time, intvl, from, probes) = match name {
        "zombie" => (1_000, intvl, "sysctl", 100),
        "endless" => (1_000, 2_000, "socket", 3),
        _ => (1_000, 1_000, "socket", 3),
    };
    ensure!(record.number("keepalive_time_ms") == Some(time), "time");
    ensure!(
        record.number("keepalive_intvl_ms") == Some(intvl),
        "interval"
    );
    ensure!(record.number("keepalive_probes") == Some(probes), "count");
    ensure!(
        record.text("keepalive_intvl_from") == Some(from),
        "origin of the interval"
    );
    ensure!(
        record.text("keepalive_time_from") == Some("socket"),
        "origin of the time"
    );
    Ok(())
}

/// Checks that a replay of the log shows the same records.
fn check_replay(file: &LogFile) -> Result<()> {
    let replayed = run(&["replay", "--json", "-q", &file.path])?;
    ensure!(replayed.status.success(), "{replayed:?}");
    let records = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (log, replay) = (file.text()?, String::from_utf8(replayed.stdout)?);
    ensure!(
        records(&log) == records(&replay),
        "{log}\nis replayed as\n{replay}"
    );
    Ok(())
}

/// A process exits, and the kernel resets its sockets with unread data. When kaprobe
/// reads that event, no process holds the socket. Only the snapshot knows the owner.
pub fn names_owners_that_have_exited() -> Result<()> {
    netns::enter_new()?;
    let process = start_old(&[scenarios::ZOMBIE, scenarios::UNREAD])?;
    let file = LogFile::new()?;
    // These flags exclude earlier events, which would look up the owner.
    let events = ["-e", "zombie,rst_sent", "-o", &file.path];
    let kaprobe = Kaprobe::trace_from_snapshot(&[&HERE, &events[..]].concat())?.ready()?;
    wait_until("the snapshot was taken", || {
        Ok(file.log()?.count(&["zombie"]) > 0)
    })?;
    let (pid, connections) = (process.pid(), process.connections.clone());
    drop(process);
    let unread: Vec<_> = connections
        .iter()
        .filter(|(name, _)| name == scenarios::UNREAD.name)
        .collect();
    let resets = |log: &TraceLog| -> Result<BTreeMap<ConnectionId, Record>> {
        let resets = log
            .records
            .iter()
            .filter(|it| it.text("direction") == Some("active"));
        resets
            .map(|it| Ok((it.connection()?, it.clone())))
            .collect()
    };
    wait_until("the connections were reset", || {
        let resets = resets(&file.log()?)?;
        Ok(unread.iter().all(|(_, it)| resets.contains_key(it)))
    })?;
    let resets = resets(&kaprobe.stop()?)?;
    for (_, connection) in unread {
        let reset = resets.get(connection).context("no reset")?;
        let has_owner =
            reset.number("pid") == Some(pid.into()) && reset.text("comm") == Some("old");
        ensure!(has_owner, "owner is not old, {pid}: {reset:?}");
    }
    Ok(())
}

/// The snapshot waits for a held socket lock. The trace continues, and stops on a signal.
/// The snapshot's process exits once the lock is free.
pub fn blocked_snapshot_does_not_block_the_trace() -> Result<()> {
    netns::enter_new()?;
    let locked = Planned::bind(Path::V4)?.connect(Side::Client, Keepalive::new(1, 1, 9))?;
    let lock = LockHeld::take(locked.near()?)?;
    let file = LogFile::new()?;
    let flags = ["-e", "probe", "-o", &file.path];
    let kaprobe = Kaprobe::trace_from_snapshot(&[&HERE, &flags[..]].concat())?.ready()?;
    let mut snapshot = None;
    wait_until("the snapshot waits for the lock or has ended", || {
        snapshot = child_of(kaprobe.pid())?.or(snapshot);
        Ok(snapshot.is_some_and(|it| waits_for_a_lock(it) || has_ended(it)))
    })?;
    let snapshot = snapshot.context("no snapshot")?;
    if has_ended(snapshot) {
        // Kernels before 6.1 take no lock: `bpf_iter_tcp_seq_show`, net/ipv4/tcp_ipv4.c.
        return Err(Skip("this kernel's iterator takes no lock".into()).into());
    }
    let member = LoadMember {
        keepalive: Keepalive::new(1, 1, 9),
        answered: true,
    };
    let load = Load::open(Path::V4, Path::V4.loopback(), [member])?;
    wait_until("a probe was reported", || {
        Ok(file.log()?.count(&["probe"]) > 0)
    })?;
    kaprobe.signal(Signal::INT)?;
    let ended = kaprobe.finish()?;
    ensure!(
        waits_for_a_lock(snapshot),
        "the lock was freed before the trace ended"
    );
    ensure!(
        ended.stderr.contains("but the trace ended before it"),
        "{}",
        ended.stderr
    );
    ended.clean()?;
    lock.release()?;
    wait_until("the snapshot has ended", || Ok(has_ended(snapshot)))?;
    Ok(load.end()?)
}

/// The first child of a process, if any.
fn child_of(pid: u32) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children
        .split_whitespace()
        .next()
        .map(str::parse)
        .transpose()?)
}

/// Whether a thread of a process is in an uninterruptible sleep.
fn waits_for_a_lock(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    { tasks }.any(|task| task.is_ok_and(|it| state(&it.path()) == Some('D')))
}

fn has_ended(pid: u32) -> bool {
    matches!(
        state(format!("/proc/{pid}").as_ref()),
        None | Some('Z' | 'X')
    )
}

/// The state of a process or thread, by its folder in /proc.
fn state(folder: &FilePath) -> Option<char> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A socket that only the snapshot saw while a process held it still has that process as its
/// owner once none holds it: in FIN_WAIT1, with data that nobody acknowledges.
pub fn an_orphan_keeps_its_owner() -> Result<()> {
    netns::enter_new()?;
    let zombie = start_old(&[scenarios::ZOMBIE])?;
    let mut pair = Planned::bind(Path::V4)?.connect(Side::Client, Keepalive::SYSCTL)?;
    pair.silence()?;
    let file = LogFile::new()?;
    let kaprobe = [&HERE, &["-e", "zombie,stalled", "-o", &file.path][..]].concat();
    let kaprobe = Kaprobe::trace_from_snapshot(&kaprobe)?.ready()?;
    wait_until("the snapshot was read", || {
        Ok(file.log()?.count(&["zombie"]) > 0)
    })?;
    pair.send()?;
    pair.close();
    let is_its = |it: &&Record| {
        it.event() == "stalled" && it.number("lport") == Some(pair.local.port().into())
    };
    wait_until("the orphan is stalled", || {
        Ok(file.log()?.records.iter().any(|it| is_its(&it)))
    })?;
    let log = kaprobe.stop()?;
    let stalled = log.records.iter().find(is_its).context("no record")?;
    let is_ours = stalled.number("pid") == Some(std::process::id().into());
    ensure!(
        is_ours
            && stalled.flag("orphan") == Some(true)
            && stalled.text("state") == Some("FIN_WAIT1"),
        "{stalled:?}"
    );
    zombie.dismiss()
}
