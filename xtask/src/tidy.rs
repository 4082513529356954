//! The invariants of the repository that a machine can check.
//!
//! Each is a row of [`RULES`], or a function of one file's text beside them.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{CommandExt, say};
use crate::{ebpf, workspace};

/// Words that must not stand in some files.
struct Rule {
    applies: fn(&str) -> bool,
    /// Whether a comment counts.
    comments: bool,
    words: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        applies: |path| {
            let pure = [
                "correlate",
                "verdict",
                "audit/advice",
                "audit/fate",
                "audit/group",
                "audit/timeouts",
            ];
            pure.iter().any(|it| {
                path.strip_prefix("kaprobe/src/")
                    .is_some_and(|path| path.starts_with(it))
            })
        },
        comments: false,
        words: &[
            "aya",
            "tokio",
            "libc",
            "rustix",
            "fs",
            "io",
            "env",
            "thread",
            "SystemTime",
            "Instant::now",
        ],
        why: "correlate, verdict and what audit concludes are pure: no I/O and no clock",
    },
    Rule {
        applies: |path| {
            path.starts_with("kaprobe/src/") && !path.starts_with("kaprobe/src/kernel/")
        },
        comments: false,
        words: &["aya", "aya_obj", "aya_log"],
        why: "only kaprobe/src/kernel speaks to aya",
    },
    Rule {
        applies: |path| path.starts_with("kaprobe/src/sink"),
        comments: false,
        words: &["correlate"],
        why: "a sink writes records and knows nothing else",
    },
    Rule {
        applies: |path| {
            path.starts_with("kaprobe-ebpf/src/") && path != "kaprobe-ebpf/src/kernel.rs"
        },
        comments: false,
        words: &[
            "bpf_probe_read",
            "bpf_probe_read_kernel",
            "bpf_probe_read_kernel_buf",
        ],
        why: "only kernel.rs reads kernel memory",
    },
    Rule {
        applies: |path| path.ends_with(".rs"),
        comments: true,
        // In pieces, since this file is checked too.
        words: &[
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("db", "g!"),
        ],
        why: "finish it, or file it",
    },
];

/// The attributes that make a function an entry point of the kernel's.
const ENTRY_POINTS: [&str; 8] = [
    "#[fentry",
    "#[fexit",
    "#[kprobe",
    "#[kretprobe",
    "#[raw_tracepoint",
    "#[tracepoint",
    "#[btf_tracepoint",
    "#[iter",
];

/// The prototype that an entry point relies on, in its documentation.
const PROTOTYPE: &str = "/// match-proto: ";

/// Fails with every departure from the invariants, as `file:line: what`.
pub fn check() -> Result<()> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace::root())
        .read()?;
    let mut findings = ebpf::stale()?;
    for path in listing.lines().filter(|path| is_ours(path)) {
        let text = workspace::read(path)?;
        for (line, what) in find(path, &text) {
            findings.push(format!("{path}:{line}: {what}"));
        }
    }
    if !findings.is_empty() {
        bail!("the repository is not tidy:\n  {}", findings.join("\n  "));
    }
    say("the repository is tidy");
    Ok(())
}

/// Text that people write. A file deleted but not yet committed is listed, and is none.
fn is_ours(path: &str) -> bool {
    let kinds = [".rs", ".toml", ".md", ".sh", ".json"];
    kinds.iter().any(|kind| path.ends_with(kind)) && workspace::root().join(path).is_file()
}

fn find(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.contains('\t') {
            findings.push((number, "a tab".to_owned()));
        }
        if line.ends_with(' ') {
            findings.push((number, "trailing space".to_owned()));
        }
        for rule in RULES.iter().filter(|rule| (rule.applies)(path)) {
            let line = if rule.comments { line } else { code(line) };
            let found = rule.words.iter().filter(|word| has_word(line, word));
            findings.extend(found.map(|word| (number, format!("`{word}`: {}", rule.why))));
        }
    }
    if path.starts_with("kaprobe-ebpf/src/") {
        findings.extend(without_prototype(text));
    }
    findings
}

/// A line without its comment. A string that holds two slashes is cut as well,
/// which hides at worst a word in the rest of it.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// Entry points whose documentation does not name the prototype they rely on.
fn without_prototype(text: &str) -> Vec<(usize, String)> {
    let mut documented = false;
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with(PROTOTYPE) {
            documented = true;
        } else if ENTRY_POINTS
            .iter()
            .any(|attribute| line.starts_with(attribute))
            && !documented
        {
            findings.push((number, format!("an entry point without `{PROTOTYPE}…`")));
        } else if line.is_empty() {
            documented = false;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_departure_is_found_once() {
        let correlate = "kaprobe/src/correlate.rs";
        let entry = "kaprobe-ebpf/src/main.rs";
        for (path, text, found) in [
            (correlate, "use std::fs;", 1),
            (correlate, "use std::{fs, io};", 2),
            (correlate, "let x = 1; // never std::fs", 0),
            (correlate, "let profs = now_or_never;", 0),
            ("kaprobe/src/trace.rs", "use aya::Ebpf;", 1),
            ("kaprobe/src/kernel/mod.rs", "use aya::Ebpf;", 0),
            ("kaprobe/src/sink/csv.rs", "use crate::correlate::State;", 1),
            ("README.md", "a tab\there, and a space ", 2),
            ("tests/x.rs", concat!("// TO", "DO"), 1),
            (
                entry,
                "/// match-proto: fn f(sk)\n#[fentry]\npub fn f() {}",
                0,
            ),
            (entry, "#[fentry]\npub fn f() {}", 1),
            (
                entry,
                "/// match-proto: fn f(sk)\n#[fentry]\npub fn f() {}\n\n#[kprobe]\npub fn g() {}",
                1,
            ),
        ] {
            assert_eq!(find(path, text).len(), found, "{text}");
        }
    }
}
