//! `kaprobe trace`: shows events from the kernel in the sinks.
//!
//! The calling thread does all that happens to an event: it reads the ring buffer, finds the
//! owner, correlates, filters and formats. Each output has a thread that writes blocks of
//! lines, and a bounded queue. If the calling thread is too slow, the ring buffer fills, and
//! if an output is too slow, its queue does; what does not fit is counted. Memory does not
//! grow.
//!
//! Other threads send messages to the calling thread: [`mailbox`]. One reads the sockets that
//! existed before the trace: [`snapshot`]. Another watches the idle timeouts of the host:
//! [`timeouts_watch`]. Another looks again at the sockets whose data has stalled:
//! [`stalls_watch`]. Another waits for a reason to stop.

mod mailbox;
pub mod plan;
mod snapshot;
mod stalls_watch;
mod sums;
mod timeouts_watch;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};

use crate::containers::names::ContainerNames;
use crate::correlate::{Correlator, order};
use crate::filter::Filter;
use crate::filter::kernel::KernelFilter;
use crate::host::netns::Netns;
use crate::host::privilege::{Privileges, raise_memlock};
use crate::host::timeouts::{self, HostNamespaces, NetnsNames};
use crate::kernel::{Arrival, Attached, StallLook, Tracer, TracerConfig};
use crate::messages::{self, Outcome};
use crate::model::event::Event;
use crate::model::header::{self, Header, TimeoutsChange};
use crate::model::host_timeout::{HostTimeouts, NetnsTimeouts};
use crate::model::limits::Limits;
use crate::model::record::{EventName, Record};
use crate::model::time::{Instant as At, WallTime};
use crate::owners::cache::{CAPACITY, OwnerCache};
use crate::shutdown::{self, StopWhen};
use crate::sink::{LiveSinks, SinkError};
use crate::stop::Stop;
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutEstimator;
use crate::timeout::middlebox::MiddleboxTable;
use crate::trace::mailbox::{Mailbox, MailboxSender, TraceMessage};
use crate::trace::plan::TracePlan;
use crate::trace::snapshot::SnapshotProcess;
use crate::trace::stalls_watch::StallsWatch;
use crate::trace::sums::AliveSums;
use crate::trace::timeouts_watch::TimeoutsWatch;
use crate::verdict::judge::Judge;
use crate::verdict::pipeline::Pipeline;
use crate::{host, kernel, output_file, stderr, version};

/// Time between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// Runs `kaprobe trace`.
///
/// # Errors
/// If the trace can't start, or can't write.
pub fn run(plan: &TracePlan) -> Result<()> {
    host::processes::check(&plan.records.processes.pids)?;
    stderr::never_wait();
    let session = Session::start(plan)?;
    // Opened last: an earlier failure leaves no file behind.
    let sinks = LiveSinks::open(&plan.outputs, session.header(), session.stopper())?;
    let (reopen, cut_off) = (sinks.reopen(), sinks.cut_off());
    shutdown::watch(
        session.stopper(),
        StopWhen {
            duration: plan.duration,
            hangup: reopen.map(|log| Box::new(move || log.reopen()) as Box<_>),
            cut_off: Some(Box::new(move || {
                stderr::lines(cut_off.cut_off());
                stderr::finish();
            })),
            suspend: sinks
                .has_digest()
                .then(|| Box::new(stderr::erase_status_line) as Box<_>),
        },
    )?;
    session.follow(plan, sinks)
}

