//! Blanks comments and literals in Rust source, and splits code into tokens.
//!
//! The checks need no more of the Rust grammar.

/// The attribute of test-only items.
const TEST_ONLY: &str = "#[cfg(test)]";

/// A word, `::`, or any other single character.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// The text of the token.
    pub text: &'a str,
    /// The line of the token; lines count from 1.
    pub line: usize,
}

/// Whether a character can be part of a word.
pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && c.is_alphanumeric())
}

/// Replaces comments and literals with blanks. Line numbers do not change.
pub fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (length, is_code) = piece(rest);
        let (piece, after) = rest.split_at(length);
        if is_code {
            code.push_str(piece);
        } else {
            push_blank(&mut code, piece);
        }
        rest = after;
    }
    code
}

/// Replaces test modules with blanks. Line numbers do not change.
///
/// A test module is an unindented line `#[cfg(test)]` and a module that begins in the
/// next line.
pub fn without_tests(code: &str) -> String {
    let mut live = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = start_of_tests(rest) {
        let end = start + length_of_item(&rest[start..]);
        live.push_str(&rest[..start]);
        push_blank(&mut live, &rest[start..end]);
        rest = &rest[end..];
    }
    live.push_str(rest);
    live
}

/// Splits code into tokens; white space is no token.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match word(rest) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            let (text, after) = rest.split_at(length);
            tokens.push(Token { text, line });
            rest = after.trim_start();
        }
    }
    tokens
}

fn push_blank(code: &mut String, piece: &str) {
    for (at, line) in piece.split('\n').enumerate() {
        if at > 0 {
            code.push('\n');
        }
        code.push_str(&" ".repeat(line.len()));
    }
}

/// The length of the next piece, and whether it is code.
fn piece(rest: &str) -> (usize, bool) {
    let word = word(rest);
    let (prefix, after) = rest.split_at(word);
    let literal = match prefix {
        "" => comment(after)
            .or_else(|| string(after))
            .or_else(|| character(after)),
        "b" | "c" => string(after).or_else(|| character(after)),
        "r" | "br" | "cr" => raw_string(after),
        _ => None,
    };
    match literal {
        Some(length) => (word + length, false),
        None if word == 0 => (punctuation(rest), true),
        None => (word, true),
    }
}

/// The length of the word at the start, 0 if there is none. `r#type` is one word.
fn word(rest: &str) -> usize {
    let length = |text: &str| text.len() - text.trim_start_matches(is_word).len();
    match rest.strip_prefix("r#").map(length) {
        Some(name) if name > 0 => name + 2,
        _ => length(rest),
    }
}

/// The length of text that is neither a word nor a literal: at least one character.
fn punctuation(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let end = chars.find(|(_, c)| is_word(*c) || matches!(c, '"' | '\'' | '/'));
    end.map_or(rest.len(), |(at, _)| at)
}

/// The length of the comment at the start.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut at = rest.starts_with("/*").then_some(2)?;
    let mut depth = 1;
    while depth > 0 {
        let Some(next) = rest[at..].find(['*', '/']) else {
            return Some(rest.len());
        };
        at += next;
        let step = match rest.get(at..at + 2) {
            Some("/*") => 1,
            Some("*/") => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
    }
    Some(at)
}

/// The length of the string at the start, after its prefix.
fn string(rest: &str) -> Option<usize> {
    let mut at = rest.starts_with('"').then_some(1)?;
    while let Some(next) = rest.get(at..).and_then(|rest| rest.find(['"', '\\'])) {
        at += next + 1;
        if rest[..at].ends_with('"') {
            return Some(at);
        }
        // Skip the escaped character: it does not end the string, even if it is a quote.
        at += rest[at..].chars().next().map_or(0, char::len_utf8);
    }
    Some(rest.len())
}

