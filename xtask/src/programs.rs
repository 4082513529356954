//! Builds programs with cargo and returns their paths.

use std::ffi::{OsStr, OsString};
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message};

use crate::arch::Arch;
use crate::process::line;
use crate::{cross, workspace};

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

/// A cargo command that links kaprobe statically, for an architecture: a guest has no
/// libraries. Two checkouts of one commit make the same bytes.
pub fn static_cargo(subcommand: &str, arch: Arch) -> Result<Command> {
    let mut cargo = workspace::cargo();
    cargo
        .args([subcommand, "--package", "kaprobe", "--release", "--locked"])
        .arg("--target-dir")
        // Builds of the standard library set RUSTC_BOOTSTRAP, which build scripts ask for: in
        // one folder, each architecture would build the other's anew.
        .arg(arch.cache("guest"));
    let mut flags = cross::configure(&mut cargo, arch)?;
    flags.extend(["-Ctarget-feature=+crt-static", "-Cstrip=symbols"].map(OsString::from));
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")))
        .env("CARGO_INCREMENTAL", "0");
    Ok(cargo)
}

/// A cargo command that builds for guests. To optimize for another architecture takes longer
/// than its emulated guests gain by it.
pub fn guest_cargo(subcommand: &str, arch: Arch) -> Result<Command> {
    let mut cargo = static_cargo(subcommand, arch)?;
    if arch != Arch::HOST {
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    Ok(cargo)
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
