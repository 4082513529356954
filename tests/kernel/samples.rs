//! The samples of the pages of `docs/` that a test can make: each is what kaprobe printed.
//!
//! A page has `<!-- sample: NAME -->` before such a block. `KAPROBE_BLESS=1` writes new ones.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::scenarios::{SILENT, USER_TIMEOUT, VANISHED};
use kaprobe_testkit::command;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::page;
use kaprobe_testkit::process::{Held, Process, Task};
use kaprobe_testkit::terminal::Terminal;
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// A sample: its name and page, the arguments of kaprobe, and what makes its lines.
type Sample = (
    &'static str,
    &'static str,
    &'static str,
    fn(&str) -> Result<Vec<String>>,
);

const SAMPLES: [Sample; 6] = [
    ("demo", "demo.md", "demo", demo),
    ("trace", "trace.md", "trace --netns self", silent_peers),
    ("events", "trace.md", "trace -v --netns self", every_event),
    (
        "sockets",
        "sockets.md",
        "sockets --state established",
        held_connections,
    ),
    ("group", "sockets.md", "sockets --group", held_connections),
    (
        "audit",
        "audit.md",
        "audit --behind aws-nlb --loopback",
        held_connections,
    ),
];

const WIDTH: NonZeroU16 = NonZeroU16::new(80).expect("it is not zero");
/// For lines that a pipe would get.
const WIDE: NonZeroU16 = NonZeroU16::new(240).expect("it is not zero");
const HEIGHT: NonZeroU16 = NonZeroU16::new(200).expect("it is not zero");

/// Each sample can be made, and the page has it by the same command. Numbers, and the columns
/// that have room, differ from run to run.
pub fn samples_are_real() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    if !docs.exists() {
        return Err(Skip("the pages are not on this machine".into()).into());
    }
    for page in fs::read_dir(&docs)? {
        let page = page?.path();
        if page.extension().is_some_and(|it| it == "md") {
            let text = fs::read_to_string(&page)?;
            let unmarked = page::unmarked(&text);
            ensure!(unmarked.is_empty(), "{}: {unmarked:?}", page.display());
        }
    }
    for (name, file, arguments, make) in SAMPLES {
        netns::enter_new()?;
        let lines = make(arguments).with_context(|| format!("sample {name}"))?;
        let made = format!("$ sudo kaprobe {arguments}\n{}\n", lines.join("\n"));
        let path = docs.join(file);
        let text = fs::read_to_string(&path)?;
        let (before, kept, after) = page::split(&text, name)
            .with_context(|| format!("docs/{file} has no sample {name}"))?;
        if env::var_os("KAPROBE_BLESS").is_some() {
            fs::write(&path, format!("{before}{made}{after}"))?;
            continue;
        }
        ensure!(made.lines().count() > 3, "docs/{file}, {name}: {made}");
        let command = made.lines().next();
        ensure!(
            kept.lines().next() == command,
            "docs/{file}: not {command:?}"
        );
    }
    Ok(())
}

fn terminal(arguments: &str, width: NonZeroU16) -> Result<Terminal> {
    let mut command = command::kaprobe()?;
    command.args(arguments.split_whitespace());
    Terminal::start(command, width, HEIGHT)
}

/// Each event of a program whose peers answer, fall silent, or vanish.
fn every_event(arguments: &str) -> Result<Vec<String>> {
    let mut terminal = terminal(arguments, WIDE)?;
    terminal.wait_for("kaprobe: snapshot: ")?;
    let mut broker = Process::start(Task::new("broker", &[USER_TIMEOUT, VANISHED]))?;
    broker.go()?;
    broker.wait_played()?;
    terminal.wait_for("verdict user_timeout ")?;
    terminal.wait_for("verdict probe_reset ")?;
    broker.dismiss()?;
    ended(terminal)
}

/// The screen of a trace that is told to stop.
fn ended(mut terminal: Terminal) -> Result<Vec<String>> {
    terminal.signal(Signal::INT)?;
    let status = terminal.finish()?;
    ensure!(status.success(), "{status}");
    Ok(terminal.screen())
}

fn demo(arguments: &str) -> Result<Vec<String>> {
    let mut terminal = terminal(arguments, WIDTH)?;
    let status = terminal.finish()?;
    ensure!(status.success(), "{status}");
    Ok(terminal.screen())
}

/// A program whose peers answer, and one whose peers fall silent.
fn silent_peers(arguments: &str) -> Result<Vec<String>> {
    let mut queue = hold("queue", 20, Some(60))?;
    let mut terminal = terminal(arguments, WIDTH)?;
    terminal.wait_for("watching 40 connections of ")?;
    let before = KernelCounters::read()?;
    let mut broker = Process::start(Task::new("broker", &[SILENT]))?;
    broker.go()?;
    let ends = broker.connections.len() as u64;
    wait_until("the kernel has given up on all", || {
        Ok(KernelCounters::read()?.abort_on_timeout >= before.abort_on_timeout + ends)
    })?;
    terminal.wait_for(" peer_unreachable ")?;
    let screen = ended(terminal)?;
    broker.dismiss()?;
    queue.request_exit();
    Ok(screen)
}

/// Three programs with idle connections: one never probes in time.
fn held_connections(arguments: &str) -> Result<Vec<String>> {
    let held = [
        hold("queue", 2, Some(60))?,
        hold("cache", 1, Some(600))?,
        hold("batch", 1, None)?,
    ];
    let mut terminal = terminal(arguments, WIDTH)?;
    let status = terminal.finish()?;
    ensure!(matches!(status.code(), Some(0 | 5)), "{status}");
    held.into_iter().try_for_each(Process::dismiss)?;
    Ok(terminal.screen())
}

/// A program with idle connections.
fn hold(comm: &str, count: u32, seconds: Option<u32>) -> Result<Process> {
    let mut process = Process::start(Task {
        comm: comm.to_owned(),
        holds: Some(Held {
            address: Ipv4Addr::LOCALHOST.into(),
            count,
            seconds,
        }),
        ..Task::default()
    })?;
    process.go()?;
    Ok(process)
}
