//! How a `use` item is written: one module each, and our own from `crate::`.

use crate::tidy::file::{File, Finding};
use crate::tidy::imports::{self, End, Tree, Use, Written};

/// Finds `use` items that name more than one module, or ours from elsewhere.
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

/// The path as it is written, with dots for what stands in braces.
fn short(tree: &Tree<'_>) -> String {
    let mut segments = tree.segments.clone();
    match tree.end {
        End::Name(_) => {}
        End::All => segments.push("*"),
        End::Group(_) => segments.push("{…}"),
    }
    segments.join("::")
}

fn fault(item: &Use<'_>, written: &Written<'_>) -> Option<&'static str> {
    if is_relative(item, written) {
        return Some("items of the own crate are named from `crate::`");
    }
    let End::Group(trees) = &item.tree.end else {
        return None;
    };
    let plain = trees.iter().all(is_plain);
    (!plain).then_some("it names more than one module: write a `use` for each")
}

/// A name, or the star.
fn is_plain(tree: &Tree<'_>) -> bool {
    match tree.end {
        End::Name(_) => tree.segments.len() == 1,
        End::All => tree.segments.is_empty(),
        End::Group(_) => false,
    }
}

/// It begins at the module where it stands, and is not the `use super::*;` of tests.
fn is_relative(item: &Use<'_>, written: &Written<'_>) -> bool {
    let firsts = match (&item.tree.segments[..], &item.tree.end) {
        (["super"], End::All) => return false,
        ([], End::Group(trees)) => trees.iter().filter_map(|it| it.segments.first()).collect(),
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
    fn each_use_that_is_no_plain_one_is_found() {
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
