//! The files of a crate, and what each refers to.

use std::collections::BTreeMap;

use crate::tidy::file::File;
use crate::tidy::imports;
use crate::tidy::references::{self, Reference};

/// Roots that only declare and tie modules together: nothing is asked of them.
const ROOTS: [&str; 4] = [
    "kaprobe/src/lib.rs",
    "kaprobe/src/main.rs",
    "testkit/src/lib.rs",
    "xtask/src/main.rs",
];

/// The sources of a crate.
pub struct Crate<'a> {
    /// The folder that the sources lie in, with a slash at its end.
    pub folder: &'static str,
    /// The sources, in the order of the files.
    pub sources: Vec<Source<'a>>,
    /// Where each module that is a file lies among the sources.
    by_module: BTreeMap<Vec<&'a str>, usize>,
}

/// A file that holds a module.
pub struct Source<'a> {
    /// The file itself.
    pub file: &'a File,
    /// The module from the root of the crate; nothing for a root.
    pub module: Vec<&'a str>,
    /// What its code refers to in the crate; tests are left out.
    pub references: Vec<Reference<'a>>,
    /// The modules that it declares at its top.
    declares: Vec<&'a str>,
}

impl<'a> Crate<'a> {
    /// The crate whose sources lie in this folder.
    pub fn new(folder: &'static str, files: &'a [File]) -> Self {
        let ours = files.iter().filter_map(|file| {
            let path = file.path.strip_prefix(folder)?.strip_suffix(".rs")?;
            let is_ours = !file.live.is_empty() && !ROOTS.contains(&file.path.as_str());
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

    /// The source that holds what is named there: that of the longest path to a file.
    pub fn holder(&self, from: &Source<'_>, path: &[&str]) -> Option<usize> {
        let mut lengths = (1..=path.len()).rev();
        lengths
            .find_map(|length| self.by_module.get(&path[..length]).copied())
            .or_else(|| self.root(from.module.first()?))
    }

    /// The root that declares this module. A crate of two roots has two of them.
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

/// The module that a file holds, by its path in the folder of sources.
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
    fn the_longest_path_to_a_file_counts() {
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
