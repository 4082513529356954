//! Checks the invariants of the repository: `cargo xtask tidy`.
//!
//! Each kind of check is a module. Its `find` checks one file or the whole source tree.

mod changelog;
mod chart;
mod circles;
mod crates;
mod entry_points;
mod file;
mod imports;
mod layers;
mod lex;
mod lines;
mod map;
mod names;
mod references;
mod style;

use anyhow::{Context, Result, bail};

use crate::process::say;
use crate::tidy::crates::Crate;
use crate::tidy::file::{File, Finding};
use crate::tidy::layers::{LAYERS, Layers};
use crate::{dist, ebpf, workspace};

/// The folder of kaprobe's sources; only this crate has layers.
const KAPROBE: &str = "kaprobe/src/";

/// The source folders of all crates.
const CRATES: [&str; 4] = [KAPROBE, "kaprobe-ebpf/src/", "testkit/src/", "xtask/src/"];

/// Options of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Args {
    /// Rewrite the map of modules in CONTRIBUTING.md, then check
    #[arg(long)]
    write: bool,
}

/// Writes the map if `--write` is given, then checks.
pub fn run(args: &Args) -> Result<()> {
    if args.write {
        let text = workspace::read(map::FILE)?;
        let new = map::put(&text, LAYERS)
            .with_context(|| format!("{} has no place for a map of the modules", map::FILE))?;
        workspace::write(&workspace::root().join(map::FILE), new)?;
    }
    check()
}

/// Fails if an invariant is violated; lists all findings as `file:line: what`.
pub fn check() -> Result<()> {
    let tracked = workspace::tracked(".")?;
    let checked = tracked.iter().filter(|path| is_checked(path));
    let files = checked.map(|path| Ok(File::new(path, &workspace::read(path)?)));
    let files = files.collect::<Result<Vec<_>>>()?;

    let mut findings = ebpf::stale()?;
    let version = workspace::version()?;
    findings.extend(
        changelog::find(&files, &version)
            .iter()
            .map(ToString::to_string),
    );
    let chart = chart::find(&workspace::read(dist::chart::FILE)?, &version);
    findings.extend(chart.iter().map(ToString::to_string));
    findings.extend(find(&files, LAYERS).iter().map(ToString::to_string));
    if !findings.is_empty() {
        bail!("the repository is not tidy:\n  {}", findings.join("\n  "));
    }
    say("the repository is tidy");
    Ok(())
}

/// Whether to check a file: it is text.
fn is_checked(path: &str) -> bool {
    let kinds = [".rs", ".toml", ".md", ".sh", ".json"];
    kinds.iter().any(|kind| path.ends_with(kind))
}

/// All findings, sorted by file and line.
fn find(files: &[File], layers: &Layers) -> Vec<Finding> {
    let mut findings = names::find(files);
    findings.extend(map::find(files, layers));
    for file in files {
        findings.extend(lines::find(file));
        findings.extend(entry_points::find(file));
        findings.extend(style::find(file));
    }
    for folder in CRATES {
        let krate = Crate::new(folder, files);
        findings.extend(circles::find(&krate));
        if folder == KAPROBE {
            findings.extend(layers::find(&krate, layers));
        }
    }
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_findings_are_sorted() {
        let tree = [
            ("kaprobe-ebpf/src/main.rs", "#[fentry]\npub fn f() {}"),
            ("kaprobe/src/a.rs", "use crate::b::X;\npub struct Y;"),
            ("kaprobe/src/b.rs", "use super::a;\npub struct Y; "),
        ];
        let files = tree.map(|(path, text)| File::new(path, text));
        let places = find(&files, &[]).into_iter().map(|it| {
            let text = it.to_string();
            text.split_inclusive(' ')
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        });
        let places: Vec<_> = places.collect();
        assert_eq!(
            places,
            [
                "CONTRIBUTING.md:1:",          // no map
                "kaprobe-ebpf/src/main.rs:1:", // no prototype
                "kaprobe/src/a.rs:1:",         // a circle
                "kaprobe/src/a.rs:1:",         // no row
                "kaprobe/src/b.rs:1:",         // `use super::a`
                "kaprobe/src/b.rs:1:",         // no row
                "kaprobe/src/b.rs:2:",         // `Y` again
                "kaprobe/src/b.rs:2:",         // a trailing space
            ]
        );
    }
}
