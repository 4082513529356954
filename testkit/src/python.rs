//! Runs Python programs with the packages of PyPI that `cargo xtask` has installed.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::harness::Skip;
use crate::package;

/// Runs a program that reads a request of JSON, and writes an answer of JSON. It needs these
/// packages.
///
/// # Errors
/// If it fails, or if a package is not installed.
pub fn ask<T: DeserializeOwned>(program: &str, needs: &[&str], request: &Value) -> Result<T> {
    let packages = folder(needs)?;
    let python = package::tree("python3-pip")?;
    let mut command = package::beside_host("python3-pip", "usr/bin/python3")?;
    let mut child = command
        .args(["-c", program])
        .env("PYTHONHOME", python.join("usr"))
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start Python")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // It reads all of it before it writes.
    stdin.write_all(request.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| text.into_owned())
}

/// The folder that holds these packages.
///
/// # Errors
/// A [`Skip`] if one is missing.
pub fn folder(needs: &[&str]) -> Result<PathBuf> {
    let packages = env::var_os("KAPROBE_PYPI").map(PathBuf::from);
    let has = |folder: &Path| needs.iter().all(|it| folder.join(it).is_dir());
    let found = packages.filter(|it| has(it));
    found.ok_or_else(|| {
        let needs = needs.join(" and ");
        Skip(format!(
            "no Python package {needs} here: `cargo xtask test` fetches it"
        ))
        .into()
    })
}
