//! The owner of a socket is the process that holds it, not the process that the timer's
//! softirq interrupted.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::traffic::scenarios;
use kaprobe_testkit::{command, netns};
use socket2::SockRef;

/// The time that the timers are watched: three probes per connection.
const WATCHED: Duration = Duration::from_secs(6);

/// Several processes own sockets: started before or after the trace, and in the same or
/// in their own network and mount namespaces. Meanwhile a thread keeps a CPU busy.
pub fn owner_is_the_holding_process() -> Result<()> {
    netns::enter_new()?;
    let start = |comm: &str, own_namespaces| {
        let mut process = Process::start(Task {
            own_namespaces,
            ..Task::new(comm, &[scenarios::ENDLESS])
        })?;
        process.go()?;
        process.wait_played()?;
        Ok::<_, anyhow::Error>(process)
    };
    let mut processes = vec![start("before", false)?, start("before, apart", true)?];
    let kaprobe = Kaprobe::trace(&[])?.ready()?;
    for (comm, own_namespaces) in [
        ("after", false),
        ("after too", false),
        ("after, apart", true),
    ] {
        processes.push(start(comm, own_namespaces)?);
    }
    with_a_busy_cpu(|| thread::sleep(WATCHED))?;
    let log = kaprobe.stop()?;
    processes
        .iter()
        .try_for_each(|process| check(process, &log))?;
    processes.into_iter().try_for_each(Process::dismiss)
}

/// Records name the network namespace as `ip netns` does, live and replayed.
pub fn records_name_their_namespace() -> Result<()> {
    netns::enter_named("blue")?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("log.jsonl");
    let file = file.to_str().context("the path is not UTF-8")?;
    let kaprobe = Kaprobe::trace(&["--netns", "self", "-e", "rst_sent", "-o", file])?.ready()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (near, far) = connect_to(&listener)?;
    SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
    drop((near, far));
    let log = kaprobe.stop()?;
    ensure!(log.count(&["rst_sent"]) == 1, "{log:?}");
    for record in log.records {
        ensure!(record.text("netns_name") == Some("blue"), "{record:?}");
    }
    let replayed = command::run(&["replay", "-w", "-q", file])?;
    let text = String::from_utf8(replayed.stdout)?;
    ensure!(text.contains(" netns blue ("), "{text}");
    Ok(())
}

/// An orphan has no owner.
pub fn orphan_has_no_owner() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let kaprobe = Kaprobe::trace(&[
        "--netns",
        "/proc/self/ns/net",
        "-e",
        "data_pending,fin_wait2",
    ])?
    .ready()?;
    let mut process = Process::start(Task::new(
        "parent",
        &[scenarios::ORPHAN, scenarios::FIN_WAIT2_TIME_WAIT],
    ))?;
    process.go()?;
    process.wait_played()?;
    let log = kaprobe.stop()?;
    ensure!(log.count(&["data_pending"]) > 0, "no orphan with data");
    ensure!(log.count(&["fin_wait2"]) > 0, "no orphan in FIN_WAIT2");
    for record in &log.records {
        ensure!(
            record.flag("orphan") == Some(true)
                && record.number("pid").is_none()
                && record.text("comm").is_none(),
            "an orphan has an owner: {record:?}"
        );
    }
    process.dismiss()
}

fn check(process: &Process, log: &TraceLog) -> Result<()> {
    let comm = &process.task.comm;
    let by_connection = log.by_connection()?;
    for (_, connection) in &process.connections {
        let records = by_connection
            .get(connection)
            .with_context(|| format!("no record of {connection:?} of {comm}"))?;
        ensure!(records.len() >= 2, "{comm}: too few records: {records:?}");
        let own = |r: &&&Record| {
            r.number("pid") == Some(process.pid().into()) && r.text("comm") == Some(comm)
        };
        let other = records.iter().find(|record| !own(record));
        ensure!(
            other.is_none(),
            "owner is not {comm}, {}: {other:?}",
            process.pid()
        );
    }
    Ok(())
}

/// Keeps one CPU in user space during a function, so that timers interrupt the busy
/// thread.
#[expect(
    clippy::missing_spin_loop,
    reason = "QEMU leaves its translated code at each PAUSE (helper_pause): too slow"
)]
fn with_a_busy_cpu(run: impl FnOnce()) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        thread::Builder::new()
            .name("interrupted".into())
            .spawn_scoped(scope, || while !stop.load(Ordering::Relaxed) {})?;
        run();
        stop.store(true, Ordering::Relaxed);
        Ok(())
    })
}
