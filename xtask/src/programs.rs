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
fn static_cargo(subcommand: &str, profile: &str, arch: Arch) -> Result<Command> {
    let mut cargo = workspace::cargo();
    cargo
        .args([subcommand, "--package", "kaprobe", "--locked"])
        .args(["--profile", profile])
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

/// Builds kaprobe with this cargo command and returns its path.
pub fn kaprobe(cargo: &mut Command) -> Result<PathBuf> {
    let programs = build(cargo.args(["--bin", "kaprobe"]))?;
    let kaprobe = programs.into_iter().next();
    Ok(kaprobe.context("cargo built no kaprobe")?.path)
}

/// Builds the kaprobe that users get, and returns its path.
pub fn static_kaprobe(arch: Arch) -> Result<PathBuf> {
    kaprobe(&mut static_cargo("build", "dist", arch)?)
}

/// Builds test programs or benches for an architecture, and the kaprobe that users get.
///
/// Cargo makes a kaprobe with them too, which nobody gets: it has what their dependencies add to
/// those of kaprobe, as `serde_json` then reads floats by another method, and the profile `release`,
/// which takes less time to build.
pub fn beside_kaprobe(
    subcommand: &str,
    targets: &[&str],
    arch: Arch,
) -> Result<(PathBuf, Vec<Program>)> {
    let mut cargo = static_cargo(subcommand, "release", arch)?;
    if arch != Arch::HOST {
        // To optimize tests, with all that they depend on, takes longer than emulated guests
        // gain by it.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    let programs = build(cargo.args(targets))?;
    Ok((static_kaprobe(arch)?, programs))
}

fn program(artifact: Artifact) -> Option<Program> {
    let path = artifact.executable?.into();
    Some(Program {
        name: artifact.target.name,
        is_test: artifact.profile.test,
        path,
    })
}