/// What a trace reports to who runs it, on the thread that shows records: nothing may wait.
pub enum TraceNews<'a> {
    /// A record, before probes and answers are summed up for a recorder.
    Record(&'a Record),
    /// The time has come for what is done about once a second. With what the records so far
    /// tell of idle timeouts.
    Tick(At, &'a TimeoutEstimator),
}

/// Takes what a trace reports.
pub type Observer<'a> = &'a mut dyn FnMut(TraceNews<'_>);

/// A trace whose programs are attached.
pub struct Session {
    tracer: Tracer,
    header: Header,
    host: HostNamespaces,
    containers: ContainerNames,
}

impl Session {
    /// Checks privileges, resolves the names in the plan, and attaches the programs.
    ///
    /// # Errors
    /// The exit code shows which of these failed.
    pub fn start(plan: &TracePlan) -> Result<Self> {
        let privileges = Privileges::read().context("cannot read this process's privileges")?;
        privileges.check_trace()?;
        raise_memlock();
        let containers = ContainerNames::open(plan.host_root.as_deref())?;
        let limits = limits(plan);
        let tracer = Tracer::start(&resolve(plan, limits)?)?;
        let host = timeouts::read().unwrap_or_else(|why| {
            stderr::line(format_args!("{UNREAD}: {why:#}"));
            HostNamespaces::default()
        });
        let header = header(plan, limits, &tracer, &host.timeouts);
        Ok(Self {
            tracer,
            header,
            host,
            containers,
        })
    }

    /// The header of its logs.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A handle that stops the trace.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.tracer.stopper()
    }

    /// Runs the trace to its end: shows the banner, the records and the summary.
    ///
    /// # Errors
    /// If a sink or the kernel fails.
    pub fn follow(self, plan: &TracePlan, sinks: LiveSinks) -> Result<()> {
        self.observed(plan, sinks, &mut |_| {})
    }

    /// Runs the trace to its end, as [`Session::follow`] does, and reports to an observer.
    ///
    /// # Errors
    /// If a sink or the kernel fails.
    pub fn observed(
        mut self,
        plan: &TracePlan,
        mut sinks: LiveSinks,
        observer: Observer<'_>,
    ) -> Result<()> {
        let (attached, without) = (self.tracer.attached(), self.tracer.without());
        let detail = Detail::of(plan, &sinks);
        match detail {
            Detail::None => {}
            Detail::Brief => messages::brief_banner(attached, without),
            Detail::Full => messages::banner(attached, without),
        }
        let capacity = CAPACITY.max(self.header.max_sockets().get());
        let iterator = self.tracer.take_descriptors();
        let watch = self.tracer.take_owner_watch();
        let owners = OwnerCache::new(capacity, iterator, watch, self.containers)
            .context("cannot read /proc")?;
        let stall_look = self.tracer.take_stall_look();
        let (sender, mailbox) = Mailbox::new()?;
        let mut stages =
            TraceStages::new(plan, &self.header, owners, self.host.names.clone(), detail);
        let shown = report_ready(plan.ready_file.as_deref()).map_err(anyhow::Error::from);
        let shown = shown.and_then(|()| {
            stages.start_snapshot(plan, sender.clone());
            stages.watch_stalls(stall_look);
            let watch = TimeoutsWatch::start(self.host, sender);
            if let Err(why) = &watch {
                stderr::line(format_args!("{UNWATCHED}: {why}"));
            }
            let mut outlet = Outlet {
                sinks: &mut sinks,
                observer,
            };
            stages.run(&mut self.tracer, &mailbox, &mut outlet)
        });
        // Threads that send do not wait for room any more.
        drop(mailbox);
        let outcome = stages.outcome(&self.tracer);
        drop(self.tracer);
        let (outputs, written) = sinks.finish();
        let outcome = Outcome { outputs, ..outcome };
        match detail {
            Detail::None => {}
            Detail::Brief => messages::brief_summary(&outcome),
            Detail::Full => messages::summary(&outcome),
        }
        shown?;
        written
    }
}

/// How much standard error is told about a trace.
#[derive(Clone, Copy)]
enum Detail {
    None,
    /// What is as it should be is not listed.
    Brief,
    Full,
}

impl Detail {
    const fn of(plan: &TracePlan, sinks: &LiveSinks) -> Self {
        match (plan.quiet, sinks.has_digest()) {
            (true, _) => Self::None,
            (false, true) => Self::Brief,
            (false, false) => Self::Full,
        }
    }
}

/// What a trace lacks if the namespaces can't be read at its start.
const UNREAD: &str =
    "this host's idle timeouts and the names of its network namespaces are not known";

/// What a trace lacks if no thread looks at the sockets whose data has stalled.
const UNRESUMED: &str = "that data which has stalled is acknowledged will be seen only by the next \
                         event of its connection, as no thread can be started";

/// What a trace lacks if no thread watches them.
const UNWATCHED: &str = "changes of this host's idle timeouts will not be seen, as no thread can \
                         be started";

/// Creates the ready file: from now on events are recorded.
fn report_ready(file: Option<&Path>) -> Result<(), SinkError> {
    let Some(path) = file else {
        return Ok(());
    };
    make_ready_file(path).map_err(|why| {
        let path = Escaped::from_path(path);
        SinkError::new(path.as_str(), why)
    })
}

/// Where records go: to the sinks, and to who runs the trace.
struct Outlet<'a> {
    sinks: &'a mut LiveSinks,
    observer: Observer<'a>,
}

