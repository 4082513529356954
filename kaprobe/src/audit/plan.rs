//! The plan of `kaprobe audit`: its checked arguments. Makes no system calls.

use std::time::Duration;

use crate::cli::args::AuditArgs;
use crate::cli::filters::{processes, sockets};
use crate::cli::timeouts::timeouts;
use crate::exit;
use crate::filter::SocketFilter;
use crate::filter::kernel::KernelFilter;
use crate::filter::processes::ProcessFilter;
use crate::model::row::Row;
use crate::model::time::TimeBounds;
use crate::model::values::State;
use crate::replay::input::{Input, inputs};
use crate::sink::options::Format;
use crate::sockets::plan::Selection;
use crate::timeout::timeouts::Timeout;

/// The checked arguments of `kaprobe audit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPlan {
    /// Sockets of the snapshot: whole namespaces, because listeners show which
    /// connections were accepted.
    pub sockets: Selection,
    /// Connections to keep.
    pub keep: SocketFilter,
    /// Processes to keep.
    pub processes: ProcessFilter,
    /// Idle timeouts on every path. If this and `logs` are empty, the host's own apply.
    pub timeouts: Vec<Timeout>,
    /// Logs that show more timeouts.
    pub logs: Vec<Input>,
    /// The times of the records in the logs.
    pub times: TimeBounds,
    /// Include connections within this host.
    pub loopback: bool,
    /// Observe the connections for this time before they are judged.
    pub observe: Option<Duration>,
    /// Format of standard output.
    pub format: Format,
    /// Write a header line in text and CSV.
    pub heading: bool,
    /// Write all columns of text.
    pub wide: bool,
    /// The most groups to write as text; `None` to write all.
    pub max_rows: Option<usize>,
}

impl AuditPlan {
    /// Checks the arguments of `kaprobe audit`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`] if arguments conflict.
    pub fn new(args: AuditArgs) -> Result<Self, exit::Error> {
        let logs = inputs(args.log)?;
        let times = TimeBounds::from(args.window);
        if logs.is_empty() && times != TimeBounds::default() {
            return Err(exit::Error::usage("--since and --until go with --log"));
        }
        if args.rows.max_rows().is_some() && args.rows.format() != Format::Text {
            return Err(exit::Error::usage(
                "--max-rows goes with text only: JSON and CSV have a line for each connection",
            ));
        }
        Ok(Self {
            sockets: Selection {
                kernel: KernelFilter {
                    netns: args.snapshot.sockets.netns.clone(),
                    ..KernelFilter::default()
                },
                states: vec![State::Listen, State::Established],
                all_netns: args.snapshot.all_netns,
                host_root: args.snapshot.node.host_root,
                ..Selection::default()
            },
            keep: sockets(&args.snapshot.sockets),
            processes: processes(&args.snapshot.sockets),
            timeouts: timeouts(&args.timeouts)?,
            logs,
            times,
            loopback: args.loopback,
            observe: args.observe,
            format: args.rows.format(),
            heading: !args.rows.no_header,
            wide: args.wide,
            max_rows: args.rows.max_rows(),
        })
    }

    /// Whether a socket is a connection that is selected by its endpoints.
    #[must_use]
    pub fn observes(&self, row: &Row) -> bool {
        self.is_selected(row) && (self.loopback || !is_local(row))
    }

    /// Whether a socket is a connection that passes the filters.
    #[must_use]
    pub fn keeps(&self, row: &Row) -> bool {
        self.is_selected(row) && self.processes.keeps(&row.process)
    }

    fn is_selected(&self, row: &Row) -> bool {
        row.state == State::Established && self.keep.keeps(Some(&row.endpoints))
    }
}

/// Whether both ends are in one namespace, with no middlebox between them. To connect to
/// a local address, the kernel uses the same address as source.
pub fn is_local(row: &Row) -> bool {
    let (local, remote) = (
        row.endpoints.laddr.to_canonical(),
        row.endpoints.raddr.to_canonical(),
    );
    remote.is_loopback() || local == remote
}
