//! Checks the changes for users against the version of the workspace.

use crate::changelog;
use crate::tidy::file::{File, Finding};

/// Finds a changelog that can't be read, or whose newest version is not the workspace's.
pub fn find(files: &[File], version: &str) -> Vec<Finding> {
    let finding = |line, what: String| vec![Finding::new(changelog::FILE, line, what)];
    let Some(file) = files.iter().find(|it| it.path == changelog::FILE) else {
        return finding(1, "there is no changelog".to_owned());
    };
    let all = match changelog::read(&file.text) {
        Ok(all) => all,
        Err(why) => return finding(1, format!("{why:#}")),
    };
    match all.iter().find(|it| it.version.is_some()) {
        Some(newest) if newest.version.as_deref() == Some(version) => Vec::new(),
        Some(other) => finding(
            other.line,
            format!("the version in Cargo.toml is {version}"),
        ),
        None => finding(1, "no version was released".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_one_of_the_workspace() {
        let rows = [
            ("## Unreleased\n## 0.2.0 - 2026-01-02\n", None),
            (
                "\n## 0.1.0 - 2026-01-02\n",
                Some(":2: the version in Cargo.toml is 0.2.0"),
            ),
            ("## Unreleased\n", Some(":1: no version was released")),
            ("## 0.2.0\n", Some("a heading is")),
        ];
        for (text, expected) in rows {
            let findings = find(&[File::new(changelog::FILE, text)], "0.2.0");
            let found = findings.first().map(ToString::to_string);
            assert_eq!(found.is_some(), expected.is_some(), "{text}: {found:?}");
            let (found, expected) = (found.unwrap_or_default(), expected.unwrap_or_default());
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert_eq!(find(&[], "0.2.0").len(), 1);
    }
}
