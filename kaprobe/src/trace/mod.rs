//! `kaprobe trace`: shows events from the kernel in the sinks.
//!
//! There are three threads. One reads the ring buffer and does nothing else. The calling
//! one finds owners, correlates, filters and writes. One waits for a reason to stop. A
//! bounded queue connects the first two: when writing is too slow, the ring buffer fills,
//! and events that do not fit are counted. Memory does not grow.
//!
//! A fourth thread reads the sockets that existed before the trace: [`snapshot`].

mod arrival;
pub mod plan;
mod snapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow};

use crate::correlate::{Correlator, MAX_SOCKETS};
use crate::filter::Filter;
use crate::filter::kernel::KernelFilter;
use crate::host;
use crate::host::netns::Netns;
use crate::host::privilege::{Privileges, raise_memlock};
use crate::kernel::{Attached, Tracer, TracerConfig};
use crate::model::event::Event;
use crate::model::header::{self, Header};
use crate::model::record::EventName;
use crate::model::time::WallTime;
use crate::owners::cache::OwnerCache;
use crate::report::{self, Outcome};
use crate::shutdown;
use crate::sink::{self, SinkError, Sinks};
use crate::stop::Stop;
use crate::text::escape::Escaped;
use crate::timeout::middlebox::MiddleboxTable;
use crate::trace::arrival::Arrival;
use crate::trace::plan::TracePlan;
use crate::trace::snapshot::SnapshotProcess;
use crate::verdict::judge::Judge;
use crate::verdict::pipeline::Pipeline;

/// How many batches may wait between reading and writing.
const QUEUE: usize = 4;

/// Runs `kaprobe trace`.
///
/// # Errors
/// When it can't start, or can't write.
pub fn run(plan: &TracePlan) -> Result<()> {
    let session = Session::start(plan)?;
    // Opened last: what fails before leaves no file behind.
    let mut sinks = sink::open(&plan.outputs)?;
    shutdown::watch(session.stopper(), plan.duration)?;
    session.follow(plan, &mut sinks)
}

/// A trace whose programs are attached.
pub struct Session {
    tracer: Tracer,
    header: Header,
}

impl Session {
    /// Checks privileges, resolves what the plan names, and attaches.
    ///
    /// # Errors
    /// With the exit code that says which of these failed.
    pub fn start(plan: &TracePlan) -> Result<Self> {
        let privileges = Privileges::read().context("cannot read this process's privileges")?;
        privileges.check_trace()?;
        raise_memlock();
        let tracer = Tracer::start(&resolve(plan)?)?;
        let header = header(plan, &tracer);
        Ok(Self { tracer, header })
    }

    /// A handle that stops the trace.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.tracer.stopper()
    }

    /// Follows the trace to its end: shows the banner, the records and the summary.
    ///
    /// # Errors
    /// When a sink or the kernel fails on the way.
    pub fn follow(mut self, plan: &TracePlan, sinks: &mut Sinks) -> Result<()> {
        if !plan.quiet {
            report::banner(self.tracer.attached(), self.tracer.without());
        }
        let stop = self.stopper();
        let owners =
            OwnerCache::new(self.tracer.take_descriptors()).context("cannot read /proc")?;
        let (queue, arrivals) = sync_channel(QUEUE);
        let (emptied, empty) = sync_channel(QUEUE);
        let rows = queue.clone();
        let reader = thread::Builder::new()
            .name("ring-buffer".to_owned())
            .spawn(move || read(self.tracer, &queue, &empty))
            .context("cannot start the thread that reads the ring buffer")?;
        let mut stream = Stream::new(plan, &self.header, owners);
        let shown = stream.start(sinks, &self.header, plan.ready_file.as_deref());
        let shown = shown.and_then(|()| {
            stream.look_back(plan, rows);
            stream.run(&arrivals, &emptied, sinks)
        });
        // Where one sink has failed, records may still wait in another. A failure to write
        // those is reported first.
        let shown = sinks.flush().and(shown);
        // An eventfd takes a write until it has had 2^64 of them.
        let _cannot_fail = stop.stop();
        drop(arrivals);
        let tracer = reader
            .join()
            .map_err(|_| anyhow!("the thread that reads the ring buffer has died"))??;
        if !plan.quiet {
            report::summary(&stream.outcome(&tracer));
        }
        drop(tracer);
        Ok(shown?)
    }
}

/// Sends [`Arrival::End`] when the thread that reads ends, for whatever reason.
struct Ending<'a>(&'a SyncSender<Arrival>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // The thread that writes may have stopped already.
        let _ended = self.0.send(Arrival::End);
    }
}

/// Reads the ring buffer until its end, or until the thread that writes has stopped.
/// Batches come back empty and are used again: a new one costs more than to fill it.
fn read(
    mut tracer: Tracer,
    queue: &SyncSender<Arrival>,
    empty: &Receiver<Vec<Event>>,
) -> Result<Tracer> {
    let _ending = Ending(queue);
    loop {
        let mut batch = empty.try_recv().unwrap_or_default();
        if !tracer.next_batch(&mut batch)? {
            return Ok(tracer);
        }
        if !batch.is_empty() && queue.send(Arrival::Events(batch)).is_err() {
            return Ok(tracer);
        }
    }
}

/// The stages between the ring buffer and the sinks.
struct Stream {
    owners: OwnerCache,
    correlator: Correlator,
    pipeline: Pipeline,
    snapshot: Option<SnapshotProcess>,
    /// How many sockets of the snapshot were seen.
    seen: u64,
    quiet: bool,
}

