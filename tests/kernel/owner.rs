//! The owner of a socket is the process that holds it: not the one that a softirq
//! happened to interrupt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::log::{Log, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::scenarios as is;

/// How long the processes' timers are watched: three probes of each connection.
const WATCHED: Duration = Duration::from_secs(6);

/// Sockets of several processes, one started before the trace, one in network and
/// mount namespaces of its own; meanwhile another process keeps a CPU busy.
pub fn is_who_holds_the_socket() -> Result<()> {
    netns::enter_new()?;
    let start = |comm: &str, own_namespaces| {
        let mut process = Process::start(Task {
            own_namespaces,
            ..Task::new(comm, &[is::ENDLESS])
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
    while_a_cpu_burns(|| thread::sleep(WATCHED))?;
    let log = kaprobe.stop()?;
    processes
        .iter()
        .try_for_each(|process| check(process, &log))?;
    processes.into_iter().try_for_each(Process::dismiss)
}

/// Of an orphan there is no owner to tell.
pub fn of_an_orphan_is_nobody() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let kaprobe = Kaprobe::trace(&[
        "--netns",
        "/proc/self/ns/net",
        "-e",
        "data_pending,fin_wait2",
    ])?
    .ready()?;
    let mut process = Process::start(Task::new("parent", &[is::ORPHAN, is::FIN_WAIT2_TIME_WAIT]))?;
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

fn check(process: &Process, log: &Log) -> Result<()> {
    let comm = &process.task.comm;
    let told = log.by_connection()?;
    for (_, connection) in &process.connections {
        let records = told
            .get(connection)
            .with_context(|| format!("nothing of {connection:?} of {comm}"))?;
        ensure!(records.len() >= 2, "{comm}: too little: {records:?}");
        let own = |r: &&&Record| {
            r.number("pid") == Some(process.pid().into()) && r.text("comm") == Some(comm)
        };
        let strange = records.iter().find(|record| !own(record));
        ensure!(
            strange.is_none(),
            "not of {comm}, {}: {strange:?}",
            process.pid()
        );
    }
    Ok(())
}

/// Keeps one CPU in user space all the while, so that timers interrupt this thread.
#[expect(
    clippy::missing_spin_loop,
    reason = "at each PAUSE QEMU leaves its translated code (helper_pause): it would take minutes"
)]
fn while_a_cpu_burns(run: impl FnOnce()) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        thread::Builder::new()
            .name("interrupted".into())
            .spawn_scoped(scope, || while !over.load(Ordering::Relaxed) {})?;
        run();
        over.store(true, Ordering::Relaxed);
        Ok(())
    })
}
