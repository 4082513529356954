//! Measures how long a tracer takes to start and to stop: wall-clock time and CPU time.
//!
//! The load fires all the time, so the kernel's timestamp of the first event shows when
//! tracing started. Timers of one second fire in batches 32 ms apart at HZ = 250 (the
//! timer wheel's second level, kernel/time/timer.c). That is the resolution of the
//! result.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use kaprobe_testkit::doctor;
use serde_json::Value;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::stats::ProgramStats;
use crate::tracer::TracerProcess;
use crate::usage::Usage;

/// The longest time that the kernel may take to free programs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The measurements of a subject per round. One takes a second.
const TIMES: u32 = 4;

/// Measures the subjects in turn.
pub fn measure(plan: Plan) -> Result<()> {
    let _load = Holders::spread(plan.connections, 1)?;
    let way = doctor::best_way()?;
    for _ in 0..plan.rounds * TIMES {
        print("kaprobe", kaprobe())?;
        print("bpftrace", bpftrace(&way))?;
    }
    Ok(())
}

fn print(subject: &str, times: Result<Times>) -> Result<()> {
    let numbers: &[Number<'_, Times>] = &[
        ("start.elapsed", "ms", &|it| it.start.as_secs_f64() * 1e3),
        ("start.cpu", "ms", &|it| it.start_cpu.as_secs_f64() * 1e3),
        ("stop.elapsed", "ms", &|it| it.stop.as_secs_f64() * 1e3),
    ];
    print_all(subject, times, numbers)
}

struct Times {
    /// The time from exec to the first event.
    start: Duration,
    /// The CPU time until the tracer is ready: kaprobe reports that, bpftrace prints the
    /// first event.
    start_cpu: Duration,
    /// The time from SIGINT until the kernel has freed all programs of the tracer.
    stop: Duration,
}

fn kaprobe() -> Result<Times> {
    let folder = OutputFolder::new()?;
    let tracer = TracerProcess::kaprobe(&["--json", "-e", "probe"], folder.stdout()?)?;
    let used = Usage::of(tracer.pid())?;
    times(tracer, used, &folder, |output| {
        // The first line is the header.
        let record: Value = serde_json::from_str(output.lines().nth(1)?).ok()?;
        record["mono_ns"].as_u64()
    })
}

fn bpftrace(way: &str) -> Result<Times> {
    let folder = OutputFolder::new()?;
    let tracer = Script::Facts(Form::Csv).start(way, &[], &folder)?;
    let used = Usage::of(tracer.pid())?;
    times(tracer, used, &folder, |output| {
        let (first, _) = output.split_once(',')?;
        first.parse().ok()
    })
}

/// Measures a tracer. `first` reads the time of the first event from its output.
fn times(
    mut tracer: TracerProcess,
    used: Usage,
    folder: &OutputFolder,
    first: impl Fn(&str) -> Option<u64>,
) -> Result<Times> {
    let first = tracer.until(|| Ok(first(&folder.read()?)))?;
    let start = Duration::from_nanos(first).checked_sub(tracer.started());
    let programs = ProgramStats::of(tracer.pid())?;
    let stopped = Instant::now();
    tracer.stop()?;
    while loaded_programs().any(|it| it.is_ok_and(|it| programs.has(it.id()))) {
        ensure!(
            stopped.elapsed() < DEADLINE,
            "the tracer's programs stay in the kernel"
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Times {
        start: start.context("the first event is older than the tracer")?,
        start_cpu: Duration::from_nanos(used.cpu_ns),
        stop: stopped.elapsed(),
    })
}
