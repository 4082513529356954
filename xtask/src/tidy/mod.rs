//! The invariants of the repository that a machine can check: `cargo xtask tidy`.
//!
//! Each kind has a file, whose `find` looks at one file's text or at the whole tree.

mod circles;
mod crates;
mod entry_points;
mod file;
mod imports;
mod lex;
mod lines;
mod references;

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{CommandExt, say};
use crate::tidy::crates::Crate;
use crate::tidy::file::{File, Finding};
use crate::{ebpf, workspace};

/// Where the sources of each crate lie.
const CRATES: [&str; 3] = ["kaprobe/src/", "kaprobe-ebpf/src/", "xtask/src/"];

/// Fails with every departure from the invariants, as `file:line: what`.
pub fn check() -> Result<()> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root())
        .read()?;
    let ours = listing.lines().filter(|path| is_ours(path));
    let files = ours.map(|path| Ok(File::new(path, &workspace::read(path)?)));
    let files = files.collect::<Result<Vec<_>>>()?;

    let mut findings = ebpf::stale()?;
    findings.extend(find(&files).iter().map(ToString::to_string));
    if !findings.is_empty() {
        bail!("the repository is not tidy:\n  {}", findings.join("\n  "));
    }
    say("the repository is tidy");
    Ok(())
}

/// Text that people write. A file deleted but not yet committed is listed, and is none.
fn is_ours(path: &str) -> bool {
    let kinds = [".rs", ".toml", ".md", ".sh", ".json"];
    kinds.iter().any(|kind| path.ends_with(kind)) && workspace::root().join(path).is_file()
}

/// All findings, in the order of files and lines.
fn find(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(lines::find(file));
        findings.extend(entry_points::find(file));
    }
    for folder in CRATES {
        findings.extend(circles::find(&Crate::new(folder, files)));
    }
    findings.sort();
    findings
}
