//! Finds files of a crate that refer to each other in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tidy::crates::Crate;
use crate::tidy::file::Finding;
use crate::tidy::references::Reference;

/// For each source, the sources that it refers to, with the references.
type Graph<'a> = Vec<BTreeMap<usize, Vec<&'a Reference<'a>>>>;

/// Finds the shortest circle of each set of files that refer to each other.
pub fn find(krate: &Crate<'_>) -> Vec<Finding> {
    let graph = graph(krate);
    let sets = connected_sets(&graph).into_iter();
    sets.filter_map(|files| {
        let circles = files
            .iter()
            .filter_map(|start| shortest_circle(&graph, *start));
        let shortest = circles.min_by_key(Vec::len)?;
        Some(describe(krate, &graph, &shortest, files.len()))
    })
    .collect()
}

fn graph<'a>(krate: &'a Crate<'a>) -> Graph<'a> {
    let mut graph = Graph::new();
    for (at, source) in krate.sources.iter().enumerate() {
        let mut edges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for reference in &source.references {
            let to = krate.holder(source, &reference.path);
            if let Some(to) = to.filter(|to| *to != at) {
                edges.entry(to).or_default().push(reference);
            }
        }
        graph.push(edges);
    }
    graph
}

/// The strongly connected sets of more than one file.
fn connected_sets(graph: &Graph<'_>) -> BTreeSet<Vec<usize>> {
    let reached: Vec<_> = (0..graph.len()).map(|from| reach(graph, from)).collect();
    let set_of = |at: usize| {
        let mutual = reached[at].iter().filter(|to| reached[**to].contains(&at));
        mutual.copied().collect::<Vec<_>>()
    };
    let sets = (0..graph.len()).map(set_of);
    sets.filter(|files| files.len() > 1).collect()
}

/// The files that can be reached from a file in one or more steps.
fn reach(graph: &Graph<'_>, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut to_visit = vec![from];
    while let Some(at) = to_visit.pop() {
        to_visit.extend(graph[at].keys().filter(|to| reached.insert(**to)));
    }
    reached
}

