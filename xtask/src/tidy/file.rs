//! Types for a checked file and for a finding.

use std::fmt;

use crate::tidy::lex;

/// A file of the repository.
pub struct File {
    /// The path from the root of the repository.
    pub path: String,
    /// The unchanged text.
    pub text: String,
    /// The text of a Rust file with comments and literals blanked; else empty.
    pub code: String,
    /// The code with test modules blanked too; empty for a test file.
    pub live: String,
}

impl File {
    /// A file with this text; the path decides whether it is Rust or a test.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            lex::blank(text)
        } else {
            String::new()
        };
        let live = if is_test(path) {
            String::new()
        } else {
            lex::without_tests(&code)
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            live,
        }
    }
}

/// Whether the whole file is only for tests.
fn is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    path == "kaprobe/src/sample.rs" || parts.any(|part| part == "tests" || part == "tests.rs")
}

/// A violation of an invariant.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    /// A finding at a line of a file; lines count from 1.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_recognized_by_path() {
        for (path, test) in [
            ("kaprobe/src/trace.rs", false),
            ("kaprobe/src/sink/tests.rs", true),
            ("kaprobe/src/sink/tests/csv.rs", true),
            ("tests/cli.rs", true),
            ("kaprobe/src/sample.rs", true),
            ("kaprobe/src/sink/sample.rs", false),
            ("xtask/src/test/mod.rs", false),
        ] {
            let live = File::new(path, "fn f() {}").live;
            assert_eq!(live.is_empty(), test, "{path}");
        }
    }
}
