//! The checked arguments of `kaprobe agent`. Makes no system call.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::census::plan::{CensusArgs, CensusPlan};
use crate::cli::args::{AgentArgs, SocketArgs};
use crate::cli::filters::{processes, sockets};
use crate::exit;
use crate::filter::RecordFilter;
use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::record::plan::{folder, trace};
use crate::sink::options::RecorderFolder;
use crate::trace::plan::TracePlan;

/// The checked arguments of `kaprobe agent`.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    /// The trace.
    pub trace: TracePlan,
    /// Where it is recorded, if it is.
    pub to: Option<RecorderFolder>,
    /// Where the metrics are served.
    pub listen: SocketAddr,
    /// The file of settings.
    pub config: Option<PathBuf>,
    /// The settings of the command line.
    pub given: AgentArgs,
}

impl AgentPlan {
    /// Makes a plan from the arguments of `kaprobe agent`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: AgentArgs) -> Result<Self, exit::Error> {
        AgentSettings::new(&args)?;
        let records = &args.filters.records;
        if !records.events.is_empty() {
            return Err(exit::Error::usage(
                "agent counts every event: leave out --events",
            ));
        }
        if records.count.is_some() {
            return Err(exit::Error::usage(
                "agent runs until it is told to end: leave out --count",
            ));
        }
        let given = args.clone();
        let to = args
            .dir
            .map(|dir| folder(dir, &args.segments))
            .transpose()?;
        let trace = trace(args.filters, args.running, args.quiet)?;
        Ok(Self {
            trace: TracePlan {
                alive: to.as_ref().map(|_| args.segments.alive_interval),
                ..trace
            },
            to,
            listen: args.listen,
            config: args.config,
            given,
        })
    }
}

/// What can change while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Most series that are counted apart.
    pub series: NonZeroUsize,
    /// Pause between two counts of the connections.
    pub interval: Duration,
    /// Which connections are counted, and by which timeouts they are judged.
    pub census: CensusPlan,
}

impl AgentSettings {
    /// Checks the settings among the arguments.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: &AgentArgs) -> Result<Self, exit::Error> {
        Ok(Self {
            series: NonZeroUsize::new(args.series.into()).unwrap_or(NonZeroUsize::MIN),
            interval: args.interval,
            census: CensusPlan::new(CensusArgs {
                sockets: &args.filters.records.sockets,
                cgroups: &args.filters.cgroup,
                node: &args.filters.node,
                loopback: args.loopback,
                timeouts: &args.timeouts,
            })?,
        })
    }
}

/// The records that pass the filters of a file of settings.
#[must_use]
pub fn record_filter(args: &SocketArgs) -> RecordFilter {
    RecordFilter {
        events: EventName::ALL.iter().copied().collect(),
        sockets: sockets(args),
        processes: processes(args),
        ..RecordFilter::default()
    }
}
