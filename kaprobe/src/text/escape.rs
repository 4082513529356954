//! Escapes foreign text (names of commands and hosts, reasons), so that it can neither
//! control a terminal nor break a line.
//!
//! The escapes are Rust's own: `\n`, `\\`, `\u{1b}`, and `\xff` for a byte that is
//! not UTF-8. `char::escape_debug` decides what to escape: controls, bidi and zero-width
//! marks, separators, combining and unassigned characters. So are letters and symbols that
//! are blank. A test compares with Unicode's Default_Ignorable_Code_Point and its kin. Quotes
//! are left to the output formats. The mapping is one-to-one: the original bytes can be
//! restored.

use std::fmt::{self, Display, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest escaped text that is read, bytes. The longest that kaprobe writes is a path:
/// PATH_MAX bytes, each as `\xff`. Of a hostile log some thousands are kept in memory.
const MAX_LEN: usize = 4 * 4096;

/// Escaped text: one line, printable characters only. Copies share it: every record has
/// the command of its socket's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Escaped(Arc<str>);

impl Escaped {
    /// Escapes a path.
    #[must_use]
    pub fn from_path(path: &Path) -> Self {
        Self::from_bytes(path.as_os_str().as_encoded_bytes())
    }

    /// Escapes bytes as they came.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // Almost all texts need no escapes.
        let is_plain = |&it: &u8| matches!(it, b' '..=b'~') && it != b'\\';
        if let (true, Ok(text)) = (bytes.iter().all(is_plain), str::from_utf8(bytes)) {
            return Self(text.into());
        }
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for char in chunk.valid().chars() {
                push(&mut text, char);
            }
            for byte in chunk.invalid() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        Self(text.into())
    }

    /// Takes text that may be escaped already, such as a field of a log. The result is
    /// always escaped, because a log is not trusted either.
    #[must_use]
    pub fn from_escaped(text: &str) -> Self {
        if !text.contains('\\') {
            return Self::from_bytes(text.as_bytes());
        }
        Self::from_bytes(&unescape(text))
    }

    /// The escaped text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text if it has no more than so many characters; otherwise its beginning and `...`. Not
    /// for an output that is read back: an escape may be cut.
    #[must_use]
    pub fn shortened(&self, most: usize) -> Self {
        if self.0.len() <= most {
            return self.clone();
        }
        match self.0.char_indices().nth(most) {
            Some((end, _)) => Self(format!("{}...", &self.0[..end]).into()),
            None => self.clone(),
        }
    }

    /// The bytes that were escaped.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        unescape(&self.0)
    }
}

impl Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for Escaped {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl Serialize for Escaped {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Escaped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct EscapedText;

        impl Visitor<'_> for EscapedText {
            type Value = Escaped;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Escaped, E> {
                if text.len() > MAX_LEN {
                    return Err(E::custom(format_args!("longer than {MAX_LEN} bytes")));
                }
                Ok(Escaped::from_escaped(text))
            }
        }

        from.deserialize_str(EscapedText)
    }
}

/// A message for a terminal: like [`Escaped`], but a backslash stays as it is, for
/// messages quote paths and earlier escapes.
#[must_use]
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char == '\\' {
            out.push(char);
        } else {
            push(&mut out, char);
        }
    }
    out
}

fn push(text: &mut String, char: char) {
    match char {
        '\'' | '"' => text.push(char),
        _ if is_blank(char) => text.extend(char.escape_unicode()),
        _ => text.extend(char.escape_debug()),
    }
}

/// Whether a letter or a symbol is drawn as nothing, so that two names with it look the same.
/// To `escape_debug` these are printable. The Hangul fillers are Default_Ignorable_Code_Point
/// (DerivedCoreProperties.txt of Unicode 16); the names of the others say that they are blank.
const fn is_blank(char: char) -> bool {
    matches!(
        char,
        // HANGUL CHOSEONG FILLER, HANGUL JUNGSEONG FILLER, HANGUL FILLER, and its half width.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
        // BRAILLE PATTERN BLANK, MUSICAL SYMBOL NULL NOTEHEAD.
        | '\u{2800}' | '\u{1d159}'
        // EGYPTIAN HIEROGLYPH FULL BLANK, HALF BLANK.
        | '\u{13441}' | '\u{13442}'
    )
}

