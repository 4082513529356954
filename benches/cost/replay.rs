//! Measures reading a log, compared with jq.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaprobe_testkit::command;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::run::{self, RunUsage};
use crate::sample::{Number, print_all};
use crate::tracer::{self, TracerProcess};

/// The time that the load is traced for the log. With 8,000 connections the log has
/// 100,000 records.
const TRACED: Duration = Duration::from_secs(6);

/// Measures each subject once per round, on one log.
pub fn measure(plan: Plan) -> Result<()> {
    let folder = OutputFolder::new()?;
    let log = folder.path("log.jsonl")?;
    {
        let _load = Holders::start(plan.connections, 1)?;
        let tracer = TracerProcess::kaprobe(&["-o", &log], Stdio::null())?;
        thread::sleep(TRACED);
        tracer.stop()?;
    }
    let (bytes, lines) = size(&log)?;
    for _ in 0..plan.rounds {
        for format in ["text", "json", "csv"] {
            let mut command = command::kaprobe()?;
            command.args(["replay", "--quiet", "--format", format, &log]);
            print(&format!("kaprobe to {format}"), command, bytes, lines)?;
        }
        let mut jq = tracer::peer("KAPROBE_BENCH_JQ")?;
        jq.args(["-c", ".", &log]);
        print("jq", jq, bytes, lines)?;
    }
    Ok(())
}

/// The number of bytes and of lines of a file.
fn size(path: &str) -> Result<(f64, f64)> {
    let mut buffer = vec![0; 1 << 20];
    let (mut file, mut lines) = (File::open(path)?, 0);
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        lines += buffer[..got].iter().filter(|it| **it == b'\n').count();
    }
    ensure!(lines > 1000, "a log of {lines} lines");
    Ok((fs::metadata(path)?.len() as f64, lines as f64))
}

/// Prints rates by CPU time: of one core, independent of other load.
fn print(subject: &str, command: Command, bytes: f64, lines: f64) -> Result<()> {
    let numbers: &[Number<'_, RunUsage>] = &[
        ("replay.bytes", "MB/s", &|it| {
            bytes / 1e6 / it.cpu.as_secs_f64()
        }),
        ("replay.records", "/s", &|it| lines / it.cpu.as_secs_f64()),
    ];
    print_all(subject, run::until_exit(command), numbers)
}
