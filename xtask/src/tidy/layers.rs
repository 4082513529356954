//! The layers of kaprobe: a module refers to those below it, and to no other.
//!
//! A new module is a row of [`LAYERS`], and `cargo xtask tidy --write` takes it into the
//! map that CONTRIBUTING.md shows.

use std::collections::BTreeMap;

use crate::tidy::crates::{Crate, Source};
use crate::tidy::file::Finding;
use crate::tidy::lines::words;
use crate::tidy::references::Reference;

/// A module at the top of kaprobe.
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// It has no clock and does no I/O: what it returns follows from what it is given.
    pub pure: bool,
    /// What it does, in a line.
    pub what: &'static str,
}

/// Layers with their modules, top layer first.
pub type Layers = [&'static [Module]];

/// The layers of kaprobe/src.
#[rustfmt::skip] // Each module is a line.
pub const LAYERS: &Layers = &[
    &[
        module("demo", "makes connections that fall silent and vanish, and tells what comes of it"),
    ],
    &[
        module("trace", "shows what keepalive does on this host, as it happens"),
        module("audit", "tells which connections an idle timeout would kill, and what saves each"),
    ],
    &[
        module("sockets", "shows every TCP socket as it is now"),
        module("replay", "shows logs as a trace would, merges them and sums them up"),
        module("doctor", "tells what this kernel and these privileges allow, by trying"),
    ],
    &[
        module("owners", "finds the processes that hold a socket"),
        module("report", "words what a trace tells besides its records: hooks, counts, losses"),
    ],
    &[
        module("kernel", "loads the BPF programs and decodes what they send; no other uses aya"),
        module("cli", "reads the command line and makes a checked plan of it"),
        pure("verdict", "makes verdicts of records: why a connection ended, and what to set"),
        pure("correlate", "makes records of events: which socket it was, and what follows"),
    ],
    &[
        module("host", "reads what the host's files say: processes, namespaces, privileges"),
        module("sink", "writes records as text, JSON lines and CSV"),
        pure("filter", "picks the records to show, and counts them"),
        pure("keepalive", "foretells when keepalive gives up on a connection"),
        pure("timeout", "holds the idle timeouts that connections are judged by"),
    ],
    &[
        pure("model", "holds what the others speak of: events, records, sockets"),
        module("exit", "holds the exit codes, and the errors that carry one"),
        module("shutdown", "waits for a reason to end: a signal, the clock, a closed pipe"),
        module("stderr", "writes to standard error; no other does"),
    ],
    &[
        pure("text", "shapes text: escapes, units, columns, histograms, line breaks"),
        pure("lru", "maps keys to values up to a bound, and forgets what was used least lately"),
        module("stop", "tells threads to end"),
        module("traffic", "makes connections that do each thing a keepalive timer can do"),
        module("memory", "tells the allocator how to treat blocks"),
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

/// The file of the table.
const TABLE: &str = "xtask/src/tidy/layers.rs";

/// What the code of a pure module does not name.
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

/// Each module with the number of its layer, top layer first; the lowest is 1.
pub fn rows(layers: &Layers) -> impl Iterator<Item = (usize, &'static Module)> {
    let numbers = (1..=layers.len()).rev();
    let numbered = numbers.zip(layers);
    numbered.flat_map(|(number, modules)| modules.iter().map(move |it| (number, it)))
}

/// Finds what the table does not allow, and where it is not that of the tree.
pub fn find(kaprobe: &Crate<'_>, layers: &Layers) -> Vec<Finding> {
    let mut findings = absent(kaprobe, layers);
    for source in &kaprobe.sources {
        let path = &source.file.path;
        match place(layers, source.module.first()) {
            Some(from) => {
                findings.extend(forbidden(source, from, layers));
                findings.extend(impure(source, from.1));
            }
            // Once a module, at its own file.
            None if source.module.len() == 1 => {
                let what = format!("`{}` has no row in {TABLE}", source.module[0]);
                findings.push(Finding::new(path, 1, what));
            }
            None => {}
        }
    }
    findings
}

/// Rows of the table that no module has.
fn absent(kaprobe: &Crate<'_>, layers: &Layers) -> Vec<Finding> {
    let is_there = |name| {
        kaprobe
            .sources
            .iter()
            .any(|it| it.module.first() == Some(&name))
    };
    let gone = rows(layers).filter(|(_, module)| !is_there(module.name));
    gone.map(|(_, module)| {
        let what = format!("a row for `{}`, and no such module", module.name);
        Finding::new(TABLE, line(module.name), what)
    })
    .collect()
}

/// The line of the table that a module has.
fn line(name: &str) -> usize {
    let row = format!("(\"{name}\", ");
    let table = include_str!("layers.rs").lines();
    table.take_while(|line| !line.contains(&row)).count() + 1
}

fn place(layers: &Layers, name: Option<&&str>) -> Option<(usize, &'static Module)> {
    rows(layers).find(|(_, module)| Some(&module.name) == name)
}

/// What a file refers to and must not, each once: where it is named first.
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

/// What is wrong with one reference.
fn faults(reference: &Reference<'_>, from: (usize, &Module), layers: &Layers) -> Vec<String> {
    let (number, module) = from;
    let Some(name) = reference.path.first() else {
        return vec!["it names the whole crate: name a module".to_owned()];
    };
    if *name == module.name {
        return Vec::new();
    }
    let Some((below, other)) = place(layers, Some(name)) else {
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
    fn a_module_refers_to_those_below_it() {
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
    fn a_pure_module_is_pure_all_the_way() {
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
    fn the_table_is_that_of_the_tree() {
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
