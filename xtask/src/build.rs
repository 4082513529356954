//! Builds a static kaprobe for an architecture: `cargo xtask build`.

use anyhow::Result;

use crate::arch::Arch;
use crate::process::say;
use crate::programs;

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Args {
    /// The architecture that kaprobe is to run on
    #[arg(long, value_enum, default_value_t = Arch::HOST)]
    arch: Arch,
}

/// Builds kaprobe and says where it is.
pub fn run(args: &Args) -> Result<()> {
    let kaprobe = programs::static_kaprobe(args.arch)?;
    say(kaprobe.display());
    Ok(())
}
