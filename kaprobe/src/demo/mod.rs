//! `kaprobe demo`: connections on loopback that live, fall silent and vanish, traced
//! and explained as it happens. It takes free ports, watches only those, and leaves
//! nothing behind.

mod connections;
mod explain;

use crate::model::named::Named as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anstyle::Style;
use anyhow::{Context as _, Result, anyhow};

use crate::cli::args::DemoArgs;
use crate::cli::{self, Action, Command};
use crate::model::record::Record;
use crate::shutdown;
use crate::sink::{self, Head, Sink, SinkError, Sinks};
use crate::trace::Session;
use crate::trace::plan::TracePlan;
use crate::traffic::pair::{Path, can_vanish};
use crate::traffic::script::{self, ScriptedConnection, Step};

use crate::demo::connections::{CAST, Role};
use crate::demo::explain::Narrator;

/// Runs `kaprobe demo`.
///
/// # Errors
/// When tracing is not possible here, or the connections cannot be made.
pub fn run(args: &DemoArgs) -> Result<()> {
    let (roles, left_out): (Vec<Role>, Vec<Role>) = CAST
        .iter()
        .partition(|role| !role.privileged || can_vanish());
    let mut actors = roles
        .iter()
        .map(|role| ScriptedConnection::new(role.scenario, Path::V4))
        .collect::<io::Result<Vec<_>>>()
        .context("cannot make connections on 127.0.0.1")?;
    let players = roles
        .iter()
        .zip(&actors)
        .map(|(role, actor)| (actor.local.port(), *role))
        .collect();
    let plan = plan(&actors, args)?;
    let session = Session::start(&plan)?;
    shutdown::watch(session.stopper(), None)?;

    let narrator = Arc::new(Mutex::new(Narrator::new(players)));
    let story = Story {
        narrator: Arc::clone(&narrator),
        colored: sink::is_colored(args.color),
    };
    let mut sinks = Sinks::one("standard output", Box::new(story));
    prologue(&lock(&narrator), &left_out).map_err(SinkError::stdout)?;

    // The scripts end the trace; or the trace ends, and with it the scripts.
    let over = Arc::new(AtomicBool::new(false));
    let (stop, is_over) = (session.stopper(), Arc::clone(&over));
    let stage = thread::Builder::new()
        .name("stage".to_owned())
        .spawn(move || {
            let played = script::play(&mut actors, || !is_over.load(Ordering::Relaxed));
            (actors, played, stop.stop())
        })
        .context("cannot start the thread that plays")?;
    let traced = session.follow(&plan, &mut sinks);
    over.store(true, Ordering::Relaxed);
    let (actors, played, stopped) = stage
        .join()
        .map_err(|_| anyhow!("the thread that plays has died"))?;
    // Only now, untraced: that the demo leaves is no part of the story.
    drop(actors);
    traced?;
    played?;
    stopped?;
    Ok(epilogue(&lock(&narrator)).map_err(SinkError::stdout)?)
}

/// The plan of the trace, by the flags that a user would type: every event, of these
/// actors alone. Where a peer vanishes, what answers in its place is shown too.
fn plan(actors: &[ScriptedConnection], args: &DemoArgs) -> Result<TracePlan> {
    let ports = actors.iter().flat_map(|actor| {
        let mut steps = actor.scenario.steps.iter();
        let vanishes = steps.any(|step| matches!(step, Step::Vanish));
        let far = vanishes.then(|| actor.remote.port());
        std::iter::once(actor.local.port()).chain(far)
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
    if let Some(way) = args.attach.0 {
        flags.extend(["--attach", way.name()]);
    }
    match cli::parse(flags)? {
        Action::Run(Command::Trace(args)) => Ok(TracePlan::new(*args)?),
        _ => Err(anyhow!("kaprobe does not understand its own flags")),
    }
}

/// What the screen shows before anything happens.
fn prologue(narrator: &Narrator, left_out: &[Role]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "TCP keepalive at work, on connections of this machine with itself. Once nothing\n\
         was heard for 1 s the kernel asks whether the peer is still there. Without an\n\
         answer it asks again each second, and gives up after 3 probes.\n"
    )?;
    write!(out, "{}", narrator.prologue())?;
    for role in left_out {
        writeln!(
            out,
            "  {}  left out, for it needs CAP_NET_ADMIN: {}",
            role.letter, role.plot
        )?;
    }
    writeln!(out)
}

/// What it shows in the end.
fn epilogue(narrator: &Narrator) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nWhat you saw, and what it is in production:\n")?;
    writeln!(out, "{}", narrator.epilogue())?;
    writeln!(out, "This was `kaprobe trace --events all`, in words.")?;
    writeln!(out, "For the connections of this host: kaprobe trace")
}

/// Shows the story on the screen as the records come.
struct Story {
    narrator: Arc<Mutex<Narrator>>,
    colored: bool,
}

impl Sink for Story {
    fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        for header in head.headers {
            lock(&self.narrator).start(header.started);
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let Some(told) = lock(&self.narrator).tell(record) else {
            return Ok(());
        };
        let style = if self.colored {
            sink::style(record.event)
        } else {
            Style::new()
        };
        writeln!(io::stdout(), "{style}{told}{style:#}")
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn lock(narrator: &Mutex<Narrator>) -> MutexGuard<'_, Narrator> {
    // A narrator is whole after every call, also after one that panicked.
    narrator.lock().unwrap_or_else(PoisonError::into_inner)
}
