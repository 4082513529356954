//! `kaprobe demo`: makes connections on loopback that live, go silent and vanish; traces
//! and explains them. It takes free ports, traces only those, and leaves nothing behind.

mod connections;
mod explain;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anstyle::Style;
use anyhow::{Context as _, Result, anyhow};

use crate::cli::args::DemoArgs;
use crate::cli::{self, Command};
use crate::demo::connections::{CONNECTIONS, DemoConnection};
use crate::demo::explain::Explainer;
use crate::exit;
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::shutdown::{self, StopWhen};
use crate::sink::{self, Encoder, Head, LiveSinks, Sink, SinkError};
use crate::stderr;
use crate::trace::Session;
use crate::trace::plan::TracePlan;
use crate::traffic::pair::{Path, can_silence, can_vanish};
use crate::traffic::script::{self, ScriptedConnection, Step};

/// Runs `kaprobe demo`.
///
/// # Errors
/// When tracing is not possible here, or the connections cannot be made.
pub fn run(args: &DemoArgs) -> Result<()> {
    let (connections, left_out): (Vec<DemoConnection>, Vec<DemoConnection>) = CONNECTIONS
        .iter()
        .partition(|it| !it.privileged || can_vanish());
    let mut scripted = connections
        .iter()
        .map(|it| ScriptedConnection::new(it.scenario, Path::V4))
        .collect::<io::Result<Vec<_>>>()
        .context("cannot make connections on 127.0.0.1")?;
    let by_port = connections
        .iter()
        .zip(&scripted)
        .map(|(connection, it)| (it.local.port(), *connection))
        .collect();
    let plan = plan(&scripted, args)?;
    stderr::never_wait();
    let session = Session::start(&plan)?;
    if !can_silence() {
        return Err(exit::Error::privilege(
            "the demo needs CAP_NET_ADMIN here: without it, no peer can be made to go silent",
        )
        .into());
    }
    shutdown::watch(session.stopper(), StopWhen::default())?;

    let colored = sink::is_colored(args.screen.color);
    let layout = if colored {
        sink::colored_layout()
    } else {
        sink::layout()
    };
    let explainer = Arc::new(Mutex::new(Explainer::new(by_port, layout)));
    let explanations = Explanations {
        explainer: Arc::clone(&explainer),
        colored,
        text: String::new(),
    };
    introduce(&lock(&explainer), &left_out).map_err(SinkError::stdout)?;
    let sinks = LiveSinks::stdout(Box::new(explanations), session.header(), session.stopper())?;

    // The end of the scripts stops the trace, and the end of the trace stops the scripts.
    let over = Arc::new(AtomicBool::new(false));
    let (stop, is_over) = (session.stopper(), Arc::clone(&over));
    let traffic = thread::Builder::new()
        .name("traffic".to_owned())
        .spawn(move || {
            let played = script::play(&mut scripted, || !is_over.load(Ordering::Relaxed));
            (scripted, played, stop.stop())
        })
        .context("cannot start the thread that makes the traffic")?;
    let traced = session.follow(&plan, sinks);
    over.store(true, Ordering::Relaxed);
    let (scripted, played, stopped) = traffic
        .join()
        .map_err(|_| anyhow!("the thread that makes the traffic has died"))?;
    // Closed after the trace: the demo's own end is not shown.
    drop(scripted);
    traced?;
    played?;
    stopped?;
    Ok(conclude(&lock(&explainer)).map_err(SinkError::stdout)?)
}

/// Makes the plan of the trace from the flags that a user would type: every event, of
/// these connections only. Where a peer vanishes, its port is traced too.
fn plan(scripted: &[ScriptedConnection], args: &DemoArgs) -> Result<TracePlan> {
    let ports = scripted.iter().flat_map(|it| {
        let mut steps = it.scenario.steps.iter();
        let vanishes = steps.any(|step| matches!(step, Step::Vanish));
        let far = vanishes.then(|| it.remote.port());
        std::iter::once(it.local.port()).chain(far)
    });
    let ports = ports.map(|it| it.to_string()).collect::<Vec<_>>().join(",");
    let mut flags = vec![
        "kaprobe",
        "trace",
        "--quiet",
        "--events",
        "all",
        "--no-snapshot",
    ];
    flags.extend(["--netns", "/proc/self/ns/net", "--localport", &ports]);
    if let Some(way) = args.screen.attach.0 {
        flags.extend(["--attach", way.name()]);
    }
    let args = cli::parse_own(flags, |command| match command {
        Command::Trace(args) => Some(*args),
        _ => None,
    })?;
    Ok(TracePlan::new(args)?)
}

/// Shows what will happen.
fn introduce(explainer: &Explainer, left_out: &[DemoConnection]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let about = "TCP keepalive, on connections of this machine to itself. When the kernel has \
                 heard nothing from the peer for 1 s, it sends a probe. Without an answer it \
                 sends one each second, and gives up after 3 probes.";
    writeln!(out, "{}\n", explainer.wrapped("", about))?;
    write!(out, "{}", explainer.introduction())?;
    for it in left_out {
        let why = format!("left out, because it needs CAP_NET_ADMIN: {}", it.summary);
        let head = format!("  {}  ", it.letter);
        writeln!(out, "{}", explainer.wrapped(&head, &why))?;
    }
    writeln!(out)
}

/// Shows what happened, and what it means in production.
fn conclude(explainer: &Explainer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nWhat happened, and what it means in production:\n")?;
    writeln!(out, "{}", explainer.conclusion())?;
    writeln!(out, "This was `kaprobe trace --events all`, in words.")?;
    writeln!(out, "For the connections of this host: kaprobe trace")
}

/// A sink that explains each record on the screen.
struct Explanations {
    explainer: Arc<Mutex<Explainer>>,
    colored: bool,
    /// What is not taken yet.
    text: String,
}

impl Sink for Explanations {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        for header in head.headers {
            lock(&self.explainer).start(header.started);
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let Some(text) = lock(&self.explainer).explain(record) else {
            return Ok(());
        };
        // Of a verdict, the layout colors the name.
        let style = if self.colored && record.event != EventName::Verdict {
            sink::style(record.event)
        } else {
            Style::new()
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{style}{text}{style:#}");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder for Explanations {
    fn size(&self) -> usize {
        self.text.len()
    }

    fn swap(&mut self, _: Vec<u8>) -> Vec<u8> {
        mem::take(&mut self.text).into_bytes()
    }

    fn twin(&self) -> Box<dyn Encoder> {
        Box::new(Self {
            explainer: Arc::clone(&self.explainer),
            colored: self.colored,
            text: String::new(),
        })
    }
}

fn lock(explainer: &Mutex<Explainer>) -> MutexGuard<'_, Explainer> {
    // A panic leaves it consistent.
    explainer.lock().unwrap_or_else(PoisonError::into_inner)
}
