//! Reads the source files of a crate and their references.

use std::collections::BTreeMap;

use crate::tidy::file::File;
use crate::tidy::imports;
use crate::tidy::references::{self, Reference};

/// Crate roots that only declare and combine modules; they are not checked.
const UNCHECKED_ROOTS: [&str; 4] = [
    "kaprobe/src/lib.rs",
    "kaprobe/src/main.rs",
    "testkit/src/lib.rs",
    "xtask/src/main.rs",
];

/// The sources of a crate.
pub struct Crate<'a> {
    /// The folder of the sources, with a slash at the end.
    pub folder: &'static str,
    /// The sources, in the order of the listed files.
    pub sources: Vec<Source<'a>>,
    /// The index in `sources` of each module that is a file.
    by_module: BTreeMap<Vec<&'a str>, usize>,
}

/// A file that holds a module.
pub struct Source<'a> {
    /// The file itself.
    pub file: &'a File,
    /// The path of the module from the crate root; empty for a root.
    pub module: Vec<&'a str>,
    /// The references of its code within the crate, without tests.
    pub references: Vec<Reference<'a>>,
    /// The modules that it declares at its top level.
    declares: Vec<&'a str>,
}

impl<'a> Crate<'a> {
    /// The crate with its sources in this folder.
    pub fn new(folder: &'static str, files: &'a [File]) -> Self {
        let ours = files.iter().filter_map(|file| {
            let path = file.path.strip_prefix(folder)?.strip_suffix(".rs")?;
            let is_ours = !file.live.is_empty() && !UNCHECKED_ROOTS.contains(&file.path.as_str());
            is_ours.then(|| Source::new(file, path))
        });
        let sources: Vec<_> = ours.collect();
        let modules = sources.iter().zip(0..);
        let by_module = modules.map(|(it, at)| (it.module.clone(), at)).collect();
        Self {
            folder,
            sources,
            by_module,
        }
    }

    /// The index of the source that holds an item: the one with the longest module path.
    pub fn holder(&self, from: &Source<'_>, path: &[&str]) -> Option<usize> {
        let mut lengths = (1..=path.len()).rev();
        lengths
            .find_map(|length| self.by_module.get(&path[..length]).copied())
            .or_else(|| self.root(from.module.first()?))
    }

    /// The index of the root that declares this module; a crate can have two roots.
    fn root(&self, module: &str) -> Option<usize> {
        let mut sources = self.sources.iter();
        sources.position(|it| it.module.is_empty() && it.declares.contains(&module))
    }
}

impl<'a> Source<'a> {
    fn new(file: &'a File, path: &'a str) -> Self {
        let module = module(path);
        let written = imports::read(&file.live);
        let references = references::resolve(&module, &written);
        let top = written.modules.iter().filter(|(scope, _)| scope.is_empty());
        Self {
            file,
            module,
            references,
            declares: top.map(|(_, name)| *name).collect(),
        }
    }
}

/// The module path of a file, from its path in the source folder without `.rs`.
fn module(path: &str) -> Vec<&str> {
    let mut module: Vec<_> = path.split('/').collect();
    let is_root = ["lib", "main"].contains(&path);
    if is_root || module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_the_longest_path_to_a_file() {
        let tree = [
            "a.rs",
            "b/mod.rs",
            "b/c.rs",
            "b/d/mod.rs",
            "main.rs",
            "b/tests.rs",
        ];
        let files =
            tree.map(|path| File::new(&format!("kaprobe-ebpf/src/{path}"), "mod a; mod b;"));
        let krate = Crate::new("kaprobe-ebpf/src/", &files);
        for (path, file) in [
            ("a", Some("a.rs")),
            ("a::X", Some("a.rs")),
            ("b::X::new", Some("b/mod.rs")),
            ("b::c::X", Some("b/c.rs")),
            ("b::d", Some("b/d/mod.rs")),
            ("b::tests::x", Some("b/mod.rs")),
            ("X", Some("main.rs")),
        ] {
            let path: Vec<_> = path.split("::").collect();
            let holder = krate.holder(&krate.sources[0], &path);
            let holder = holder.map(|at| &krate.sources[at].file.path[krate.folder.len()..]);
            assert_eq!(holder, file, "{path:?}");
        }
    }
}
