//! Programs that run in a guest: linked statically, since it has no libraries.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message};

use crate::workspace;

/// Where the guest has kaprobe.
pub const KAPROBE: &str = "/bin/kaprobe";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program for the guest.
pub struct Program {
    /// The name of its target.
    pub name: String,
    /// Whether it holds tests.
    pub is_test: bool,
    /// Where it lies on this host.
    pub path: PathBuf,
}

/// Builds kaprobe alone.
pub fn kaprobe() -> Result<PathBuf> {
    let programs = build(&["build", "--bin", "kaprobe"])?;
    Ok(only_kaprobe(&programs)?.path.clone())
}

/// The one program that is kaprobe itself.
pub fn only_kaprobe(programs: &[Program]) -> Result<&Program> {
    programs
        .iter()
        .find(|program| !program.is_test && program.name == "kaprobe")
        .context("cargo built no kaprobe")
}

/// Runs a cargo command on kaprobe that builds programs, and returns those.
pub fn build(command: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo();
    cargo
        .args(command)
        .args(["--package", "kaprobe", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(workspace::cache("guest"))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Cstrip=debuginfo",
        );
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
    if !child.wait()?.success() {
        bail!(
            "cannot build kaprobe for the guest: cargo {} failed",
            command.join(" ")
        );
    }
    Ok(programs)
}

fn program(artifact: Artifact) -> Option<Program> {
    let path = artifact.executable?;
    Some(Program {
        name: artifact.target.name,
        is_test: artifact.profile.test,
        path: path.into(),
    })
}
