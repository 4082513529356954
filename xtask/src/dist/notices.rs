//! The notices of others: what their licences want to be beside the program that they are linked
//! into.
//!
//! The source of a crate has files with its licence and the names of its holders. A text that
//! several crates have is printed once. Every text is there: where a crate leaves a choice of
//! licences, it is left to whoever has the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{CargoOpt, MetadataCommand};

use crate::arch::Arch;
use crate::dist::crates::{Crate, Crates};
use crate::dist::files::File;
use crate::rustc::{self, Rustc};
use crate::{apt, cross, workspace};

/// The name of the file of all notices but those of Rust's standard library.
pub const FILE: &str = "NOTICES";

/// The name of the file of those of Rust's standard library, as Rust comes with it.
pub const RUST: &str = "NOTICES-rust-std.html";

/// The start of the name of a file with a licence or a notice, in capitals.
const STARTS: [&str; 5] = ["LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The licences of the C library and of GCC's, which are linked too.
const LIBRARIES: [&str; 2] = [
    "LGPL-2.1-or-later",
    "GPL-3.0-or-later WITH GCC-exception-3.1",
];

/// The notices of all that the program of some architectures holds.
#[derive(Clone)]
pub struct Notices {
    /// Files whose paths are [`FILE`] and [`RUST`].
    pub files: Vec<File>,
    /// The licences of kaprobe and of all that is linked into it, as an SPDX expression.
    pub licences: String,
}

impl Notices {
    /// Those of a kaprobe for each of these architectures.
    pub fn of(arches: &[Arch]) -> Result<Self> {
        let crates = Crates::linked(arches)?;
        let mut texts = Texts::default();
        let sources = sources(&crates)?;
        for (name, source) in &sources {
            let folder = with_licence(source, &sources)?
                .with_context(|| format!("{} {} comes without its licence", name.0, name.1))?;
            texts.add_crate(name, folder)?;
        }
        for &arch in arches {
            let path = "usr/share/doc/libc6-dev/copyright";
            let notice = apt::lone_package(arch, "libc6-dev")?.join(path);
            texts.add("the GNU C Library: copyright", &notice)?;
        }
        let licence = "usr/share/common-licenses/LGPL-2.1";
        let licence = apt::lone_package(Arch::HOST, "base-files")?.join(licence);
        texts.add("the GNU C Library: LGPL-2.1", &licence)?;

        let rust = Rustc::installed()?.sysroot.join(rustc::NOTICES);
        let rust = fs::read(&rust).with_context(|| format!("cannot read {}", rust.display()))?;
        let text = introduction(arches)? + &list(&crates) + &texts.print();
        Ok(Self {
            files: vec![File::new(FILE, text), File::new(RUST, rust)],
            licences: expression(&crates),
        })
    }

    /// Notices for tests.
    #[cfg(test)]
    pub fn sample() -> Self {
        Self {
            files: vec![File::new(FILE, "notices"), File::new(RUST, "<html>")],
            licences: "MIT".to_owned(),
        }
    }
}

/// What stands before all: the C library's licence asks for more than a notice.
fn introduction(arches: &[Arch]) -> Result<String> {
    let glibc = arches.iter().map(|&it| cross::glibc(it));
    let glibc: BTreeSet<_> = glibc.collect::<Result<_>>()?;
    let mut text =
        "kaprobe is under the MIT licence. Its program also holds what others wrote: the C\n\
         library, GCC's library, Rust's standard library, and crates.\n\n\
         The GNU C Library\n\
         The program uses the GNU C Library, which is linked statically and is under the GNU\n\
         Lesser General Public License, version 2.1 or later: its text is below. The source of\n\
         kaprobe is public, and has what links the program with a changed library:\n\
         docs/install.md says how. The library is that of Debian's package libc6-dev; its source:\n"
            .to_owned();
    for version in glibc {
        writeln!(
            text,
            "  https://snapshot.debian.org/package/glibc/{version}/"
        )?;
    }
    write!(
        text,
        "\nGCC's library\n\
         The program holds parts of libgcc of GCC {gcc}, under the GNU General Public License,\n\
         version 3 or later, with the GCC Runtime Library Exception 3.1. The exception allows to\n\
         convey them in a program under other terms.\n\n\
         Rust's standard library\n\
         The notices of Rust {rust} are in {RUST}.\n\n",
        gcc = cross::GCC,
        rust = rustc::pinned_rustc()?,
    )?;
    Ok(text)
}

/// The crates, each with its licence.
fn list(crates: &Crates) -> String {
    let mut text = "Crates\n".to_owned();
    for ((name, version), licence) in &crates.licences {
        text += &format!("{name} {version}: {licence}\n");
    }
    text
}

/// All licences, as an expression: each of them applies to a part.
fn expression(crates: &Crates) -> String {
    let licences: BTreeSet<_> = crates.licences.values().map(String::as_str).collect();
    let parts = licences.into_iter().chain(LIBRARIES).map(|it| {
        if it.contains(" OR ") {
            format!("({it})")
        } else {
            it.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join(" AND ")
}

/// The source of a crate.
struct CrateSource {
    /// Its folder, among those that cargo unpacks.
    folder: PathBuf,
    /// The repository that it names.
    repository: Option<String>,
    /// Its licence, as an SPDX expression.
    licence: String,
}

/// The source of each crate. Those of the workspace are kaprobe itself.
fn sources(crates: &Crates) -> Result<BTreeMap<Crate, CrateSource>> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned()])
        .exec()
        .context("cannot ask cargo where its crates lie")?;
    let mut sources = BTreeMap::new();
    for package in &metadata.packages {
        let name = (package.name.to_string(), package.version.to_string());
        if let (Some(_), Some(licence)) = (&package.source, crates.licences.get(&name)) {
            let folder = package.manifest_path.parent().context("no folder")?;
            let source = CrateSource {
                folder: folder.into(),
                repository: package.repository.clone(),
                licence: licence.clone(),
            };
            sources.insert(name, source);
        }
    }
    let own = metadata.workspace_packages();
    for name in crates.licences.keys() {
        let is_own = own.iter().any(|it| it.name.as_str() == name.0);
        ensure!(
            is_own || sources.contains_key(name),
            "cargo has no source of {} {}",
            name.0,
            name.1
        );
    }
    Ok(sources)
}

/// The folder with the licence of a crate: its own, else that of a crate of the same repository
/// under the same licence. Some repositories have their licence in the packages of some crates
/// only.
fn with_licence<'s>(
    source: &'s CrateSource,
    all: &'s BTreeMap<Crate, CrateSource>,
) -> Result<Option<&'s Path>> {
    let is_kin = |it: &&CrateSource| {
        it.repository.is_some()
            && it.repository == source.repository
            && it.licence == source.licence
    };
    for source in iter::once(source).chain(all.values().filter(is_kin)) {
        if !licence_files(&source.folder)?.is_empty() {
            return Ok(Some(&source.folder));
        }
    }
    Ok(None)
}

