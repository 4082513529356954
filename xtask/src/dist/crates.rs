//! The crates that are linked into a program: those of user space and of the BPF programs. What
//! only builds or tests kaprobe is none of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::process::CommandExt;
use crate::{ebpf, workspace};

/// A crate: its name and its version.
pub type Crate = (String, String);

/// The crates of a program, with their licences, and the crates that each uses itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Crates {
    /// The licence of each, as an SPDX expression.
    pub licences: BTreeMap<Crate, String>,
    /// The crates that each uses itself.
    pub uses: BTreeMap<Crate, BTreeSet<Crate>>,
}

impl Crates {
    /// Those of kaprobe for these architectures.
    pub fn linked(arches: &[Arch]) -> Result<Self> {
        let mut crates = Self::default();
        for arch in arches {
            let target = arch.target();
            crates.add(&tree(&["--package", "kaprobe", "--target", &target])?)?;
        }
        crates.add(&tree(&ebpf::TREE)?)?;
        Ok(crates)
    }

    /// Adds those of a tree: a line has its depth, the crate, and its licence. The crates that it
    /// uses follow, one deeper; if they were there before, a mark says so.
    fn add(&mut self, tree: &str) -> Result<()> {
        let mut above: Vec<Crate> = Vec::new();
        for line in tree.lines().filter(|it| !it.is_empty()) {
            let (depth, name, licence) =
                parts(line).with_context(|| format!("cargo tree says {line:?}"))?;
            above.truncate(depth);
            if let Some(user) = above.last() {
                let uses = self.uses.entry(user.clone()).or_default();
                uses.insert(name.clone());
            }
            self.licences.insert(name.clone(), licence);
            above.push(name);
        }
        Ok(())
    }
}

/// The crates that are linked into a program, as cargo prints them for [`Crates::add`].
fn tree(selection: &[&str]) -> Result<String> {
    workspace::cargo()
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "depth", "--format", "|{p}|{l}"])
        .args(selection)
        .read()
}

/// The depth, the crate and the licence in a line of `cargo tree`.
fn parts(line: &str) -> Option<(usize, Crate, String)> {
    let (depth, rest) = line.split_once('|')?;
    let (package, licence) = rest.split_once('|')?;
    let mut words = package.split(' ');
    let name = words.next()?.to_owned();
    let version = words.next()?.strip_prefix('v')?.to_owned();
    let licence = licence.trim_end_matches(" (*)");
    // The form of old crates.
    let licence = licence.replace('/', " OR ");
    Some((depth.parse().ok()?, (name, version), licence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, version: &str) -> Crate {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn crates_and_their_uses_are_read() -> Result<()> {
        let tree = "0|a v1.0.0 (/somewhere)|MIT\n1|b v2.0.0+x|MIT/Apache-2.0\n\
                    2|c v3.0.0|MIT OR Apache-2.0\n1|c v3.0.0|MIT OR Apache-2.0 (*)\n\
                    1|d v4.0.0|Unicode-3.0\n";
        let mut crates = Crates::default();
        crates.add(tree)?;
        let [a, b, c, d] = [
            of("a", "1.0.0"),
            of("b", "2.0.0+x"),
            of("c", "3.0.0"),
            of("d", "4.0.0"),
        ];
        assert_eq!(crates.licences[&b], "MIT OR Apache-2.0");
        assert_eq!(crates.licences[&c], "MIT OR Apache-2.0");
        assert_eq!(crates.uses[&a], [b.clone(), c.clone(), d].into());
        assert_eq!(crates.uses[&b], [c].into());
        assert_eq!(crates.uses.len(), 2);
        assert!(Crates::default().add("what").is_err());
        Ok(())
    }

    /// The crates are those that the program needs.
    #[test]
    fn both_programs_are_linked() -> Result<()> {
        let crates = Crates::linked(&[Arch::HOST])?;
        let names: BTreeSet<_> = crates.licences.keys().map(|it| it.0.as_str()).collect();
        for name in [
            "kaprobe",
            "kaprobe-ebpf",
            "aya",
            "aya-ebpf",
            "clap",
            "hyper",
        ] {
            assert!(names.contains(name), "{name}");
        }
        // What only builds kaprobe, and what only tests it.
        for name in [
            "serde_derive",
            "proptest",
            "kaprobe-testkit",
            "cargo_metadata",
        ] {
            assert!(!names.contains(name), "{name}");
        }
        let mut licences = crates.licences.values();
        assert!(licences.all(|it| !it.is_empty() && !it.contains('/')));
        Ok(())
    }
}
