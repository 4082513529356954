//! Which sockets are counted, and by which timeouts connections are judged. Makes no system
//! calls.

use std::ffi::OsString;
use std::path::PathBuf;

use kaprobe_ebpf::config::MAX_CGROUPS;

use crate::census::sums::is_connection;
use crate::cli::args::{NodeArgs, SocketArgs, TimeoutArgs};
use crate::cli::filters::{as_flags, check_count, host_root, process_flags, processes, sockets};
use crate::cli::timeouts::timeouts;
use crate::exit;
use crate::filter::SocketFilter;
use crate::filter::kernel::{KernelFilter, MAX_NETWORKS};
use crate::filter::processes::ProcessFilter;
use crate::model::named::Named as _;
use crate::model::row::Row;
use crate::model::values::State;
use crate::sockets::plan::Selection;
use crate::timeout::timeouts::Timeout;

/// The arguments that select connections, and those that judge them.
#[derive(Clone, Copy, Debug)]
pub struct CensusArgs<'a> {
    /// Filters of the sockets.
    pub sockets: &'a SocketArgs,
    /// cgroups of the sockets.
    pub cgroups: &'a [PathBuf],
    /// Where the names of containers are read.
    pub node: &'a NodeArgs,
    /// Judge connections within this host too.
    pub loopback: bool,
    /// Idle timeouts that connections are judged by.
    pub timeouts: &'a TimeoutArgs,
}

/// Which connections are counted, and how they are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CensusPlan {
    /// Sockets of the snapshots: whole namespaces, because listeners show which connections
    /// were accepted.
    pub selection: Selection,
    /// Connections to keep.
    pub keep: SocketFilter,
    /// Processes to keep.
    pub processes: ProcessFilter,
    /// Judge connections within this host too.
    pub loopback: bool,
    /// Idle timeouts on every path. If there are none, the host's own apply.
    pub timeouts: Vec<Timeout>,
    /// The arguments of the process that takes the snapshots.
    pub reader: Vec<OsString>,
}

impl CensusPlan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: CensusArgs<'_>) -> Result<Self, exit::Error> {
        check_count(MAX_CGROUPS, "--cgroup", args.cgroups.len())?;
        check_count(MAX_NETWORKS, "--addr", args.sockets.addr.len())?;
        Ok(Self {
            reader: reader(args),
            selection: Selection {
                kernel: KernelFilter {
                    netns: args.sockets.netns.clone(),
                    cgroups: args.cgroups.to_vec(),
                    ..KernelFilter::default()
                },
                all_netns: args.sockets.netns.is_empty(),
                host_root: args.node.host_root.clone(),
                states: State::ALL
                    .iter()
                    .copied()
                    .filter(|state| *state == State::Listen || is_connection(*state))
                    .collect(),
                ..Selection::default()
            },
            keep: sockets(args.sockets),
            processes: processes(args.sockets),
            loopback: args.loopback,
            timeouts: timeouts(args.timeouts)?,
        })
    }

    /// Whether a socket is a connection that passes the filters.
    #[must_use]
    pub fn keeps(&self, row: &Row) -> bool {
        is_connection(row.state)
            && self.keep.keeps(Some(&row.endpoints))
            && self.processes.keeps(&row.process)
    }
}

/// The flags that select the sockets.
pub fn socket_flags(sockets: &SocketArgs, cgroups: &[PathBuf]) -> impl Iterator<Item = OsString> {
    as_flags(sockets, cgroups)
        .into_iter()
        .chain(process_flags(sockets))
}

/// The arguments of the process that takes the snapshots.
fn reader(args: CensusArgs<'_>) -> Vec<OsString> {
    let mut flags: Vec<OsString> = ["top", "--reader"].map(Into::into).into();
    flags.extend(socket_flags(args.sockets, args.cgroups));
    flags.extend(host_root(args.node));
    flags.extend(args.loopback.then(|| "--loopback".into()));
    let timeouts = args.timeouts;
    if let Some(timeout) = timeouts.idle_timeout {
        flags.push(format!("--idle-timeout={}ms", timeout.as_millis()).into());
    }
    if !timeouts.behind.is_empty() {
        flags.push(format!("--behind={}", timeouts.behind.join(",")).into());
    }
    flags
}
