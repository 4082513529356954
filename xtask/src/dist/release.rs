//! What is released: a version, and the commit that it is built from.

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::{git, workspace};

/// A version of kaprobe, and the commit that it is built from.
#[derive(Clone, Debug)]
pub struct Release {
    /// The version of the workspace, such as `0.2.0`.
    pub version: String,
    /// Who makes its packages: a name, and an address in angle brackets.
    pub maintainer: String,
    /// The full hash of the commit.
    pub commit: String,
    /// When the commit was made, in seconds since 1970. Everything that an artifact dates, it
    /// dates with this (`SOURCE_DATE_EPOCH` of reproducible-builds.org).
    pub epoch: u32,
}

impl Release {
    /// The time of the commit (RFC 3339).
    pub fn date(&self) -> Result<String> {
        let at = Timestamp::from_second(self.epoch.into()).context("the commit has no time")?;
        Ok(at.to_string())
    }

    /// A release for tests.
    #[cfg(test)]
    pub fn sample() -> Self {
        Self {
            version: "1.2.3".to_owned(),
            maintainer: "A B <a@example.invalid>".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            epoch: 1_700_000_000,
        }
    }

    /// The release that this checkout would make.
    pub fn of_checkout() -> Result<Self> {
        let root = workspace::root();
        let epoch = git::read(root, &["log", "-1", "--format=%ct"])?;
        Ok(Self {
            version: workspace::version()?,
            maintainer: workspace::maintainer()?,
            commit: git::read(root, &["rev-parse", "HEAD"])?,
            epoch: epoch
                .parse()
                .with_context(|| format!("{epoch} is no time of a commit"))?,
        })
    }
}

/// Whether files differ from the commit that artifacts would name.
pub fn is_dirty() -> Result<bool> {
    Ok(!git::read(workspace::root(), &["status", "--porcelain"])?.is_empty())
}
