//! The packages for distributions with RPM.

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionType, FileOptions, PackageBuilder, Scriptlet};

use crate::dist::files::{self, File};
use crate::dist::installed::{self, DESCRIPTION, Layout, NAME, RELEASE, SUMMARY};
use crate::dist::program::Program;
use crate::dist::source::Source;
use crate::workspace;

/// Where Fedora and its relatives have what distributions differ in.
const LAYOUT: Layout = Layout {
    zsh: "usr/share/zsh/site-functions",
    licence: "usr/share/licenses/kaprobe/LICENSE",
    changes: "usr/share/doc/kaprobe/CHANGELOG.md",
    notices: ["usr/share/licenses/kaprobe", ""],
};

/// Folders that go with the package, and all below them.
const OWN: [&str; 2] = ["usr/share/doc/kaprobe", "usr/share/licenses/kaprobe"];

/// A package for each program.
pub fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    programs.iter().map(|it| package(source, it)).collect()
}

fn package(source: &Source, program: &Program) -> Result<File> {
    let (release, arch) = (&source.release, program.arch.name());
    let licences = &source.notices.licences;
    let mut package = PackageBuilder::new(NAME, &release.version, licences, arch, &summary());
    // Version 4 is what RPM of RHEL 8 and of Debian 11 reads too.
    let config = BuildConfig::v4()
        .source_date(release.epoch)
        .compression(CompressionType::Gzip);
    package
        .using_config(config)
        .release(RELEASE)
        .description(DESCRIPTION)
        .packager(&release.maintainer)
        .group("Applications/Internet")
        // It would name this host.
        .build_host("localhost")
        .vcs(format!("commit {}", release.commit))
        .add_changelog_entry(
            format!("{} - {}-{RELEASE}", release.maintainer, release.version),
            format!("- Version {}: see CHANGELOG.md.", release.version),
            release.epoch,
        )
        .post_install_script(script("post")?)
        .pre_uninstall_script(script("preun")?)
        .post_uninstall_script(script("postun")?);
    let files = installed::files(source, program, &LAYOUT)?;
    let own = files::folders(&files).into_iter();
    for folder in own.filter(|it| OWN.iter().any(|own| it.starts_with(own))) {
        let folder = format!("/{}", folder.display());
        package
            .with_dir_entry(FileOptions::dir(&*folder))
            .with_context(|| format!("cannot add {folder} to the package"))?;
    }
    for file in files {
        let path = format!("/{}", file.path);
        let permissions = u16::try_from(file.mode).context("a mode has 16 bits")?;
        let mut options = FileOptions::new(&*path).permissions(permissions);
        if file.path == installed::SETTINGS {
            options = options.config().noreplace();
        } else if file.path.starts_with("usr/share/licenses/") {
            options = options.license();
        } else if file.path.starts_with("usr/share/doc/") || file.path.starts_with("usr/share/man/")
        {
            options = options.doc();
        }
        package
            .with_file_contents(file.bytes, options)
            .with_context(|| format!("cannot add {path} to the package"))?;
    }
    let mut bytes = Vec::new();
    let package = package.build().context("cannot make the package")?;
    package
        .write(&mut bytes)
        .context("cannot write the package")?;
    let name = format!("{NAME}-{}-{RELEASE}.{arch}.rpm", release.version);
    Ok(File::new(name, bytes))
}

/// The summary as a sentence begins: RPM's tools expect it so, and Debian's do not.
fn summary() -> String {
    let (first, rest) = SUMMARY.split_at(1);
    first.to_uppercase() + rest
}

fn script(name: &str) -> Result<Scriptlet> {
    let script = workspace::read(format!("contrib/rpm/{name}"))?;
    Ok(Scriptlet::new(script).prog(vec!["/bin/sh"]))
}
