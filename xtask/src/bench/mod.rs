//! Compares the cost of kaprobe with other tools: `cargo xtask bench`.
//!
//! `benches/cost` measures, on this host or in virtual machines. This module turns its
//! samples into a table of medians and ranges, and into a file for later comparison.
//! Only ratios within one run mean anything, because a machine is never idle.

mod bars;
mod samples;
mod table;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::arch::Arch;
use crate::bench::samples::{Run, Sample};
use crate::process::say;
use crate::vm::{Guest, Machine, Verdict, series};
use crate::{apt, programs, workspace};

/// A program to compare kaprobe with.
struct Peer {
    /// The Debian package of the program.
    package: &'static str,
    /// The path of the program in the installed package.
    program: &'static str,
    /// The environment variable that tells `benches/cost` how to run the program.
    variable: &'static str,
}

const PEERS: [Peer; 3] = [
    Peer {
        package: "bpftrace",
        program: "/usr/bin/bpftrace",
        variable: "KAPROBE_BENCH_BPFTRACE",
    },
    Peer {
        package: "jq",
        program: "/usr/bin/jq",
        variable: "KAPROBE_BENCH_JQ",
    },
    Peer {
        package: "iproute2",
        program: "/usr/bin/ss",
        variable: "KAPROBE_BENCH_SS",
    },
];

/// A measurement; `benches/cost` has a module with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Measurement {
    /// Cost of a firing in the kernel, for each way to attach
    InKernel,
    /// CPU time and wake-ups per event, for each format
    UserSpace,
    /// Resident memory, with 1,000 and with 50,000 sockets
    Memory,
    /// Losses, CPU time and memory, as the number of sockets and their rate grow
    Loss,
    /// Effect of 100,000 firings within a second
    Burst,
    /// Time from exec to the first event, and to exit
    Start,
    /// Throughput and latency of requests over loopback, with and without a tracer
    Response,
    /// The same with 5,000 connections opened and closed a second
    Connections,
    /// The same with one segment in a hundred lost
    Lossy,
    /// Records and bytes per second of replay, next to jq
    Replay,
    /// Snapshot of 50,000 sockets, next to ss; its effect on their timers
    Sockets,
    /// Refresh of `top` with 50,000 sockets, next to a snapshot; time until a key is answered
    Top,
    /// What the agent takes with 10,000 idle connections
    Agent,
}

/// Options of `cargo xtask bench`. The default kernel is this host's.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure [default: all; with --kernel, in_kernel]
    #[arg(value_name = "NAME")]
    measurements: Vec<Measurement>,
    #[command(flatten)]
    kernels: series::Choice,
    #[command(flatten)]
    machine: Machine,
    /// Number of connections whose keepalive timer fires each second
    #[arg(long, default_value_t = 8_000, value_name = "N")]
    connections: u32,
    /// Number of rounds; each measures every subject once
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,
    /// Write the figures here, as JSON [default: target/xtask/bench.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show each ratio of this earlier run next to the new one
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

/// Measures, prints the tables, and writes the figures to a file.
pub fn run(args: &Args) -> Result<ExitCode> {
    let earlier = args.compare.as_deref().map(read).transpose()?;
    let runs = if args.kernels.is_given() {
        guests(args)?
    } else {
        vec![host(args)?]
    };
    let text = serde_json::to_string_pretty(&runs)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => workspace::cache("bench.json"),
    };
    fs::write(&output, text).with_context(|| format!("cannot write {}", output.display()))?;
    for run in &runs {
        let before = earlier
            .iter()
            .flatten()
            .find(|before| before.kernel == run.kernel);
        writeln!(io::stdout(), "{}", table::render(run, before))?;
    }
    say(format_args!("the figures are in {}", output.display()));
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<Run>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} holds no figures of a bench", path.display()))
}

