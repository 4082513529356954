//! The changes for users, by version: `CHANGELOG.md`.

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::Date;

/// The file, in the checkout.
pub const FILE: &str = "CHANGELOG.md";

/// The heading of changes that no version has yet.
pub const UNRELEASED: &str = "Unreleased";

/// The changes of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The version; `None` for those that no version has yet.
    pub version: Option<String>,
    /// The day of the release.
    pub day: Option<Date>,
    /// The line of its heading, counted from 1.
    pub line: usize,
}

/// The changes of each version, the newest first.
///
/// # Errors
/// If a heading is not `## VERSION - YYYY-MM-DD`, or the versions are out of order.
pub fn read(text: &str) -> Result<Vec<Changes>> {
    let mut all: Vec<Changes> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(heading) = line.strip_prefix("## ") {
            let changes = changes(heading, number).with_context(|| format!("line {number}"))?;
            let before = all.last();
            ensure!(
                before.is_none_or(|before| is_newer(before, &changes)),
                "line {number}: the newest version comes first"
            );
            all.push(changes);
        }
    }
    ensure!(!all.is_empty(), "it names no version");
    Ok(all)
}

fn changes(heading: &str, line: usize) -> Result<Changes> {
    if heading == UNRELEASED {
        return Ok(Changes {
            version: None,
            day: None,
            line,
        });
    }
    let Some((version, day)) = heading.split_once(" - ") else {
        bail!("a heading is `## {UNRELEASED}` or `## VERSION - YYYY-MM-DD`");
    };
    numbers(version).with_context(|| format!("{version} is no version of three numbers"))?;
    let date = day.parse().with_context(|| format!("{day} is no day"))?;
    Ok(Changes {
        version: Some(version.to_owned()),
        day: Some(date),
        line,
    })
}

/// Whether changes are newer than others. Those of no version are the newest.
fn is_newer(changes: &Changes, than: &Changes) -> bool {
    let order = |it: &Changes| {
        let version = it.version.as_deref().and_then(numbers);
        (version.is_none(), version, it.day)
    };
    let (newer, older) = (order(changes), order(than));
    newer.1 != older.1 && newer > older && newer.2.is_none_or(|day| Some(day) >= older.2)
}

/// The numbers of a semantic version: major, minor, patch.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let parts = version.split('.').map(|it| it.parse().ok());
    parts.collect::<Option<Vec<u32>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_newest_first() -> Result<()> {
        let text =
            "# Changes\n\n## Unreleased\n- x\n## 0.10.0 - 2026-02-01\n## 0.9.1 - 2026-02-01\n";
        let read = read(text)?;
        let versions: Vec<_> = read.iter().map(|it| it.version.as_deref()).collect();
        assert_eq!(versions, [None, Some("0.10.0"), Some("0.9.1")]);
        assert_eq!(read[1].day, Some("2026-02-01".parse()?));
        assert_eq!(read[2].line, 6);
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("", "names no version"),
            ("## 0.2.0\n", "a heading is"),
            ("## v0.2.0 - 2026-01-01\n", "no version"),
            ("## 0.2 - 2026-01-01\n", "no version"),
            ("## 0.2.0 - 2026-02-30\n", "no day"),
            ("## 0.1.0 - 2026-01-01\n## 0.2.0 - 2026-01-01\n", "newest"),
            ("## 0.2.0 - 2026-01-01\n## 0.2.0 - 2026-01-01\n", "newest"),
            ("## 0.2.0 - 2026-01-01\n## 0.1.0 - 2026-01-02\n", "newest"),
            ("## 0.1.0 - 2026-01-01\n## Unreleased\n", "newest"),
        ] {
            let refused = read(text).map_or_else(|it| format!("{it:#}"), |it| format!("{it:?}"));
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
