//! Finds tabs, trailing spaces and forbidden words.

use crate::tidy::file::{File, Finding};
use crate::tidy::lex::is_word;

/// Words that are forbidden in some files.
struct Rule {
    applies: fn(&str) -> bool,
    part: Part,
    words: &'static [&'static str],
    why: &'static str,
}

/// The part of a file that a rule checks.
enum Part {
    /// The whole text, with comments.
    Text,
    /// The code, with tests.
    Code,
    /// The code, without tests.
    Live,
}

const RULES: &[Rule] = &[
    Rule {
        applies: |path| {
            path.starts_with("kaprobe/src/") && !path.starts_with("kaprobe/src/kernel/")
        },
        part: Part::Code,
        words: &["aya", "aya_obj", "aya_log"],
        why: "only kaprobe/src/kernel uses aya",
    },
    Rule {
        applies: |path| path.starts_with("kaprobe/src/sink"),
        part: Part::Code,
        words: &["correlate"],
        why: "a sink only writes records",
    },
    Rule {
        applies: |path| path.starts_with("kaprobe/src/") && path != "kaprobe/src/stderr.rs",
        part: Part::Live,
        words: &["eprint!", "eprintln!", "stderr()"],
        why: "only kaprobe/src/stderr.rs writes to standard error",
    },
    Rule {
        applies: |path| {
            path.starts_with("kaprobe-ebpf/src/") && path != "kaprobe-ebpf/src/kernel.rs"
        },
        part: Part::Code,
        words: &[
            "bpf_probe_read",
            "bpf_probe_read_kernel",
            "bpf_probe_read_kernel_buf",
        ],
        why: "only kernel.rs reads kernel memory",
    },
    Rule {
        applies: |path| path.ends_with(".rs"),
        part: Part::Text,
        // In pieces, because this file is checked too.
        words: &[
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("db", "g!"),
        ],
        why: "finish it, or file it",
    },
];

/// Finds tabs, trailing spaces and the words that are forbidden in this file.
pub fn find(file: &File) -> Vec<Finding> {
    let mut findings = white_space(file);
    for rule in RULES.iter().filter(|rule| (rule.applies)(&file.path)) {
        let text = match rule.part {
            Part::Text => &file.text,
            Part::Code => &file.code,
            Part::Live => &file.live,
        };
        let found = words(text, rule.words).into_iter().map(|(line, word)| {
            let what = format!("`{word}`: {}", rule.why);
            Finding::new(&file.path, line, what)
        });
        findings.extend(found);
    }
    findings
}

/// Finds whole words, with their line numbers; each word at most once per line.
pub fn words(text: &str, words: &[&'static str]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let here = words.iter().filter(|word| has_word(line, word));
        found.extend(here.map(|word| (number, *word)));
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

fn white_space(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.contains('\t') {
            findings.push(Finding::new(&file.path, number, "a tab"));
        }
        if line.ends_with(' ') {
            findings.push(Finding::new(&file.path, number, "trailing space"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_is_found_once() {
        let trace = "kaprobe/src/trace.rs";
        for (path, text, found) in [
            (trace, "use aya::Ebpf;", 1),
            (trace, "let x = 1; // never aya", 0),
            (trace, "let x = \"aya\";", 0),
            (trace, "let papaya = aya_like;", 0),
            ("kaprobe/src/kernel/mod.rs", "use aya::Ebpf;", 0),
            ("kaprobe/src/sink/csv.rs", "use crate::correlate::State;", 1),
            ("README.md", "a tab\there, and a space ", 2),
            ("tests/x.rs", concat!("// TO", "DO"), 1),
            ("kaprobe-ebpf/src/ring.rs", "bpf_probe_read(a)", 1),
            ("kaprobe-ebpf/src/kernel.rs", "bpf_probe_read(a)", 0),
            (trace, "eprintln!(); eprint!();", 2),
            (trace, "writeln!(io::stderr(), \"x\")", 1),
            (trace, "command.stderr(Stdio::null())", 0),
            (
                trace,
                "#[cfg(test)]\nmod tests { fn f() { eprintln!() } }",
                0,
            ),
            ("kaprobe/src/trace/tests.rs", "eprintln!();", 0),
            ("kaprobe/src/stderr.rs", "eprintln!(); io::stderr()", 0),
            ("xtask/src/process.rs", "io::stderr()", 0),
        ] {
            assert_eq!(find(&File::new(path, text)).len(), found, "{path}: {text}");
        }
    }
}