/// The stages between the ring buffer and the sinks.
struct TraceStages {
    owners: OwnerCache,
    correlator: Correlator,
    pipeline: Pipeline,
    /// The names of the network namespaces.
    names: NetnsNames,
    snapshot: Option<SnapshotProcess>,
    stalls: Option<StallsWatch>,
    /// For a recorder.
    sums: Option<AliveSums>,
    /// Number of sockets of the snapshot that pass the filters.
    seen: u64,
    detail: Detail,
    /// A filter selects some of the sockets.
    is_filtered: bool,
    ticked: Instant,
}

impl TraceStages {
    fn new(
        plan: &TracePlan,
        header: &Header,
        owners: OwnerCache,
        names: NetnsNames,
        detail: Detail,
    ) -> Self {
        let host = header.host_timeouts();
        let max_sockets = header.max_sockets();
        let mut correlator = Correlator::new(max_sockets);
        if plan.snapshot.is_some() {
            let longest_ms = MiddleboxTable::new(&host).longest_ms();
            correlator = correlator.with_snapshot(header.began_ns(), longest_ms);
        }
        Self {
            owners,
            correlator,
            pipeline: Pipeline::new(
                Filter::new(plan.records.clone()),
                Judge::new(max_sockets, &host),
            ),
            names,
            snapshot: None,
            stalls: None,
            sums: plan
                .alive
                .map(|interval| AliveSums::new(interval, header.began_ns(), max_sockets)),
            seen: 0,
            detail,
            is_filtered: plan.given.keys().any(|flag| flag != "events"),
            ticked: Instant::now(),
        }
    }

    /// Starts the snapshot if the plan has one. Events are recorded already, so a failure
    /// is only reported.
    fn start_snapshot(&mut self, plan: &TracePlan, rows: MailboxSender) {
        let Some(arguments) = &plan.snapshot else {
            return;
        };
        match SnapshotProcess::start(arguments, plan.quiet, rows) {
            Ok(snapshot) => self.snapshot = Some(snapshot),
            Err(why) => _ = self.end_snapshot(Err(why)),
        }
    }

    /// Starts the thread that has the sockets looked at whose data has stalled.
    fn watch_stalls(&mut self, look: Option<StallLook>) {
        match look.map(StallsWatch::start).transpose() {
            Ok(watch) => self.stalls = watch,
            Err(why) => stderr::line(format_args!("{UNRESUMED}: {why}")),
        }
    }

