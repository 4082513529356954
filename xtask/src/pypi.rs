//! Installs the Python packages that tests run, with a Python of Debian's.
//!
//! The host's Python and its packages do not change.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{CommandExt as _, say};
use crate::{apt, hash, workspace};

/// What is installed, each with its version and digest.
const REQUIREMENTS: &str = "xtask/requirements.txt";

/// The package of Debian's with pip and Python.
const PYTHON: &str = "python3-pip";

/// The folder of the installed packages. After a change of the list it is another one.
pub fn folder() -> Result<PathBuf> {
    let list = hash::sha256(workspace::read(REQUIREMENTS)?.as_bytes());
    Ok(apt::trees().join(format!("pypi-{}", &list[..16])))
}

/// Installs the packages, and the Python that runs them, unless they are there.
pub fn install() -> Result<()> {
    let python = apt::tree(PYTHON)?;
    workspace::make_once(&folder()?, |into| {
        say("downloading ClickHouse, DuckDB, Helm and schemas, 300 MB");
        pip(&python)
            .args(["install", "--quiet", "--require-hashes", "--no-deps"])
            .args([
                "--only-binary",
                ":all:",
                "--no-compile",
                "--root-user-action",
                "ignore",
            ])
            .arg("--target")
            .arg(into)
            .arg("--requirement")
            .arg(workspace::root().join(REQUIREMENTS))
            .check_to_stderr()
    })
}

fn pip(tree: &Path) -> Command {
    let mut python = apt::loader(tree);
    python
        .arg(tree.join("usr/bin/python3"))
        .args(["-m", "pip", "--no-input", "--disable-pip-version-check"])
        .env("PYTHONHOME", tree.join("usr"))
        .env_remove("PYTHONPATH");
    python
}
