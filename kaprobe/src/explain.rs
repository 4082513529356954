//! `kaprobe explain`: says what a verdict or an event means, and what to do about it.

use std::io::{self, Write as _};

use crate::glossary::{GlossaryEntry, Topic, entries};
use crate::sink::{self, SinkError};
use crate::text::wrap::wrapped;

/// The width of text in a pipe or file, and the greatest on a screen: longer lines are hard
/// to read.
const WIDTH: usize = 80;

/// Runs `kaprobe explain`: writes the entries of a name, or a list of all.
///
/// # Errors
/// If standard output can't be written.
pub fn run(name: Option<&str>) -> Result<(), SinkError> {
    let width = sink::screen().map_or(WIDTH, |it| it.width.min(WIDTH));
    let text = match name {
        Some(name) => explained(name, width),
        None => list(width),
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(SinkError::stdout)
}

/// The entries of this name: an event and a verdict may share one.
fn explained(name: &str, width: usize) -> String {
    let named = entries().filter(|(_, it)| it.name == name);
    let texts: Vec<_> = named.map(|(topic, it)| entry(topic, it, width)).collect();
    texts.join("\n")
}

fn entry(topic: Topic, it: &GlossaryEntry, width: usize) -> String {
    let mut text = wrapped(&format!("{} ", heading(topic, it)), &it.brief, width);
    text.push('\n');
    for (heading, part) in it.parts() {
        text.extend(["\n", heading, "\n", &wrapped("  ", part, width), "\n"]);
    }
    text
}

fn heading(topic: Topic, it: &GlossaryEntry) -> String {
    let kind = match topic {
        Topic::Verdict => "verdict",
        Topic::Event => "event",
    };
    format!("{kind} {}:", it.name)
}

/// A line or more for each entry.
fn list(width: usize) -> String {
    let mut text = String::new();
    for (topic, heading) in [
        (Topic::Verdict, "Verdicts: why a connection ended"),
        (Topic::Event, "Events: what happened"),
    ] {
        text.extend([heading, "\n"]);
        for (_, it) in entries().filter(|it| it.0 == topic) {
            text.push_str(&wrapped(&format!("  {:17} ", it.name), &it.brief, width));
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str(&wrapped(
        "",
        "kaprobe explain NAME says more of one.",
        width,
    ));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use insta::assert_snapshot;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::sample::golden;

    #[test]
    fn lines_fit_the_screen() {
        for width in [40, 80, 120] {
            let names = entries().map(|(_, it)| it.name.as_str());
            let texts = names.map(|name| explained(name, width));
            for text in texts.chain([list(width)]) {
                for line in text.lines() {
                    let is_one_word = !line.trim().contains(' ');
                    assert!(line.width() <= width || is_one_word, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_name_of_both_is_explained_twice() {
        let text = explained("fin_wait2", 80);
        let headings = ["verdict fin_wait2: ", "\n\nevent fin_wait2: "];
        assert!(
            text.starts_with(headings[0]) && text.contains(headings[1]),
            "{text}"
        );
        assert_eq!(explained("nothing", 80), "");
        assert_snapshot!(explained("resumed", 60), @r"
        event resumed: data that had stalled was acknowledged: at
                       the time of the last acknowledgement. Such a
                       connection is looked at each second; beyond
                       4,096 at once, its next event tells

        What it means
          Data that had stalled was acknowledged after all: the
          connection goes on. The verdict on the stall, which was of
          low or medium confidence, did not come true.

        On the wire
          An acknowledgement from the peer of the data that was sent
          again.

        What to check
          Whether it happens often, and to many connections at once:
          an outage of the path, or a box that is overloaded.

        What to set
          Nothing about keepalive.

        Often confused with
          `answered`: that is the answer to a keepalive probe.
        ");
    }

    /// docs/explain.md has every entry.
    #[test]
    fn the_page_in_docs_is_made_from_the_entries() -> Result<(), String> {
        let mut page = "# What verdicts and events mean\n\
            Commands such as `kaprobe explain idle_eviction` show one of these. \
            [docs/verdicts.md](verdicts.md)\nsays what a verdict may be mistaken for, and how sure \
            it is. This page is made from\n`kaprobe/data/explain.toml`.\n"
            .to_owned();
        for (topic, title) in [(Topic::Verdict, "Verdicts"), (Topic::Event, "Events")] {
            // Writing to a String cannot fail.
            let _ = write!(page, "\n## {title}\n");
            for (_, it) in entries().filter(|it| it.0 == topic) {
                let brief = wrapped("", &it.brief, 98);
                let _ = write!(page, "\n### `{}`\n{brief}\n\n", it.name);
                for (heading, text) in it.parts() {
                    let text = wrapped("- ", &format!("**{heading}**: {text}"), 98);
                    page.extend([&text, "\n"]);
                }
            }
        }
        golden::check("../../../docs/explain.md", &page)
    }
}
