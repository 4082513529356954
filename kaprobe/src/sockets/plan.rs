//! The plan of `kaprobe sockets`: its checked arguments. Makes no system calls.

use std::path::PathBuf;

use kaprobe_ebpf::config::MAX_CGROUPS;

use crate::cli::args::{SocketsArgs, Sort};
use crate::cli::filters::{check_count, processes, sockets};
use crate::exit;
use crate::filter::kernel::{KernelFilter, MAX_NETWORKS};
use crate::filter::processes::ProcessFilter;
use crate::model::named::Named as _;
use crate::model::values::State;
use crate::sink::options::Format;

/// The checked arguments of `kaprobe sockets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketsPlan {
    /// Sockets to show.
    pub selection: Selection,
    /// Write one row for the sockets of each program and service.
    pub group: bool,
    /// Column to sort by.
    pub sort: Option<Sort>,
    /// Format of standard output.
    pub format: Format,
    /// Write a header line in text and CSV.
    pub heading: bool,
    /// Write all columns.
    pub wide: bool,
    /// The most rows to write; `None` to write all.
    pub max_rows: Option<usize>,
}

/// Filters of a snapshot's sockets. An empty filter passes all sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Filters of the BPF program. `netns` lists the namespaces to read.
    pub kernel: KernelFilter,
    /// Processes to keep: one that holds the socket.
    pub processes: ProcessFilter,
    /// The root directory of the host; `None` for that of process 1.
    pub host_root: Option<PathBuf>,
    /// TCP states to keep.
    pub states: Vec<State>,
    /// Read every network namespace.
    pub all_netns: bool,
    /// Pass listeners that no filter keeps: they tell which connections were accepted. The
    /// filters are then applied in user space.
    pub with_listeners: bool,
    /// Take little CPU time at once, as other programs come first.
    pub is_paced: bool,
}

impl SocketsPlan {
    /// Checks the arguments of `kaprobe sockets`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`] if an argument is not valid.
    pub fn new(args: SocketsArgs) -> Result<Self, exit::Error> {
        if args.group && matches!(args.sort, Some(it) if !matches!(it, Sort::Idle | Sort::Dead)) {
            return Err(exit::Error::usage(
                "--group is sorted by count, or by --sort idle or dead",
            ));
        }
        if args.group && args.state.contains(&State::Listen) {
            return Err(exit::Error::usage(
                "--group is of connections: a listener has no remote end",
            ));
        }
        let states = match args.state.as_slice() {
            [] if args.group => connected_states(),
            _ => args.state,
        };
        check_count(MAX_CGROUPS, "--cgroup", args.cgroup.len())?;
        check_count(MAX_NETWORKS, "--addr", args.snapshot.sockets.addr.len())?;
        Ok(Self {
            selection: Selection {
                kernel: KernelFilter {
                    sockets: sockets(&args.snapshot.sockets),
                    netns: args.snapshot.sockets.netns.clone(),
                    cgroups: args.cgroup,
                    ..KernelFilter::default()
                },
                processes: processes(&args.snapshot.sockets),
                host_root: args.snapshot.node.host_root,
                states,
                all_netns: args.snapshot.all_netns,
                with_listeners: args.group,
                is_paced: args.paced,
            },
            group: args.group,
            sort: args.sort,
            format: args.rows.format(),
            heading: !args.rows.no_header,
            wide: args.wide,
            max_rows: args.rows.max_rows(),
        })
    }
}

/// The states of a socket that has a remote end and is not closed on both.
fn connected_states() -> Vec<State> {
    let closed = [State::Listen, State::Close, State::TimeWait];
    let states = State::ALL.iter().copied();
    states.filter(|it| !closed.contains(it)).collect()
}
