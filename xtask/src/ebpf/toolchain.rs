//! Sets up a stable compiler to build BPF: the source of `core`, and bpf-linker.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{CommandExt, say};
use crate::rustc::{self, Rustc};
use crate::{remap, workspace};

/// The target of the BPF programs: little-endian, like every supported host.
pub const TARGET: &str = "bpfel-unknown-none";

/// The cargo target folder of the BPF programs, in the cache.
pub const TARGET_DIR: &str = "bpf";

/// The version of bpf-linker that links the object.
pub const BPF_LINKER: &str = "0.13.0";

/// The arguments of the linker. `--btf` makes BTF from DWARF.
pub const LINK_ARGS: [&str; 1] = ["--btf"];

/// The installed tools for a build for [`TARGET`].
pub struct Toolchain {
    rustc: Rustc,
    linker: PathBuf,
    remap: Vec<OsString>,
}

impl Toolchain {
    /// Finds the installed tools, and downloads or builds the missing ones.
    pub fn ready() -> Result<Self> {
        let rustc = Rustc::installed()?;
        Ok(Self {
            linker: bpf_linker(&rustc)?,
            remap: remap::flags()?,
            rustc,
        })
    }

    /// A cargo command that runs `subcommand` on the BPF programs.
    pub fn cargo(&self, subcommand: &str) -> Result<Command> {
        let mut cargo = workspace::cargo();
        rustc::build_std(&mut cargo, &self.rustc)?;
        cargo
            .arg(subcommand)
            .args(["--package", "kaprobe-ebpf", "--features", "bpf"])
            .args(["--bin", "kaprobe-ebpf", "--profile", "bpf"])
            .args(["--target", TARGET, "-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(workspace::cache(TARGET_DIR))
            .env("PATH", self.path())
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            .env("CARGO_INCREMENTAL", "0");
        Ok(cargo)
    }

    fn path(&self) -> OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        [self.linker.as_os_str(), &path].join(OsStr::new(":"))
    }

    /// Compiler flags. The linker runs in the checkout, which becomes the empty path: so it
    /// finds the sources, and copies their lines into BTF. The verifier quotes these lines
    /// in its errors.
    fn rustflags(&self) -> OsString {
        let mut flags: Vec<_> = LINK_ARGS
            .iter()
            .map(|arg| OsString::from(format!("-Clink-arg={arg}")))
            .collect();
        flags.extend(self.remap.clone());
        flags.join(OsStr::new("\x1f"))
    }
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
