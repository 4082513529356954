//! Builds programs with cargo, and tells where they are.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message};

use crate::process::line;
use crate::workspace;

/// A program that cargo built.
pub struct Program {
    /// The name of its target.
    pub name: String,
    /// Whether it holds tests.
    pub is_test: bool,
    /// Where it lies.
    pub path: PathBuf,
}

/// Runs a cargo that builds programs, and returns those.
pub fn build(cargo: &mut Command) -> Result<Vec<Program>> {
    cargo.arg("--message-format=json-render-diagnostics");
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) =
            message.context("cannot read cargo's messages")?
        {
            programs.extend(program(artifact));
        }
    }
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("cannot build with {}", line(cargo));
    }
    Ok(programs)
}

/// A cargo that links kaprobe statically: a guest has no libraries.
pub fn static_cargo(subcommand: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args([subcommand, "--package", "kaprobe", "--release"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .arg("--target-dir")
        .arg(workspace::cache("guest"))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Cstrip=debuginfo",
        );
    cargo
}

/// Builds with a cargo that makes kaprobe, and returns where that is.
pub fn kaprobe(cargo: &mut Command) -> Result<PathBuf> {
    only_kaprobe(&build(cargo.args(["--bin", "kaprobe"]))?)
}

/// Where kaprobe itself is, among these.
pub fn only_kaprobe(programs: &[Program]) -> Result<PathBuf> {
    let kaprobe = programs
        .iter()
        .find(|program| !program.is_test && program.name == "kaprobe");
    Ok(kaprobe.context("cargo built no kaprobe")?.path.clone())
}

fn program(artifact: Artifact) -> Option<Program> {
    let path = artifact.executable?.into();
    Some(Program {
        name: artifact.target.name,
        is_test: artifact.profile.test,
        path,
    })
}
