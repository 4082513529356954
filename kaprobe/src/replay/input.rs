//! The logs to read.

use std::path::{Path, PathBuf};

use crate::exit;

/// A log to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// The logs of these names; `-` is standard input.
///
/// # Errors
/// Of [`exit::Code::Usage`], when standard input is to be read twice.
pub fn inputs(logs: Vec<PathBuf>) -> Result<Vec<Input>, exit::Error> {
    let logs: Vec<_> = logs.into_iter().map(input).collect();
    if logs.iter().filter(|log| **log == Input::Stdin).count() > 1 {
        return Err(exit::Error::usage("standard input can be read only once"));
    }
    Ok(logs)
}

fn input(log: PathBuf) -> Input {
    if log == Path::new("-") {
        Input::Stdin
    } else {
        Input::File(log)
    }
}