/// The shortest circle through a file: `start` first, and not repeated at the end.
fn shortest_circle(graph: &Graph<'_>, start: usize) -> Option<Vec<usize>> {
    let mut came_from = BTreeMap::new();
    let mut to_visit = VecDeque::from([start]);
    while let Some(at) = to_visit.pop_front() {
        for to in graph[at].keys() {
            if *to == start {
                let mut path = vec![at];
                while let Some(before) = came_from.get(&path[path.len() - 1]) {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            if !came_from.contains_key(to) {
                came_from.insert(*to, at);
                to_visit.push_back(*to);
            }
        }
    }
    None
}

/// Describes a circle. It starts at a detour, if there is one: the easiest place to fix.
fn describe(krate: &Crate<'_>, graph: &Graph<'_>, circle: &[usize], set_size: usize) -> Finding {
    let name = |at: usize| &krate.sources[at].file.path[krate.folder.len()..];
    let mut circle = circle.to_vec();
    let detour = (0..circle.len()).find_map(|_| {
        let found = detour(krate, graph, circle[0], circle[1]);
        if found.is_none() {
            circle.rotate_left(1);
        }
        found
    });
    let first = graph[circle[0]][&circle[1]].first();
    let line = detour.as_ref().map(|it| it.reference).or(first.copied());
    let line = line.map_or(1, |it| it.line);

    let names: Vec<_> = circle
        .iter()
        .chain(&circle[..1])
        .map(|at| name(*at))
        .collect();
    let mut what = format!("a circle: {}", names.join(" -> "));
    if set_size > circle.len() {
        what += &format!(", one of several among {set_size} files");
    }
    if let Some(Detour { item, definer, .. }) = detour {
        let definer = name(definer);
        what += &format!("; take `{item}` from the file that defines it, {definer}");
    }
    Finding::new(&krate.sources[circle[0]].file.path, line, what)
}

/// A reference to an item through a file that only imports the item.
struct Detour<'a> {
    reference: &'a Reference<'a>,
    item: &'a str,
    /// The source that defines the item.
    definer: usize,
}

/// The first detour among the references from one file to another.
fn detour<'a>(krate: &Crate<'_>, graph: &Graph<'a>, from: usize, to: usize) -> Option<Detour<'a>> {
    let importer = &krate.sources[to];
    graph[from][&to].iter().find_map(|reference| {
        let item = *reference.path.get(importer.module.len())?;
        let mut imports = importer.references.iter();
        let import = imports.find(|it| it.name == Some(item))?;
        let definer = krate.holder(importer, &import.path)?;
        (definer != to).then_some(Detour {
            reference,
            item,
            definer,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::File;

    fn found(tree: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = tree
            .iter()
            .map(|(path, text)| File::new(&format!("kaprobe-ebpf/src/{path}"), text))
            .collect();
        let krate = Crate::new("kaprobe-ebpf/src/", &files);
        let found = find(&krate).into_iter();
        found
            .map(|it| it.to_string().replace("kaprobe-ebpf/src/", ""))
            .collect()
    }

    #[test]
    fn one_way_references_are_not_a_circle() {
        for (a, b) in [
            ("use crate::b::X;", ""),
            (
                "use crate::b::X;",
                "// crate::a\nconst A: &str = \"crate::a\";",
            ),
            ("use crate::b::X;", "#[cfg(test)]\nmod t { crate::a::x() }"),
            ("use crate::b::X;", "pub(in crate::a) struct X;"),
            ("use crate::a::X; fn f() { self::g() }", "use crate::a::X;"),
        ] {
            assert_eq!(found(&[("a.rs", a), ("b.rs", b)]), [""; 0], "{a} {b}");
        }
        for (parent, child) in [
            ("mod b;", "use crate::a::X;"),
            ("mod b; use crate::a::b::X;", "mod i { super::y() }"),
            ("#[cfg(test)]\nmod b;", "use super::X;"),
        ] {
            let tree = [("a/b.rs", child), ("a/mod.rs", parent)];
            assert_eq!(found(&tree), [""; 0], "{parent} {child}");
        }
        let test = [("a.rs", "use crate::b;"), ("b/tests.rs", "use crate::a;")];
        assert_eq!(found(&test), [""; 0]);
    }

    #[test]
    fn a_circle_is_found() {
        for (a, b) in [
            ("use crate::b::X;", "use crate::a;"),
            ("use crate::b::X;", "use super::a;"),
            ("use crate::{b, c};", "use crate::{\n    a::{X, Y},\n};"),
            ("crate::b::m!();", "fn f() { super::a::g() }"),
            ("use crate::b;", "fn f() -> crate::a::X {}"),
        ] {
            let expected = "a.rs:1: a circle: a.rs -> b.rs -> a.rs";
            assert_eq!(found(&[("a.rs", a), ("b.rs", b)]), [expected], "{a} {b}");
        }
        for (parent, child) in [
            ("mod b; b::f();", "use super::X;"),
            ("mod b; use b::X;", "use crate::a::*;"),
            ("self::b::f();", "use crate::a::X;"),
            ("use crate::a; a::b::f();", "use crate::a::X;"),
        ] {
            let tree = [("a/b.rs", child), ("a/mod.rs", parent)];
            let expected = "a/b.rs:1: a circle: a/b.rs -> a/mod.rs -> a/b.rs";
            assert_eq!(found(&tree), [expected], "{parent} {child}");
        }
        let root = [
            ("b.rs", "crate::y()"),
            ("main.rs", "mod b; use crate::b::X;"),
        ];
        let expected = "b.rs:1: a circle: b.rs -> main.rs -> b.rs";
        assert_eq!(found(&root), [expected]);
    }

    #[test]
    fn the_shortest_circle_of_each_set_is_reported() {
        let tree = [
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", "use crate::a;\nuse crate::d;"),
            ("d.rs", "use crate::c;"),
            ("e.rs", "use crate::a;\n\nuse crate::f;"),
            ("f.rs", "use crate::e;"),
        ];
        assert_eq!(
            found(&tree),
            [
                "c.rs:2: a circle: c.rs -> d.rs -> c.rs, one of several among 4 files",
                "e.rs:3: a circle: e.rs -> f.rs -> e.rs",
            ]
        );
    }

    #[test]
    fn a_detour_by_a_reexport_is_reported() {
        let exports = "mod a; mod b; pub use crate::k::a::X; pub use crate::k::b::Y;";
        let tree = [
            ("k/a.rs", "pub struct X;"),
            ("k/b.rs", "\nuse crate::k::X;"),
            ("k/mod.rs", exports),
        ];
        let expected = "k/b.rs:2: a circle: k/b.rs -> k/mod.rs -> k/b.rs; \
                    take `X` from the file that defines it, k/a.rs";
        assert_eq!(found(&tree), [expected]);
    }
}
