//! The plan of `kaprobe top`: its checked arguments. Makes no system calls.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, anyhow};
use kaprobe_ebpf::config::MAX_CGROUPS;

use crate::cli::args::{TopArgs, TopSort};
use crate::cli::filters::{as_flags, check_count, comms, pids, process_flags, sockets};
use crate::cli::timeouts::timeouts;
use crate::cli::{self, Action, Command};
use crate::filter::kernel::{KernelFilter, MAX_NETWORKS};
use crate::filter::{SocketFilter, passes};
use crate::model::named::Named as _;
use crate::model::row::Row;
use crate::model::values::State;
use crate::sink::options::ColorWhen;
use crate::sockets::plan::Selection;
use crate::text::escape::Escaped;
use crate::timeout::timeouts::Timeout;
use crate::top::census::is_connection;
use crate::trace::plan::TracePlan;

/// The checked arguments of `kaprobe top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopPlan {
    /// The trace that the events come from.
    pub trace: TracePlan,
    /// Sockets of the snapshots: whole namespaces, because listeners show which connections
    /// were accepted.
    pub selection: Selection,
    /// Connections to keep.
    pub keep: SocketFilter,
    /// Process IDs to keep; empty for all.
    pub pids: BTreeSet<u32>,
    /// Command names to keep; empty for all.
    pub comms: BTreeSet<Escaped>,
    /// Judge connections within this host too.
    pub loopback: bool,
    /// Idle timeouts on every path. If there are none, the host's own apply.
    pub timeouts: Vec<Timeout>,
    /// Pause between two snapshots.
    pub interval: Duration,
    /// What rows are sorted by at the start.
    pub sort: TopSort,
    /// Whether to color text.
    pub color: ColorWhen,
    /// This process takes the snapshots of another kaprobe.
    pub is_reader: bool,
    /// The arguments of the process that takes the snapshots.
    pub reader: Vec<OsString>,
}

impl TopPlan {
    /// Checks the arguments of `kaprobe top`.
    ///
    /// # Errors
    /// [`crate::exit::Code::Usage`] if an argument is not valid.
    pub fn new(args: TopArgs) -> Result<Self> {
        check_count(MAX_CGROUPS, "--cgroup", args.cgroup.len())?;
        check_count(MAX_NETWORKS, "--addr", args.sockets.addr.len())?;
        Ok(Self {
            trace: trace(&args)?,
            reader: reader(&args),
            selection: Selection {
                kernel: KernelFilter {
                    netns: args.sockets.netns.clone(),
                    cgroups: args.cgroup,
                    ..KernelFilter::default()
                },
                all_netns: args.sockets.netns.is_empty(),
                states: State::ALL
                    .iter()
                    .copied()
                    .filter(|state| *state == State::Listen || is_connection(*state))
                    .collect(),
                ..Selection::default()
            },
            keep: sockets(&args.sockets),
            pids: pids(&args.sockets),
            comms: comms(&args.sockets),
            loopback: args.loopback,
            timeouts: timeouts(&args.timeouts)?,
            interval: args.interval,
            sort: args.sort,
            color: args.color,
            is_reader: args.reader,
        })
    }

    /// Whether a socket is a connection that passes the filters.
    #[must_use]
    pub fn keeps(&self, row: &Row) -> bool {
        is_connection(row.state)
            && self.keep.keeps(Some(&row.endpoints))
            && passes(&self.pids, row.process.pid.as_ref())
            && passes(&self.comms, row.process.comm.as_ref())
    }
}

/// The flags that select the sockets.
fn socket_flags(args: &TopArgs) -> impl Iterator<Item = OsString> {
    let processes = process_flags(&args.sockets);
    as_flags(&args.sockets, &args.cgroup)
        .into_iter()
        .chain(processes)
}

/// The plan of the trace, from the flags that a user would type.
fn trace(args: &TopArgs) -> Result<TracePlan> {
    let mut flags: Vec<OsString> = ["kaprobe", "trace", "--quiet"].map(Into::into).into();
    flags.extend(socket_flags(args));
    if let Some(way) = args.attach.0 {
        flags.push(format!("--attach={}", way.name()).into());
    }
    match cli::parse(flags)? {
        Action::Run(Command::Trace(args)) => Ok(TracePlan::new(*args)?),
        _ => Err(anyhow!("kaprobe does not understand its own flags")),
    }
}

/// The arguments of the process that takes the snapshots.
fn reader(args: &TopArgs) -> Vec<OsString> {
    let mut flags: Vec<OsString> = ["top", "--reader"].map(Into::into).into();
    flags.extend(socket_flags(args));
    flags.extend(args.loopback.then(|| "--loopback".into()));
    let timeouts = &args.timeouts;
    if let Some(timeout) = timeouts.idle_timeout {
        flags.push(format!("--idle-timeout={}ms", timeout.as_millis()).into());
    }
    if !timeouts.behind.is_empty() {
        flags.push(format!("--behind={}", timeouts.behind.join(",")).into());
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: impl IntoIterator<Item = OsString>) -> Result<TopPlan> {
        let words = std::iter::once("kaprobe".into()).chain(words);
        match cli::parse(words)? {
            Action::Run(Command::Top(args)) => TopPlan::new(*args),
            other => Err(anyhow!("{other:?}")),
        }
    }

    #[test]
    fn the_reader_selects_and_judges_the_same_connections() -> Result<()> {
        for args in [
            "",
            "-P 80,90-92 -L 1 -D 2 -4 --addr 10.0.0.0/8,::1 --cgroup /x",
            "-6 --netns a,b -p 7,8 --comm nginx,java --loopback",
            "--idle-timeout 350s",
            "--behind aws-nlb --idle-timeout 1500ms",
            "--behind ipvs,aws-nlb",
        ] {
            let args = format!("top {args}");
            let given = plan(args.split_whitespace().map(OsString::from))?;
            let reader = plan(given.reader.clone())?;
            assert!(reader.is_reader && !given.is_reader);
            let as_given = TopPlan {
                is_reader: false,
                ..reader
            };
            assert_eq!(as_given, given, "{args}");
        }
        Ok(())
    }

    #[test]
    fn the_trace_has_the_same_filters() -> Result<()> {
        let words = "top -P 80 -p 7 --netns a --cgroup /x --attach tracepoint";
        let TopPlan { trace, keep, .. } = plan(words.split_whitespace().map(OsString::from))?;
        assert_eq!(trace.kernel.sockets, keep);
        assert_eq!(trace.kernel.netns, ["a"]);
        assert_eq!(trace.kernel.cgroups.len(), 1);
        assert_eq!(trace.records.pids, [7].into());
        assert!(trace.quiet && trace.attach.is_some() && trace.snapshot.is_some());
        Ok(())
    }
}
