//! Finds what a file refers to in its own crate.

use crate::tidy::imports::{Scope, Written};

/// A reference from a file to an item of the same crate.
#[derive(Debug)]
pub struct Reference<'a> {
    /// The line of the reference.
    pub line: usize,
    /// The path of the item from the root of the crate.
    pub path: Vec<&'a str>,
    /// The name that a `use` item gives it.
    pub name: Option<&'a str>,
}

/// Resolves the paths that are written in the file of this module.
///
/// A path into the crate begins with `crate`, `self`, `super`, a module that the file
/// declares, or a name that the file imports. All other paths leave the crate.
pub fn resolve<'a>(module: &[&'a str], written: &Written<'a>) -> Vec<Reference<'a>> {
    let imports = imports(written);
    let resolver = Resolver {
        module,
        written,
        imports: &imports,
    };
    let named = imports.iter().filter_map(|import| {
        let path = resolver.absolute(&import.scope, &import.path, imports.len())?;
        Some(Reference {
            line: import.line,
            path,
            name: import.name,
        })
    });
    let inline = written.paths.iter().filter_map(|it| {
        let path = resolver.absolute(&it.scope, &it.segments, imports.len())?;
        Some(Reference {
            line: it.line,
            path,
            name: None,
        })
    });
    named.chain(inline).collect()
}

/// One path of a `use` item.
struct Import<'a> {
    line: usize,
    scope: Scope<'a>,
    path: Vec<&'a str>,
    name: Option<&'a str>,
}

fn imports<'a>(written: &Written<'a>) -> Vec<Import<'a>> {
    let mut imports = Vec::new();
    for item in &written.uses {
        let leaves = item.tree.leaves().into_iter();
        imports.extend(leaves.map(|(path, name)| Import {
            line: item.line,
            scope: item.scope.clone(),
            path,
            name,
        }));
    }
    imports
}

struct Resolver<'r, 'a> {
    module: &'r [&'a str],
    written: &'r Written<'a>,
    imports: &'r [Import<'a>],
}

impl<'a> Resolver<'_, 'a> {
    /// The path from the root of the crate; `None` if it leaves the crate.
    ///
    /// The path of an import can begin with the name of another import. `max_hops` stops
    /// the search if they form a circle.
    fn absolute(
        &self,
        scope: &[&'a str],
        path: &[&'a str],
        max_hops: usize,
    ) -> Option<Vec<&'a str>> {
        let (first, rest) = path.split_first()?;
        let here = [self.module, scope].concat();
        if *first == "crate" {
            return Some(rest.to_vec());
        }
        if ["self", "super"].contains(first) {
            return resolve_relative(here, path);
        }
        let mut modules = self.written.modules.iter();
        if modules.any(|(outer, name)| outer == scope && name == first) {
            return Some([&here, path].concat());
        }
        let mut imports = self.imports.iter();
        let import =
            imports.find(|it| it.name == Some(first) && it.scope == scope && it.path != path)?;
        let base = self.absolute(scope, &import.path, max_hops.checked_sub(1)?)?;
        Some([&base, rest].concat())
    }
}

/// Resolves a path that begins with `self` or `super`, from this module.
fn resolve_relative<'a>(mut module: Vec<&'a str>, path: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut path = path.iter().peekable();
    while let Some(step) = path.next_if(|it| ["self", "super"].contains(*it)) {
        if *step == "super" {
            module.pop()?;
        }
    }
    module.extend(path);
    Some(module)
}

#[cfg(test)]
mod tests {
    use crate::tidy::imports;

    use super::*;

    #[test]
    fn paths_are_resolved_from_the_crate_root() {
        for (code, expected) in [
            ("use crate::a::B; crate::c::d()", vec!["a::B", "c::d"]),
            ("use self::a::B; super::c()", vec!["x::y::a::B", "x::c"]),
            ("use super::super::a; super::super::super::b()", vec!["a"]),
            ("use std::fs; fs::read(serde::x)", vec![]),
            ("use ::crate_like::a;", vec![]),
            ("mod a; use a::B; a::c()", vec!["x::y::a::B", "x::y::a::c"]),
            (
                "use crate::a::{self, b}; b::c()",
                vec!["a", "a::b", "a::b::c"],
            ),
            ("use crate::a as b; b::c()", vec!["a", "a::c"]),
            (
                "use crate::a; use a::b; b::c()",
                vec!["a", "a::b", "a::b::c"],
            ),
            ("use a::b as a; a::c()", vec![]),
            ("use a::x as b; use b::x as a; a::c()", vec![]),
            (
                "mod i { use super::a; use crate::b; b::c() } b::d()",
                vec!["x::y::a", "b", "b::c"],
            ),
            ("mod i { mod j { super::super::a() } }", vec!["x::y::a"]),
            ("use crate::*;", vec![""]),
            ("crate::a::m!(); $crate::b::n!()", vec!["a::m", "b::n"]),
        ] {
            let written = imports::read(code);
            let paths = resolve(&["x", "y"], &written).into_iter();
            let paths: Vec<_> = paths.map(|it| it.path.join("::")).collect();
            assert_eq!(paths, expected, "{code}");
        }
    }
}
