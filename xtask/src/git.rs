//! Asks git about a checkout.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::CommandExt as _;

/// What git prints about the checkout in this folder, without the end of its last line.
pub fn read(checkout: &Path, arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    let printed = git.args(arguments).current_dir(checkout).read()?;
    Ok(printed.trim_end().to_owned())
}
