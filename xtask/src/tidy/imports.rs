//! Reads the paths in a file: in its `use` items, and in the rest of its code.

use crate::tidy::lex::{self, Token, is_word};

/// The inline modules around an item in a file, outermost first.
pub type Scope<'a> = Vec<&'a str>;

/// The imports, paths and modules that are written in a file.
#[derive(Default)]
pub struct Written<'a> {
    /// The `use` items.
    pub uses: Vec<Use<'a>>,
    /// The paths elsewhere in the code that have more than one segment.
    pub paths: Vec<CodePath<'a>>,
    /// The modules that the file declares, each with its scope.
    pub modules: Vec<(Scope<'a>, &'a str)>,
}

/// A `use` item.
pub struct Use<'a> {
    /// The first line of the item.
    pub line: usize,
    /// The inline modules around the item.
    pub scope: Scope<'a>,
    /// The paths that the item imports.
    pub tree: UseTree<'a>,
}

/// A path in the code, outside `use` items.
pub struct CodePath<'a> {
    /// The first line of the path.
    pub line: usize,
    /// The inline modules around the path.
    pub scope: Scope<'a>,
    /// The segments; the first is empty when the path begins with `::`.
    pub segments: Vec<&'a str>,
}

/// A path of a `use` item and how it ends.
pub struct UseTree<'a> {
    /// The segments; the first is empty when the path begins with `::`.
    pub segments: Vec<&'a str>,
    /// The end of the path.
    pub end: PathEnd<'a>,
}

/// The end of a path in a `use` item: a name, a star, or a group.
pub enum PathEnd<'a> {
    /// The last segment is the name, or `as` gives this other name.
    Name(Option<&'a str>),
    /// A star.
    All,
    /// A group in braces.
    Group(Vec<UseTree<'a>>),
}

/// Reads code in which comments and literals are blanked.
pub fn read(code: &str) -> Written<'_> {
    let tokens = lex::tokens(code);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        depth: 0,
        open: Vec::new(),
        written: Written::default(),
    };
    while let Some(token) = reader.next() {
        match token.text {
            "{" => reader.depth += 1,
            "}" => reader.close(),
            "mod" => reader.module(),
            "use" => reader.use_item(token.line),
            text if text.starts_with(is_word) => reader.path(token),
            _ => {}
        }
    }
    reader.written
}

impl<'a> UseTree<'a> {
    /// Every path that the item imports, with the imported name; `None` for a star.
    pub fn leaves(&self) -> Vec<(Vec<&'a str>, Option<&'a str>)> {
        self.leaves_below(&[])
    }

    fn leaves_below(&self, above: &[&'a str]) -> Vec<(Vec<&'a str>, Option<&'a str>)> {
        let mut path = [above, &self.segments].concat();
        match &self.end {
            PathEnd::All => vec![(path, None)],
            PathEnd::Group(trees) => {
                let below = trees.iter().map(|tree| tree.leaves_below(&path));
                below.flatten().collect()
            }
            PathEnd::Name(other) => {
                if !above.is_empty() && self.segments == ["self"] {
                    path.pop();
                }
                let name = other.or(path.last().copied());
                vec![(path, name)]
            }
        }
    }
}

/// Walks through the tokens of a file.
struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    /// The number of open braces.
    depth: usize,
    /// The open inline modules, each with the brace depth inside it.
    open: Vec<(&'a str, usize)>,
    written: Written<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    /// Consumes the next token if it is `text`.
    fn eat(&mut self, text: &str) -> bool {
        let is_next = self.tokens.get(self.at).is_some_and(|it| it.text == text);
        self.at += usize::from(is_next);
        is_next
    }

    /// Consumes the next token if it is a word.
    fn eat_word(&mut self) -> Option<&'a str> {
        let text = self.tokens.get(self.at)?.text;
        let word = text.starts_with(is_word).then_some(text)?;
        self.at += 1;
        Some(word)
    }

