//! A package's life in a root of Debian: installed, run, upgraded, removed, purged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::dist::installed::SETTINGS;
use crate::dist::trial::{Pair, Trial};
use crate::packages::listing::Listing;
use crate::packages::serve;
use crate::process::CommandExt as _;
use crate::{chroot, debian, workspace};

/// What an administrator adds to the settings.
const CHANGE: &str = "series = 300\n";

/// The link by which an administrator enables the service.
const LINK: &str = "etc/systemd/system/multi-user.target.wants/kaprobe.service";

/// Runs a package's life in a new root of a release.
pub fn check(release: &str, trial: &Trial) -> Result<()> {
    let scratch = workspace::scratch()?;
    let root = scratch.path().join("root");
    debian::copy(&debian::root(release)?, &root)?;
    let before = Listing::of(&root)?;
    let Pair { old, new } = &trial.deb;

    install(&root, &old.path, &old.bytes)?;
    change(&root)?;
    serve::check(&root, trial)?;

    install(&root, &new.path, &new.bytes)?;
    is_upgraded(&root, trial)?;
    serve::check(&root, trial)?;

    apt(&root, &["remove", "kaprobe"])?;
    ensure!(!root.join("usr/bin/kaprobe").exists(), "the program stays");
    ensure!(root.join(SETTINGS).exists(), "the settings do not stay");
    let recorded = fs::read_dir(root.join("var/log/kaprobe"))?.count();
    ensure!(recorded > 0, "what was recorded does not stay");
    apt(&root, &["purge", "kaprobe"])?;
    let link = root.join(LINK);
    ensure!(!link.is_symlink(), "the service stays enabled");
    // The folder of links is that of whoever enabled the service.
    let folder = link.parent().unwrap_or(&root);
    if fs::read_dir(folder).is_ok_and(|mut it| it.next().is_none()) {
        fs::remove_dir(folder).context("cannot remove the folder of links")?;
    }
    Listing::of(&root)?.check_added(&before, &[])
}

/// What an administrator does: enables the service, and changes its settings.
fn change(root: &Path) -> Result<()> {
    let link = root.join(LINK);
    ensure!(!link.is_symlink(), "the package enables the service");
    fs::create_dir_all(link.parent().unwrap_or(root))?;
    symlink("/usr/lib/systemd/system/kaprobe.service", &link)?;
    let settings = root.join(SETTINGS);
    let text = fs::read_to_string(&settings).context("there are no settings")?;
    fs::write(&settings, text + CHANGE).context("cannot change the settings")
}

/// Whether an upgrade keeps the settings that were changed, and changes all else.
fn is_upgraded(root: &Path, trial: &Trial) -> Result<()> {
    let settings = fs::read_to_string(root.join(SETTINGS))?;
    ensure!(settings.ends_with(CHANGE), "changed settings are lost");
    ensure!(root.join(LINK).is_symlink(), "the service is not enabled");
    let query = ["dpkg-query", "--show", "--showformat=${Version}", "kaprobe"];
    let version = chroot::command(root, &query)?.read()?;
    let expected = format!("{}-1", trial.version);
    ensure!(version == expected, "the version is {version}");
    let verify = chroot::command(root, &["dpkg", "--verify", "kaprobe"])?;
    let differing = { verify }.read()?;
    let only = differing.trim().ends_with(&format!(" c /{SETTINGS}"));
    ensure!(only && differing.lines().count() == 1, "{differing}");
    Ok(())
}

/// Installs a package by apt, without a network. Settings that were changed are kept.
fn install(root: &Path, name: &str, package: &[u8]) -> Result<()> {
    workspace::write(&root.join("tmp").join(name), package)?;
    let keep = "Dpkg::Options::=--force-confold";
    apt(root, &["install", "-o", keep, &format!("/tmp/{name}")])
}

fn apt(root: &Path, words: &[&str]) -> Result<()> {
    let apt = ["apt-get", "--yes", "--quiet=2"];
    chroot::command(root, &[&apt, words].concat())?.check_to_stderr()
}
