//! What a snapshot of many sockets takes, beside ss; and what it does to the sockets.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use aya::sys::{Stats, enable_stats};
use kaprobe_testkit::command;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::run::{self, Used};
use crate::sample::{Measure, Number, mib, print_all};
use crate::stats::ProgramStats;
use crate::tracer::{self, Tracer};
use kaprobe_testkit::netns;

/// Connections, two sockets each.
const CONNECTIONS: u32 = 25_000;
/// How many seconds their timers are apart.
const SECONDS: u32 = 10;
/// How long timers are watched for what they meet.
const WATCHED: Duration = Duration::from_secs(11);

/// Measures each subject once a round.
pub fn measure(plan: Plan) -> Result<()> {
    let _load = Holders::start(CONNECTIONS, SECONDS)?;
    for _ in 0..plan.rounds {
        print("kaprobe", snapshot(&[])?)?;
        print("kaprobe --json", snapshot(&["--json"])?)?;
        let mut ss = tracer::peer("KAPROBE_BENCH_SS")?;
        ss.arg("-tnapo");
        print("ss", ss)?;
        let measure = Measure {
            name: "sockets.locked",
            unit: "ns/socket",
        };
        measure.print("kaprobe", locked())?;
    }
    for _ in 0..plan.rounds {
        deferrals("nothing else", |_| Ok(0))?;
        deferrals("snapshots without end", |over| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                run::to_its_end(snapshot(&[])?)?;
                count += 1;
            }
            Ok(count)
        })?;
    }
    Ok(())
}

/// How long a snapshot's program runs for a socket, by the kernel's BPF statistics: so
/// long, and hardly longer, it has the socket's lock.
fn locked() -> Result<f64> {
    let _counted = enable_stats(Stats::RunTime).context("cannot turn BPF statistics on")?;
    // It waits after its snapshot, so that it can be looked at.
    let mut watching = Tracer::start(snapshot(&["--watch=1h"])?, Stdio::null())?;
    let pid = watching.pid();
    let ran = || {
        let programs = ProgramStats::of(pid)?;
        let all = programs.runs() >= u64::from(2 * CONNECTIONS);
        Ok(all.then_some(programs))
    };
    let programs = watching.until(ran)?;
    let none = ProgramStats::default();
    programs.ns_per_firing(&none).context("no socket")
}

fn snapshot(arguments: &[&str]) -> Result<Command> {
    let mut command = command::kaprobe()?;
    command.arg("sockets").args(arguments);
    Ok(command)
}

fn print(subject: &str, command: Command) -> Result<()> {
    let numbers: &[Number<'_, Used>] = &[
        ("sockets.cpu", "ms", &|it| it.cpu.as_secs_f64() * 1e3),
        ("sockets.elapsed", "ms", &|it| {
            it.elapsed.as_secs_f64() * 1e3
        }),
        ("sockets.memory", "MiB", &|it| mib(it.peak_bytes)),
    ];
    print_all(subject, run::to_its_end(command), numbers)
}

/// Of the timers that fire, how many find their socket owned (`busy`: the kernel puts
/// them off by HZ/20), while something else goes on.
fn deferrals(subject: &str, beside: impl Fn(&AtomicBool) -> Result<u64> + Sync) -> Result<()> {
    let folder = OutputFolder::new()?;
    let own = netns::inode()?.to_string();
    let arguments = ["--json", "-e", "probe,busy", "--netns", &own];
    let tracer = Tracer::kaprobe(&arguments, folder.stdout()?)?;
    let over = AtomicBool::new(false);
    let snapshots = thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&over));
        thread::sleep(WATCHED);
        over.store(true, Ordering::Relaxed);
        beside.join().map_err(|_| anyhow!("it panicked"))?
    })?;
    tracer.stop()?;
    let all = 0..folder.written()?;
    let busy = folder.lines_with(r#""event":"busy""#, all.clone())?;
    let probes = folder.lines_with(r#""event":"probe""#, all)?;
    let share = 1e6 * busy as f64 / (probes + busy) as f64;
    let print = |name, unit, value| Measure { name, unit }.print(subject, Ok(value));
    print("sockets.busy", "of a million firings", share)?;
    print("sockets.snapshots", "taken", snapshots as f64)
}
