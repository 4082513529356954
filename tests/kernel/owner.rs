//! The owner of a socket is the process that holds it, not the process that the timer's
//! softirq interrupted.

use std::net::{TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, mem, thread};

use anyhow::{Context, Result, ensure};
use kaprobe_testkit::clock::monotonic_ns;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::holder::{self, Holder};
use kaprobe_testkit::log::{LogFile, Record, TraceLog};
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::traffic::scenarios;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, doctor, netns};
use socket2::{SockRef, TcpKeepalive};

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

/// A socket has one owner, which gets another name, executes a program, and passes the socket
/// to another process.
pub fn sole_owner_is_followed() -> Result<()> {
    let (near, _far) = quiet_connection()?;
    let mut follower = Follower::start()?;
    let mut first = Holder::start()?;
    first.pass(&near)?;
    drop(near);
    follower.owned_by((first.pid(), None), Reported::ByFunction)?;
    first.rename()?;
    follower.owned_by((first.pid(), Some(holder::RENAMED)), Reported::ByTracepoint)?;
    let given = first.give()?;
    let mut second = Holder::start()?;
    second.pass(&given)?;
    drop(given);
    follower.owned_by((second.pid(), None), Reported::ByFunction)?;
    second.execute()?;
    follower.owned_by(
        (second.pid(), Some(holder::EXECUTED)),
        Reported::ByTracepoint,
    )?;
    follower.check()
}

/// Two processes own a socket, and one ends. The other forks, and closes what its child has
/// too.
pub fn owners_of_shared_sockets_are_followed() -> Result<()> {
    let (near, _far) = quiet_connection()?;
    let (mut first, mut second) = (Holder::start()?, Holder::start()?);
    if second.pid() < first.pid() {
        mem::swap(&mut first, &mut second);
    }
    first.pass(&near)?;
    second.pass(&near)?;
    drop(near);
    let mut follower = Follower::start()?;
    follower.owned_by((first.pid(), None), Reported::ByTracepoint)?;
    drop(first);
    follower.owned_by((second.pid(), None), Reported::ByTracepoint)?;
    let child = second.fork()?;
    follower.owned_by((second.pid().min(child), None), Reported::Never)?;
    second.close()?;
    follower.owned_by((child, None), Reported::Never)?;
    follower.check()
}

/// A connection in a network namespace of its own, which the near end probes every second.
fn quiet_connection() -> Result<(TcpStream, TcpStream)> {
    netns::enter_new()?;
    let (near, far) = connect_to(&TcpListener::bind("127.0.0.1:0")?)?;
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    SockRef::from(&near).set_tcp_keepalive(&keepalive)?;
    Ok((near, far))
}

/// What reports a change of a socket's owner.
#[derive(Clone, Copy, Debug)]
enum Reported {
    /// A tracepoint.
    ByTracepoint,
    /// The hook of a function by fentry, which nothing else replaces.
    ByFunction,
    /// Nothing.
    Never,
}

/// A time in which a socket has one owner.
#[derive(Debug)]
struct Step {
    /// From then until then, CLOCK_MONOTONIC ns.
    time: RangeInclusive<u64>,
    pid: u32,
    /// The name of the owner, if it matters.
    comm: Option<&'static str>,
    reported: Reported,
}

/// Traces the probes of one connection in each way to attach, and compares the owners.
struct Follower {
    traces: Vec<(String, Kaprobe, LogFile)>,
    /// Changes of owners are reported here.
    sees_changes: bool,
    steps: Vec<Step>,
}

impl Follower {
    fn start() -> Result<Self> {
        let sees_changes = doctor::owner_changes()? != "/proc";
        ensure!(
            sees_changes || env::var_os("KAPROBE_IN_VM").is_none(),
            "changes of owners are not reported in a virtual machine"
        );
        let mut traces = Vec::new();
        for way in doctor::ways()? {
            let file = LogFile::new()?;
            let filters = ["--netns", "self", "-e", "probe"];
            let output = ["--attach", &way, "-o", &file.path];
            let kaprobe = Kaprobe::trace(&[&filters[..], &output].concat())?;
            traces.push((way, kaprobe.ready()?, file));
        }
        Ok(Self {
            traces,
            sees_changes,
            steps: Vec::new(),
        })
    }

    /// Waits until each trace names a new owner. It must be the owner already.
    fn owned_by(
        &mut self,
        (pid, comm): (u32, Option<&'static str>),
        reported: Reported,
    ) -> Result<()> {
        let since = monotonic_ns();
        let mut step = Step {
            time: since..=u64::MAX,
            pid,
            comm,
            reported,
        };
        for (way, _, file) in &self.traces {
            wait_until("a record names the new owner", || {
                Ok(file.log()?.records.iter().any(|it| step.names_owner(it)))
            })
            .with_context(|| format!("by {way}: {step:?}"))?;
        }
        step.time = since..=monotonic_ns();
        self.steps.push(step);
        Ok(())
    }

    /// Checks that no other owner was named: in no record if its change was reported,
    /// otherwise in none after the first that named the new owner.
    fn check(self) -> Result<()> {
        for (way, kaprobe, file) in self.traces {
            kaprobe.stop()?;
            let log = file.log()?;
            for step in &self.steps {
                let is_reported = match step.reported {
                    Reported::ByTracepoint => self.sees_changes,
                    Reported::ByFunction => self.sees_changes && way == "fentry",
                    Reported::Never => false,
                };
                let of_step = log.records.iter().filter(|it| step.is_at(it));
                let mut named = of_step.skip_while(|it| !is_reported && !step.names_owner(it));
                let other = named.find(|it| !step.names_owner(it));
                ensure!(other.is_none(), "by {way}: {step:?}, but {other:?}");
            }
        }
        Ok(())
    }
}

impl Step {
    fn is_at(&self, record: &Record) -> bool {
        let time = record.number("mono_ns");
        record.event() == "probe" && time.is_some_and(|it| self.time.contains(&it))
    }

    fn names_owner(&self, record: &Record) -> bool {
        self.is_at(record)
            && record.number("pid") == Some(self.pid.into())
            && self
                .comm
                .is_none_or(|comm| record.text("comm") == Some(comm))
    }
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
