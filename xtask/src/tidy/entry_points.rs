//! Checks that each BPF entry point documents the kernel prototype that it relies on.

use crate::tidy::file::{File, Finding};

/// The attributes that make a function a BPF entry point.
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

/// The start of the doc line that names the prototype.
const PROTOTYPE: &str = "/// match-proto: ";

/// Finds entry points without a documented prototype.
pub fn find(file: &File) -> Vec<Finding> {
    if !file.path.starts_with("kaprobe-ebpf/src/") {
        return Vec::new();
    }
    let is_entry_point = |line: &str| ENTRY_POINTS.iter().any(|it| line.starts_with(it));
    let mut documented = false;
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.starts_with(PROTOTYPE) {
            documented = true;
        } else if is_entry_point(line) && !documented {
            let what = format!("an entry point without `{PROTOTYPE}…`");
            findings.push(Finding::new(&file.path, number, what));
        } else if line.is_empty() {
            documented = false;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = "/// match-proto: fn f(sk)\n#[fentry]\npub fn f() {}";

    #[test]
    fn entry_points_without_a_prototype_are_found() {
        let second = format!("{DOCUMENTED}\n\n#[kprobe]\npub fn g() {{}}");
        for (path, text, found) in [
            ("kaprobe-ebpf/src/main.rs", DOCUMENTED, 0),
            ("kaprobe-ebpf/src/main.rs", "#[fentry]\npub fn f() {}", 1),
            ("kaprobe-ebpf/src/main.rs", &second, 1),
            ("kaprobe/src/trace.rs", "#[fentry]\npub fn f() {}", 0),
        ] {
            assert_eq!(find(&File::new(path, text)).len(), found, "{text}");
        }
    }
}
