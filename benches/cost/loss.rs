//! Measures how many firings per second a tracer can follow, how many it loses, and how
//! its costs grow with the number of sockets.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::doctor;
use serde_json::Value;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, mib, print_all};
use crate::script::{Form, Script};
use crate::tracer::TracerProcess;
use crate::usage::Usage;
use kaprobe_testkit::netns::KernelCounters;

/// Numbers of connections whose timers fire each second. The last is the most that two
/// cores can serve.
const STEADY: [u32; 5] = [500, 4_000, 16_000, 32_000, 54_000];
/// The time that each subject is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Measures each subject at each rate.
pub fn measure(plan: Plan) -> Result<()> {
    let way = doctor::best_way()?;
    for connections in STEADY {
        let _load = Holders::start(connections, 1)?;
        for _ in 0..plan.rounds {
            steady(connections, "kaprobe", "late_ms", kaprobe)?;
            steady(connections, "bpftrace", "probes_out_after", |folder| {
                Script::Facts(Form::Json).start(&way, &[], folder)
            })?;
        }
    }
    Ok(())
}

fn kaprobe(folder: &OutputFolder) -> Result<TracerProcess> {
    TracerProcess::kaprobe(&["--json", "-e", "all"], folder.stdout()?)
}

/// Measures a tracer at a steady rate. `fired` is a field that only the lines of firings
/// have.
fn steady(
    connections: u32,
    subject: &str,
    fired: &str,
    start: impl Fn(&OutputFolder) -> Result<TracerProcess>,
) -> Result<()> {
    let name = |what| format!("loss.{connections}.{what}");
    let numbers: &[Number<'_, WatchResult>] = &[
        (&name("rate"), "firings/s", &|it| it.firings / it.seconds),
        (&name("lost"), "of a million", &|it| {
            1e6 * it.lost / (it.reported + it.lost)
        }),
        (&name("cpu"), "ns/event told", &|it| {
            it.used.cpu_ns as f64 / it.reported
        }),
        (&name("memory"), "MiB", &|it| mib(it.used.peak_bytes)),
    ];
    print_all(subject, watch(fired, start), numbers)
}

struct WatchResult {
    seconds: f64,
    /// The kernel's count.
    firings: f64,
    /// Firings that the tracer reported, and firings that it reported as lost.
    reported: f64,
    lost: f64,
    used: Usage,
}

fn watch(
    fired: &str,
    start: impl Fn(&OutputFolder) -> Result<TracerProcess>,
) -> Result<WatchResult> {
    let folder = OutputFolder::new()?;
    let mut tracer = start(&folder)?;
    tracer.settle()?;
    let from = folder.written()?;
    let before = (
        Usage::of(tracer.pid())?,
        KernelCounters::read()?.keepalive,
        Instant::now(),
    );
    thread::sleep(WATCHED);
    let after = (Usage::of(tracer.pid())?, KernelCounters::read()?.keepalive);
    let seconds = before.2.elapsed().as_secs_f64();
    let part = from..folder.written()?;
    tracer.stop()?;
    ensure!(after.1 > before.1, "no timer fired");
    let reported = folder.lines_with(fired, part.clone())?;
    Ok(WatchResult {
        seconds,
        firings: (after.1 - before.1) as f64,
        reported: reported as f64,
        lost: lost(&folder, part)? as f64,
        used: after.0.since(&before.0),
    })
}

/// The number of events that a tracer reports as lost: kaprobe in records, bpftrace in
/// lines.
pub fn lost(folder: &OutputFolder, part: Range<u64>) -> Result<u64> {
    let mut sum = 0;
    for line in folder.lines(part)? {
        let line = line?;
        if let Some(rest) = line.strip_prefix("Lost ") {
            let count = rest.split(' ').next().unwrap_or_default();
            sum += count.parse::<u64>().with_context(|| line.clone())?;
        } else if line.contains(r#""event":"lost""#) {
            let record: Value = serde_json::from_str(&line)?;
            sum += record["lost"]
                .as_u64()
                .context("a `lost` record without a count")?;
        }
    }
    Ok(sum)
}
