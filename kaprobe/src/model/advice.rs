//! The advice of a verdict: what was seen, then what to do.

use serde::{Deserialize, Deserializer};

use crate::model::field::{Value, fields};
use crate::text::escape::Escaped;

/// What stands between what was seen and what to do.
const BETWEEN: &str = "; ";

/// What was seen, then what to do, as one text. Where the second part begins is known only
/// to the process that made the verdict: a log has the text. So two that have the same text are
/// equal.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    text: Escaped,
    /// The length of what was seen, bytes.
    seen: u32,
}

fields! {
    Advice: |it| Value::Escaped(&it.text),
}

impl Advice {
    /// Joins what was seen and what to do. Either may be empty.
    #[must_use]
    pub fn new(seen: &str, advised: &str) -> Self {
        let seen = Escaped::from_escaped(seen);
        let between = if seen.as_str().is_empty() || advised.is_empty() {
            ""
        } else {
            BETWEEN
        };
        let text = Escaped::from_escaped(&format!("{seen}{between}{advised}"));
        let seen = u32::try_from(seen.as_str().len()).unwrap_or(u32::MAX);
        Self { text, seen }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// The whole text, escaped.
    #[must_use]
    pub const fn text(&self) -> &Escaped {
        &self.text
    }

    /// What was seen, and what to do. Either may be empty. Of a text from a log, all is the
    /// first part.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        let text = self.text.as_str();
        let (seen, advised) = text
            .split_at_checked(self.seen as usize)
            .unwrap_or((text, ""));
        (seen, advised.strip_prefix(BETWEEN).unwrap_or(advised))
    }
}

impl PartialEq for Advice {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Advice {}

impl From<Escaped> for Advice {
    fn from(text: Escaped) -> Self {
        let seen = u32::try_from(text.as_str().len()).unwrap_or(u32::MAX);
        Self { text, seen }
    }
}

impl<'de> Deserialize<'de> for Advice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Escaped::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_that_were_joined() {
        for (seen, advised, text, parts) in [
            ("died", "set x=1", "died; set x=1", ("died", "set x=1")),
            ("", "set x=1", "set x=1", ("", "set x=1")),
            ("died", "", "died", ("died", "")),
            ("a\nb", "c\u{1b}", "a\\nb; c\\u{1b}", ("a\\nb", "c\\u{1b}")),
        ] {
            let advice = Advice::new(seen, advised);
            assert_eq!(advice.as_str(), text);
            assert_eq!(advice.parts(), parts);
        }
        let logged = Advice::from(Escaped::from("died; set x=1"));
        assert_eq!(logged.parts(), ("died; set x=1", ""));
    }
}