    /// Ends the snapshot and reports its outcome. Returns whether it is complete.
    fn end_snapshot(&mut self, outcome: Result<()>) -> bool {
        self.correlator.push(&Event::SnapshotEnd, &mut |_| {});
        // Does not wait for a process whose output could not be read.
        let outcome = match (outcome, self.snapshot.take()) {
            (Ok(()), Some(snapshot)) => snapshot.end(),
            (outcome, _) => outcome,
        };
        let is_complete = outcome.is_ok();
        let is_told = match self.detail {
            Detail::None => false,
            Detail::Brief => !is_complete,
            Detail::Full => true,
        };
        if is_told {
            let zombies = self.pipeline.count(EventName::Zombie);
            messages::snapshot(self.seen, zombies, &outcome);
        }
        is_complete
    }

    /// Shows all events until the end, or until the pipeline is done.
    fn run(
        &mut self,
        tracer: &mut Tracer,
        mailbox: &Mailbox,
        outlet: &mut Outlet<'_>,
    ) -> Result<()> {
        let mut batch = Vec::new();
        let mut outcome = Ok(true);
        while matches!(outcome, Ok(true)) && !self.pipeline.is_done() {
            let next = tracer.next(mailbox, &mut batch);
            if next.is_err() {
                // What was lost until now is still reported.
                batch.extend(tracer.new_losses());
            }
            self.tick(outlet)?;
            if !batch.is_empty() {
                self.batch(&mut batch, outlet)?;
            }
            match next {
                Ok(Arrival::Mail) => self.messages(mailbox.next(), outlet)?,
                Ok(Arrival::End) => self.messages(mailbox.rest(), outlet)?,
                Ok(Arrival::Events) | Err(_) => {}
            }
            if let Some(sums) = &mut self.sums {
                sums.look(kernel::now(), outlet.sinks)?;
                outlet.sinks.flush();
            }
            outcome = next.map(|next| next != Arrival::End);
        }
        if let Some(sums) = &mut self.sums {
            sums.finish(kernel::now(), outlet.sinks)?;
        }
        outcome.map(drop)
    }

    fn messages(
        &mut self,
        messages: impl IntoIterator<Item = TraceMessage>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), SinkError> {
        for message in messages {
            match message {
                TraceMessage::Rows(mut rows) => self.batch(&mut rows, outlet)?,
                TraceMessage::Timeouts(change) => self.timeouts(change, outlet)?,
                TraceMessage::Names(names) => self.names = names,
                TraceMessage::SnapshotEnd(outcome) => self.snapshot_ended(outcome, outlet)?,
            }
        }
        Ok(())
    }

    /// Tells the sinks the time, about once a second.
    fn tick(&mut self, outlet: &mut Outlet<'_>) -> Result<(), SinkError> {
        if self.ticked.elapsed() < TICK {
            return Ok(());
        }
        self.ticked = Instant::now();
        // Without events, the changes that the kernel reports would fill their buffer.
        self.owners.begin(self.ticked);
        let now = kernel::now();
        // A trace always has a judge.
        if let Some(judge) = self.pipeline.judge(0) {
            (outlet.observer)(TraceNews::Tick(now, judge.estimator()));
        }
        outlet.sinks.tick(now)
    }

    fn snapshot_ended(
        &mut self,
        outcome: Result<()>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), SinkError> {
        if !self.end_snapshot(outcome) {
            return Ok(());
        }
        let now = kernel::now();
        match self.detail {
            Detail::None => {}
            Detail::Brief | Detail::Full => outlet.sinks.watching(now, self.is_filtered)?,
        }
        outlet.sinks.tick(now)
    }

    /// Judges by other idle timeouts of the host from now on.
    fn timeouts(
        &mut self,
        namespaces: Vec<NetnsTimeouts>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), SinkError> {
        let now = kernel::now();
        self.pipeline.apply(0, &namespaces);
        outlet.sinks.timeouts(&TimeoutsChange {
            time: WallTime(now.wall_ns),
            mono_ns: now.mono_ns,
            host: None,
            namespaces,
        })
    }

