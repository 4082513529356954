//! Checks the version of the Helm chart against that of the workspace.

use crate::dist::chart;
use crate::tidy::file::Finding;

/// Finds a version of the chart, or of what it installs, that is not the workspace's.
pub fn find(text: &str, version: &str) -> Vec<Finding> {
    if chart::versions(text) == [Some(version); 2] {
        return Vec::new();
    }
    let what = format!("version and appVersion are not {version}, as in Cargo.toml");
    vec![Finding::new(chart::FILE, 1, what)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_those_of_the_workspace() {
        for (text, is_right) in [
            ("name: kaprobe\nversion: 0.2.0\nappVersion: 0.2.0\n", true),
            ("version: 0.2.0\nappVersion: 0.1.0\n", false),
            ("version: 0.1.0\nappVersion: 0.2.0\n", false),
            ("appVersion: 0.2.0\n", false),
            ("", false),
        ] {
            assert_eq!(find(text, "0.2.0").is_empty(), is_right, "{text}");
        }
    }
}
