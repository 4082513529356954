//! Builds and checks the committed BPF object: `cargo xtask ebpf`.
//!
//! A plain `cargo build` embeds `kaprobe/bpf/kaprobe.bpf.o`, so it needs neither
//! bpf-linker nor the source of `core`. `kaprobe.bpf.digest` lists the inputs of the
//! object. The same inputs give the same bytes in any checkout.

mod digest;
mod strip;
mod toolchain;

use std::fs;

use anyhow::{Context, Result, bail};

pub use crate::ebpf::digest::stale;
use crate::ebpf::digest::{DIGEST, OBJECT};
use crate::ebpf::toolchain::{TARGET, TARGET_DIR, Toolchain};
use crate::process::{CommandExt, say};
use crate::workspace;

/// The arguments by which cargo selects what the BPF programs are made of.
pub const TREE: [&str; 6] = [
    "--package",
    "kaprobe-ebpf",
    "--features",
    "bpf",
    "--target",
    TARGET,
];

/// Options of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if a rebuild differs from the committed object or digest
    #[arg(long)]
    check: bool,
}

/// Builds the object, then writes it or compares it with the committed one.
pub fn run(args: &Args) -> Result<()> {
    if args.check { check() } else { update() }
}

/// Runs clippy on the BPF programs, for the BPF target.
pub fn lint() -> Result<()> {
    Toolchain::ready()?
        .cargo("clippy")?
        .args(["--quiet", "--", "-D", "warnings"])
        .check_to_stderr()
}

/// Fails if a rebuild differs from the committed object or digest.
pub fn check() -> Result<()> {
    let built = build()?;
    let mut differences = digest::stale()?;
    let kept = fs::read(workspace::root().join(OBJECT)).unwrap_or_default();
    if kept != built {
        let at = kept
            .iter()
            .zip(&built)
            .take_while(|(kept, built)| kept == built)
            .count();
        differences.push(format!(
            "{OBJECT}: {} bytes, a rebuild gives {}; first difference at byte {at}",
            kept.len(),
            built.len(),
        ));
    }
    if !differences.is_empty() {
        bail!(
            "the kept BPF object is not what its sources give; run `cargo xtask ebpf` and commit\n  {}",
            differences.join("\n  ")
        );
    }
    say(format_args!(
        "{OBJECT} is what its sources give, byte for byte"
    ));
    Ok(())
}

fn update() -> Result<()> {
    let built = build()?;
    let digest = digest::compute(&built)?;
    workspace::write(&workspace::root().join(OBJECT), &built)?;
    workspace::write(&workspace::root().join(DIGEST), digest)?;
    say(format_args!("{OBJECT}: {} bytes", built.len()));
    Ok(())
}

fn build() -> Result<Vec<u8>> {
    let toolchain = Toolchain::ready()?;
    say("building the BPF programs");
    toolchain.cargo("build")?.check_to_stderr()?;

    let object = workspace::cache(TARGET_DIR)
        .join(TARGET)
        .join("bpf/kaprobe-ebpf");
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    strip::dwarf(&bytes).with_context(|| format!("cannot strip {}", object.display()))
}
