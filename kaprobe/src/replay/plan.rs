//! The plan of `kaprobe replay`: everything that the arguments decide, checked, before
//! anything is done. Makes no system call.

use std::collections::BTreeSet;

use crate::cli::args::ReplayArgs;
use crate::cli::filters::{by_flag, events, records, sockets};
use crate::cli::outputs::outputs;
use crate::exit;
use crate::filter::RecordFilter;
use crate::filter::events::EventSet;
use crate::model::header::Filters;
use crate::replay::input::{Input, inputs};
use crate::sink::options::{Format, Outputs};
use crate::text::escape::Escaped;

/// What `kaprobe replay` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Logs to read.
    pub logs: Vec<Input>,
    /// What is kept of their records.
    pub records: RecordFilter,
    /// Every filter as it was given, for the header of a log.
    pub given: Filters,
    /// Where records go.
    pub outputs: Outputs,
    /// Sum records up by remote endpoint instead of showing them.
    pub summary: bool,
    /// No summary on stderr.
    pub quiet: bool,
}

impl ReplayPlan {
    /// Checks the arguments of `kaprobe replay` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the argument that can't be.
    pub fn new(args: ReplayArgs) -> Result<Self, exit::Error> {
        let ReplayArgs {
            logs,
            summary,
            filters,
            output,
        } = args;
        let outputs = outputs(&output)?;
        if summary && outputs.screen == Format::Csv {
            return Err(exit::Error::usage(
                "--summary is text or JSON lines, not CSV",
            ));
        }
        let logs = inputs(logs)?;
        // What the log has was asked for when it was made.
        let events = events(&filters, EventSet::All);
        let given = match filters.events.as_slice() {
            [] => by_flag(&filters, &[], &BTreeSet::new()),
            _ => by_flag(&filters, &[], &events),
        };
        let sockets = sockets(&filters.sockets);
        let netns: Result<_, _> = filters.sockets.netns.iter().map(|it| inode(it)).collect();
        Ok(Self {
            logs,
            given,
            outputs,
            summary,
            quiet: output.quiet,
            records: RecordFilter {
                sockets,
                netns: netns?,
                ..records(filters, events)
            },
        })
    }
}

/// The inode number of a network namespace, which is all that a log knows of it.
fn inode(netns: &str) -> Result<u32, exit::Error> {
    netns.parse().map_err(|_| {
        let shown = Escaped::from(netns);
        exit::Error::usage(format!(
            "--netns {shown}: a log knows a network namespace by its inode number only"
        ))
    })
}