/// The arguments of `benches/cost`.
///
/// Guests are emulated. By default they measure only `in_kernel`, because this host's
/// kernel may lack a way to attach.
fn arguments(args: &Args) -> Vec<String> {
    let names = match args.measurements.as_slice() {
        [] if args.kernels.is_given() => &[Measurement::InKernel],
        [] => Measurement::value_variants(),
        names => names,
    };
    let numbers = [args.connections, args.rounds].map(|it| it.to_string());
    let names = names.iter().filter_map(ValueEnum::to_possible_value);
    ["measure".to_owned()]
        .into_iter()
        .chain(numbers)
        .chain(names.map(|name| name.get_name().to_owned()))
        .collect()
}

fn host(args: &Args) -> Result<Run> {
    let (kaprobe, cost) = build(Arch::HOST)?;
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&cost)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env").arg(&cost);
        sudo
    };
    command
        .args(arguments(args))
        .env("KAPROBE_BIN", &kaprobe)
        .stdout(Stdio::piped());
    for peer in &PEERS {
        command.env(peer.variable, words(&peer.unpacked()?));
    }
    let kernel = rustix::system::uname();
    let kernel = format!("Linux {} (this host)", kernel.release().to_string_lossy());
    say(format_args!("measuring on {kernel}"));
    let mut child = command.spawn().context("cannot run the bench")?;
    let stdout = BufReader::new(child.stdout.take().context("the bench has no output")?);
    let mut output = Vec::new();
    for line in stdout.lines() {
        let line = line?;
        say(&line);
        output.extend_from_slice(line.as_bytes());
        output.push(b'\n');
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status} from the bench");
    }
    collect(kernel, args, &output)
}

fn guests(args: &Args) -> Result<Vec<Run>> {
    let (kaprobe, cost) = build(args.kernels.arch)?;
    let mut command = vec!["/bin/cost".to_owned()];
    command.extend(arguments(args));
    let mut environment = vec![("KAPROBE_BIN", "/bin/kaprobe")];
    environment.extend(PEERS.iter().map(|peer| (peer.variable, peer.program)));
    let guest = Guest {
        files: vec![(kaprobe, "/bin/kaprobe".into()), (cost, "/bin/cost".into())],
        packages: PEERS.iter().map(|peer| peer.package.into()).collect(),
        environment,
        command,
        ..Guest::default()
    };
    let mut runs = Vec::new();
    for series in args.kernels.series() {
        let kernel = series.kernel()?;
        say(format_args!("measuring on {kernel}, emulated"));
        let mut output = Vec::new();
        let ready = guest.prepare(&kernel, &series.name.to_string(), &args.machine)?;
        match ready.boot(&mut output, &mut io::stderr())? {
            Verdict::Exited(0) => {}
            failure => bail!("{failure}"),
        }
        runs.push(collect(format!("{kernel} (emulated)"), args, &output)?);
    }
    Ok(runs)
}

fn collect(kernel: String, args: &Args, output: &[u8]) -> Result<Run> {
    let text = std::str::from_utf8(output).context("the output of the bench is not UTF-8")?;
    let samples: Vec<Sample> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the output of the bench is not JSON")?;
    Ok(Run::new(kernel, args.connections, &samples))
}

/// Builds kaprobe and `benches/cost`, for this host and guests; returns their paths.
fn build(arch: Arch) -> Result<(PathBuf, PathBuf)> {
    say("building kaprobe and the bench");
    let (kaprobe, built) = programs::beside_kaprobe("build", &["--bench", "cost"], arch)?;
    let cost = built.into_iter().find(|it| it.name == "cost");
    Ok((kaprobe, cost.context("cargo built no bench")?.path))
}

impl Peer {
    /// The command line of the unpacked program, run by its own loader.
    fn unpacked(&self) -> Result<Vec<PathBuf>> {
        let tree = apt::tree(self.package)?;
        Ok(vec![
            tree.join(Arch::HOST.loader()),
            "--library-path".into(),
            tree.join(Arch::HOST.libraries()),
            tree.join(self.program.trim_start_matches('/')),
        ])
    }
}

/// Joins words with a character that no path contains.
fn words(words: &[PathBuf]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join("\x1f")
}
