//! The checked arguments of `kaprobe replay`. Makes no system call.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::cli::args::{LimitArgs, RecordArgs, ReplayArgs, WindowArgs};
use crate::cli::filters::{by_flag, events, records, sockets};
use crate::cli::outputs::outputs;
use crate::exit;
use crate::filter::RecordFilter;
use crate::filter::events::EventSet;
use crate::host::netns::Netns;
use crate::model::header::Filters;
use crate::model::time::TimeBounds;
use crate::replay::input::{Input, inputs};
use crate::sink::options::{Existing, Format, Outputs, ScreenFormat};
use crate::text::escape::Escaped;

/// Which logs are read, and which of their records are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSelection {
    /// Logs to read.
    pub logs: Vec<Input>,
    /// Which records are shown.
    pub records: RecordFilter,
    /// The times of the records to read.
    pub times: TimeBounds,
    /// The filters as given, for the header of a log.
    pub given: Filters,
    /// Most sockets that are remembered; `None` for as many as each trace remembered.
    pub max_sockets: Option<NonZeroUsize>,
}

/// The checked arguments of `kaprobe replay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// What is shown.
    pub selection: LogSelection,
    /// Where records go.
    pub outputs: Outputs,
    /// Summarize records by remote endpoint instead of showing them.
    pub summary: bool,
    /// No summary on stderr.
    pub quiet: bool,
}

impl ReplayPlan {
    /// Makes a plan from the arguments of `kaprobe replay`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: ReplayArgs) -> Result<Self, exit::Error> {
        let ReplayArgs {
            logs,
            summary,
            filters,
            window,
            output,
            limits,
        } = args;
        let every = ScreenFormat::Every(Format::Text);
        let outputs = outputs(&output, Existing::Refuse, every)?;
        let is_summary_format = matches!(
            outputs.screen,
            ScreenFormat::Every(Format::Text | Format::Json)
        );
        if summary && !is_summary_format {
            return Err(exit::Error::usage(
                "--summary is text or JSON lines, nothing else",
            ));
        }
        Ok(Self {
            selection: LogSelection::new(logs, filters, window, limits)?,
            outputs,
            summary,
            quiet: output.quiet,
        })
    }
}

impl LogSelection {
    /// Selects these logs, and the records that pass these filters.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(
        logs: Vec<PathBuf>,
        filters: RecordArgs,
        window: WindowArgs,
        limits: LimitArgs,
    ) -> Result<Self, exit::Error> {
        let logs = inputs(logs)?;
        // By default all events of the log are shown.
        let events = events(&filters, EventSet::All);
        let given = match filters.events.as_slice() {
            [] => by_flag(&filters, &[], &BTreeSet::new()),
            _ => by_flag(&filters, &[], &events),
        };
        let sockets = sockets(&filters.sockets);
        let (netns, netns_names) = namespaces(&filters.sockets.netns)?;
        Ok(Self {
            logs,
            times: window.into(),
            given,
            max_sockets: limits
                .max_sockets
                .and_then(|max| NonZeroUsize::new(max as usize)),
            records: RecordFilter {
                sockets,
                netns,
                netns_names,
                ..records(filters, events)
            },
        })
    }
}

/// The inode numbers and the names among these network namespaces.
fn namespaces(all: &[String]) -> Result<(BTreeSet<u32>, BTreeSet<Escaped>), exit::Error> {
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for it in all {
        let _is_new = match it.parse() {
            Ok(Netns::Inode(number)) => numbers.insert(number),
            Ok(Netns::Name(name)) => names.insert(Escaped::from(name.as_str())),
            Ok(Netns::Own | Netns::Pid(_) | Netns::Path(_)) | Err(_) => {
                let shown = Escaped::from(it.as_str());
                return Err(exit::Error::usage(format!(
                    "--netns {shown}: a log knows a network namespace by its inode number and \
                     its name only"
                )));
            }
        };
    }
    Ok((numbers, names))
}
