//! `kaprobe audit`: shows which connections an idle timeout would kill, and what setting
//! saves each. It changes nothing.

pub mod advice;
pub mod assessment;
pub mod group;
pub mod judge;
mod log_timeouts;
mod observation;
mod observe;
mod output;
pub mod plan;
pub mod silence;
mod words;

use std::io::{self, BufWriter};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::audit::assessment::Assessment;
use crate::audit::group::Groups;
use crate::audit::log_timeouts::LogTimeouts;
use crate::audit::observation::Observation;
use crate::audit::output::{AuditStyle, AuditWriter};
use crate::audit::plan::{AuditPlan, is_local};
use crate::model::peer_group::Listeners;
use crate::model::row::Row;
use crate::replay::{LogCounts, input};
use crate::sink::SinkError;
use crate::sockets::note_left_out;
use crate::sockets::snapshot::Snapshots;
use crate::timeout::timeouts::Timeouts;
use crate::{exit, host, replay, sink};

/// Runs `kaprobe audit`. Returns [`exit::Code::Ok`] if every connection was read, and is
/// safe or kept by its traffic.
///
/// # Errors
/// If the sockets or a log can't be read, or the report can't be written. If lines of a log
/// were skipped, after the report.
pub fn run(plan: &AuditPlan) -> Result<exit::Code> {
    host::processes::check(&plan.processes.pids)?;
    let (timeouts, counts) = timeouts(plan)?;
    if plan.observe.is_some() && timeouts.is_empty() {
        let why = "--observe needs an idle timeout, and this host applies none itself (IPVS, \
                   conntrack): give --idle-timeout, --behind or --log";
        return Err(exit::Error::usage(why).into());
    }
    let mut audit = Audit {
        plan,
        timeouts,
        observation: None,
        listeners: Listeners::default(),
        groups: Groups::default(),
        is_complete: false,
        output: AuditWriter::new(
            BufWriter::new(io::stdout()),
            plan.format,
            AuditStyle {
                heading: plan.heading,
                bars: sink::bars(),
                screen: sink::screen().filter(|_| !plan.wide),
                max_rows: plan.max_rows.unwrap_or(usize::MAX),
            },
        ),
    };
    let done = audit.run();
    let code = if audit.is_complete && audit.groups.is_safe() {
        exit::Code::Ok
    } else {
        exit::Code::NotSafe
    };
    let complete = replay::fail_if_incomplete(counts);
    let code = complete.as_ref().map_or_else(exit::Error::code, |()| code);
    done.map_err(|why| exit::unread(why, code))?;
    complete?;
    Ok(code)
}

/// The timeouts from the flags or, if there are none, this host's own. And the counts of
/// the lines of the logs.
fn timeouts(plan: &AuditPlan) -> Result<(Timeouts, LogCounts)> {
    let LogTimeouts { learned, counts } =
        log_timeouts::read(&plan.logs, &input::window(plan.times)?)?;
    let timeouts = if plan.timeouts.is_empty() && learned.is_empty() {
        host_timeouts()?
    } else {
        Timeouts::new(plan.timeouts.clone(), learned)
    };
    Ok((timeouts, counts))
}

/// The timeouts of this host. Without any, connections that are dying are still told.
fn host_timeouts() -> Result<Timeouts> {
    let host = host::timeouts::read().context("cannot read the idle timeouts of this host")?;
    Ok(Timeouts::of_host(host.timeouts))
}

/// The state of a running audit.
struct Audit<'a> {
    plan: &'a AuditPlan,
    timeouts: Timeouts,
    /// The connections' silences, if they are observed.
    observation: Option<Observation>,
    listeners: Listeners,
    groups: Groups,
    /// Every selected connection was read.
    is_complete: bool,
    output: AuditWriter<BufWriter<io::Stdout>>,
}

impl Audit<'_> {
    fn run(&mut self) -> Result<()> {
        self.output.head().map_err(SinkError::stdout)?;
        let plan = self.plan;
        let mut snapshots = Snapshots::with_settings(&plan.sockets)?;
        if let Some(time) = plan.observe {
            self.observe(&mut snapshots, time)?;
        }
        let notes = snapshots.take(&mut |rows| {
            let mut rows = rows.iter();
            let shown = rows.try_for_each(|row| self.row(row));
            Ok(shown.map_err(SinkError::stdout)?)
        })?;
        notes.print();
        self.is_complete = !notes.incomplete;
        let observed = self.observation.as_mut().map(|it| it.end());
        let ended = self.output.end(&self.groups, &self.timeouts, observed);
        let left_out = ended.map_err(SinkError::stdout)?;
        note_left_out(&left_out.columns, left_out.rows, "groups");
        Ok(())
    }

    /// Observes the connections. The snapshot that follows is the last sample.
    fn observe(&mut self, snapshots: &mut Snapshots<'_>, time: Duration) -> Result<()> {
        let mut observation = observe::observe(self.plan, snapshots, time)?;
        observation.begin_sample();
        self.observation = Some(observation);
        if !self.timeouts.host().is_empty() {
            // They may have changed meanwhile.
            self.timeouts = host_timeouts()?;
        }
        Ok(())
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        self.listeners.see(row);
        if let Some(observation) = &mut self.observation
            && self.plan.observes(row)
        {
            observation.add(row);
        }
        if !self.plan.keeps(row) {
            return Ok(());
        }
        if is_local(row) && !self.plan.loopback {
            self.groups.loopback += 1;
            return Ok(());
        }
        let accepted = self.listeners.accepted(&row.endpoints);
        let silences = self.observation.as_ref().and_then(|it| it.of(row));
        let assessment = Assessment::of(row, accepted, &self.timeouts, silences);
        self.groups.add(&assessment);
        self.output.assessment(&assessment)
    }
}
