//! Measures the cost of a firing in the kernel, entry and exit together: by the kernel's
//! BPF statistics, and by the time of the whole firing.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use kaprobe_testkit::doctor;
use rustix::process::{Pid, getpid};

use crate::firing::Stopwatch;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::Measure;
use crate::script::{Form, Script};
use crate::stats::ProgramStats;
use crate::tracer::TracerProcess;
use crate::{Plan, floor};

/// Longer than every timer of the load takes to fire once. The first firing of a socket costs
/// more: the tracer puts it into its table.
const FIRST_FIRINGS: Duration = Duration::from_millis(1500);

/// The time that each subject is watched in a round.
const WATCHED: Duration = Duration::from_secs(3);

/// kaprobe's iterators over sockets and descriptors.
const ITERATORS: [&str; 2] = ["sockets", "descriptors"];

/// A port that no connection of the load has: its ports are 32768 and above.
const NO_PORT: &str = "1";

/// A tracer or program that is measured.
#[derive(Clone, Copy)]
enum Subject {
    /// Programs that do nothing.
    Floor,
    /// `kaprobe trace` with these flags, with its output discarded.
    Kaprobe(&'static [&'static str]),
    /// A bpftrace script that gathers and prints the same facts.
    Bpftrace,
}

const SUBJECTS: [(&str, Subject); 6] = [
    ("floor", Subject::Floor),
    ("kaprobe", Subject::Kaprobe(&[])),
    (
        "kaprobe, event not asked for",
        Subject::Kaprobe(&["-e", "timeout"]),
    ),
    ("kaprobe, filtered out", Subject::Kaprobe(&["-P", NO_PORT])),
    (
        "kaprobe, filtered out by -L",
        Subject::Kaprobe(&["-L", NO_PORT]),
    ),
    ("bpftrace", Subject::Bpftrace),
];

/// Measures each subject once per round, for each way to attach.
pub fn measure(plan: Plan) -> Result<()> {
    let _load = Holders::start(plan.connections, 1)?;
    let ways = doctor::ways()?;
    for _ in 0..plan.rounds {
        for way in &ways {
            programs(way)?;
            firings(way)?;
        }
    }
    Ok(())
}

/// Measures the time of the programs alone, by the kernel's statistics.
fn programs(way: &str) -> Result<()> {
    let _counted = enable_stats(Stats::RunTime).context("cannot turn BPF statistics on")?;
    let measure = Measure {
        name: &format!("in_kernel.{way}"),
        unit: "ns/firing",
    };
    for (name, subject) in SUBJECTS {
        let attached = subject.attach(way);
        let ns = attached.and_then(|attached| ns_per_firing(attached.pid()));
        measure.print(name, ns)?;
    }
    Ok(())
}

/// Measures whole firings, including the kernel's own work. The statistics are off: they
/// read the clock twice per program.
fn firings(way: &str) -> Result<()> {
    let measure = Measure {
        name: &format!("firing.{way}"),
        unit: "ns/firing",
    };
    measure.print("off", Stopwatch::new()?.ns_per_firing(WATCHED))?;
    for (name, subject) in SUBJECTS {
        let stopwatch = Stopwatch::new()?;
        let attached = subject.attach(way);
        let ns = attached.and_then(|_attached| stopwatch.ns_per_firing(WATCHED));
        measure.print(name, ns)?;
    }
    Ok(())
}

/// An attached subject: programs of this process or of a tracer. Detached when dropped.
enum AttachedSubject {
    Ours(#[expect(dead_code, reason = "only held open")] Ebpf),
    Theirs(TracerProcess),
}

impl AttachedSubject {
    fn pid(&self) -> Pid {
        match self {
            Self::Ours(_) => getpid(),
            Self::Theirs(tracer) => tracer.pid(),
        }
    }
}

impl Subject {
    fn attach(self, way: &str) -> Result<AttachedSubject> {
        let mut tracer = match self {
            Self::Floor => return Ok(AttachedSubject::Ours(floor::attach(way)?)),
            Self::Kaprobe(flags) => {
                let arguments = [&["--attach", way, "--json"], flags].concat();
                TracerProcess::kaprobe(&arguments, Stdio::null())?
            }
            Self::Bpftrace => {
                let folder = OutputFolder::new()?;
                Script::Facts(Form::Csv).start(way, &[], &folder)?
            }
        };
        tracer.settle()?;
        thread::sleep(FIRST_FIRINGS);
        Ok(AttachedSubject::Theirs(tracer))
    }
}

/// The statistics of a process's programs, but for iterators: kaprobe runs them for what it
/// knows of processes, and no firing does.
fn stats(pid: Pid) -> Result<ProgramStats> {
    let mut stats = ProgramStats::of(pid)?;
    let iterators = loaded_programs()
        .filter_map(Result::ok)
        .filter(|it| it.name_as_str().is_some_and(|it| ITERATORS.contains(&it)));
    iterators.for_each(|it| stats.leave_out(it.id()));
    Ok(stats)
}

/// The ns per firing of a process's programs, over [`WATCHED`].
fn ns_per_firing(pid: Pid) -> Result<f64> {
    let before = stats(pid)?;
    thread::sleep(WATCHED);
    let after = stats(pid)?;
    after.ns_per_firing(&before).context("no timer fired")
}
