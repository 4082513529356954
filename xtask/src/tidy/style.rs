//! Checks `use` items: one module per item, and own modules from `crate::`.

use crate::tidy::file::{File, Finding};
use crate::tidy::imports::{self, PathEnd, Use, UseTree, Written};

/// Finds `use` items that name several modules, or own modules by a relative path.
pub fn find(file: &File) -> Vec<Finding> {
    let written = imports::read(&file.code);
    let mut findings = Vec::new();
    for item in &written.uses {
        if let Some(why) = fault(item, &written) {
            let what = format!("`use {}`: {why}", short(&item.tree));
            findings.push(Finding::new(&file.path, item.line, what));
        }
    }
    findings
}

/// The written path, with `{…}` for a group.
fn short(tree: &UseTree<'_>) -> String {
    let mut segments = tree.segments.clone();
    match tree.end {
        PathEnd::Name(_) => {}
        PathEnd::All => segments.push("*"),
        PathEnd::Group(_) => segments.push("{…}"),
    }
    segments.join("::")
}

fn fault(item: &Use<'_>, written: &Written<'_>) -> Option<&'static str> {
    if is_relative(item, written) {
        return Some("name items of this crate from `crate::`");
    }
    let PathEnd::Group(trees) = &item.tree.end else {
        return None;
    };
    let plain = trees.iter().all(is_plain);
    (!plain).then_some("it names more than one module: write a `use` for each")
}

/// Whether a group member is a single name or a star.
fn is_plain(tree: &UseTree<'_>) -> bool {
    match tree.end {
        PathEnd::Name(_) => tree.segments.len() == 1,
        PathEnd::All => tree.segments.is_empty(),
        PathEnd::Group(_) => false,
    }
}

/// Whether a path starts at the current module. `use super::*;` is allowed, for tests.
fn is_relative(item: &Use<'_>, written: &Written<'_>) -> bool {
    let firsts = match (&item.tree.segments[..], &item.tree.end) {
        (["super"], PathEnd::All) => return false,
        ([], PathEnd::Group(trees)) => trees.iter().filter_map(|it| it.segments.first()).collect(),
        (segments, _) => Vec::from_iter(segments.first()),
    };
    let is_module = |name| {
        written
            .modules
            .iter()
            .any(|it| it.0 == item.scope && it.1 == name)
    };
    let mut firsts = firsts.into_iter();
    firsts.any(|first| ["self", "super"].contains(first) || is_module(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_use_items_are_found() {
        for (text, found) in [
            ("use std::fs;", 0),
            ("use std::fmt::{self, Display, Write as _, Debug as D};", 0),
            ("use crate::{ebpf, workspace};", 0),
            ("pub(crate) use crate::a::*;", 0),
            ("use crate::a::{*};", 0),
            ("use std::{fmt, net::IpAddr};", 1),
            ("use std::{\n    fmt,\n    net::IpAddr,\n};", 1),
            ("use crate::{a::{B, C}};", 1),
            ("use crate::{a, b::*};", 1),
            ("use {std::fs, std::io};", 1),
            ("use super::a;", 1),
            ("use self::a::B;", 1),
            ("pub use self::{\n    a::B,\n    c::D,\n};", 1),
            ("use super::*;", 0),
            ("use super::super::*;", 1),
            ("use super::a::*;", 1),
            ("use super::{a, b};", 1),
            ("mod a;\nuse a::B;", 1),
            ("mod a;\nuse crate::x::a::B;", 0),
            ("mod a { use std::fs; mod b { use a::C; } }", 0),
            ("mod tests { use super::*; use super::a; }", 1),
            ("fn f() { use Kind::{A, B}; }", 0),
            ("// use super::a;\n/* use super::b; */", 0),
            ("const X: &str = \"use super::a;\";", 0),
            ("const X: &str = r#\"\nuse super::a;\n\"#;", 0),
            ("fn f() -> impl Fn() + use<'_> {}", 0),
        ] {
            for path in ["kaprobe/src/x.rs", "tests/x.rs", "benches/cost/x.rs"] {
                assert_eq!(find(&File::new(path, text)).len(), found, "{text}");
            }
        }
    }
}
