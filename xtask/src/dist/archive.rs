//! The tar archives, for hosts without a package manager that kaprobe has a package for.

use anyhow::Result;

use crate::dist::files::{self, File};
use crate::dist::program::Program;
use crate::dist::source::Source;
use crate::workspace;

/// What the archives have of the checkout, besides `contrib`.
const FILES: [&str; 2] = ["LICENSE", "README.md"];

/// An archive for each program: it unpacks into one folder.
pub fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let shared = shared(source)?;
    let archives = programs.iter().map(|program| {
        let mut files = shared.clone();
        files.push(File::program("kaprobe", program.bytes.clone()));
        let version = &source.release.version;
        let name = format!("kaprobe-{version}-{}", program.arch.name());
        let archive = files::tar(&files, &format!("{name}/"), source.release.epoch)?;
        Ok(File::new(format!("{name}.tar.gz"), files::gzip(&archive)?))
    });
    archives.collect()
}

/// The files that do not depend on the architecture.
fn shared(source: &Source) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in FILES {
        files.push(File::new(path, workspace::read(path)?));
    }
    files.extend(source.notices.files.iter().cloned());
    files.extend(files::tracked("contrib")?);
    let documents = &source.documents;
    for (name, page) in &documents.pages {
        files.push(File::new(format!("man/man1/{name}"), page.clone()));
    }
    for (shell, script) in &documents.completions {
        let path = format!("completions/{}/{}", shell.name(), shell.file());
        files.push(File::new(path, script.clone()));
    }
    Ok(files)
}
