//! Text in lines that are not too wide.

use textwrap::{Options, WordSplitter, fill};
use unicode_width::UnicodeWidthStr as _;

/// Breaks a text into lines of at most `width` columns: after the head, and below what
/// comes after it. A word stays whole, however wide: it may be a setting to be copied.
pub fn wrapped(head: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(head.width());
    let options = Options::new(width)
        .initial_indent(head)
        .subsequent_indent(&indent)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false);
    fill(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_words_are_whole() {
        for (text, lines) in [
            ("one two", "- one two"),
            ("one two three", "- one two\n  three"),
            ("one-two-three four", "- one-two-three\n  four"),
            (
                "\u{4e2d}\u{6587} \u{4e2d} a",
                "- \u{4e2d}\u{6587} \u{4e2d}\n  a",
            ),
        ] {
            assert_eq!(wrapped("- ", text, 9), lines);
        }
    }
}
