//! What artifacts are made from, besides a program for each architecture.

use anyhow::Result;

use crate::arch::Arch;
use crate::dist::documents::Documents;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::workspace;

/// What the artifacts of all architectures have in common.
#[derive(Clone)]
pub struct Source {
    pub release: Release,
    pub documents: Documents,
    /// The settings of the service, as they are installed.
    pub settings: String,
}

impl Source {
    /// The documents come from the program for this host. If it is not among these, it is
    /// built.
    pub fn new(release: Release, programs: &[Program]) -> Result<Self> {
        let documents = match programs.iter().find(|it| it.arch == Arch::HOST) {
            Some(program) => Documents::of(program)?,
            None => Documents::of(&Program::build(Arch::HOST)?)?,
        };
        Ok(Self {
            release,
            documents,
            settings: workspace::read("contrib/kaprobe.toml")?,
        })
    }
}
