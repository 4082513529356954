//! Measures the cost of an event in user space: CPU time from the ring buffer to the
//! file, and wake-ups of the tracer.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::agent::Agent;
use kaprobe_testkit::doctor;
use kaprobe_testkit::netns::KernelCounters;
use rustix::process::Pid;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::tracer::TracerProcess;
use crate::usage::Usage;

/// The time that each subject is watched in a round. It contains one check of each owner: they
/// are 5, 10, 20, 40 and then 60 s apart while nothing changes (`RECHECK_S`,
/// owners/processes.rs). So the results contain more checks than a long trace has.
const WATCHED: Duration = Duration::from_secs(10);
/// The time between two looks whether an agent is ready.
const TICK: Duration = Duration::from_millis(100);
/// The time for a tracer to take its snapshot, to look up and to check owners, and to set column
/// widths.
const SETTLED: Duration = Duration::from_secs(10);

/// A comparison of kaprobe with bpftrace in one form of output.
struct Contest {
    form: &'static str,
    /// A text that only kaprobe's lines for firings contain. Kaprobe also reports
    /// answers; bpftrace reports only firings.
    probe: &'static str,
    kaprobe: &'static [&'static str],
    bpftrace: Script,
}

const CONTESTS: [Contest; 4] = [
    Contest {
        form: "text",
        probe: " probe ",
        kaprobe: &[],
        bpftrace: Script::Line,
    },
    Contest {
        form: "json",
        probe: r#""event":"probe""#,
        kaprobe: &["--json"],
        bpftrace: Script::Facts(Form::Json),
    },
    Contest {
        form: "csv",
        probe: ",probe,",
        kaprobe: &["--format", "csv"],
        bpftrace: Script::Facts(Form::Csv),
    },
    Contest {
        form: "text+json",
        probe: " probe ",
        // Writes a log in addition to standard output.
        kaprobe: &["-o", LOG],
        bpftrace: Script::Line,
    },
];

/// The name of a log in the run's folder.
const LOG: &str = "log.jsonl";

/// Measures each subject once per round.
pub fn measure(plan: Plan) -> Result<()> {
    // Together, they would be more than a processor's backlog: probes would get no answer.
    let _load = Holders::spread(plan.connections, 1)?;
    let way = doctor::best_way()?;
    for _ in 0..plan.rounds {
        for contest in &CONTESTS {
            contest.print("kaprobe", contest.kaprobe(&[]))?;
            contest.print("bpftrace", contest.bpftrace(&way, &[]))?;
        }
        let [text, ..] = &CONTESTS;
        // kaprobe with the same lines as bpftrace, and bpftrace with fewer calls of
        // write(2).
        text.print("kaprobe, probes only", text.kaprobe(&["-e", "probe"]))?;
        text.print("kaprobe agent", agent())?;
        text.print("bpftrace -B full", text.bpftrace(&way, &["-B", "full"]))?;
    }
    Ok(())
}

impl Contest {
    fn kaprobe(&self, flags: &[&str]) -> Result<PerEvent> {
        let folder = OutputFolder::new()?;
        let log = folder.path(LOG)?;
        let arguments = self.kaprobe.iter().chain(flags);
        let arguments: Vec<_> = arguments
            .map(|&it| if it == LOG { &log } else { it })
            .collect();
        let mut tracer = TracerProcess::kaprobe(&arguments, folder.stdout()?)?;
        watch(&mut tracer, &folder, self.probe)
    }

    fn bpftrace(&self, way: &str, options: &[&str]) -> Result<PerEvent> {
        let folder = OutputFolder::new()?;
        let mut tracer = self.bpftrace.start(way, options, &folder)?;
        watch(&mut tracer, &folder, "")
    }

    fn print(&self, subject: &str, used: Result<PerEvent>) -> Result<()> {
        let (name, per_1000) = (
            |what| format!("user_space.{what}.{}", self.form),
            "per 1000 events",
        );
        let numbers: &[Number<'_, PerEvent>] = &[
            (&name("cpu"), "ns/event", &|it| it.of(it.used.cpu_ns)),
            (&name("waits"), per_1000, &|it| 1e3 * it.of(it.used.waits)),
            (&name("preemptions"), per_1000, &|it| {
                1e3 * it.of(it.used.preemptions)
            }),
        ];
        print_all(subject, used, numbers)
    }
}

/// Measures an agent that records into a folder and is not scraped, per probe of the kernel's
/// own count.
fn agent() -> Result<PerEvent> {
    let folder = OutputFolder::new()?;
    let kept = folder.path("kept")?;
    let agent = Agent::start(&["--dir", &kept, "--netns", "/proc/self/ns/net"])?;
    let pid = Pid::from_raw(i32::try_from(agent.pid())?).context("no pid")?;
    while agent.get("/readyz")?.status != 200 {
        thread::sleep(TICK);
    }
    thread::sleep(SETTLED);
    let read = || anyhow::Ok((Usage::of(pid)?, KernelCounters::read()?.keepalive));
    let before = read()?;
    thread::sleep(WATCHED);
    let after = read()?;
    Ok(PerEvent {
        used: after.0.since(&before.0),
        events: usize::try_from(after.1 - before.1)?,
    })
}

/// Measures a tracer per reported firing. The lines of firings contain `text`.
fn watch(tracer: &mut TracerProcess, folder: &OutputFolder, text: &str) -> Result<PerEvent> {
    tracer.settle()?;
    thread::sleep(SETTLED);
    let before = (Usage::of(tracer.pid())?, folder.written()?);
    thread::sleep(WATCHED);
    let after = (Usage::of(tracer.pid())?, folder.written()?);
    let events = folder.lines_with(text, before.1..after.1)?;
    ensure!(events > 0, "the tracer reported no firing");
    Ok(PerEvent {
        used: after.0.since(&before.0),
        events,
    })
}

/// The usage for a number of events.
struct PerEvent {
    used: Usage,
    events: usize,
}

impl PerEvent {
    fn of(&self, used: u64) -> f64 {
        used as f64 / self.events as f64
    }
}