    fn scope(&self) -> Scope<'a> {
        self.open.iter().map(|(name, _)| *name).collect()
    }

    fn close(&mut self) {
        self.open.pop_if(|(_, inside)| *inside == self.depth);
        self.depth = self.depth.saturating_sub(1);
    }

    /// Reads a module after `mod`.
    fn module(&mut self) {
        let Some(name) = self.eat_word() else {
            return;
        };
        let scope = self.scope();
        self.written.modules.push((scope, name));
        if self.eat("{") {
            self.depth += 1;
            self.open.push((name, self.depth));
        }
    }

    /// Reads an item after `use`. Ignores `use<'a>`, which is not an item.
    fn use_item(&mut self, line: usize) {
        let start = self.at;
        match self.tree() {
            Some(tree) => {
                let scope = self.scope();
                self.written.uses.push(Use { line, scope, tree });
            }
            None => self.at = start,
        }
    }

    fn tree(&mut self) -> Option<UseTree<'a>> {
        let mut segments = Vec::new();
        if self.eat("::") {
            segments.push("");
        }
        loop {
            if self.eat("{") {
                let end = PathEnd::Group(self.group()?);
                return Some(UseTree { segments, end });
            }
            if self.eat("*") {
                let end = PathEnd::All;
                return Some(UseTree { segments, end });
            }
            // Macros use `$crate`.
            self.eat("$");
            segments.push(self.eat_word()?);
            if !self.eat("::") {
                break;
            }
        }
        let other = if self.eat("as") {
            Some(self.eat_word()?)
        } else {
            None
        };
        let end = PathEnd::Name(other);
        Some(UseTree { segments, end })
    }

    /// Reads a group after its opening brace.
    fn group(&mut self) -> Option<Vec<UseTree<'a>>> {
        let mut trees = Vec::new();
        while !self.eat("}") {
            trees.push(self.tree()?);
            if !self.eat(",") {
                return self.eat("}").then_some(trees);
            }
        }
        Some(trees)
    }

    /// Reads a path after its first word.
    fn path(&mut self, first: Token<'a>) {
        let before = self.tokens[..self.at - 1].iter().rev();
        let mut before = before.map(|it| it.text);
        let before = [before.next(), before.next()];
        let mut segments = vec![first.text];
        while self.eat("::") {
            match self.eat_word() {
                Some(word) => segments.push(word),
                None => break,
            }
        }
        // The path in `pub(in …)` is not a dependency.
        let is_rest = before[0] == Some("::");
        let is_visibility = before == [Some("in"), Some("(")];
        if segments.len() > 1 && !is_rest && !is_visibility {
            let scope = self.scope();
            let line = first.line;
            self.written.paths.push(CodePath {
                line,
                scope,
                segments,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_imports_each_of_its_leaves() {
        for (code, leaves) in [
            ("use a::b;", vec!["a::b as b"]),
            ("use a::b as c;", vec!["a::b as c"]),
            ("use a::b as _;", vec!["a::b as _"]),
            ("use a::*;", vec!["a as -"]),
            ("pub(crate) use a::{b, self};", vec!["a::b as b", "a as a"]),
            (
                "use a::{\n    b::{c, d as e},\n    f,\n};",
                vec!["a::b::c as c", "a::b::d as e", "a::f as f"],
            ),
            ("use {a, b::*};", vec!["a as a", "b as -"]),
            ("use ::a::b;", vec!["::a::b as b"]),
            ("use $crate::a;", vec!["crate::a as a"]),
            ("use a::{};", vec![]),
            ("fn f() -> impl use<'_> + a {}", vec![]),
        ] {
            let written = read(code);
            let found = written.uses.iter().flat_map(|it| it.tree.leaves());
            let found: Vec<_> = found
                .map(|(path, name)| format!("{} as {}", path.join("::"), name.unwrap_or("-")))
                .collect();
            assert_eq!(found, leaves, "{code}");
        }
    }

    #[test]
    fn paths_are_found_everywhere_in_the_code() {
        for (code, paths) in [
            ("let x = a::b::<c::d>::e(f);", vec!["a::b", "c::d"]),
            (
                "fn f(x: &crate::a::B) -> self::c {}",
                vec!["crate::a::B", "self::c"],
            ),
            ("$crate::a::m!(b)", vec!["crate::a::m"]),
            ("#[derive(a::B)] struct X;", vec!["a::B"]),
            ("::a::b()", vec![]),
            ("pub(in crate::a) fn f() {}", vec![]),
            ("for x in crate::a::all() {}", vec!["crate::a::all"]),
            ("use a::b; c", vec![]),
        ] {
            let written = read(code);
            let found: Vec<_> = written
                .paths
                .iter()
                .map(|it| it.segments.join("::"))
                .collect();
            assert_eq!(found, paths, "{code}");
        }
    }

    #[test]
    fn the_scope_is_the_modules_around() {
        let code = "mod a; mod b { fn f() { x::one } mod c { x::two } x::three } x::four";
        let written = read(code);
        let found = |scope: &Scope<'_>, name| format!("{} / {name}", scope.join("::"));
        let modules = written.modules.iter();
        let modules: Vec<_> = modules.map(|(scope, name)| found(scope, name)).collect();
        assert_eq!(modules, [" / a", " / b", "b / c"]);
        let scopes: Vec<_> = written.paths.iter().map(|it| it.scope.join("::")).collect();
        assert_eq!(scopes, ["b", "b::c", "b", ""]);
    }
}
