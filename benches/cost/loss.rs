//! How many firings a tracer can follow, and what it loses where it can't. With it, how
//! its costs grow with the sockets and their rate.

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
use crate::tracer::Tracer;
use crate::usage::Usage;
use kaprobe_testkit::netns::Counters;

/// Connections whose timers fire each second; the last are as many as two cores can
/// serve.
const STEADY: [u32; 5] = [500, 4_000, 16_000, 32_000, 54_000];
/// How long each subject is watched.
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

fn kaprobe(folder: &OutputFolder) -> Result<Tracer> {
    Tracer::kaprobe(&["--json", "-e", "all"], folder.stdout()?)
}

/// What a tracer does at a steady rate; a line that tells of a firing has a field that
/// is called `fired`.
fn steady(
    connections: u32,
    subject: &str,
    fired: &str,
    start: impl Fn(&OutputFolder) -> Result<Tracer>,
) -> Result<()> {
    let name = |what| format!("loss.{connections}.{what}");
    let numbers: &[Number<'_, Watched>] = &[
        (&name("rate"), "firings/s", &|it| it.firings / it.seconds),
        (&name("lost"), "of a million", &|it| {
            1e6 * it.lost / (it.told + it.lost)
        }),
        (&name("cpu"), "ns/event told", &|it| {
            it.used.cpu_ns as f64 / it.told
        }),
        (&name("memory"), "MiB", &|it| mib(it.used.peak_bytes)),
    ];
    print_all(subject, watch(fired, start), numbers)
}

struct Watched {
    seconds: f64,
    /// As the kernel counts them.
    firings: f64,
    /// What the tracer told of, and what it says that it has lost.
    told: f64,
    lost: f64,
    used: Usage,
}

fn watch(fired: &str, start: impl Fn(&OutputFolder) -> Result<Tracer>) -> Result<Watched> {
    let folder = OutputFolder::new()?;
    let mut tracer = start(&folder)?;
    tracer.settle()?;
    let from = folder.written()?;
    let before = (
        Usage::of(tracer.pid())?,
        Counters::read()?.keepalive,
        Instant::now(),
    );
    thread::sleep(WATCHED);
    let after = (Usage::of(tracer.pid())?, Counters::read()?.keepalive);
    let seconds = before.2.elapsed().as_secs_f64();
    let part = from..folder.written()?;
    tracer.stop()?;
    ensure!(after.1 > before.1, "no timer fired");
    let told = folder.lines_with(fired, part.clone())?;
    Ok(Watched {
        seconds,
        firings: (after.1 - before.1) as f64,
        told: told as f64,
        lost: lost(&folder, part)? as f64,
        used: after.0.since(&before.0),
    })
}

/// What a tracer says there that it has lost: kaprobe in records, bpftrace in lines.
pub fn lost(folder: &OutputFolder, part: Range<u64>) -> Result<u64> {
    let mut sum = 0;
    for line in folder.lines(part)? {
        let line = line?;
        if let Some(told) = line.strip_prefix("Lost ") {
            let count = told.split(' ').next().unwrap_or_default();
            sum += count.parse::<u64>().with_context(|| line.clone())?;
        } else if line.contains(r#""event":"lost""#) {
            let record: Value = serde_json::from_str(&line)?;
            sum += record["lost"].as_u64().context("a loss of nothing")?;
        }
    }
    Ok(sum)
}
