//! Text in lines that are not too wide.

use textwrap::{Options, WordSplitter, fill};
use unicode_width::UnicodeWidthStr as _;

/// Breaks a text into lines of at most `width` columns: after the head, and below what
/// comes after it. A word stays whole, however wide: it may be a setting to be copied.
pub fn wrapped(head: &str, text: &str, width: usize) -> String {
    filled(head, text, width, false)
}

/// Breaks a text into lines as [`wrapped`] does, but no line is wider than `width`: a wider
/// word is broken.
pub fn broken(head: &str, text: &str, width: usize) -> String {
    filled(head, text, width, true)
}

fn filled(head: &str, text: &str, width: usize, break_words: bool) -> String {
    let indent = " ".repeat(head.width());
    let options = Options::new(width)
        .initial_indent(head)
        .subsequent_indent(&indent)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(break_words);
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

    #[test]
    fn a_word_that_is_too_wide_is_broken_where_no_line_may_be() {
        assert_eq!(broken("- ", "a bcdefghijkl", 9), "- a\n  bcdefgh\n  ijkl");
        assert_eq!(broken("- ", "a bcdef", 9), "- a bcdef");
    }
}
