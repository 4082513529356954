//! Measures a snapshot of many sockets, compared with ss, and its effect on the sockets.

use std::io::{self, Read as _};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::sys::{Stats, enable_stats};
use kaprobe_testkit::command;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::run::{self, RunUsage};
use crate::sample::{Measure, Number, mib, print_all};
use crate::stats::ProgramStats;
use crate::tracer::{self, TracerProcess};
use kaprobe_testkit::netns;

/// The number of connections, with two sockets each.
const CONNECTIONS: u32 = 25_000;
/// The seconds between firings of a timer.
const SECONDS: u32 = 10;
/// The time that firings are watched.
const WATCHED: Duration = Duration::from_secs(11);

/// Measures each subject once per round.
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
        deferrals("snapshots without end", |stop| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                run::until_exit(snapshot(&[])?)?;
                count += 1;
            }
            Ok(count)
        })?;
    }
    Ok(())
}

/// The time that a snapshot's program runs per socket, by the kernel's BPF statistics. It
/// holds the socket's lock for hardly longer.
fn locked() -> Result<f64> {
    let _counted = enable_stats(Stats::RunTime).context("cannot turn BPF statistics on")?;
    // kaprobe waits in its last rows until they are read, so that its statistics can be read.
    let (rows, stdout) = io::pipe()?;
    let mut taker = TracerProcess::start(snapshot(&["--json"])?, stdout.into())?;
    let pid = taker.pid();
    let ran = || {
        ensure!((&rows).read(&mut [0; 1 << 16])? > 0, "the snapshot is over");
        let programs = ProgramStats::of(pid)?;
        let all = programs.runs() >= u64::from(2 * CONNECTIONS);
        Ok(all.then_some(programs))
    };
    let programs = taker.until(ran)?;
    let none = ProgramStats::default();
    programs.ns_per_firing(&none).context("no socket")
}

fn snapshot(arguments: &[&str]) -> Result<Command> {
    let mut command = command::kaprobe()?;
    command.arg("sockets").args(arguments);
    Ok(command)
}

fn print(subject: &str, command: Command) -> Result<()> {
    let numbers: &[Number<'_, RunUsage>] = &[
        ("sockets.cpu", "ms", &|it| it.cpu.as_secs_f64() * 1e3),
        ("sockets.elapsed", "ms", &|it| {
            it.elapsed.as_secs_f64() * 1e3
        }),
        ("sockets.memory", "MiB", &|it| mib(it.peak_bytes)),
    ];
    print_all(subject, run::until_exit(command), numbers)
}

/// Measures how many firings find their socket owned while a load runs. That event is
/// `busy`: the kernel defers the timer by HZ/20.
fn deferrals(subject: &str, load: impl Fn(&AtomicBool) -> Result<u64> + Sync) -> Result<()> {
    let folder = OutputFolder::new()?;
    let own = netns::inode()?.to_string();
    let arguments = ["--json", "-e", "probe,busy", "--netns", &own];
    let tracer = TracerProcess::kaprobe(&arguments, folder.stdout()?)?;
    let stop = AtomicBool::new(false);
    let snapshots = thread::scope(|scope| {
        let load = scope.spawn(|| load(&stop));
        thread::sleep(WATCHED);
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow!("the load panicked"))?
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
