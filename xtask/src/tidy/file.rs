//! A file that is checked, and what is found in it.

use std::fmt;

use crate::tidy::lex;

/// A file of the repository.
pub struct File {
    /// The path from the root of the repository.
    pub path: String,
    /// The text as people wrote it.
    pub text: String,
    /// The text of a Rust file, with blanks for comments and literals.
    pub code: String,
    /// The code, with blanks for the tests as well.
    pub live: String,
}

impl File {
    /// Reads the text as what the path says it is.
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

/// The whole file is a test, or serves tests alone.
fn is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    path == "kaprobe/src/sample.rs" || parts.any(|part| part == "tests" || part == "tests.rs")
}

/// A departure from the invariants.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    /// Something at a line of a file; lines count from 1.
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
    fn tests_are_told_by_their_path() {
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
