//! Builds static programs for an architecture that is not this host's.
//!
//! It takes no C compiler: kaprobe has no C code. Cargo builds the standard library, and rustc's
//! own linker links it with Debian's static C library for that architecture.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::arch::Arch;
use crate::rustc::{self, Rustc};
use crate::{apt, workspace};

/// The version of GCC that made `libgcc.a` in Debian's [`apt::RELEASE`].
const GCC: &str = "14";

/// Flags of rustc: its arguments for the linker are those of `ld`, not of a C compiler.
pub const FLAGS: &str = "-Clinker-flavor=ld";

/// Lets a cargo command build for an architecture.
pub fn configure(cargo: &mut Command, arch: Arch) -> Result<()> {
    let rustc = Rustc::installed()?;
    rustc::build_std(cargo, &rustc)?;
    let target = arch.target().replace('-', "_").to_uppercase();
    cargo.args(["-Z", "build-std=std,panic_unwind"]).env(
        format!("CARGO_TARGET_{target}_LINKER"),
        linker(&rustc, arch)?,
    );
    Ok(())
}

/// The path of a script that links a static program like a C compiler does: with the files that
/// start it, and with its libraries.
fn linker(rustc: &Rustc, arch: Arch) -> Result<PathBuf> {
    let root = apt::lone_package(arch, "libc6-dev")?;
    let libc = root.join(arch.libraries());
    let gcc = apt::lone_package(arch, &format!("libgcc-{GCC}-dev"))?;
    let gcc = gcc.join(format!("usr/lib/gcc/{}-linux-gnu/{GCC}", arch.name()));
    let lld = Path::new("lib/rustlib")
        .join(&rustc.host)
        .join("bin/rust-lld");
    // Whether the program is at a fixed address depends on the target.
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *' -pie '*) start=rcrt1.o ;; *) start=crt1.o ;; esac\n\
         exec '{lld}' -flavor gnu --sysroot='{root}' '{libc}/'$start '{libc}/crti.o' \"$@\" \\\n  \
         -L '{libc}' -L '{gcc}' --start-group -lgcc -lgcc_eh -lc --end-group '{libc}/crtn.o'\n",
        lld = rustc.sysroot.join(lld).display(),
        root = root.display(),
        libc = libc.display(),
        gcc = gcc.display(),
    );
    let path = arch.cache("linker");
    workspace::write(&path, script)?;
    rustc::make_executable(&path)?;
    Ok(path)
}
