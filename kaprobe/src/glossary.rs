//! What each verdict and each event means, and what to do about it. Pure.
//!
//! `kaprobe explain` shows it. docs/explain.md is made from it, and the tables of events and
//! verdicts in docs/ are compared with it.

use std::sync::LazyLock;

use serde::Deserialize;

/// The texts.
const TABLE: &str = include_str!("../data/explain.toml");

/// What is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A conclusion from records.
    Verdict,
    /// What a record reports.
    Event,
}

/// The explanation of a verdict or an event. Names in it stand between backticks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlossaryEntry {
    /// Its name in records.
    pub name: String,
    /// A line for tables.
    pub brief: String,
    /// What happened, and what the program gets to see.
    pub means: String,
    /// What a capture of packets shows.
    pub wire: String,
    /// Where to look for the cause.
    pub check: String,
    /// What to change.
    pub set: String,
    /// What looks like it, and how the two differ.
    pub confused: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Glossary {
    verdict: Vec<GlossaryEntry>,
    event: Vec<GlossaryEntry>,
}

/// All entries: the verdicts, then the events.
pub fn entries() -> impl Iterator<Item = (Topic, &'static GlossaryEntry)> {
    // A test reads the table.
    static GLOSSARY: LazyLock<Glossary> =
        LazyLock::new(|| toml::from_str(TABLE).unwrap_or_default());
    let verdicts = GLOSSARY.verdict.iter().map(|it| (Topic::Verdict, it));
    verdicts.chain(GLOSSARY.event.iter().map(|it| (Topic::Event, it)))
}

/// The names of all entries. `fin_wait2` is an event and a verdict, and comes once.
pub fn names() -> impl Iterator<Item = &'static str> {
    let is_new = |&(topic, it): &(Topic, &GlossaryEntry)| {
        topic == Topic::Verdict
            || !entries().any(|(other, same)| other == Topic::Verdict && same.name == it.name)
    };
    entries().filter(is_new).map(|(_, it)| it.name.as_str())
}

impl GlossaryEntry {
    /// The parts of the explanation, each with its heading.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, &str); 5] {
        [
            ("What it means", &self.means),
            ("On the wire", &self.wire),
            ("What to check", &self.check),
            ("What to set", &self.set),
            ("Often confused with", &self.confused),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::named::Named as _;
    use crate::model::record::EventName;
    use crate::model::values::VerdictName;

    fn names(topic: Topic) -> Vec<&'static str> {
        let of = entries().filter(|it| it.0 == topic);
        of.map(|(_, it)| it.name.as_str()).collect()
    }

    #[test]
    fn every_verdict_and_event_has_one_entry_and_no_other_name_has() {
        let read = toml::from_str::<Glossary>(TABLE).map(drop);
        assert_eq!(read, Ok(()));
        let verdicts: BTreeSet<_> = VerdictName::ALL.iter().map(|it| it.name()).collect();
        let events: BTreeSet<_> = EventName::ALL.iter().map(|it| it.name()).collect();
        for (topic, expected) in [(Topic::Verdict, verdicts), (Topic::Event, events)] {
            let named = names(topic);
            assert_eq!(named.len(), expected.len());
            assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }

    #[test]
    fn every_part_is_plain_text_on_one_line() {
        let all = entries().flat_map(|(_, it)| {
            let parts = it.parts().map(|(_, text)| text);
            parts.into_iter().chain([it.brief.as_str()])
        });
        for text in all {
            assert!(text.trim() == text && text.len() > 7, "{text:?}");
            assert!(!text.contains(['\n', '\t', '|']), "{text:?}");
            assert_eq!(text.matches('`').count() % 2, 0, "{text:?}");
        }
        for (_, it) in entries() {
            for (heading, text) in it.parts() {
                assert!(text.ends_with(['.', '?', '`']), "{heading} of {}", it.name);
            }
        }
    }

    /// What an entry is confused with exists: a name of an event or a verdict.
    #[test]
    fn entries_refer_to_entries() {
        let known: BTreeSet<_> = entries().map(|(_, it)| it.name.as_str()).collect();
        for (_, it) in entries() {
            for name in it.confused.split('`').skip(1).step_by(2) {
                let is_name = name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
                let is_other = ["keepalive", "probe", "sockets", "low", "medium"].contains(&name);
                assert!(!is_name || is_other || known.contains(name), "{name}");
            }
        }
    }

    /// The tables of events and of verdicts in docs/ have these texts.
    #[test]
    fn the_tables_in_docs_say_the_same() {
        let tables = [
            (
                Topic::Event,
                include_str!("../../docs/events.md"),
                "| event | what happened |",
            ),
            (
                Topic::Verdict,
                include_str!("../../docs/verdicts.md"),
                "| verdict | what was seen |",
            ),
        ];
        for (topic, page, heading) in tables {
            let (_, table) = page.split_once(heading).unwrap_or_default();
            let rows = table.lines().skip(2).take_while(|it| it.starts_with('|'));
            let rows: BTreeSet<_> = rows.map(str::to_owned).collect();
            let of = entries().filter(|it| it.0 == topic);
            let expected = of.map(|(_, it)| format!("| `{}` | {} |", it.name, it.brief));
            assert_eq!(rows, expected.collect());
        }
    }
}
