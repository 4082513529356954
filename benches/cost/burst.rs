//! Measures a burst: many timers that fire within one second.
//!
//! The kernel cannot send that many probes in a second. So the connections send data
//! first: the timers fire early (`early`), which costs the kernel little.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::Plan;
use crate::load::Holders;
use crate::loss::lost;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::tracer::TracerProcess;
use kaprobe_testkit::netns;
use kaprobe_testkit::process::Act;

/// The number of timers, two per connection.
const FIRINGS: u32 = 100_000;
/// The timeout of the timers, s. Below 16 s, at HZ = 250, the timer wheel lets them fire
/// within 256 ms of it (kernel/time/timer.c).
const SECONDS: u32 = 14;
/// The time from sending data until the timers fire.
const BEFORE: Duration = Duration::from_secs(6);
/// The time until all timers have fired and have been reported.
const AFTER: Duration = Duration::from_secs(4);

/// The possible events of a firing.
const EVENTS: [&str; 3] = ["early", "data_pending", "probe"];

/// Measures kaprobe once per round.
pub fn measure(plan: Plan) -> Result<()> {
    let mut load = Holders::start(FIRINGS / 2, SECONDS)?;
    for _ in 0..plan.rounds {
        let numbers: &[Number<'_, Burst>] = &[
            ("burst.told", "firings", &|it| it.reported),
            ("burst.lost", "firings", &|it| it.lost),
            ("burst.span", "ms", &|it| it.span.as_secs_f64() * 1e3),
        ];
        print_all("kaprobe", burst(&mut load), numbers)?;
    }
    Ok(())
}

struct Burst {
    reported: f64,
    lost: f64,
    /// The time from the first to the last reported firing.
    span: Duration,
}

fn burst(load: &mut Holders) -> Result<Burst> {
    let folder = OutputFolder::new()?;
    load.act(Act::Talk)?;
    let armed = Instant::now();
    load.act(Act::Arm)?;
    let until = |at: Duration| thread::sleep(at.saturating_sub(armed.elapsed()));
    let due = Duration::from_secs(SECONDS.into());
    let (events, own) = (EVENTS.join(","), netns::inode()?.to_string());
    let arguments = ["--json", "-e", &events, "--netns", &own];
    let tracer = TracerProcess::kaprobe(&arguments, folder.stdout()?)?;
    until(due.saturating_sub(BEFORE));
    load.act(Act::Talk)?;
    until(due + AFTER);
    tracer.stop()?;
    let mut times = Vec::new();
    let all = 0..folder.written()?;
    for line in folder.lines(all.clone())? {
        let line = line?;
        if EVENTS
            .iter()
            .any(|name| line.contains(&format!(r#""event":"{name}""#)))
        {
            let record: Value = serde_json::from_str(&line)?;
            times.push(record["mono_ns"].as_u64().context("no time")?);
        }
    }
    let (first, last) = (times.iter().min(), times.iter().max());
    let span = last.zip(first).map_or(0, |(last, first)| last - first);
    Ok(Burst {
        reported: times.len() as f64,
        lost: lost(&folder, all)? as f64,
        span: Duration::from_nanos(span),
    })
}