/// The length of the raw string at the start, after its prefix.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.trim_start_matches('#');
    let hashes = &rest[..rest.len() - body.len()];
    let body = body.strip_prefix('"')?;
    let start = rest.len() - body.len();
    let close = format!("\"{hashes}");
    let end = body.find(&close).map(|at| start + at + close.len());
    Some(end.unwrap_or(rest.len()))
}

/// The length of the character literal at the start; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let shortest = if first == '\\' { 2 } else { first.len_utf8() };
    let after = body.get(shortest..)?;
    let end = if first == '\\' {
        after.find('\'')?
    } else {
        after.starts_with('\'').then_some(0)?
    };
    Some(1 + shortest + end + 1)
}

/// The offset of the next test module, at its attribute.
fn start_of_tests(code: &str) -> Option<usize> {
    let mut at = 0;
    let mut lines = code.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let is_attribute = line.trim_end() == TEST_ONLY;
        if is_attribute && lines.peek().is_some_and(|next| is_module(next)) {
            return Some(at);
        }
        at += line.len();
    }
    None
}

fn is_module(line: &str) -> bool {
    line.starts_with("mod ") || (line.starts_with("pub") && line.contains(" mod "))
}

/// The length of the item at the start, up to its semicolon or closing brace.
fn length_of_item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' => {}
            _ => continue,
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        for (text, code) in [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("a /* b\nc */ d", "a     \n     d"),
            ("a /*/ b */ c", "a          c"),
            ("f(\"use x;\", y)", "f(        , y)"),
            (r#"f("\"use", y)"#, "f(       , y)"),
            (r#"f("\\", y)"#, "f(    , y)"),
            ("f(\"a\nb\")", "f(  \n  )"),
            (r##"f(r"\", y)"##, "f(    , y)"),
            (r###"f(r#"a"b"#, y)"###, "f(        , y)"),
            (r###"f(br##"a"#b"##, y)"###, "f(            , y)"),
            ("f(b\"a\", c\"b\")", "f(    ,     )"),
            (
                "f('\"', '\\'', b'/', '\\u{1b}', x)",
                "f(   ,     ,     ,         , x)",
            ),
            ("f::<'a, 'static>(x, '_')", "f::<'a, 'static>(x,    )"),
            ("r#use + rr", "r#use + rr"),
            ("bar\"b\"", "bar   "),
            ("\"\u{4e2d}\" x", "      x"),
            ("\"unclosed", "         "),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn test_modules_are_blanked() {
        let keeps = |code: &str| without_tests(code).split_whitespace().collect::<String>();
        for (code, live) in [
            ("a;\n#[cfg(test)]\nmod tests { x }\n", "a;"),
            ("a;\n#[cfg(test)]\nmod tests { f() { x } }\nb;", "a;b;"),
            ("#[cfg(test)]\nmod tests;\nb;", "b;"),
            ("#[cfg(test)]\npub(crate) mod tests;\nb;", "b;"),
            ("#[cfg(test)]\nconst A: B;\n", "#[cfg(test)]constA:B;"),
            ("  #[cfg(test)]\n  mod tests;", "#[cfg(test)]modtests;"),
            ("#[cfg(test)]\n\nmod tests;", "#[cfg(test)]modtests;"),
        ] {
            assert_eq!(keeps(code), live, "{code}");
            assert_eq!(without_tests(code).len(), code.len());
        }
    }

    #[test]
    fn tokens_are_words_and_punctuation() {
        let code = "use a::{b_1,\n  r#c};\nx!(::y)";
        let found: Vec<_> = tokens(code).iter().map(|it| (it.text, it.line)).collect();
        let (first, rest) = found.split_at(6);
        assert_eq!(first, ["use", "a", "::", "{", "b_1", ","].map(|it| (it, 1)));
        let (second, third) = rest.split_at(3);
        assert_eq!(second, ["r#c", "}", ";"].map(|it| (it, 2)));
        assert_eq!(third, ["x", "!", "(", "::", "y", ")"].map(|it| (it, 3)));
    }
}
