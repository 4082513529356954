//! The checked arguments of `kaprobe report`. Makes no system call.

use std::path::{Path, PathBuf};

use crate::cli::args::ReportArgs;
use crate::cli::outputs::file_name;
use crate::cli::timeouts::timeouts;
use crate::exit;
use crate::replay::plan::LogSelection;
use crate::timeout::timeouts::Timeout;

/// The checked arguments of `kaprobe report`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPlan {
    /// What is reported.
    pub selection: LogSelection,
    /// The file that is written; without one, standard output is.
    pub output: Option<PathBuf>,
    /// A file that exists is overwritten.
    pub overwrite: bool,
    /// Timeouts to compare idle ages with.
    pub timeouts: Vec<Timeout>,
}

impl ReportPlan {
    /// Makes a plan from the arguments of `kaprobe report`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: ReportArgs) -> Result<Self, exit::Error> {
        let ReportArgs {
            logs,
            output,
            force,
            timeouts: given,
            filters,
            window,
            limits,
        } = args;
        output.as_deref().map(check).transpose()?;
        Ok(Self {
            timeouts: timeouts(&given)?,
            selection: LogSelection::new(logs, filters, window, limits)?,
            output,
            overwrite: force,
        })
    }
}

/// Checks the name of the file.
fn check(path: &Path) -> Result<(), exit::Error> {
    file_name(path, "to write to standard output, leave --output out")
}
