//! The packages for Debian.
//!
//! They are written by libraries, not by dpkg-deb: so their bytes do not depend on the versions
//! of the tools that this host has.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use ar::Header;
use jiff::Timestamp;
use md5::{Digest as _, Md5};

use crate::dist::files::{self, File};
use crate::dist::installed::{self, DESCRIPTION, Layout, NAME, RELEASE, SUMMARY};
use crate::dist::notices;
use crate::dist::program::Program;
use crate::dist::source::Source;
use crate::{hash, workspace};

/// Where Debian has what distributions differ in.
const LAYOUT: Layout = Layout {
    zsh: "usr/share/zsh/vendor-completions",
    licence: "usr/share/doc/kaprobe/copyright",
    changes: "usr/share/doc/kaprobe/changelog.gz",
    notices: ["usr/share/doc/kaprobe", ".gz"],
};

/// What runs when the package comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// A package for each program.
pub fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    programs.iter().map(|it| package(source, it)).collect()
}

fn package(source: &Source, program: &Program) -> Result<File> {
    let epoch = source.release.epoch;
    let mut files = installed::files(source, program, &LAYOUT)?;
    for file in files.iter_mut().filter(|it| it.path == LAYOUT.licence) {
        file.bytes = copyright()?.into_bytes();
    }
    let changes = changes(source)?;
    files.push(installed::text(
        "usr/share/doc/kaprobe/changelog.Debian.gz",
        changes,
    )?);
    files.push(File::new(
        "usr/share/lintian/overrides/kaprobe",
        workspace::read("contrib/debian/lintian-overrides")?,
    ));

    let control = control(source, program, &files)?;
    let mut package = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive(&control, epoch)?),
        ("data.tar.gz", archive(&files, epoch)?),
    ] {
        let mut header = Header::new(name.into(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(epoch.into());
        package
            .append(&header, &*bytes)
            .with_context(|| format!("cannot add {name} to the package"))?;
    }
    let bytes = package.into_inner().context("cannot end the package")?;
    let version = version(source);
    let name = format!("{NAME}_{version}_{}.deb", program.arch.debian());
    Ok(File::new(name, bytes))
}

fn archive(files: &[File], epoch: u32) -> Result<Vec<u8>> {
    files::gzip(&files::tar(files, "./", epoch)?)
}

fn version(source: &Source) -> String {
    format!("{}-{RELEASE}", source.release.version)
}

/// What dpkg knows of the package, and what it runs.
fn control(source: &Source, program: &Program, files: &[File]) -> Result<Vec<File>> {
    let mut sums = String::new();
    for file in files.iter().filter(|it| it.path != installed::SETTINGS) {
        let sum = hash::hex(&Md5::digest(&file.bytes));
        writeln!(sums, "{sum}  {}", file.path)?;
    }
    let mut control = vec![
        File::new("control", fields(source, program, files)),
        File::new("md5sums", sums),
        File::new("conffiles", format!("/{}\n", installed::SETTINGS)),
    ];
    for name in SCRIPTS {
        let script = workspace::read(format!("contrib/debian/{name}"))?;
        control.push(File::program(name, script));
    }
    Ok(control)
}

/// The fields of the package, as `dpkg --info` shows them.
fn fields(source: &Source, program: &Program, files: &[File]) -> String {
    // As Debian's policy has it (5.6.20): each file takes whole KiB, and so does each folder.
    let sizes = files.iter().map(|it| it.bytes.len().div_ceil(1024));
    let size = sizes.sum::<usize>() + files::folders(files).len();
    format!(
        "Package: {NAME}\n\
         Version: {version}\n\
         Architecture: {arch}\n\
         Maintainer: {maintainer}\n\
         Installed-Size: {size}\n\
         Section: net\n\
         Priority: optional\n\
         Description: {SUMMARY}\n{lines}",
        version = version(source),
        maintainer = source.release.maintainer,
        arch = program.arch.debian(),
        lines = continued(DESCRIPTION),
    )
}

/// The lines that continue a field (deb822(5)).
fn continued(text: &str) -> String {
    let lines = text.lines().map(|line| match line {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    });
    lines.collect()
}

/// The licences, in the form that Debian's tools read.
fn copyright() -> Result<String> {
    let licence = workspace::read("LICENSE")?;
    let mut lines = licence.lines().filter(|it| !it.is_empty());
    let holder = lines.find_map(|it| it.strip_prefix("Copyright (c) "));
    let holder = holder.context("LICENSE has no line with the copyright")?;
    let (_, terms) = licence.split_once(holder).unwrap_or_default();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {NAME}\n\
         Comment: The program also holds what others wrote: the GNU C Library, which is\n \
         under the GNU Lesser General Public License, version 2.1 or later (see\n \
         /usr/share/common-licenses/LGPL-2.1), libraries of GCC and of Rust, and crates.\n \
         Their notices are in /usr/share/doc/kaprobe/{file}.gz and\n \
         /usr/share/doc/kaprobe/{rust}.gz\n\
         \n\
         Files: *\n\
         Copyright: {holder}\n\
         License: Expat\n\
         {terms}",
        file = notices::FILE,
        rust = notices::RUST,
        terms = continued(terms.trim()),
    ))
}

/// The changes of the package. Those of kaprobe are in a file of their own.
fn changes(source: &Source) -> Result<String> {
    let time = Timestamp::from_second(source.release.epoch.into())?;
    let day = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
    Ok(format!(
        "{NAME} ({version}) stable; urgency=medium\n\
         \n  \
         * Version {upstream}: see changelog.gz.\n\
         \n \
         -- {maintainer}  {day}\n",
        maintainer = source.release.maintainer,
        version = version(source),
        upstream = source.release.version,
    ))
}
