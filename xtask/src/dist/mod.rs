//! Makes what is published of a release: `cargo xtask dist`.
//!
//! An artifact is a file in `target/dist`. It is made from a [`Release`] and from a kaprobe of
//! each architecture ([`Program`]), and from nothing else: no clock, no name of this host, no
//! path of this checkout. So two checkouts of one commit make the same bytes.

mod archive;
mod documents;
mod files;
mod oci;
mod program;
mod release;
mod source;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::dist::files::File;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::dist::source::Source;
use crate::process::say;
use crate::workspace;

/// The folder of the artifacts, in the checkout.
const FOLDER: &str = "target/dist";

/// The file of the sums of all artifacts, as `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Args {
    /// An architecture to build for; may be given again
    #[arg(long = "arch", value_enum, value_name = "ARCH", default_value = Arch::HOST.name())]
    arches: Vec<Arch>,
}

/// Makes artifacts of all programs. It returns files whose paths are their names in the folder
/// of the artifacts.
type Maker = fn(&Source, &[Program]) -> Result<Vec<File>>;

/// What makes the artifacts.
const MAKERS: &[Maker] = &[static_programs, archive::make, oci::make];

/// Makes all artifacts and their sums, in place of those of an earlier run.
pub fn run(args: &Args) -> Result<()> {
    if release::is_dirty()? {
        say("files differ from the last commit: these artifacts are not to be published");
    }
    let release = Release::of_checkout()?;
    say(format_args!(
        "kaprobe {} of commit {}",
        release.version, release.commit
    ));
    let programs = args.arches.iter().map(|&arch| Program::build(arch));
    let programs = programs.collect::<Result<Vec<_>>>()?;
    let artifacts = make(&Source::new(release, &programs)?, &programs)?;
    let folder = workspace::root().join(FOLDER);
    put(&artifacts, &folder)?;
    for artifact in artifacts {
        say(folder.join(artifact.path).display());
    }
    Ok(())
}

/// All artifacts, and last the sums of them.
fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let mut artifacts = Vec::new();
    for maker in MAKERS {
        artifacts.extend(maker(source, programs)?);
    }
    artifacts.sort_by(|a, b| a.path.cmp(&b.path));
    artifacts.push(File::new(SUMS, sums(&artifacts)));
    Ok(artifacts)
}

/// The static programs, each as a file of its own.
fn static_programs(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let files = programs.iter().map(|it| {
        let name = format!("kaprobe-{}-{}", source.release.version, it.arch.name());
        File::program(name, it.bytes.clone())
    });
    Ok(files.collect())
}

/// A line for each artifact: its SHA-256 and its name.
fn sums(artifacts: &[File]) -> String {
    let mut sums = String::new();
    for artifact in artifacts {
        let sum = files::sha256(&artifact.bytes);
        // Writing to a String cannot fail.
        let _ = writeln!(sums, "{sum}  {}", artifact.path);
    }
    sums
}

/// Writes artifacts to an empty folder, then puts it in the place of `folder`.
fn put(artifacts: &[File], folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = workspace::scratch()?;
    for artifact in artifacts {
        let path = scratch.path().join(&artifact.path);
        workspace::write(&path, &artifact.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(artifact.mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    }
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    workspace::rename(scratch.path(), folder)?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::dist::documents::Documents;
    use crate::process::CommandExt as _;

    fn source() -> Source {
        let release = Release {
            version: "1.2.3".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            epoch: 1_700_000_000,
        };
        let documents = Documents {
            pages: vec![("kaprobe.1".to_owned(), b"page".to_vec())],
            completions: Vec::new(),
        };
        Source { release, documents }
    }

    #[test]
    fn the_sums_are_those_that_sha256sum_checks() -> Result<()> {
        let programs = Arch::FOREIGN.into_iter().chain([Arch::HOST]);
        let programs = programs.map(|arch| Program {
            arch,
            bytes: arch.name().into(),
        });
        let artifacts = make(&source(), &programs.collect::<Vec<_>>())?;
        let scratch = workspace::scratch()?;
        let folder = scratch.path().join("dist");
        for _ in 0..2 {
            // The second time, in place of the first.
            put(&artifacts, &folder)?;
            let mut check = Command::new("sha256sum");
            let checked = check
                .args(["--check", "--strict", SUMS])
                .current_dir(&folder)
                .read()?;
            assert_eq!(checked.lines().count(), artifacts.len() - 1, "{checked}");
        }
        let program = folder.join("kaprobe-1.2.3-x86_64");
        fs::write(&program, "other")?;
        let mut check = Command::new("sha256sum");
        check
            .args(["--check", "--quiet", SUMS])
            .current_dir(&folder);
        assert!(check.read().is_err());
        Ok(())
    }
}
