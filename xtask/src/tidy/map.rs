//! Writes and checks the map of kaprobe's modules in CONTRIBUTING.md.

use crate::tidy::file::{File, Finding};
use crate::tidy::layers::{Layers, rows};

/// The file that contains the map.
pub const FILE: &str = "CONTRIBUTING.md";

/// The line before the map.
const BEGIN: &str = "<!-- layers -->\n";

/// The line after the map.
const END: &str = "<!-- /layers -->\n";

/// Replaces the map in a text. `None` if the text has no lines that mark a map.
pub fn put(text: &str, layers: &Layers) -> Option<String> {
    let (before, rest) = split_at_line(text, BEGIN)?;
    let (_, after) = split_at_line(rest, END)?;
    Some([before, BEGIN, &map(layers), END, after].concat())
}

/// Finds a map that is missing or does not match the layers.
pub fn find(files: &[File], layers: &Layers) -> Option<Finding> {
    let file = files.iter().find(|it| it.path == FILE);
    let text = file.map_or("", |it| &it.text);
    match put(text, layers) {
        None => {
            let lines = [BEGIN.trim_end(), END.trim_end()].join("` and `");
            let what = format!("no map of the modules: no lines `{lines}`");
            Some(Finding::new(FILE, 1, what))
        }
        Some(new) if new != text => {
            let before = split_at_line(text, BEGIN).map_or("", |(before, _)| before);
            let line = before.lines().count() + 1;
            let what = "the map does not match the layers: run `cargo xtask tidy --write`";
            Some(Finding::new(FILE, line, what))
        }
        Some(_) => None,
    }
}

/// Splits a text at a line: the text before it, and the text after it.
fn split_at_line<'a>(text: &'a str, line: &str) -> Option<(&'a str, &'a str)> {
    let mut matches = text.match_indices(line).map(|(at, _)| at);
    let at = matches.find(|at| *at == 0 || text[..*at].ends_with('\n'))?;
    Some((&text[..at], &text[at + line.len()..]))
}

fn map(layers: &Layers) -> String {
    let mut map = String::from("| layer | module | what it does |\n|---|---|---|\n");
    for (number, module) in rows(layers) {
        let pure = if module.pure { ", pure" } else { "" };
        let row = format!("| {number} | `{}`{pure} | {} |\n", module.name, module.what);
        map += &row;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::layers::Module;

    const SMALL: &Layers = &[
        &[Module {
            name: "top",
            pure: false,
            what: "shows",
        }],
        &[Module {
            name: "low",
            pure: true,
            what: "thinks",
        }],
    ];

    const MAP: &str = "a\n<!-- layers -->\n\
        | layer | module | what it does |\n\
        |---|---|---|\n\
        | 2 | `top` | shows |\n\
        | 1 | `low`, pure | thinks |\n\
        <!-- /layers -->\nb\n";

    #[test]
    fn the_map_is_written_between_its_marks() {
        for (text, expected) in [
            ("a\n<!-- layers -->\nold\n<!-- /layers -->\nb\n", Some(MAP)),
            (MAP, Some(MAP)),
            ("a\nb\n", None),
            ("a\n<!-- layers -->\nb\n", None),
            ("a\n<!-- /layers -->\n<!-- layers -->\nb\n", None),
            ("a <!-- layers -->\n<!-- /layers -->\n", None),
        ] {
            assert_eq!(put(text, SMALL).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_old_or_missing_map_is_found() {
        for (text, line) in [
            (MAP, None),
            (
                "a\n<!-- layers -->\nold\n<!-- /layers -->\nb\n",
                Some("CONTRIBUTING.md:2:"),
            ),
            ("a\n", Some("CONTRIBUTING.md:1:")),
        ] {
            let found = find(&[File::new(FILE, text)], SMALL).map(|it| it.to_string());
            let is_expected = match (&found, line) {
                (Some(found), Some(line)) => found.starts_with(line),
                (found, line) => found.is_none() && line.is_none(),
            };
            assert!(is_expected, "{text}: {found:?}");
        }
        assert!(find(&[], SMALL).is_some());
    }
}
