//! A package's life in a root that has RPM: installed, verified, upgraded, removed.
//!
//! The root is Debian's, whose RPM knows no other package: so the shell of the scripts is not
//! known to be there, and `--nodeps` says to go on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::dist::files::File;
use crate::dist::installed::SETTINGS;
use crate::dist::trial::{Pair, Trial};
use crate::packages::listing::Listing;
use crate::packages::serve;
use crate::process::CommandExt as _;
use crate::{chroot, debian, workspace};

/// What an administrator adds to the settings.
const CHANGE: &str = "series = 300\n";

/// Folders that are those of other packages, where distributions have RPM: of the shells, and of
/// the base.
const SHARED: [&str; 3] = [
    "usr/share/fish/vendor_completions.d",
    "usr/share/licenses",
    "usr/share/zsh/site-functions",
];

/// Runs a package's life in a copy of the root of tools.
pub fn check(trial: &Trial) -> Result<()> {
    let scratch = workspace::scratch()?;
    let root = scratch.path().join("root");
    debian::copy(&debian::tools()?, &root)?;
    rpm(&root, &["--initdb"])?;
    for folder in SHARED {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let before = Listing::of(&root)?;
    let Pair { old, new } = &trial.rpm;

    let old = put(&root, old)?;
    rpm(&root, &["--install", "--nodeps", &old])?;
    rpm(&root, &["--verify", "--nodeps", "kaprobe"])?;
    let settings = root.join(SETTINGS);
    let text = fs::read_to_string(&settings).context("there are no settings")?;
    fs::write(&settings, text + CHANGE).context("cannot change the settings")?;
    serve::check(&root, trial)?;

    let new = put(&root, new)?;
    rpm(&root, &["--upgrade", "--nodeps", &new])?;
    let version = rpm(&root, &["--query", "--queryformat=%{VERSION}", "kaprobe"])?;
    ensure!(version == trial.version, "the version is {version}");
    let kept = fs::read_to_string(&settings)?;
    ensure!(kept.ends_with(CHANGE), "changed settings are lost");
    let files = rpm(&root, &["--query", "--list", "kaprobe"])?;
    for file in files.lines() {
        let path = root.join(file.trim_start_matches('/'));
        ensure!(path.exists(), "{file} was not installed");
    }

    rpm(&root, &["--erase", "kaprobe"])?;
    // RPM keeps what was changed, and has no purge: the rest is the administrator's.
    let recorded = root.join("var/log/kaprobe");
    let segments = fs::read_dir(&recorded).context("what was recorded does not stay")?;
    ensure!(segments.count() > 0, "what was recorded does not stay");
    fs::remove_dir_all(&recorded).context("cannot remove what was recorded")?;
    let kept = ["/etc/kaprobe.toml.rpmnew", "/etc/kaprobe.toml.rpmsave"];
    Listing::of(&root)?.check_added(&before, &kept)
}

/// Puts a package into the root, and returns its path there.
fn put(root: &Path, package: &File) -> Result<String> {
    let path = format!("/tmp/{}", package.path);
    workspace::write(&root.join(path.trim_start_matches('/')), &package.bytes)?;
    Ok(path)
}

fn rpm(root: &Path, words: &[&str]) -> Result<String> {
    chroot::command(root, &[&["rpm"], words].concat())?.read()
}