/// Undoes [`Escaped::from_bytes`]; a backslash that starts no escape is itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        rest = match (char == '\\')
            .then(|| escape_at(rest, &mut bytes))
            .flatten()
        {
            Some(after) => after,
            None => {
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                &rest[char.len_utf8()..]
            }
        };
    }
    bytes
}

/// Decodes the escape that `text` starts with into `bytes`; what follows it, or
/// `None` when it is not an escape.
fn escape_at<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let body = text.strip_prefix('\\')?;
    if let Some(hex) = body.strip_prefix('x') {
        let digits = hex.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        return Some(&hex[2..]);
    }
    if let Some(hex) = body.strip_prefix("u{") {
        let (digits, after) = hex.split_once('}')?;
        let char = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        return Some(after);
    }
    bytes.push(match body.bytes().next()? {
        b'0' => 0,
        b't' => b'\t',
        b'r' => b'\r',
        b'n' => b'\n',
        b'\\' => b'\\',
        _ => return None,
    });
    Some(&body[1..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn escapes() {
        let rows: &[(&[u8], &str)] = &[
            (b"nginx", "nginx"),
            (b"", ""),
            (b"a b'c\"d", "a b'c\"d"),
            (b"back\\slash", "back\\\\slash"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            (b"two\nlines\r\t\0", "two\\nlines\\r\\t\\0"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("caf\u{e9} \u{65e5}".as_bytes(), "caf\u{e9} \u{65e5}"),
            ("\u{202e}evil\u{200b}".as_bytes(), "\\u{202e}evil\\u{200b}"),
            ("a\u{3164}b".as_bytes(), "a\\u{3164}b"),
            ("\u{2800}".as_bytes(), "\\u{2800}"),
            ("\u{9b}31m\u{2028}".as_bytes(), "\\u{9b}31m\\u{2028}"),
            (b"cut\xe6\x97", "cut\\xe6\\x97"),
        ];
        for (bytes, text) in rows {
            assert_eq!(Escaped::from_bytes(bytes).as_str(), *text);
        }
    }

    #[test]
    fn a_log_is_not_trusted() {
        for (text, escaped) in [
            ("raw \x1b[2J", "raw \\u{1b}[2J"),
            ("\\u{1b}", "\\u{1b}"),
            ("\\q \\x9 \\u{110000}", "\\\\q \\\\x9 \\\\u{110000}"),
            ("\\", "\\\\"),
        ] {
            assert_eq!(Escaped::from_escaped(text).as_str(), escaped);
        }
    }

    /// Every character that draws nothing, or changes how others are drawn.
    #[test]
    fn what_can_not_be_seen_is_escaped() -> Result<(), regex::Error> {
        let unseen = Regex::new(
            r"[\p{Default_Ignorable_Code_Point}\p{Bidi_Control}\p{Variation_Selector}\p{Cc}\p{Cf}\p{Co}\p{M}\p{Z}\p{White_Space}--\p{Mc} ]",
        )?;
        let all: String = ('\0'..=char::MAX).collect();
        let mut count = 0;
        for char in unseen.find_iter(&all) {
            count += 1;
            let char = char.as_str();
            let escaped = [Escaped::from(char).to_string(), message(char)];
            for escaped in escaped {
                assert!(escaped.starts_with('\\'), "{}", char.escape_unicode());
                assert_eq!(unescape(&escaped), char.as_bytes());
            }
        }
        assert!(count > 100_000, "{count}");
        Ok(())
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(message("a\nb \x1b[0m C:\\x"), "a\\nb \\u{1b}[0m C:\\x");
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let escaped = Escaped::from_bytes(&bytes);
            prop_assert_eq!(escaped.to_bytes(), bytes);
            prop_assert!(escaped.as_str().chars().all(|c| c == ' ' || !c.is_whitespace()));
            prop_assert!(!escaped.as_str().chars().any(char::is_control));
            prop_assert_eq!(Escaped::from_escaped(escaped.as_str()), escaped);
        }
    }
}
