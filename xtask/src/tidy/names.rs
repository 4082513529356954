//! No two public types of kaprobe have one name.

use std::collections::BTreeMap;

use crate::tidy::file::{File, Finding};
use crate::tidy::lex::is_word;

/// The words that begin a type.
const KINDS: [&str; 5] = ["struct", "enum", "type", "trait", "union"];

/// Finds public types whose name an earlier one has.
pub fn find(files: &[File]) -> Vec<Finding> {
    let mut first = BTreeMap::new();
    let mut findings = Vec::new();
    let ours = files
        .iter()
        .filter(|it| it.path.starts_with("kaprobe/src/"));
    for file in ours {
        for (number, line) in (1..).zip(file.live.lines()) {
            let Some(name) = public_type(line) else {
                continue;
            };
            let place = format!("{}:{number}", file.path);
            let holder = first.entry(name).or_insert_with(|| place.clone());
            if *holder != place {
                let what = format!("`{name}` is the name of a public type of {holder} already");
                findings.push(Finding::new(&file.path, number, what));
            }
        }
    }
    findings
}

/// The name of the public type that is declared in this line, without indentation.
///
/// What is indented lies in a block: a function, or the `impl` of an associated type.
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
    fn public_types_are_told_by_their_line() {
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
    fn the_second_type_of_a_name_is_found() {
        let (a, b) = ("kaprobe/src/a.rs", "kaprobe/src/b.rs");
        let test = "#[cfg(test)]\nmod tests {\npub struct Row;\n}";
        for (tree, found) in [
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
                [(a, "pub struct Row;"), (b, "\npub(super) enum Row {}")],
                vec![
                    "kaprobe/src/b.rs:2: `Row` is the name of a public type of kaprobe/src/a.rs:1 already",
                ],
            ),
        ] {
            let files = tree.map(|(path, text)| File::new(path, text));
            let said: Vec<_> = find(&files).iter().map(ToString::to_string).collect();
            assert_eq!(said, found);
        }
    }
}
