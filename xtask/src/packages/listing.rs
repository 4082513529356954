//! Which files a root has, and which of them are the package manager's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What package managers write for themselves, whatever is installed.
const OWN: [&str; 9] = [
    "/dev/",
    "/proc/",
    "/sys/",
    "/tmp/",
    "/var/cache/",
    "/var/lib/apt/",
    "/var/lib/dpkg/",
    "/var/lib/rpm/",
    "/var/log/",
];

/// What of [`OWN`] is the package's: its records for dpkg, and its log.
const OF_THE_PACKAGE: [&str; 2] = ["/var/lib/dpkg/info/kaprobe.", "/var/log/kaprobe"];

/// The paths of the files and folders in a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing(BTreeSet<String>);

impl Listing {
    /// Lists a root, but for what package managers write for themselves.
    pub fn of(root: &Path) -> Result<Self> {
        let mut paths = BTreeSet::new();
        list(root, "", &mut paths)?;
        paths.retain(|path| {
            !OWN.iter().any(|it| path.starts_with(it))
                || OF_THE_PACKAGE.iter().any(|it| path.starts_with(it))
        });
        Ok(Self(paths))
    }

    /// Fails unless exactly these paths are here beyond those of another listing, and none is
    /// missing.
    pub fn check_added(&self, before: &Self, expected: &[&str]) -> Result<()> {
        let added: Vec<_> = self.0.difference(&before.0).map(String::as_str).collect();
        let gone: Vec<_> = before.0.difference(&self.0).collect();
        ensure!(gone.is_empty(), "files are missing: {gone:?}");
        ensure!(
            added == expected,
            "files were added: {added:?}\nexpected: {expected:?}"
        );
        Ok(())
    }
}

fn list(root: &Path, below: &str, paths: &mut BTreeSet<String>) -> Result<()> {
    let folder = root.join(below.trim_start_matches('/'));
    let entries = fs::read_dir(&folder);
    for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let path = format!("{below}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        }
        paths.insert(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn what_a_package_leaves_is_found() -> Result<()> {
        let root = workspace::scratch()?;
        for path in ["usr/bin/sh", "var/lib/dpkg/status", "var/log/dpkg.log"] {
            workspace::write(&root.path().join(path), "")?;
        }
        let before = Listing::of(root.path())?;
        workspace::write(&root.path().join("var/lib/dpkg/status-old"), "")?;
        Listing::of(root.path())?.check_added(&before, &[])?;
        let left = "var/lib/dpkg/info/kaprobe.list";
        workspace::write(&root.path().join(left), "")?;
        let after = Listing::of(root.path())?;
        assert!(after.check_added(&before, &[]).is_err());
        after.check_added(&before, &["/var/lib/dpkg/info/kaprobe.list"])?;
        assert!(before.check_added(&after, &[]).is_err());
        Ok(())
    }
}
