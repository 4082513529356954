//! A kaprobe that artifacts hold.

use std::fs;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::process::say;
use crate::programs;

/// A static kaprobe for an architecture.
pub struct Program {
    pub arch: Arch,
    pub bytes: Vec<u8>,
}

impl Program {
    /// Builds kaprobe.
    pub fn build(arch: Arch) -> Result<Self> {
        say(format_args!("building kaprobe for {}", arch.name()));
        let path = programs::static_kaprobe(arch)?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { arch, bytes })
    }
}