/// The names of the files with the licence and the notices of a crate.
fn licence_files(folder: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let capitals = name.to_uppercase();
        if entry.file_type()?.is_file() && STARTS.iter().any(|it| capitals.starts_with(it)) {
            files.insert(name);
        }
    }
    Ok(files)
}

/// Texts of licences, each with what it is the licence of.
#[derive(Default)]
struct Texts(BTreeMap<String, BTreeSet<String>>);

impl Texts {
    /// Adds the files of a folder as those of a crate.
    fn add_crate(&mut self, (name, version): &Crate, folder: &Path) -> Result<()> {
        for file in licence_files(folder)? {
            self.add(&format!("{name} {version}: {file}"), &folder.join(&file))?;
        }
        Ok(())
    }

    /// Adds a file. Texts that differ only in how lines end are the same.
    fn add(&mut self, of: &str, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(!text.trim().is_empty(), "{} is empty", path.display());
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        let text = lines.join("\n").trim_matches('\n').to_owned();
        self.0.entry(text).or_default().insert(of.to_owned());
        Ok(())
    }

    /// The texts, in the order of the first of whom each is.
    fn print(&self) -> String {
        let mut texts: Vec<_> = self.0.iter().map(|(text, of)| (of, text)).collect();
        texts.sort();
        let rule = "=".repeat(80);
        let mut all = String::new();
        for (of, text) in texts {
            let of: Vec<_> = of.iter().map(String::as_str).collect();
            all += &format!("\n{rule}\n{}\n\n{text}\n", of.join("\n"));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every crate that is linked is listed, and is named above a text.
    #[test]
    fn every_crate_has_its_notice() -> Result<()> {
        let notices = Notices::of(&[Arch::HOST])?;
        let text = String::from_utf8(notices.files[0].bytes.clone())?;
        let (list, texts) = text.split_once(&"=".repeat(80)).context("no text")?;
        let own = ["kaprobe", "kaprobe-ebpf"];
        for (name, version) in Crates::linked(&[Arch::HOST])?.licences.keys() {
            let line = format!("\n{name} {version}: ");
            assert!(list.contains(&line), "{name}");
            assert_eq!(texts.contains(&line), !own.contains(&&**name), "{name}");
        }
        // One of each kind: a crate, the C library, and the licence of that.
        for line in [
            "Copyright (c) 2014 Alex Crichton",
            "Free Software Foundation, Inc.",
            "GNU LESSER GENERAL PUBLIC LICENSE",
        ] {
            assert!(texts.contains(line), "{line}");
        }
        let rust = String::from_utf8(notices.files[1].bytes.clone())?;
        assert!(rust.contains("The Rust Standard Library"));
        // The path of no folder of this machine.
        let root = workspace::root().display().to_string();
        assert!(!text.contains(&root) && !text.contains(".cargo/registry"));
        let licences = notices.licences;
        for part in ["(MIT OR Apache-2.0) AND ", "LGPL-2.1-or-later AND "] {
            assert!(licences.contains(part), "{licences}");
        }
        Ok(())
    }

    #[test]
    fn a_licence_is_that_of_the_crate_or_of_its_repository() -> Result<()> {
        let scratch = workspace::scratch()?;
        for (path, text) in [
            ("a/LICENSE-MIT", "one\r\ntwo\n"),
            ("a/Cargo.toml", "three"),
            ("b/license.md", "one  \ntwo\n\n"),
            ("b/NOTICE", "four"),
            ("c/README.md", "five"),
        ] {
            workspace::write(&scratch.path().join(path), text)?;
        }
        let source = |name: &str, repository: Option<&str>, licence: &str| CrateSource {
            folder: scratch.path().join(name),
            repository: repository.map(str::to_owned),
            licence: licence.to_owned(),
        };
        let of = |name: &str| (name.to_owned(), "1.0.0".to_owned());
        let all = BTreeMap::from([
            (of("a"), source("a", Some("x"), "MIT")),
            (of("b"), source("b", None, "MIT")),
        ]);
        for (asked, expected) in [
            (source("a", None, "MIT"), Some("a")),
            (source("c", Some("x"), "MIT"), Some("a")),
            (source("c", Some("x"), "Apache-2.0"), None),
            (source("c", Some("y"), "MIT"), None),
            (source("c", None, "MIT"), None),
        ] {
            let expected = expected.map(|it| scratch.path().join(it));
            assert_eq!(with_licence(&asked, &all)?, expected.as_deref());
        }
        let mut texts = Texts::default();
        for name in ["b", "a"] {
            texts.add_crate(&of(name), &scratch.path().join(name))?;
        }
        let rule = "=".repeat(80);
        let expected = format!(
            "\n{rule}\na 1.0.0: LICENSE-MIT\nb 1.0.0: license.md\n\none\ntwo\n\
             \n{rule}\nb 1.0.0: NOTICE\n\nfour\n"
        );
        assert_eq!(texts.print(), expected);
        workspace::write(&scratch.path().join("d/COPYING"), " \n")?;
        let empty = texts.add_crate(&of("d"), &scratch.path().join("d"));
        assert!(empty.is_err());
        Ok(())
    }
}
