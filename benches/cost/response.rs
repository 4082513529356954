//! Measures a tracer's effect on the host: what its programs do, with and without a tracer.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kaprobe_testkit::doctor;

use crate::Plan;
use crate::host_load::{HostLoad, Played};
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Number, print_all};
use crate::script::{Form, Script};
use crate::tracer::TracerProcess;

/// The measurements per round. Many short ones, because the other load of the machine
/// changes every second.
const TIMES: u32 = 3;
/// Idle connections whose timers fire each second, and are reported. A host with 75,000
/// connections at the default interval has the same rate.
const IDLE: u32 = 1_000;
/// The time for a tracer to look up the owners of sockets.
const SETTLED: Duration = Duration::from_millis(500);

/// Measures the subjects in turn: requests and responses over loopback.
pub fn measure(plan: Plan) -> Result<()> {
    const LOAD: HostLoad = HostLoad::Requests;
    let _idle = Holders::spread(IDLE, 1)?;
    let way = doctor::best_way()?;
    for _ in 0..plan.rounds * TIMES {
        print(LOAD, "off", LOAD.play())?;
        print(LOAD, "kaprobe", kaprobe(&[]).and_then(play_traced(LOAD)))?;
        print(
            LOAD,
            "kaprobe --rtt",
            kaprobe(&["--rtt"]).and_then(play_traced(LOAD)),
        )?;
        // Includes the snapshot at the start.
        let starting = kaprobe(&[]).and_then(|_it| LOAD.play());
        print(LOAD, "kaprobe, starting", starting)?;
        let folder = OutputFolder::new()?;
        let bpftrace = Script::Facts(Form::Csv).start(&way, &[], &folder);
        print(LOAD, "bpftrace", bpftrace.and_then(play_traced(LOAD)))?;
        print_off_again(LOAD)?;
    }
    Ok(())
}

/// Measures the subjects in turn, with one of the loads that close, or send again, what
/// kaprobe's hooks see and do not report. No timer fires beside them: what is reported costs
/// what [`measure`] shows.
pub fn measure_ordinary(load: HostLoad, plan: Plan) -> Result<()> {
    for _ in 0..plan.rounds * TIMES {
        print(load, "off", load.play())?;
        print(load, "kaprobe", kaprobe(&[]).and_then(play_traced(load)))?;
        print_off_again(load)?;
    }
    Ok(())
}

/// A second run without a tracer: its difference to the first is noise.
fn print_off_again(load: HostLoad) -> Result<()> {
    print(load, "off again", load.play())
}

fn kaprobe(flags: &[&str]) -> Result<TracerProcess> {
    TracerProcess::kaprobe(&[&["--json"], flags].concat(), Stdio::null())
}

/// Plays once a tracer has finished its startup work.
fn play_traced(load: HostLoad) -> impl FnOnce(TracerProcess) -> Result<Played> {
    move |mut tracer| {
        tracer.settle()?;
        thread::sleep(SETTLED);
        load.play()
    }
}

fn print(load: HostLoad, subject: &str, played: Result<Played>) -> Result<()> {
    let [throughput, p50, p99, cpu] =
        ["throughput", "p50", "p99", "cpu"].map(|it| format!("{}.{it}", load.name()));
    let (rate, each) = match load {
        HostLoad::Requests => ("requests/s", "us/request"),
        HostLoad::Connections => ("connections/s", "us/connection"),
        HostLoad::Lossy => ("blocks/s", "us/block"),
    };
    let numbers: &[Number<'_, Played>] = &[
        (&throughput, rate, &|it| it.exchanges as f64 / it.seconds),
        (&p50, "us", &|it| it.p50_us),
        (&p99, "us", &|it| it.p99_us),
        (&cpu, each, &|it| it.cpu_us / it.exchanges as f64),
    ];
    print_all(subject, played, numbers)
}
