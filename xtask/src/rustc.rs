//! The installed compiler, and the source of its standard library.
//!
//! Stable rustc has backends for targets whose precompiled standard library may not be
//! installed. Cargo builds it from source (`-Z build-std`, unlocked by `RUSTC_BOOTSTRAP`). It
//! looks for the source in the compiler's sysroot, and hashes its path within the sysroot into
//! symbol names. xtask's own sysroot, made of links, satisfies both and does not change
//! the real one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use toml::Table;

use crate::apt::Suites;
use crate::arch::Arch;
use crate::process::{CommandExt, say};
use crate::{remap, workspace};

/// The path of the standard library's source in a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// The path, in a sysroot, of the notices of the standard library and of what it is made of.
pub const NOTICES: &str = "share/doc/rust/COPYRIGHT-library.html";

/// The compiler that `rust-toolchain.toml` pins.
pub fn pinned_rustc() -> Result<String> {
    let pinned: Table = workspace::read("rust-toolchain.toml")?.parse()?;
    let channel = pinned["toolchain"]["channel"].as_str();
    Ok(channel
        .context("rust-toolchain.toml names no channel")?
        .to_owned())
}

/// The sysroot and versions of the installed compiler.
pub struct Rustc {
    pub sysroot: PathBuf,
    pub release: String,
    pub commit: String,
    pub llvm: String,
    pub host: String,
}

impl Rustc {
    /// Asks the installed compiler. Fails if it is not the pinned one.
    pub fn installed() -> Result<Self> {
        let rustc = || {
            let mut rustc = Command::new("rustc");
            rustc.current_dir(workspace::root());
            rustc
        };
        let verbose = rustc().arg("-vV").read()?;
        let field = |name: &str| {
            let mut fields = verbose.lines().filter_map(|line| line.split_once(": "));
            let value = fields
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned());
            value.with_context(|| format!("`rustc -vV` does not print its {name}"))
        };
        let (release, pinned) = (field("release")?, pinned_rustc()?);
        if release != pinned {
            bail!(
                "the BPF object is built by rustc {pinned}, and this is {release}; install {pinned} with rustup"
            );
        }
        Ok(Self {
            sysroot: rustc()
                .args(["--print", "sysroot"])
                .read()?
                .trim_end()
                .into(),
            host: field("host")?,
            commit: field("commit-hash")?,
            llvm: field("LLVM version")?,
            release,
        })
    }
}

/// Flags of rustc that name the source of the standard library as rustc does where it has none:
/// wherever that source lies, and whoever builds the library.
pub fn remap_library(rustc: &Rustc) -> Vec<OsString> {
    let source = Path::new(LIBRARY);
    let source = source.parent().unwrap_or(source);
    let to = format!("/rustc/{}", rustc.commit);
    [&rustc.sysroot, &own_sysroot()]
        .map(|it| remap::flag(&it.join(source), &to))
        .into()
}

/// Lets a cargo command build the standard library for its target. `-Z build-std` says which
/// parts of it.
pub fn build_std(cargo: &mut Command, rustc: &Rustc) -> Result<()> {
    let sysroot = sysroot(rustc)?;
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("SYSROOT", &sysroot) // for clippy, which bypasses the wrapper
        .env("RUSTC", sysroot.join("bin/rustc"));
    Ok(())
}

fn own_sysroot() -> PathBuf {
    workspace::cache("sysroot")
}

/// Makes a sysroot that is the compiler's plus the source of the standard library.
fn sysroot(rustc: &Rustc) -> Result<PathBuf> {
    let sysroot = own_sysroot();
    workspace::link(&library_source(rustc)?, &sysroot.join(LIBRARY))?;
    let host = Path::new("lib/rustlib").join(&rustc.host);
    workspace::link(&rustc.sysroot.join(&host), &sysroot.join(&host))?;

    let wrapper = sysroot.join("bin/rustc");
    let real = rustc.sysroot.join("bin/rustc");
    let script = format!(
        "#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n",
        real.display(),
        sysroot.display()
    );
    workspace::write(&wrapper, script)?;
    make_executable(&wrapper)?;
    Ok(sysroot)
}

/// Lets a file be run.
pub fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// The source of the standard library: rustup's rust-src, else Debian's package of the same
/// release.
///
/// Both hold the same files of `core`.
fn library_source(rustc: &Rustc) -> Result<PathBuf> {
    let component = rustc.sysroot.join(LIBRARY);
    let package = workspace::cache(&format!("core-{}", rustc.release));
    if let Some(present) = [&component, &package]
        .into_iter()
        .find(|path| path.is_dir())
    {
        return Ok(present.clone());
    }
    say("installing the source of Rust's standard library");
    let rustup = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .check_to_stderr();
    match rustup {
        Ok(()) if component.is_dir() => Ok(component),
        _ => {
            let make = |into: &Path| debian_library_source(&rustc.release, into);
            workspace::make_once(&package, make).with_context(|| {
                format!(
                    "no source of the standard library {}: try `rustup component add rust-src`",
                    rustc.release
                )
            })?;
            Ok(package)
        }
    }
}

fn debian_library_source(release: &str, library: &Path) -> Result<()> {
    say("rustup cannot; taking it from Debian's rust-src");
    let scratch = workspace::scratch()?;
    let suites = Suites::open(&["trixie-backports"], Arch::HOST)?;
    suites.unpack(&[format!("rust-src={release}*")], scratch.path())?;
    let unpacked = scratch
        .path()
        .join(format!("usr/src/rustc-{release}/library"));
    workspace::rename(&unpacked, library)
}
