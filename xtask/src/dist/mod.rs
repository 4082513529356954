//! Makes what is published of a release: `cargo xtask dist`.
//!
//! An artifact is a file in `target/dist`. It is made from a [`Release`] and from a kaprobe of
//! each architecture ([`Program`]), and from nothing else: no clock, no name of this host, no
//! path of this checkout. So two checkouts of one commit make the same bytes.

mod archive;
pub mod chart;
mod check;
mod crates;
mod deb;
mod documents;
pub mod files;
mod folder;
pub mod installed;
mod notices;
mod oci;
mod program;
mod release;
mod rpm;
pub mod sbom;
mod source;
pub mod trial;
mod verify;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::dist::files::File;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::dist::source::Source;
use crate::process::say;
use crate::workspace;

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Args {
    /// An architecture to build for; may be given again
    #[arg(long = "arch", value_enum, value_name = "ARCH", default_value = Arch::HOST.name())]
    arches: Vec<Arch>,
    /// Also make them in a new checkout of the same commit, at another path, and fail if a byte
    /// differs
    #[arg(long)]
    check: bool,
    /// Also unpack them with the tools of others, and run what they hold; needs root
    #[arg(long)]
    verify: bool,
}

/// Makes artifacts of all programs. It returns files whose paths are their names in the folder
/// of the artifacts.
type Maker = fn(&Source, &[Program]) -> Result<Vec<File>>;

/// What makes the artifacts.
const MAKERS: &[Maker] = &[
    static_programs,
    archive::make,
    chart::make,
    deb::make,
    notices,
    oci::make,
    rpm::make,
    sbom::make,
];

/// Makes all artifacts and their sums, in place of those of an earlier run.
pub fn run(args: &Args) -> Result<()> {
    if release::is_dirty()? {
        ensure!(
            !args.check,
            "files differ from the last commit, and a new checkout would not have them"
        );
        say("files differ from the last commit: these artifacts are not to be published");
    }
    let release = Release::of_checkout()?;
    say(format_args!(
        "kaprobe {} of commit {}",
        release.version, release.commit
    ));
    let programs = args.arches.iter().map(|&arch| Program::build(arch));
    let programs = programs.collect::<Result<Vec<_>>>()?;
    let source = Source::new(release, &programs)?;
    let artifacts = make(&source, &programs)?;
    let folder = workspace::root().join(folder::PATH);
    folder::put(&artifacts, &folder)?;
    for artifact in artifacts {
        say(folder.join(artifact.path).display());
    }
    if args.check {
        check::run(&source.release.commit, &args.arches, &folder)?;
    }
    if args.verify {
        verify::run(&source.release, &args.arches, &folder)?;
    }
    Ok(())
}

/// Makes the artifacts of all architectures, makes them again in another checkout, and verifies
/// them. Returns the digest of the image.
pub fn everything() -> Result<String> {
    run(&Args {
        arches: vec![Arch::X86_64, Arch::Aarch64],
        check: true,
        verify: true,
    })?;
    let image = oci::file(&Release::of_checkout()?);
    let path = workspace::root().join(folder::PATH).join(image);
    let archive = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    oci::digest(&archive)
}

/// Builds kaprobe for this host and makes its image. Fails unless other tools take it, and it
/// runs. It needs root.
pub fn check_image() -> Result<()> {
    let programs = [Program::build(Arch::HOST)?];
    let source = Source::new(Release::of_checkout()?, &programs)?;
    let image = oci::archive(&source, &programs)?;
    let scratch = workspace::scratch()?;
    let path = scratch.path().join(&image.path);
    workspace::write(&path, &image.bytes)?;
    verify::image_runs(&path, Arch::HOST, &source.release)
}

/// All artifacts, and last the sums of them.
fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let mut artifacts = Vec::new();
    for maker in MAKERS {
        artifacts.extend(maker(source, programs)?);
    }
    artifacts.sort_by(|a, b| a.path.cmp(&b.path));
    artifacts.push(File::new(folder::SUMS, folder::sums(&artifacts)));
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

/// The notices of others as files of their own, for the programs that are published alone.
fn notices(source: &Source, _: &[Program]) -> Result<Vec<File>> {
    let files = source.notices.files.iter().map(|file| {
        let name = format!("kaprobe-{}-{}", source.release.version, file.path);
        File::new(name, file.bytes.clone())
    });
    Ok(files.collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::CommandExt as _;

    fn programs() -> Vec<Program> {
        let arches = Arch::FOREIGN.into_iter().chain([Arch::HOST]);
        let programs = arches.map(|arch| Program {
            arch,
            bytes: arch.name().into(),
        });
        programs.collect()
    }

    #[test]
    fn artifacts_are_the_same_each_time_and_have_names_of_their_own() -> Result<()> {
        let artifacts = make(&Source::sample(), &programs())?;
        let again = make(&Source::sample(), &programs())?;
        let mut names = Vec::new();
        for (one, two) in artifacts.iter().zip(&again) {
            assert!(
                one.path == two.path && one.bytes == two.bytes,
                "{}",
                one.path
            );
            names.push(one.path.as_str());
        }
        for name in [
            "kaprobe-1.2.3-aarch64",
            "kaprobe-1.2.3-x86_64.tar.gz",
            "kaprobe_1.2.3-1_arm64.deb",
            "kaprobe-1.2.3-1.x86_64.rpm",
            "kaprobe-1.2.3-NOTICES",
            folder::SUMS,
        ] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        Ok(())
    }

    /// The tools of Debian and of RPM read what libraries wrote.
    #[test]
    fn packages_are_read_by_others() -> Result<()> {
        let scratch = workspace::scratch()?;
        for package in deb::make(&Source::sample(), &programs())? {
            let path = scratch.path().join(&package.path);
            workspace::write(&path, &package.bytes)?;
            let dpkg = |option: &str| Command::new("dpkg-deb").arg(option).arg(&path).read();
            let (fields, files) = (dpkg("--info")?, dpkg("--contents")?);
            assert!(fields.contains("Version: 1.2.3-1"), "{fields}");
            for line in [
                "-rwxr-xr-x root/root",
                "2023-11-14 22:13 ./usr/bin/kaprobe",
                "./usr/share/doc/kaprobe/NOTICES.gz",
                "./usr/share/doc/kaprobe/NOTICES-rust-std.html.gz",
            ] {
                assert!(files.contains(line), "{files}");
            }
        }
        for package in rpm::make(&Source::sample(), &programs())? {
            let package = ::rpm::Package::parse(&mut package.bytes.as_slice())?;
            let settings = format!("/{}", installed::SETTINGS);
            let files = package.metadata.get_file_entries()?;
            let file = files
                .iter()
                .find(|it| it.path() == std::path::Path::new(&settings));
            let flags = file.map(|it| it.flags());
            let notices = std::path::Path::new("/usr/share/licenses/kaprobe/NOTICES");
            let notices = files.iter().find(|it| it.path() == notices);
            let is_licence = notices.map(|it| it.flags().contains(::rpm::FileFlags::LICENSE));
            assert_eq!(is_licence, Some(true));
            let is_kept = flags.is_some_and(|it| it.contains(::rpm::FileFlags::NOREPLACE));
            assert!(is_kept, "{flags:?}");
        }
        Ok(())
    }
}
