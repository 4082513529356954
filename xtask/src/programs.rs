//! Builds programs with cargo and returns their paths.

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
    /// Whether the program is a test harness.
    pub is_test: bool,
    /// Its path.
    pub path: PathBuf,
}

/// Runs a cargo command and returns the programs that it built.
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

/// A cargo command that links kaprobe statically: a guest has no libraries.
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

/// Builds kaprobe with this cargo command and returns its path.
pub fn kaprobe(cargo: &mut Command) -> Result<PathBuf> {
    find_kaprobe(&build(cargo.args(["--bin", "kaprobe"]))?)
}

/// The path of kaprobe among built programs.
pub fn find_kaprobe(programs: &[Program]) -> Result<PathBuf> {
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
