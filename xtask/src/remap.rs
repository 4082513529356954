//! Keeps the paths of this machine out of what is built.
//!
//! Panics and debug information name source files by their paths. Two checkouts make the same
//! bytes only if these paths do not depend on where the checkout and cargo's crates lie.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{CargoOpt, MetadataCommand};

use crate::workspace;

/// Flags of rustc by which the checkout becomes the empty path, and cargo's crates `/cargo`.
pub fn flags() -> Result<Vec<OsString>> {
    Ok(vec![
        flag(workspace::root(), ""),
        flag(&registry()?, "/cargo"),
    ])
}

/// A flag by which paths below `from` are written as paths below `to`. Of two that fit, rustc
/// takes the last.
pub fn flag(from: &Path, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push("=");
    flag.push(to);
    flag
}

/// The folder that cargo unpacks crates into. Its name contains the registry's host.
fn registry() -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .features(CargoOpt::AllFeatures)
        .exec()
        .context("cannot ask cargo where its crates lie")?;
    let aya = metadata
        .packages
        .iter()
        .find(|package| package.name == "aya-ebpf");
    let folder = aya.and_then(|aya| aya.manifest_path.parent()?.parent());
    Ok(folder
        .context("the workspace does not depend on aya-ebpf")?
        .into())
}
