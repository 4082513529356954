//! Measures the memory of a tracer by the number of sockets that it has seen.

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
use crate::tracer::TracerProcess;
use crate::usage::Usage;
use kaprobe_testkit::netns;

/// The number of connections, and the seconds between firings of a timer. Many
/// connections fire less often, so that a tracer can follow.
const LOADS: [(u32, u32); 2] = [(1_000, 1), (50_000, 10)];

/// Measures each subject once per load: the result is the same every time.
pub fn measure(_: Plan) -> Result<()> {
    let way = doctor::best_way()?;
    for (connections, seconds) in LOADS {
        let _load = Holders::start(connections, seconds)?;
        let measure = Measure {
            name: &format!("memory.{connections}"),
            unit: "MiB",
        };
        // Every timer fires twice in this time: an answer is known at the second firing.
        let all_seen = Duration::from_secs((2 * seconds + 1).into());
        let peak = |tracer: &TracerProcess| {
            thread::sleep(all_seen);
            Ok(mib(Usage::of(tracer.pid())?.peak_bytes))
        };
        // Leaves out the host's other sockets.
        let own = netns::inode()?.to_string();
        let kaprobe = |format| {
            let arguments = ["--netns", &own, "--format", format];
            peak(&TracerProcess::kaprobe(&arguments, Stdio::null())?)
        };
        measure.print("kaprobe", kaprobe("text"))?;
        measure.print("kaprobe --json", kaprobe("json"))?;
        let folder = OutputFolder::new()?;
        let bpftrace = Script::Line.start(&way, &[], &folder);
        measure.print("bpftrace", bpftrace.and_then(|it| peak(&it)))?;
    }
    Ok(())
}
