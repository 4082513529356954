//! Measures what kaprobe costs beside what the same person would use instead:
//! `cargo xtask bench`.
//!
//! The measuring is done by `benches/cost`, on this host and in virtual machines; here
//! its samples become a table of medians and ranges, and a file that a later run can be
//! compared with. Only ratios within one run mean anything: a machine is never idle.

mod bars;
mod samples;
mod table;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::bench::samples::{Run, Sample};
use crate::process::say;
use crate::programs::Program;
use crate::vm::{Guest, Machine, Verdict, kernel};
use crate::{apt, programs, workspace};

/// A program to measure beside.
struct Peer {
    /// Debian's package of it.
    package: &'static str,
    /// Where it is, once that is installed.
    program: &'static str,
    /// The variable that tells `benches/cost` how to run it.
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

/// What can be measured; `benches/cost` has a module of each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Measurement {
    /// What a firing costs in the kernel, by each way to attach
    InKernel,
    /// CPU time and wake-ups for each event, by each format
    UserSpace,
    /// Resident memory, with 1,000 and with 50,000 sockets
    Memory,
    /// Losses, CPU time and memory as sockets and their rate grow
    Loss,
    /// What 100,000 firings within a second do
    Burst,
    /// Time from exec to the first event, and to the end
    Start,
    /// Throughput and latency of requests over loopback, with and without a tracer
    Response,
    /// Records and bytes a second of replay, beside jq
    Replay,
    /// A snapshot of 50,000 sockets, beside ss; what it does to their timers
    Sockets,
}

/// Options of `cargo xtask bench`; with no kernel chosen, this host's is measured.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure [default: all; on other kernels in_kernel]
    #[arg(value_name = "NAME")]
    measurements: Vec<Measurement>,
    #[command(flatten)]
    kernels: kernel::Choice,
    #[command(flatten)]
    machine: Machine,
    /// Connections with a keepalive timer that fires each second
    #[arg(long, default_value_t = 8_000, value_name = "N")]
    connections: u32,
    /// How often each subject is measured, in turn with the others
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,
    /// Where the figures go, as JSON [default: target/xtask/bench.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show beside each ratio what it was in an earlier run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

/// Measures, prints the table, and keeps the figures.
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

/// What `benches/cost` is told. Guests are emulated: unless told to, they measure
/// nothing but what the host's kernel may not have.
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
    let (kaprobe, cost) = build()?;
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
    let (kaprobe, cost) = build()?;
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
        let Some(kernel) = series.kernel()? else {
            bail!("Debian's archive no longer has a kernel {}", series.name);
        };
        say(format_args!("measuring on {kernel}, emulated"));
        let mut output = Vec::new();
        let ready = guest.prepare(&kernel, kernel.series, &args.machine)?;
        match ready.boot(&mut output, &mut io::stderr())? {
            Verdict::Exited(0) => {}
            failure => bail!("{failure}"),
        }
        runs.push(collect(format!("{kernel} (emulated)"), args, &output)?);
    }
    Ok(runs)
}

fn collect(kernel: String, args: &Args, output: &[u8]) -> Result<Run> {
    let text = std::str::from_utf8(output).context("the bench says no text")?;
    let samples: Vec<Sample> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the bench says no JSON")?;
    Ok(Run::new(kernel, args.connections, &samples))
}

/// Where kaprobe and the measuring program are, built: the same here and in guests.
fn build() -> Result<(PathBuf, PathBuf)> {
    say("building kaprobe and the bench");
    let mut cargo = programs::static_cargo("build");
    let built = programs::build(cargo.args(["--bin", "kaprobe", "--bench", "cost"]))?;
    let cost = built.iter().find(|Program { name, .. }| name == "cost");
    let cost = cost.context("cargo built no bench")?.path.clone();
    Ok((programs::only_kaprobe(&built)?, cost))
}

impl Peer {
    /// Debian's, unpacked, run by the loader it came with.
    fn unpacked(&self) -> Result<Vec<PathBuf>> {
        let tree = apt::tree(self.package)?;
        Ok(vec![
            tree.join("usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path".into(),
            tree.join("usr/lib/x86_64-linux-gnu"),
            tree.join(self.program.trim_start_matches('/')),
        ])
    }
}

/// Words in one variable, told apart by a character that no path has.
fn words(words: &[PathBuf]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join("\x1f")
}
