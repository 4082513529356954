//! How much memory a tracer takes, by how many sockets it has seen.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kaprobe_testkit::doctor;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Measure, mib};
use crate::script::Script;
use crate::tracer::Tracer;
use crate::usage::Usage;
use kaprobe_testkit::netns;

/// How many connections, and how many seconds their timers are apart: with many of
/// them the rate is no more than a tracer can follow.
const LOADS: [(u32, u32); 2] = [(1_000, 1), (50_000, 10)];

/// Measures each subject once for each load: it is the same every time.
pub fn measure(_: Plan) -> Result<()> {
    let way = doctor::best_way()?;
    for (connections, seconds) in LOADS {
        let _load = Holders::start(connections, seconds)?;
        let measure = Measure {
            name: &format!("memory.{connections}"),
            unit: "MiB",
        };
        // Every timer has fired twice by then: an answer is known at the second firing.
        let all_seen = Duration::from_secs((2 * seconds + 1).into());
        let peak = |tracer: &Tracer| {
            thread::sleep(all_seen);
            Ok(mib(Usage::of(tracer.pid())?.peak_bytes))
        };
        // Whatever else the host has is not of the load.
        let own = netns::inode()?.to_string();
        let kaprobe = |format| {
            let arguments = ["--netns", &own, "--format", format];
            peak(&Tracer::kaprobe(&arguments, Stdio::null())?)
        };
        measure.print("kaprobe", kaprobe("text"))?;
        measure.print("kaprobe --json", kaprobe("json"))?;
        let folder = OutputFolder::new()?;
        let bpftrace = Script::Line.start(&way, &[], &folder);
        measure.print("bpftrace", bpftrace.and_then(|it| peak(&it)))?;
    }
    Ok(())
}
