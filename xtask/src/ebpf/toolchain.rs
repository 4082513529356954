//! Sets up a stable compiler to build BPF: the source of `core`, and bpf-linker.
//!
//! Stable rustc has a BPF backend but no precompiled `core` for it, so cargo builds
//! `core` from source (`-Z build-std`, unlocked by `RUSTC_BOOTSTRAP`). Cargo looks for
//! the source in the compiler's sysroot, and hashes its path within the sysroot into
//! symbol names. xtask's own sysroot, made of links, satisfies both and does not change
//! the real one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{CargoOpt, MetadataCommand};
use toml::Table;

use crate::apt::Suites;
use crate::process::{CommandExt, say};
use crate::workspace;

/// The target of the BPF programs: little-endian, like every supported host.
pub const TARGET: &str = "bpfel-unknown-none";

/// The cargo target folder of the BPF programs, in the cache.
pub const TARGET_DIR: &str = "bpf";

/// The version of bpf-linker that links the object.
pub const BPF_LINKER: &str = "0.13.0";

/// The arguments of the linker. `--btf` makes BTF from DWARF.
pub const LINK_ARGS: [&str; 1] = ["--btf"];

/// The path of the standard library's source in a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// The compiler that `rust-toolchain.toml` pins.
pub fn pinned_rustc() -> Result<String> {
    let pinned: Table = workspace::read("rust-toolchain.toml")?.parse()?;
    let channel = pinned["toolchain"]["channel"].as_str();
    Ok(channel
        .context("rust-toolchain.toml names no channel")?
        .to_owned())
}

/// The installed tools for a build for [`TARGET`].
pub struct Toolchain {
    sysroot: PathBuf,
    linker: PathBuf,
    registry: PathBuf,
}

impl Toolchain {
    /// Finds the installed tools, and downloads or builds the missing ones.
    pub fn ready() -> Result<Self> {
        let rustc = Rustc::installed()?;
        Ok(Self {
            sysroot: sysroot(&rustc)?,
            linker: bpf_linker(&rustc)?,
            registry: registry()?,
        })
    }

    /// A cargo command that runs `subcommand` on the BPF programs.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = workspace::cargo();
        cargo
            .arg(subcommand)
            .args(["--package", "kaprobe-ebpf", "--features", "bpf"])
            .args(["--bin", "kaprobe-ebpf", "--profile", "bpf"])
            .args(["--target", TARGET, "-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(workspace::cache(TARGET_DIR))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("SYSROOT", &self.sysroot) // for clippy, which bypasses the wrapper
            .env("RUSTC", self.sysroot.join("bin/rustc"))
            .env("PATH", self.path())
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            .env("CARGO_INCREMENTAL", "0");
        cargo
    }

    fn path(&self) -> OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        [self.linker.as_os_str(), &path].join(OsStr::new(":"))
    }

    /// Compiler flags that keep the paths of this machine out of the object.
    ///
    /// The checkout becomes the empty path. The linker runs in the checkout, so it still
    /// finds the sources and copies their lines into BTF. The verifier quotes these lines
    /// in its errors.
    fn rustflags(&self) -> OsString {
        let remap = |from: &Path, to: &str| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flag
        };
        let mut flags: Vec<_> = LINK_ARGS
            .iter()
            .map(|arg| OsString::from(format!("-Clink-arg={arg}")))
            .collect();
        flags.push(remap(workspace::root(), ""));
        flags.push(remap(&self.registry, "/cargo"));
        flags.join(OsStr::new("\x1f"))
    }
}

/// The sysroot and versions of the installed compiler.
struct Rustc {
    sysroot: PathBuf,
    host: String,
    release: String,
    llvm: String,
}

impl Rustc {
    fn installed() -> Result<Self> {
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
            llvm: field("LLVM version")?,
            release,
        })
    }
}

/// Makes a sysroot that is the compiler's plus the source of `core`.
fn sysroot(rustc: &Rustc) -> Result<PathBuf> {
    let sysroot = workspace::cache("sysroot");
    workspace::link(&core_source(rustc)?, &sysroot.join(LIBRARY))?;
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

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// The source of `core`: rustup's rust-src, else Debian's package of the same release.
///
/// Both hold the same files of `core`.
fn core_source(rustc: &Rustc) -> Result<PathBuf> {
    let component = rustc.sysroot.join(LIBRARY);
    let package = workspace::cache(&format!("core-{}", rustc.release));
    if let Some(present) = [&component, &package]
        .into_iter()
        .find(|path| path.is_dir())
    {
        return Ok(present.clone());
    }
    say("installing the source of core");
    let rustup = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .check_to_stderr();
    match rustup {
        Ok(()) if component.is_dir() => Ok(component),
        _ => {
            let make = |into: &Path| debian_core_source(&rustc.release, into);
            workspace::make_once(&package, make).with_context(|| {
                format!(
                    "no source of core {}: try `rustup component add rust-src`",
                    rustc.release
                )
            })?;
            Ok(package)
        }
    }
}

fn debian_core_source(release: &str, library: &Path) -> Result<()> {
    say("rustup cannot; taking it from Debian's rust-src");
    let scratch = workspace::scratch()?;
    let suites = Suites::open(&["trixie-backports"])?;
    suites.unpack(&[format!("rust-src={release}*")], scratch.path())?;
    let unpacked = scratch
        .path()
        .join(format!("usr/src/rustc-{release}/library"));
    workspace::rename(&unpacked, library)
}

/// The folder of a bpf-linker that is linked with rustc's own LLVM.
///
/// That LLVM can read rustc's bitcode, and no other one needs to be installed.
fn bpf_linker(rustc: &Rustc) -> Result<PathBuf> {
    let home = workspace::cache(&format!("bpf-linker-{BPF_LINKER}-rustc-{}", rustc.release));
    let bin = home.join("bin");
    // A copied linker may not find its LLVM, so check that it starts.
    let starts = Command::new(bin.join("bpf-linker"))
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if starts.is_ok_and(|status| status.success()) {
        return Ok(bin);
    }

    say(format_args!(
        "building bpf-linker {BPF_LINKER}, which takes a minute or two"
    ));
    let lib = rustc.sysroot.join("lib");
    workspace::link(&llvm(&lib)?, &home.join("llvm/lib/libLLVM.so"))?;
    let major = rustc.llvm.split('.').next().unwrap_or_default();
    let mut flags = OsString::from("-Clink-arg=-Wl,-rpath,");
    flags.push(&lib);
    workspace::cargo()
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ])
        .arg("--root")
        .arg(&home)
        .env("LLVM_PREFIX", home.join("llvm"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", home.join("build"))
        .check_to_stderr()?;
    fs::remove_dir_all(home.join("build"))
        .context("cannot remove the build folder of bpf-linker")?;
    Ok(bin)
}

/// The path of the shared libLLVM among rustc's own libraries.
fn llvm(lib: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot list {}", lib.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"libLLVM.so"))
        })
        .with_context(|| {
            format!(
                "this rustc has no shared libLLVM in {}; use one from rustup",
                lib.display()
            )
        })
}

/// The folder that cargo unpacks crates into. Its name contains the registry's host.
fn registry() -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .features(CargoOpt::AllFeatures)
        .exec()
        .context("cannot ask cargo where its crates lie")?;
    let aya = metadata
        .packages
        .iter()
        .find(|package| package.name == "aya-ebpf");
    let folder = aya.and_then(|aya| aya.manifest_path.parent()?.parent());
    Ok(folder
        .context("the workspace does not depend on aya-ebpf")?
        .into())
}