impl Stream {
    fn new(plan: &TracePlan, header: &Header, owners: OwnerCache) -> Self {
        let mut correlator = Correlator::new(MAX_SOCKETS);
        if plan.snapshot.is_some() {
            correlator =
                correlator.with_snapshot(MiddleboxTable::new(&header.timeouts).longest_ms());
        }
        Self {
            owners,
            correlator,
            pipeline: Pipeline::new(
                Filter::new(plan.records.clone()),
                Judge::new(MAX_SOCKETS, &header.timeouts),
            ),
            snapshot: None,
            seen: 0,
            quiet: plan.quiet,
        }
    }

    /// Starts the snapshot, where one is wanted. Events are recorded already, and a failure
    /// is only reported.
    fn look_back(&mut self, plan: &TracePlan, rows: SyncSender<Arrival>) {
        let Some(arguments) = &plan.snapshot else {
            return;
        };
        match SnapshotProcess::start(arguments, plan.quiet, rows) {
            Ok(snapshot) => self.snapshot = Some(snapshot),
            Err(why) => self.looked_back(Err(why)),
        }
    }

    /// Ends the snapshot and reports its outcome.
    fn looked_back(&mut self, outcome: Result<()>) {
        self.correlator.push(&Event::SnapshotEnd, &mut |_| {});
        // A process whose output broke off is not waited for.
        let outcome = match (outcome, self.snapshot.take()) {
            (Ok(()), Some(snapshot)) => snapshot.end(),
            (outcome, _) => outcome,
        };
        if !self.quiet {
            let zombies = self.pipeline.counts().events.get(&EventName::Zombie);
            report::snapshot(self.seen, zombies.copied().unwrap_or_default(), &outcome);
        }
    }

    /// Writes the headers, then makes the ready file: events are recorded from here on.
    fn start(
        &self,
        sinks: &mut Sinks,
        header: &Header,
        ready_file: Option<&Path>,
    ) -> Result<(), SinkError> {
        sinks.head(&header.into())?;
        sinks.flush()?;
        match ready_file {
            Some(path) => fs::write(path, "").map_err(|why| {
                let path = Escaped::from_bytes(path.as_os_str().as_encoded_bytes());
                SinkError::new(path.as_str(), why)
            }),
            None => Ok(()),
        }
    }

    /// Shows every batch, until the last one or until the filter is done.
    fn run(
        &mut self,
        arrivals: &Receiver<Arrival>,
        emptied: &SyncSender<Vec<Event>>,
        sinks: &mut Sinks,
    ) -> Result<(), SinkError> {
        while let Ok(arrival) = arrivals.recv() {
            match arrival {
                Arrival::Events(mut batch) => {
                    self.batch(&mut batch, sinks)?;
                    batch.clear();
                    // One too many is freed.
                    let _kept = emptied.try_send(batch);
                }
                Arrival::SnapshotEnd(outcome) => self.looked_back(outcome),
                Arrival::End => break,
            }
            if self.pipeline.is_done() {
                break;
            }
        }
        Ok(())
    }

    fn batch(&mut self, batch: &mut [Event], sinks: &mut Sinks) -> Result<(), SinkError> {
        self.owners.fill(batch, Instant::now());
        for event in &*batch {
            self.seen += u64::from(matches!(event, Event::Snapshot(_)));
            self.show(event, sinks)?;
        }
        sinks.flush()
    }

    fn show(&mut self, event: &Event, sinks: &mut Sinks) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        let pipeline = &mut self.pipeline;
        self.correlator.push(event, &mut |record| {
            pipeline.push(0, record, |record| {
                if outcome.is_ok() {
                    outcome = sinks.record(record);
                }
            });
        });
        outcome
    }

    fn outcome(&self, tracer: &Tracer) -> Outcome {
        Outcome {
            counts: self.pipeline.counts().clone(),
            sockets: self.correlator.sockets(),
            evicted: self.correlator.evicted(),
            untracked: tracer.untracked(),
            unreadable: self.owners.unreadable(),
            unlearned: self.owners.left_out(),
            // A snapshot that has ended was taken out.
            unfinished: self.snapshot.as_ref().map(|_| self.seen),
        }
    }
}

/// Resolves the names in the plan to what the kernel calls them.
fn resolve(plan: &TracePlan) -> Result<TracerConfig> {
    let KernelFilter { netns, cgroups, .. } = &plan.kernel;
    let netns: Result<_> = netns
        .iter()
        .map(|name| name.parse::<Netns>()?.resolve())
        .collect();
    let cgroups: Result<_> = cgroups
        .iter()
        .map(|path| host::cgroup::resolve(path))
        .collect();
    Ok(TracerConfig {
        filter: plan.kernel.clone(),
        netns: netns?,
        cgroups: cgroups?,
        attach: plan.attach,
        rtt: plan.rtt,
        buffer_bytes: plan.buffer_bytes,
        debug: plan.debug,
    })
}

fn header(plan: &TracePlan, tracer: &Tracer) -> Header {
    let hook = |a: &Attached| (a.hook.to_string(), a.mode.to_string());
    let offset = tracer.clock_offset_ns();
    Header {
        version: header::VERSION.to_owned(),
        host: Escaped::from_bytes(rustix::system::uname().nodename().to_bytes()),
        kernel: Escaped::from_bytes(rustix::system::uname().release().to_bytes()),
        kaprobe: env!("CARGO_PKG_VERSION").to_owned(),
        started: WallTime(tracer.started().wall_ns),
        clock_offset_ns: offset,
        hz: tracer.hz(),
        hooks: tracer
            .attached()
            .iter()
            .map(hook)
            .collect::<BTreeMap<_, _>>(),
        filters: plan.given.clone(),
        narrowed: Vec::new(),
        timeouts: host::timeouts::read(),
    }
}
