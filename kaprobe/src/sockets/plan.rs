//! The plan of `kaprobe sockets`: everything that the arguments decide, checked, before
//! anything is done. Makes no system call.

use std::collections::BTreeSet;
use std::time::Duration;

use kaprobe_ebpf::config::MAX_CGROUPS;

use crate::cli::args::{SocketsArgs, Sort};
use crate::cli::filters::{check_count, comms, pids, sockets};
use crate::exit;
use crate::filter::kernel::KernelFilter;
use crate::model::values::State;
use crate::sink::options::Format;
use crate::text::escape::Escaped;

/// What `kaprobe sockets` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketsPlan {
    /// Which sockets.
    pub selection: Selection,
    /// What to sort by.
    pub sort: Option<Sort>,
    /// Show them again and again, with such a pause between.
    pub watch: Option<Duration>,
    /// Format of standard output.
    pub format: Format,
    /// A heading over text and CSV.
    pub heading: bool,
    /// Every column.
    pub wide: bool,
}

/// Which of the sockets that there are. What is empty is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What the BPF program keeps; but for `netns`, which is where it is sent to.
    pub kernel: KernelFilter,
    /// Processes, any of which holds the socket.
    pub pids: BTreeSet<u32>,
    /// Commands, likewise.
    pub comms: BTreeSet<Escaped>,
    /// States.
    pub states: Vec<State>,
    /// Every network namespace.
    pub all_netns: bool,
}

impl SocketsPlan {
    /// Checks the arguments of `kaprobe sockets` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the argument that can't be.
    pub fn new(args: SocketsArgs) -> Result<Self, exit::Error> {
        check_count(MAX_CGROUPS, "--cgroup", args.cgroup.len())?;
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
