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
        let programs = [Program::build(Arch::HOST)?];
        let new = Source::new(Release::of_checkout()?, &programs)?;
        let mut old = new.clone();
        old.release.version = "0.0.1".to_owned();
        old.settings = "# Settings of an older version.\n".to_owned();
        let pair = |maker: fn(&Source, &[Program]) -> Result<Vec<File>>| {
            let one = |source| -> Result<File> {
                let mut files = maker(source, &programs)?;
                files.pop().context("there is no package")
            };
            Ok::<_, anyhow::Error>(Pair {
                old: one(&old)?,
                new: one(&new)?,
            })
        };
        Ok(Self {
            version: new.release.version.clone(),
            commit: new.release.commit.clone(),
            deb: pair(deb::make)?,
            rpm: pair(rpm::make)?,
        })
    }
}
