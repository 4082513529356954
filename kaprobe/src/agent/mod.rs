//! `kaprobe agent`: runs as a service. It records a trace, serves metrics for Prometheus, and
//! reports to systemd.
//!
//! The trace runs on the calling thread and those of `trace`. It hands out what it has counted
//! each second, and waits for nothing here: [`shared`]. A thread has the connections counted by
//! another process: [`connections`]. Another serves HTTP and tells systemd that all threads
//! move: [`server`], [`pulse`].

mod config;
mod connections;
mod own;
mod pages;
pub mod plan;
mod pulse;
mod server;
mod service;
mod shared;

use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::time;

use crate::agent::connections::Wake;
use crate::agent::own::RecorderWatch;
use crate::agent::pages::Pages;
use crate::agent::plan::AgentPlan;
use crate::agent::pulse::{Pulse, Turns};
use crate::agent::service::Service;
use crate::agent::shared::Shared;
use crate::metrics::aggregator::Aggregator;
use crate::metrics::exposition::OwnFacts;
use crate::record::UnshownTrace;
use crate::stop::Stop;
use crate::{stderr, version};

/// Pause between two looks at the other threads, and at whether the agent is to stop.
const LOOK: Duration = Duration::from_millis(250);

/// A watchdog is served if every thread has moved within this share of its time.
const SHARE: u32 = 2;

/// What the thread of the server yields to others. It takes no socket's lock.
const NICE: i32 = 5;

/// Runs `kaprobe agent`.
///
/// # Errors
/// If the trace can't start, the port can't be opened, or the folder can't be written.
pub fn run(plan: &AgentPlan) -> Result<()> {
    let joined = config::read(&plan.given)?;
    let listener = server::bind(plan.listen)?;
    let address = listener.local_addr().context("the port has no address")?;
    let recording = UnshownTrace::start(&plan.trace, plan.to.as_ref())?;
    let shared = Arc::new(Shared::default());
    if plan.config.is_some() {
        shared.set_reloaded(true);
    }
    let mut aggregator = Aggregator::new(joined.settings.series);
    aggregator.set(joined.settings.series, joined.filter.clone());
    let service = Service::start()?;
    let (given, is_shown) = (plan.given.clone(), plan.trace.snapshot.is_some());
    let connections = connections::start(
        given,
        joined,
        is_shown,
        Arc::clone(&shared),
        service.clone(),
    )?;
    recording.watch_signals(&plan.trace, move || {
        // The thread ends with the process.
        let _ended = connections.send(Wake::Reload);
    })?;
    let pages = Arc::new(pages(plan, &recording, Arc::clone(&shared)));
    serve(
        listener,
        pages,
        recording.session().stopper(),
        service.clone(),
    )?;
    if !plan.trace.quiet {
        stderr::line(format_args!("metrics at http://{address}/metrics"));
    }
    service.status(format!("metrics at http://{address}/metrics"));
    service.ready();
    recording.follow(&plan.trace, &mut |news| {
        shared.observe(&mut aggregator, &news);
    })
}

/// What the server answers.
fn pages(plan: &AgentPlan, recording: &UnshownTrace, shared: Arc<Shared>) -> Pages {
    let outputs = recording.sinks().watch();
    let header = recording.session().header();
    let hooks = header.hooks.iter();
    let fixed = OwnFacts {
        versions: [version::NUMBER, version::COMMIT, &header.kernel.to_string()].map(str::to_owned),
        hooks: hooks
            .map(|(hook, mode)| [hook.clone(), mode.clone()])
            .collect(),
        ..OwnFacts::default()
    };
    let recorder = plan.to.as_ref();
    let recorder = recorder.map(|to| RecorderWatch::new(to, outputs.clone()));
    let turns = Turns {
        shared: Arc::clone(&shared),
        outputs,
    };
    Pages::new(shared, Pulse::new(turns, Instant::now()), recorder, fixed)
}

/// Starts the thread of the server, which also tells systemd that the agent is alive.
fn serve(listener: TcpListener, pages: Arc<Pages>, stop: Stop, service: Service) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the server")?;
    let stop = stop.as_fd().try_clone_to_owned();
    let stop = stop.context("cannot watch for the end")?;
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            // A process that may not is no worse.
            let _refused = setpriority_process(Some(gettid()), NICE);
            runtime.block_on(async {
                // SAFETY: the descriptor is owned, so it stays the same while it is watched.
                let watched = unsafe { AsyncFd::register_with_interest(stop, Interest::READABLE) };
                let Ok(stop) = watched else { return };
                tokio::select! {
                    served = server::serve(listener, Arc::clone(&pages)) => {
                        if let Err(why) = served {
                            stderr::line(format_args!("no metrics: {why:#}"));
                        }
                    }
                    () = report(&pages, &stop, &service) => {}
                }
            });
        })
        .context("cannot start the thread of the server")?;
    Ok(())
}

/// Tells systemd that the agent is alive as long as every thread moves, and when it stops.
async fn report(pages: &Pages, stop: &AsyncFd<OwnedFd>, service: &Service) {
    let watchdog = service::watchdog();
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            _ = stop.readable() => break,
            () = time::sleep(LOOK) => {}
        }
        let (name, still) = pages.stillest();
        let Some(time) = watchdog.filter(|time| looked.elapsed() >= *time / (SHARE * 2)) else {
            continue;
        };
        looked = Instant::now();
        if still < time / SHARE {
            service.alive();
        } else {
            let seconds = still.as_secs();
            service.status(format!("{name} has not moved for {seconds} s"));
        }
    }
    service.stopping();
}
