//! Finds public types of kaprobe that share a name.

use std::collections::BTreeMap;

use crate::tidy::file::{File, Finding};
use crate::tidy::lex::is_word;

/// The keywords that declare a type.
const KINDS: [&str; 5] = ["struct", "enum", "type", "trait", "union"];

/// Finds public types that have the name of an earlier one. They are declared at the top
/// level of a file, or in a macro call there, one indentation deep.
pub fn find(files: &[File]) -> Vec<Finding> {
    let mut first = BTreeMap::new();
    let mut findings = Vec::new();
    let ours = files
        .iter()
        .filter(|it| it.path.starts_with("kaprobe/src/"));
    for file in ours {
        let mut in_macro = false;
        for (number, line) in (1..).zip(file.live.lines()) {
            let indented = line.strip_prefix("    ");
            if indented.is_none() && !line.is_empty() {
                in_macro = line.ends_with("! {");
            }
            let line = indented.filter(|_| in_macro).unwrap_or(line);
            let Some(name) = public_type(line) else {
                continue;
            };
            let place = format!("{}:{number}", file.path);
            let earlier = first.entry(name).or_insert_with(|| place.clone());
            if *earlier != place {
                let what = format!("`{name}` is already a public type at {earlier}");
                findings.push(Finding::new(&file.path, number, what));
            }
        }
    }
    findings
}

/// The name of the public type that an unindented line declares.
///
/// An indented type is in a block: a function, or the `impl` of an associated type.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let mut kind = words.next()?;
    while ["unsafe", "auto"].contains(&kind) {
        kind = words.next()?;
    }
    let name = KINDS.contains(&kind).then(|| words.next())??;
    name.split(|c| !is_word(c)).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_types_are_recognized_by_line() {
        for (line, name) in [
            ("pub struct Row {", Some("Row")),
            ("pub struct Row(u8);", Some("Row")),
            ("pub(crate) enum Kind<T> {", Some("Kind")),
            ("pub(super) type End = u8;", Some("End")),
            ("pub(in crate::sink) trait Sink: Send {", Some("Sink")),
            ("pub unsafe trait Pod {}", Some("Pod")),
            ("pub union Bits {", Some("Bits")),
            ("struct Row {", None),
            ("    pub struct Row {", None),
            ("    type Err = Error;", None),
            ("pub use crate::model::Row;", None),
            ("pub fn row() {}", None),
            ("public_struct Row", None),
        ] {
            assert_eq!(public_type(line), name, "{line}");
        }
    }

    #[test]
    fn a_second_type_with_the_same_name_is_found() {
        let (a, b) = ("kaprobe/src/a.rs", "kaprobe/src/b.rs");
        let test = "#[cfg(test)]\nmod tests {\npub struct Row;\n}";
        for (tree, expected) in [
            ([(a, "pub struct Row;"), (b, "pub struct Line;")], vec![]),
            ([(a, "pub struct Row;"), (b, "struct Row;")], vec![]),
            ([(a, "pub struct Row;"), (b, "// pub struct Row;")], vec![]),
            ([(a, "pub struct Row;"), (b, test)], vec![]),
            (
                [
                    (a, "pub struct Row;"),
                    ("xtask/src/b.rs", "pub enum Row {}"),
                ],
                vec![],
            ),
            (
                [
                    (a, "pub struct Row;"),
                    (b, "named! {\n    pub enum Row {}\n}"),
                ],
                vec!["kaprobe/src/b.rs:2: `Row` is already a public type at kaprobe/src/a.rs:1"],
            ),
            (
                [(a, "pub struct Row;"), (b, "\npub(super) enum Row {}")],
                vec!["kaprobe/src/b.rs:2: `Row` is already a public type at kaprobe/src/a.rs:1"],
            ),
        ] {
            let files = tree.map(|(path, text)| File::new(path, text));
            let found: Vec<_> = find(&files).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }
}
