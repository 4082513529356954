//! Packages to try: of this version, and of an older one to upgrade from.

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::dist::files::File;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::dist::source::Source;
use crate::dist::{deb, rpm};

/// Packages for this host, to try them.
pub struct Trial {
    pub version: String,
    pub commit: String,
    pub deb: Pair,
    pub rpm: Pair,
}

/// A package of this version, and one of an older version with other settings, to upgrade from.
pub struct Pair {
    pub old: File,
    pub new: File,
}

impl Trial {
    /// Builds kaprobe, and makes the packages.
    pub fn make() -> Result<Self> {
        let versions = Versions::build(Arch::HOST)?;
        let release = &versions.new.release;
        Ok(Self {
            version: release.version.clone(),
            commit: release.commit.clone(),
            deb: versions.pair(deb::make)?,
            rpm: versions.pair(rpm::make)?,
        })
    }
}

impl Pair {
    /// Builds kaprobe for an architecture, and makes the packages for Debian.
    pub fn for_debian(arch: Arch) -> Result<Self> {
        Versions::build(arch)?.pair(deb::make)
    }
}

/// What packages of two versions are made from. They have the same program.
struct Versions {
    programs: [Program; 1],
    old: Source,
    new: Source,
}

impl Versions {
    fn build(arch: Arch) -> Result<Self> {
        let programs = [Program::build(arch)?];
        let new = Source::new(Release::of_checkout()?, &programs)?;
        let mut old = new.clone();
        old.release.version = "0.0.1".to_owned();
        old.settings = "# Settings of an older version.\n".to_owned();
        Ok(Self { programs, old, new })
    }

    /// A package of each version.
    fn pair(&self, make: fn(&Source, &[Program]) -> Result<Vec<File>>) -> Result<Pair> {
        let package = |source| -> Result<File> {
            let mut files = make(source, &self.programs)?;
            files.pop().context("there is no package")
        };
        Ok(Pair {
            old: package(&self.old)?,
            new: package(&self.new)?,
        })
    }
}
