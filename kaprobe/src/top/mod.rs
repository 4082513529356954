//! `kaprobe top`: a live screen of connections and their keepalive, by program and remote
//! endpoint.
//!
//! The rows of the sockets come from another process, which sums them up: `census`. The
//! events come from a trace, which runs on a thread of its own, and counts its records:
//! [`counting_sink`]. The calling thread joins both and draws: [`model`], [`view`]. Another
//! reads keys. What is kept is bounded: `census`, [`events`].

mod counting_sink;
mod events;
mod grouping;
mod message;
mod model;
pub mod plan;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;
mod ui;
mod view;

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use ratatui::crossterm::event;

use crate::census::reader::{self, SnapshotReader};
use crate::shutdown::{self, StopWhen};
use crate::sink::LiveSinks;
use crate::stop::Stop;
use crate::top::counting_sink::{CountingSink, SharedEvents};
use crate::top::message::ScreenMessage;
use crate::top::plan::TopPlan;
use crate::top::screen::LiveScreen;
use crate::top::terminal::DrawnTerminal;
use crate::trace::Session;
use crate::{exit, host, stderr};

/// Runs `kaprobe top`.
///
/// # Errors
/// If standard output is no terminal, or the sockets or the terminal can't be read.
pub fn run(plan: &TopPlan) -> Result<()> {
    if plan.is_reader {
        return reader::serve(&plan.census);
    }
    host::processes::check(&plan.census.processes.pids)?;
    terminal::check()?;
    stderr::never_wait();
    let (session, untraced) = match Session::start(&plan.trace) {
        Ok(session) => (Some(session), None),
        Err(why) => (None, Some(reason_to_go_on(why)?)),
    };
    let stop = session
        .as_ref()
        .map_or_else(Stop::new, |it| Ok(it.stopper()))?;
    shutdown::watch(
        stop.clone(),
        StopWhen {
            cut_off: Some(Box::new(terminal::restore)),
            ..StopWhen::default()
        },
    )?;
    let (to, messages) = channel();
    let reader = SnapshotReader::start(&plan.census, {
        let to = to.clone();
        move |census| to.send(ScreenMessage::Census(census)).is_ok()
    })?;
    let terminal = DrawnTerminal::enter()?;
    let events = SharedEvents::default();
    let trace = session
        .map(|session| follow(session, plan, events.clone(), to.clone()))
        .transpose()?;
    read_input(to)?;
    let screen = LiveScreen::new(plan, terminal, reader, events, untraced);
    let shown = screen.run(&messages, &stop);
    // A write to an eventfd fails only after about 2^64 writes.
    let _cannot_fail = stop.stop();
    let traced = trace.map(JoinHandle::join).transpose();
    traced.map_err(|_| anyhow!("the thread of the trace has died"))?;
    shown
}

/// Why there can be no events, if snapshots may still work: a missing privilege, or a kernel
/// that lacks something.
fn reason_to_go_on(why: anyhow::Error) -> Result<String> {
    match exit::code_of(&why) {
        exit::Code::Privilege | exit::Code::Kernel => Ok(format!("{why:#}")),
        _ => Err(why),
    }
}

/// Runs the trace on a thread, until its end.
fn follow(
    session: Session,
    plan: &TopPlan,
    events: SharedEvents,
    to: Sender<ScreenMessage>,
) -> Result<JoinHandle<()>> {
    let sink = Box::new(CountingSink::new(events));
    let sinks = LiveSinks::stdout(sink, session.header(), session.stopper())?;
    let plan = plan.trace.clone();
    let thread = thread::Builder::new().name("trace".to_owned());
    let thread = thread.spawn(move || {
        let ended = session.follow(&plan, sinks);
        // Nothing may be drawn any more.
        let _unheard = to.send(ScreenMessage::TraceEnded(ended));
    });
    thread.context("cannot start the thread of the trace")
}

/// Reads keys on a thread, until the process ends.
fn read_input(to: Sender<ScreenMessage>) -> Result<()> {
    let thread = thread::Builder::new().name("keys".to_owned());
    let thread = thread.spawn(move || {
        loop {
            let (message, is_end) = match event::read() {
                Ok(event) => (ScreenMessage::Input(event), false),
                Err(why) => (ScreenMessage::InputFailed(why), true),
            };
            if to.send(message).is_err() || is_end {
                return;
            }
        }
    });
    thread.context("cannot start the thread that reads keys")?;
    Ok(())
}