    fn batch(&mut self, batch: &mut [Event], outlet: &mut Outlet<'_>) -> Result<(), SinkError> {
        order::causes_first(batch);
        self.owners.begin(Instant::now());
        for event in batch {
            let last = match &*event {
                Event::Socket(event) => self.correlator.last_owner(event),
                _ => None,
            };
            self.owners.fill(event, last);
            let event = &*event;
            if let Event::Snapshot(row) = event
                && self.pipeline.passes_socket(row)
            {
                self.seen += 1;
                outlet.sinks.existing(row);
            }
            if let (Event::Socket(event), Some(stalls)) = (event, &self.stalls) {
                stalls.note(event);
            }
            self.show(event, outlet)?;
            outlet.sinks.flush_if_full();
        }
        outlet.sinks.flush();
        Ok(())
    }

    fn show(&mut self, event: &Event, outlet: &mut Outlet<'_>) -> Result<(), SinkError> {
        let mut outcome = Ok(());
        let (pipeline, names, sums) = (&mut self.pipeline, &self.names, &mut self.sums);
        self.correlator.push(event, &mut |record| {
            let netns = record.endpoints.map(|it| it.netns);
            record.netns_name = netns.and_then(|netns| names.get(&netns).cloned());
            pipeline.push(0, record, |record| {
                (outlet.observer)(TraceNews::Record(record));
                if outcome.is_ok() {
                    outcome = match sums {
                        Some(sums) => sums.record(record, outlet.sinks),
                        None => outlet.sinks.record(record),
                    };
                }
            });
        });
        outcome
    }

    fn outcome(&self, tracer: &Tracer) -> Outcome {
        Outcome {
            counts: self.pipeline.counts(),
            sockets: self.correlator.sockets(),
            evicted: self.correlator.evicted(),
            untracked: tracer.untracked(),
            unreadable: self.owners.unreadable(),
            failed_searches: self.owners.failed(),
            dropped_owners: self.owners.dropped_owners(),
            unreported_changes: self.owners.lost_news(),
            // `None` once the snapshot has ended.
            partial_snapshot: self.snapshot.as_ref().map(|_| self.seen),
            unanswered: self.pipeline.unanswered(),
            outputs: Vec::new(),
        }
    }
}

/// Makes the ready file. One that exists keeps its contents, and gets the time of now.
fn make_ready_file(path: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    let file = output_file::open(path, OFlags::WRONLY | OFlags::CREATE, mode)?;
    if file.metadata()?.is_file() {
        file.set_modified(SystemTime::now())?;
    }
    Ok(())
}

/// The limits of the plan, and those that fit the host.
fn limits(plan: &TracePlan) -> Limits {
    let fitting = Limits::of(host::memory::usable_bytes());
    Limits {
        sockets: plan.max_sockets.unwrap_or(fitting.sockets),
        buffer_bytes: plan.buffer_bytes.unwrap_or(fitting.buffer_bytes),
    }
}

/// Resolves the network namespaces and cgroups in the plan to the kernel's identifiers.
fn resolve(plan: &TracePlan, limits: Limits) -> Result<TracerConfig> {
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
        fin_idle: plan.fin_idle,
        stalled_after: plan.stalled_after,
        attach: plan.attach,
        rtt: plan.rtt,
        limits,
        debug: plan.debug,
    })
}

fn header(plan: &TracePlan, limits: Limits, tracer: &Tracer, host: &HostTimeouts) -> Header {
    let hook = |a: &Attached| (a.hook.to_string(), a.mode.to_string());
    let offset = tracer.clock_offset_ns();
    Header {
        version: header::VERSION.to_owned(),
        host: host::uts::host_name(),
        kernel: Escaped::from_bytes(rustix::system::uname().release().to_bytes()),
        kaprobe: version::FULL.to_owned(),
        part: None,
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
        timeouts: host.timeouts.clone(),
        routes: host.routes.clone(),
        alive_ms: plan
            .alive
            .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX).max(1)),
        max_sockets: Some(limits.sockets),
    }
}
