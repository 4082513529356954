//! What a firing costs in the kernel, entry and exit together.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use rustix::process::{Pid, getpid};

use crate::Plan;
use crate::load::Holders;
use crate::place::Place;
use crate::sample::Measure;
use crate::script::{Form, Script};
use crate::stats::Snapshot;
use crate::tracer::Tracer;
use crate::{floor, ways};

/// How long each subject is watched in a round.
const WATCHED: Duration = Duration::from_secs(3);

/// A port that no connection of the load has: such are given away from 32768 on.
const NO_PORT: &str = "1";

/// Measures each subject once a round, by each way to attach.
pub fn measure(plan: Plan) -> Result<()> {
    let _counted = enable_stats(Stats::RunTime).context("cannot turn BPF statistics on")?;
    let _load = Holders::start(plan.connections, 1)?;
    let ways = ways::all()?;
    for _ in 0..plan.rounds {
        for way in &ways {
            let measure = Measure {
                name: &format!("in_kernel.{way}"),
                unit: "ns/firing",
            };
            measure.print("floor", floor(way))?;
            measure.print("kaprobe", kaprobe(way, &[]))?;
            measure.print(
                "kaprobe, event not asked for",
                kaprobe(way, &["-e", "timeout"]),
            )?;
            measure.print("kaprobe, filtered out", kaprobe(way, &["-P", NO_PORT]))?;
            measure.print("bpftrace", bpftrace(way))?;
        }
    }
    Ok(())
}

fn floor(way: &str) -> Result<f64> {
    let _attached = floor::attach(way)?;
    ns_per_firing(getpid())
}

/// `kaprobe trace` by one way, its log into nothing.
fn kaprobe(way: &str, arguments: &[&str]) -> Result<f64> {
    let arguments = [&["--attach", way, "--json"], arguments].concat();
    let tracer = Tracer::kaprobe(&arguments, Stdio::null())?;
    ns_per_firing(tracer.pid())
}

fn bpftrace(way: &str) -> Result<f64> {
    let script = Script::Facts(Form::Csv);
    let place = Place::new()?;
    let tracer = script.start(way, &[], &place)?;
    ns_per_firing(tracer.pid())
}

/// ns for each firing, over a while, of the programs of this process.
fn ns_per_firing(pid: Pid) -> Result<f64> {
    let before = Snapshot::of(pid)?;
    thread::sleep(WATCHED);
    let after = Snapshot::of(pid)?;
    after.ns_per_firing(&before).context("no timer fired")
}
