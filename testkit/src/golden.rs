//! Compares output with golden files, byte for byte. `KAPROBE_BLESS=1` rewrites the files;
//! git then shows the difference, and the commit message explains it.

use std::path::Path;
use std::{env, fs};

/// Compares a text with `tests/golden/expected/NAME`.
///
/// # Errors
/// Names the first line that differs.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/expected");
    check_file(&expected.join(name), text)
}

/// Compares a text with a file.
///
/// # Errors
/// Names the first line that differs.
pub fn check_file(path: &Path, text: &str) -> Result<(), String> {
    let name = path.display();
    if env::var_os("KAPROBE_BLESS").is_some() {
        return fs::write(path, text).map_err(|why| format!("{name}: {why}"));
    }
    let expected = fs::read_to_string(path).map_err(|why| format!("{name}: {why}"))?;
    if text == expected {
        return Ok(());
    }
    let mut pairs = (1..).zip(expected.lines().zip(text.lines()));
    let differing = pairs.find(|(_, (expected, line))| expected != line);
    Err(match differing {
        Some((number, (expected, line))) => {
            format!("{name}:{number}\n  expected: {expected}\n       got: {line}")
        }
        None => format!(
            "{name}: {} lines expected, got {}",
            expected.lines().count(),
            text.lines().count()
        ),
    })
}
