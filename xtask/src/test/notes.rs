//! Notes of which parts of the tests passed for a commit, so that a release which was interrupted
//! goes on where it ended. Only `cargo xtask release` reads and writes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::process::say;
use crate::test::tally::Tally;
use crate::{git, workspace};

/// The notes for one commit.
#[derive(Debug)]
pub struct Notes {
    checkout: PathBuf,
    commit: String,
    /// How many parts passed before, and were not run again.
    used: AtomicUsize,
}

impl Notes {
    /// Those for the commit that is checked out in a folder.
    pub fn of(checkout: &Path) -> Result<Self> {
        Ok(Self {
            commit: git::read(checkout, &["rev-parse", "HEAD"])?,
            checkout: checkout.to_owned(),
            used: AtomicUsize::new(0),
        })
    }

    /// The counts of a part that passed before.
    pub fn passed(&self, part: &str) -> Option<Tally> {
        let text = fs::read_to_string(self.path(part)).ok()?;
        let (counts, name) = text.trim_end().split_once(' ')?;
        let [passed, skipped] = counts.split_once(',').map(<[&str; 2]>::from)?;
        // Two names may have one path.
        if name != part {
            return None;
        }
        let tally = Tally {
            passed: passed.parse().ok()?,
            skipped: skipped.parse().ok()?,
            ..Tally::default()
        };
        self.used.fetch_add(1, Ordering::Relaxed);
        Some(tally)
    }

    /// Notes that a part passed: all its tests, and there were some. Notes nothing if the checkout
    /// is no longer that commit as it was.
    pub fn note(&self, part: &str, tally: Tally) {
        let is_whole = tally.failed == 0 && tally.left == 0 && tally.passed > 0;
        if !is_whole || !self.is_unchanged().unwrap_or_default() {
            return;
        }
        let text = format!("{},{} {part}\n", tally.passed, tally.skipped);
        if let Err(why) = workspace::write(&self.path(part), text) {
            say(format_args!("cannot note that it passed: {why:#}"));
        }
    }

    /// How many parts passed before, and were not run again.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether nothing differs from the commit.
    fn is_unchanged(&self) -> Result<bool> {
        let commit = git::read(&self.checkout, &["rev-parse", "HEAD"])?;
        let changes = git::read(&self.checkout, &["status", "--porcelain"])?;
        Ok(commit == self.commit && changes.is_empty())
    }

    fn path(&self, part: &str) -> PathBuf {
        let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '-' };
        let name: String = part.chars().map(plain).collect();
        let folder = self.checkout.join("target/passed").join(&self.commit);
        folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::CommandExt as _;

    #[test]
    fn only_what_passed_for_the_very_commit_is_noted() -> Result<()> {
        let scratch = workspace::scratch()?;
        let root = scratch.path();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=a", "-c", "user.email=a@example.invalid"]);
            git.args(arguments).current_dir(root).read()
        };
        workspace::write(&root.join(".gitignore"), "target/\n")?;
        git(&["init", "--quiet"])?;
        git(&["add", "."])?;
        git(&["commit", "--quiet", "--message=one"])?;

        let notes = Notes::of(root)?;
        let passed = Tally {
            passed: 3,
            skipped: 1,
            ..Tally::default()
        };
        notes.note("6.1 all: 1/2", passed);
        notes.note(
            "failed",
            Tally {
                failed: 1,
                ..passed
            },
        );
        notes.note("partly", Tally { left: 1, ..passed });
        notes.note(
            "none",
            Tally {
                passed: 0,
                ..passed
            },
        );
        // A release that begins anew finds them.
        let again = Notes::of(root)?;
        assert_eq!(again.passed("6.1 all: 1/2"), Some(passed));
        for part in ["failed", "partly", "none", "6.1 all  1/2", "other"] {
            assert_eq!(again.passed(part), None, "{part}");
        }
        assert_eq!(again.used(), 1);

        workspace::write(&root.join("new"), "")?;
        again.note("changed", passed);
        assert_eq!(again.passed("changed"), None);
        git(&["add", "."])?;
        git(&["commit", "--quiet", "--message=two"])?;
        again.note("later", passed);
        assert_eq!(again.passed("later"), None);
        assert_eq!(Notes::of(root)?.passed("6.1 all: 1/2"), None);
        Ok(())
    }
}
