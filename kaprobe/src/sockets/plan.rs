//! The plan of `kaprobe sockets`: its checked arguments. Makes no system calls.

use std::collections::BTreeSet;
use std::time::Duration;

use kaprobe_ebpf::config::MAX_CGROUPS;

use crate::cli::args::{SocketsArgs, Sort};
use crate::cli::filters::{check_count, comms, pids, sockets};
use crate::exit;
use crate::filter::kernel::{KernelFilter, MAX_NETWORKS};
use crate::model::values::State;
use crate::sink::options::Format;
use crate::text::escape::Escaped;

/// The checked arguments of `kaprobe sockets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketsPlan {
    /// Sockets to show.
    pub selection: Selection,
    /// Column to sort by.
    pub sort: Option<Sort>,
    /// Pause between snapshots; `None` to show only one.
    pub watch: Option<Duration>,
    /// Format of standard output.
    pub format: Format,
    /// Write a header line in text and CSV.
    pub heading: bool,
    /// Write all columns.
    pub wide: bool,
}

/// Filters of a snapshot's sockets. An empty filter passes all sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Filters of the BPF program. `netns` lists the namespaces to read.
    pub kernel: KernelFilter,
    /// Process IDs to keep. One of them must hold the socket.
    pub pids: BTreeSet<u32>,
    /// Command names to keep, in the same way.
    pub comms: BTreeSet<Escaped>,
    /// TCP states to keep.
    pub states: Vec<State>,
    /// Read every network namespace.
    pub all_netns: bool,
}

impl SocketsPlan {
    /// Checks the arguments of `kaprobe sockets`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`] if an argument is not valid.
    pub fn new(args: SocketsArgs) -> Result<Self, exit::Error> {
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
                pids: pids(&args.snapshot.sockets),
                comms: comms(&args.snapshot.sockets),
                states: args.state,
                all_netns: args.snapshot.all_netns,
            },
            sort: args.sort,
            watch: args.watch,
            format: args.rows.format(),
            heading: !args.rows.no_header,
            wide: args.wide,
        })
    }
}
