//! The folder of the artifacts, and their sums.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::dist::files::File;
use crate::process::say;
use crate::{hash, workspace};

/// The folder of the artifacts, in a checkout.
pub const PATH: &str = "target/dist";

/// The file of the sums of all artifacts, as `sha256sum --check` reads it.
pub const SUMS: &str = "SHA256SUMS";

/// Writes artifacts to an empty folder, then puts it in the place of `folder`.
pub fn put(artifacts: &[File], folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = workspace::scratch()?;
    for artifact in artifacts {
        let path = scratch.path().join(&artifact.path);
        workspace::write(&path, &artifact.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(artifact.mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    }
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    workspace::rename(scratch.path(), folder)
}

/// Fails if an artifact differs, or only one of the folders has it.
pub fn compare(first: &Path, second: &Path) -> Result<()> {
    let lines = |folder: &Path| -> Result<BTreeSet<String>> {
        let path = folder.join(SUMS);
        let sums = fs::read_to_string(&path);
        let sums = sums.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(sums.lines().map(str::to_owned).collect())
    };
    let (first, second) = (lines(first)?, lines(second)?);
    let differing: Vec<_> = first.symmetric_difference(&second).cloned().collect();
    if !differing.is_empty() {
        bail!("these differ:\n  {}", differing.join("\n  "));
    }
    say(format_args!("the same bytes: {} artifacts", first.len()));
    Ok(())
}

/// A line for each artifact: its SHA-256 and its name.
pub fn sums(artifacts: &[File]) -> String {
    let mut sums = String::new();
    for artifact in artifacts {
        let sum = hash::sha256(&artifact.bytes);
        // Writing to a String cannot fail.
        let _ = writeln!(sums, "{sum}  {}", artifact.path);
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::CommandExt as _;

    #[test]
    fn the_sums_are_those_that_sha256sum_checks() -> Result<()> {
        let mut artifacts = vec![File::program("a", "one"), File::new("b", "two")];
        artifacts.push(File::new(SUMS, sums(&artifacts)));
        let scratch = workspace::scratch()?;
        let folder = scratch.path().join("dist");
        for _ in 0..2 {
            // The second time, in place of the first.
            put(&artifacts, &folder)?;
            let mut check = Command::new("sha256sum");
            let checked = check
                .args(["--check", "--strict", SUMS])
                .current_dir(&folder)
                .read()?;
            assert_eq!(checked.lines().count(), 2, "{checked}");
        }
        fs::write(folder.join("a"), "other")?;
        let mut check = Command::new("sha256sum");
        check
            .args(["--check", "--quiet", SUMS])
            .current_dir(&folder);
        assert!(check.read().is_err());
        Ok(())
    }
    #[test]
    fn a_differing_sum_is_found() -> Result<()> {
        let scratch = workspace::scratch()?;
        let folders = ["one", "two"].map(|it| scratch.path().join(it));
        workspace::write(&folders[0].join(SUMS), "aa  x\nbb  y\n")?;
        for (sums, is_same) in [
            ("aa  x\nbb  y\n", true),
            ("aa  x\ncc  y\n", false),
            ("aa  x\n", false),
            ("aa  x\nbb  y\ndd  z\n", false),
        ] {
            workspace::write(&folders[1].join(SUMS), sums)?;
            assert_eq!(compare(&folders[0], &folders[1]).is_ok(), is_same, "{sums}");
        }
        Ok(())
    }
}
