//! Checks the layers of kaprobe: a module refers only to modules of lower layers.
//!
//! A new module needs a row in [`LAYERS`]. `cargo xtask tidy --write` then writes it to
//! the map in CONTRIBUTING.md.

use std::collections::BTreeMap;

use crate::tidy::crates::{Crate, Source};
use crate::tidy::file::Finding;
use crate::tidy::lines::words;
use crate::tidy::references::Reference;

/// A top-level module of kaprobe.
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// Whether it uses no clock and no I/O, so that its output depends only on its input.
    pub pure: bool,
    /// A line that says what it does.
    pub what: &'static str,
}

/// The modules of each layer, top layer first.
pub type Layers = [&'static [Module]];

/// The layers of kaprobe/src.
#[rustfmt::skip] // One line per module.
pub const LAYERS: &Layers = &[
    &[
        module("top", "shows connections and their keepalive by program and remote end, live"),
        module("agent", "runs as a service: metrics for Prometheus, and a recorder"),
        module("demo", "opens connections that go silent or vanish, and shows what keepalive does"),
    ],
    &[
        module("census", "sums up sockets by program and remote end, again and again"),
        module("record", "keeps the last days of a trace in a folder, in little room"),
    ],
    &[
        module("trace", "shows what keepalive does on this host, live"),
        module("audit", "lists the connections that an idle timeout would kill, and what saves each"),
        module("report", "writes what logs show as one HTML file"),
    ],
    &[
        module("sockets", "lists the current TCP sockets"),
        module("replay", "shows logs like a live trace, merges and summarizes them"),
        module("doctor", "tests what this kernel and these privileges allow"),
    ],
    &[
        module("owners", "finds the processes that hold a socket"),
        module("explain", "says what a verdict or an event means, and what to do about it"),
        module("manual", "writes man pages and completions for shells"),
        module("messages", "writes the messages of a trace: hooks, counts, losses"),
    ],
    &[
        module("kernel", "loads the BPF programs and decodes their events; only it uses aya"),
        module("cli", "parses the command line into a checked plan"),
        pure("verdict", "turns records into verdicts: why a connection ended, and what to set"),
        pure("metrics", "counts records for Prometheus, in a bounded number of series"),
        pure("condense", "sums the probes that peers answer, and keeps every other record"),
        pure("correlate", "turns events into records: which socket it was, and what follows"),
    ],
    &[
        module("containers", "finds the systemd unit, the container and the pod of a process"),
        module("host", "reads the host: processes, namespaces, routes, privileges"),
        module("sink", "writes records as a digest, text, JSON lines and CSV"),
        pure("glossary", "holds the explanations of verdicts and events"),
        pure("filter", "selects the records to show, and counts them"),
        pure("keepalive", "predicts when keepalive gives up on a connection"),
        pure("timeout", "defines the idle timeouts that connections are checked against"),
        pure("programs", "knows what programs call their keepalive settings"),
    ],
    &[
        pure("model", "defines the shared types: events, records, sockets"),
        module("exit", "defines the exit codes, and the errors that carry one"),
        module("shutdown", "stops a trace on a signal, at a deadline, or when stdout is closed"),
        module("stderr", "writes to standard error; only it does"),
        module("output_file", "opens files for writing, but none that another user prepared"),
    ],
    &[
        pure("text", "formats text: escapes, units, columns, histograms, line breaks"),
        module("version", "names the version of kaprobe, and its commit"),
        pure("lru", "is a bounded map that evicts the least recently used entry"),
        module("stop", "stops threads"),
        module("traffic", "opens connections for everything that a keepalive timer can do"),
        module("memory", "configures the allocator"),
    ],
];

const fn module(name: &'static str, what: &'static str) -> Module {
    Module {
        name,
        pure: false,
        what,
    }
}

const fn pure(name: &'static str, what: &'static str) -> Module {
    Module {
        name,
        pure: true,
        what,
    }
}

/// The path of this file, which holds the table.
const TABLE: &str = "xtask/src/tidy/layers.rs";

/// Names that the code of a pure module may not use.
const IMPURE: [&str; 13] = [
    "aya",
    "tokio",
    "rustix",
    "fs",
    "io",
    "env",
    "thread",
    "SystemTime",
    "Instant::now",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
];

/// Each module with its layer number, top layer first. The lowest layer is 1.
pub fn rows(layers: &Layers) -> impl Iterator<Item = (usize, &'static Module)> {
    let numbers = (1..=layers.len()).rev();
    let numbered = numbers.zip(layers);
    numbered.flat_map(|(number, modules)| modules.iter().map(move |it| (number, it)))
}

/// Finds references that the table forbids, and rows that do not match the source tree.
pub fn find(kaprobe: &Crate<'_>, layers: &Layers) -> Vec<Finding> {
    let mut findings = rows_without_module(kaprobe, layers);
    for source in &kaprobe.sources {
        let path = &source.file.path;
        match row(layers, source.module.first()) {
            Some(from) => {
                findings.extend(forbidden(source, from, layers));
                findings.extend(impure(source, from.1));
            }
            // Report each module once, at its own file.
            None if source.module.len() == 1 => {
                let what = format!("`{}` has no row in {TABLE}", source.module[0]);
                findings.push(Finding::new(path, 1, what));
            }
            None => {}
        }
    }
    findings
}

/// Finds rows of the table without a module.
fn rows_without_module(kaprobe: &Crate<'_>, layers: &Layers) -> Vec<Finding> {
    let exists = |name| {
        kaprobe
            .sources
            .iter()
            .any(|it| it.module.first() == Some(&name))
    };
    let gone = rows(layers).filter(|(_, module)| !exists(module.name));
    gone.map(|(_, module)| {
        let what = format!("a row for `{}`, but no such module", module.name);
        Finding::new(TABLE, line(module.name), what)
    })
    .collect()
}

/// The line number of a module's row in this file.
fn line(name: &str) -> usize {
    let start = format!("(\"{name}\", ");
    let table = include_str!("layers.rs").lines();
    table.take_while(|line| !line.contains(&start)).count() + 1
}

fn row(layers: &Layers, name: Option<&&str>) -> Option<(usize, &'static Module)> {
    rows(layers).find(|(_, module)| Some(&module.name) == name)
}

/// Finds the forbidden references of a file, each at its first line.
fn forbidden(source: &Source<'_>, from: (usize, &Module), layers: &Layers) -> Vec<Finding> {
    let mut lines = BTreeMap::new();
    for reference in &source.references {
        for what in faults(reference, from, layers) {
            let line = lines.entry(what).or_insert(reference.line);
            *line = reference.line.min(*line);
        }
    }
    let found = lines.into_iter();
    found
        .map(|(what, line)| Finding::new(&source.file.path, line, what))
        .collect()
}

/// The rules that a reference breaks.
fn faults(reference: &Reference<'_>, from: (usize, &Module), layers: &Layers) -> Vec<String> {
    let (number, module) = from;
    let Some(name) = reference.path.first() else {
        return vec!["it names the whole crate: name a module".to_owned()];
    };
    if *name == module.name {
        return Vec::new();
    }
    let Some((below, other)) = row(layers, Some(name)) else {
        return vec![format!("`{name}` has no row in {TABLE}")];
    };
    let mut faults = Vec::new();
    if below >= number {
        faults.push(format!(
            "`{}`, of layer {number}, names `{name}`, of layer {below}: only lower ones",
            module.name
        ));
    }
    if module.pure && !other.pure {
        faults.push(format!("`{}` is pure, `{name}` is not", module.name));
    }
    faults
}

fn impure(source: &Source<'_>, module: &Module) -> Vec<Finding> {
    if !module.pure {
        return Vec::new();
    }
    let found = words(&source.file.live, &IMPURE).into_iter();
    found
        .map(|(line, word)| {
            let what = format!("`{word}`: `{}` is pure: no I/O and no clock", module.name);
            Finding::new(&source.file.path, line, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tidy::file::File;

    const SMALL: &Layers = &[
        &[module("top", "")],
        &[module("mid", ""), pure("sure", "")],
        &[pure("low", ""), module("disk", "")],
    ];

    fn found(path: &str, text: &str) -> Vec<String> {
        let others = ["top", "mid", "sure", "low", "disk"].map(|name| {
            let path = format!("kaprobe/src/{name}/other.rs");
            File::new(&path, "fn f() {}")
        });
        let files: Vec<_> = others.into_iter().chain([File::new(path, text)]).collect();
        let krate = Crate::new("kaprobe/src/", &files);
        find(&krate, SMALL)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_module_refers_only_to_lower_layers() {
        let mid = "kaprobe/src/mid/mod.rs";
        for (path, text, count) in [
            (mid, "use crate::low::X;", 0),
            (
                mid,
                "use crate::mid::part::X; fn f() { self::part::y() }",
                0,
            ),
            (mid, "use crate::top;", 1),
            (mid, "use crate::top::{X, Y};", 1),
            (mid, "use crate::sure::X;", 1),
            (mid, "use crate::{low, sure, top};", 2),
            (mid, "use crate::{\n    low,\n    top::{X, Y},\n};", 1),
            (mid, "fn f() -> crate::top::X { crate::low::y() }", 1),
            (mid, "crate::top::m!(x);", 1),
            (mid, "use super::top;", 1),
            (mid, "use crate::*;", 1),
            (mid, "use crate::gone::X;", 1),
            (mid, "// crate::top\nconst X: &str = \"crate::top\";", 0),
            (mid, "#[cfg(test)]\nmod tests { use crate::top; }", 0),
            ("kaprobe/src/mid.rs", "use crate::top;", 1),
            ("kaprobe/src/mid/a/b.rs", "use super::super::super::top;", 1),
            ("kaprobe/src/mid/tests.rs", "use crate::top;", 0),
            ("kaprobe/src/mid/tests/a.rs", "use crate::top;", 0),
            ("kaprobe/src/lib.rs", "use crate::top;", 0),
            ("kaprobe/src/main.rs", "use crate::top;", 0),
            ("kaprobe/src/sample.rs", "use crate::top;", 0),
        ] {
            let found = found(path, text);
            assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
        }
        assert_eq!(
            found(mid, "\nuse crate::top::X;"),
            [
                "kaprobe/src/mid/mod.rs:2: `mid`, of layer 2, names `top`, of layer 3: only lower ones"
            ]
        );
    }

    #[test]
    fn a_pure_module_uses_nothing_impure() {
        let sure = "kaprobe/src/sure.rs";
        for (text, count) in [
            ("use crate::low::X;", 0),
            ("use crate::disk::X;", 1),
            ("use crate::mid::X;", 2),
            ("use std::fs;", 1),
            ("use std::{fs, io};", 2),
            ("let now = Instant::now();", 1),
            ("println!(); eprint!(); eprintln!();", 3),
            ("write!(f, \"x\")", 0),
            ("let x = 1; // never std::fs", 0),
            ("let profs = now_or_never;", 0),
            ("#[cfg(test)]\nmod tests { use std::fs; }", 0),
        ] {
            let found = found(sure, text);
            assert_eq!(found.len(), count, "{text}: {found:?}");
        }
    }

    #[test]
    fn the_table_matches_the_source_tree() {
        let new = "kaprobe/src/new/mod.rs";
        assert_eq!(
            found(new, "use crate::top;"),
            ["kaprobe/src/new/mod.rs:1: `new` has no row in xtask/src/tidy/layers.rs"]
        );
        let alone = [File::new("kaprobe/src/top.rs", "fn f() {}")];
        let krate = Crate::new("kaprobe/src/", &alone);
        assert_eq!(find(&krate, SMALL).len(), 4);
    }

    #[test]
    fn each_module_has_one_row() {
        let names: BTreeSet<_> = rows(LAYERS).map(|(_, module)| module.name).collect();
        assert_eq!(names.len(), rows(LAYERS).count());
        let lines: BTreeSet<_> = names.into_iter().map(line).collect();
        assert_eq!(lines.len(), rows(LAYERS).count());
    }
}
