//! No files of a crate refer to each other in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tidy::crates::Crate;
use crate::tidy::file::Finding;
use crate::tidy::references::Reference;

/// For each source those that it refers to, and by which references.
type Graph<'a> = Vec<BTreeMap<usize, Vec<&'a Reference<'a>>>>;

/// Finds files that refer to each other in a circle: one circle of each such set.
pub fn find(krate: &Crate<'_>) -> Vec<Finding> {
    let graph = graph(krate);
    let tied = tied(&graph).into_iter();
    tied.filter_map(|files| {
        let circles = files.iter().filter_map(|start| circle(&graph, *start));
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

/// The sets of more than one file where each leads to each: the strongly connected ones.
fn tied(graph: &Graph<'_>) -> BTreeSet<Vec<usize>> {
    let reach: Vec<_> = (0..graph.len()).map(|from| reach(graph, from)).collect();
    let around = |at: usize| {
        let back = reach[at].iter().filter(|to| reach[**to].contains(&at));
        back.copied().collect::<Vec<_>>()
    };
    let sets = (0..graph.len()).map(around);
    sets.filter(|files| files.len() > 1).collect()
}

/// All that can be reached from a file in one step or more.
fn reach(graph: &Graph<'_>, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(graph[at].keys().filter(|to| reached.insert(**to)));
    }
    reached
}

/// The shortest way from a file back to it, which is left out at the end.
fn circle(graph: &Graph<'_>, start: usize) -> Option<Vec<usize>> {
    let mut came_from = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        for to in graph[at].keys() {
            if *to == start {
                let mut way = vec![at];
                while let Some(before) = came_from.get(&way[way.len() - 1]) {
                    way.push(*before);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(to) {
                came_from.insert(*to, at);
                open.push_back(*to);
            }
        }
    }
    None
}

/// Spells a circle out, from where it is easiest to break.
fn describe(krate: &Crate<'_>, graph: &Graph<'_>, circle: &[usize], tied: usize) -> Finding {
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

    let round: Vec<_> = circle
        .iter()
        .chain(&circle[..1])
        .map(|at| name(*at))
        .collect();
    let mut what = format!("a circle: {}", round.join(" -> "));
    if tied > circle.len() {
        what += &format!(", one of several among {tied} files");
    }
    if let Some(Detour { item, definer, .. }) = detour {
        let definer = name(definer);
        what += &format!("; take `{item}` from the file that defines it, {definer}");
    }
    Finding::new(&krate.sources[circle[0]].file.path, line, what)
}

/// A reference that takes something by way of a file that only imports it.
struct Detour<'a> {
    reference: &'a Reference<'a>,
    item: &'a str,
    /// The source that has it.
    definer: usize,
}

/// The first detour among the references from one file to another.
fn detour<'a>(krate: &Crate<'_>, graph: &Graph<'a>, from: usize, to: usize) -> Option<Detour<'a>> {
    let by_way_of = &krate.sources[to];
    graph[from][&to].iter().find_map(|reference| {
        let item = *reference.path.get(by_way_of.module.len())?;
        let mut imports = by_way_of.references.iter();
        let import = imports.find(|it| it.name == Some(item))?;
        let definer = krate.holder(by_way_of, &import.path)?;
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
    fn files_that_refer_one_way_are_no_circle() {
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
    fn a_circle_is_spelled_out() {
        for (a, b) in [
            ("use crate::b::X;", "use crate::a;"),
            ("use crate::b::X;", "use super::a;"),
            ("use crate::{b, c};", "use crate::{\n    a::{X, Y},\n};"),
            ("crate::b::m!();", "fn f() { super::a::g() }"),
            ("use crate::b;", "fn f() -> crate::a::X {}"),
        ] {
            let said = "a.rs:1: a circle: a.rs -> b.rs -> a.rs";
            assert_eq!(found(&[("a.rs", a), ("b.rs", b)]), [said], "{a} {b}");
        }
        for (parent, child) in [
            ("mod b; b::f();", "use super::X;"),
            ("mod b; use b::X;", "use crate::a::*;"),
            ("self::b::f();", "use crate::a::X;"),
            ("use crate::a; a::b::f();", "use crate::a::X;"),
        ] {
            let tree = [("a/b.rs", child), ("a/mod.rs", parent)];
            let said = "a/b.rs:1: a circle: a/b.rs -> a/mod.rs -> a/b.rs";
            assert_eq!(found(&tree), [said], "{parent} {child}");
        }
        let root = [
            ("b.rs", "crate::y()"),
            ("main.rs", "mod b; use crate::b::X;"),
        ];
        let said = "b.rs:1: a circle: b.rs -> main.rs -> b.rs";
        assert_eq!(found(&root), [said]);
    }

    #[test]
    fn each_set_is_told_by_its_shortest_circle() {
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
    fn a_way_round_by_an_export_is_told() {
        let exports = "mod a; mod b; pub use crate::k::a::X; pub use crate::k::b::Y;";
        let tree = [
            ("k/a.rs", "pub struct X;"),
            ("k/b.rs", "\nuse crate::k::X;"),
            ("k/mod.rs", exports),
        ];
        let said = "k/b.rs:2: a circle: k/b.rs -> k/mod.rs -> k/b.rs; \
                    take `X` from the file that defines it, k/a.rs";
        assert_eq!(found(&tree), [said]);
    }
}
