//! What an event costs in user space: CPU time from the ring buffer to the file, and how
//! often the tracer had to be woken for it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaprobe_testkit::doctor;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::tracer::Tracer;
use crate::usage::Usage;

/// How long each subject is watched in a round.
///
/// As long as kaprobe takes an owner's word before it looks again (`RECHECK`,
/// host/owner.rs): the price of that is in the figures, once for each socket.
const WATCHED: Duration = Duration::from_secs(5);
/// How long it may find its way: owners are looked up, columns take their widths.
const SETTLED: Duration = Duration::from_secs(1);

/// What is compared: a form of output, and how to get it.
struct Contest {
    form: &'static str,
    /// What a line of kaprobe's that tells of a firing has in it. It tells of answers
    /// too; bpftrace tells of nothing else.
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
        // The log goes beside the screen.
        kaprobe: &["-o", LOG],
        bpftrace: Script::Line,
    },
];

/// Where a log goes, in the folder of the run.
const LOG: &str = "log.jsonl";

/// Measures each subject once a round.
pub fn measure(plan: Plan) -> Result<()> {
    let _load = Holders::start(plan.connections, 1)?;
    let way = doctor::best_way()?;
    for _ in 0..plan.rounds {
        for contest in &CONTESTS {
            contest.print("kaprobe", contest.kaprobe(&[]))?;
            contest.print("bpftrace", contest.bpftrace(&way, &[]))?;
        }
        let [text, ..] = &CONTESTS;
        // The very lines that bpftrace prints, and bpftrace with less to write(2).
        text.print("kaprobe, probes only", text.kaprobe(&["-e", "probe"]))?;
        text.print("bpftrace -B full", text.bpftrace(&way, &["-B", "full"]))?;
    }
    Ok(())
}

impl Contest {
    fn kaprobe(&self, more: &[&str]) -> Result<PerEvent> {
        let folder = OutputFolder::new()?;
        let log = folder.path(LOG)?;
        let arguments = self.kaprobe.iter().chain(more);
        let arguments: Vec<_> = arguments
            .map(|&it| if it == LOG { &log } else { it })
            .collect();
        let mut tracer = Tracer::kaprobe(&arguments, folder.stdout()?)?;
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

/// What it uses for the firings that it tells of, in lines that have `text` in them.
fn watch(tracer: &mut Tracer, folder: &OutputFolder, text: &str) -> Result<PerEvent> {
    tracer.settle()?;
    thread::sleep(SETTLED);
    let before = (Usage::of(tracer.pid())?, folder.written()?);
    thread::sleep(WATCHED);
    let after = (Usage::of(tracer.pid())?, folder.written()?);
    let events = folder.lines_with(text, before.1..after.1)?;
    ensure!(events > 0, "it told of no firing");
    Ok(PerEvent {
        used: after.0.since(&before.0),
        events,
    })
}

/// What was used for so many events.
struct PerEvent {
    used: Usage,
    events: usize,
}

impl PerEvent {
    fn of(&self, used: u64) -> f64 {
        used as f64 / self.events as f64
    }
}
