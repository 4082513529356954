//! Builds static programs, for this architecture and others, in one way.
//!
//! It takes no C compiler: kaprobe has no C code. Rustc's own linker links it with Debian's
//! static C library. So neither the linker nor the library depends on this host.
//!
//! The library is glibc. musl was tried on x86-64 with a program that fills a map with strings: it
//! links in the same way, and took 36 % more instructions and three times as long.
//! `kaprobe/src/memory.rs` tunes the allocator of glibc. What a static glibc needs shared libraries
//! for (getaddrinfo, getpwnam, iconv), no part of the program calls.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::rustc::{self, Rustc};
use crate::{apt, remap, workspace};

/// The version of GCC that made `libgcc.a` in Debian's [`apt::RELEASE`].
pub const GCC: &str = "14";

/// Lets a cargo command build for an architecture. Returns the flags of rustc that it takes.
///
/// The linker is one of the flags, as cargo's own setting would apply to build scripts too if
/// they are for the same architecture. The arguments for it are those of `ld`, not of a C
/// compiler.
pub fn configure(cargo: &mut Command, arch: Arch) -> Result<Vec<OsString>> {
    let rustc = Rustc::installed()?;
    if arch != Arch::HOST {
        rustc::build_std(cargo, &rustc)?;
        cargo.args(["-Z", "build-std=std,panic_unwind"]);
    }
    cargo.args(["--target", &arch.target()]);
    let mut path = OsString::from("-Clinker=");
    path.push(linker(&rustc, arch)?);
    let mut flags = vec![path, "-Clinker-flavor=ld".into()];
    flags.extend(remap::flags()?);
    flags.extend(rustc::remap_library(&rustc));
    Ok(flags)
}

/// The version of the C library that programs are linked with, as the library itself has it.
pub fn glibc(arch: Arch) -> Result<String> {
    const BEFORE: &[u8] = b"Debian GLIBC ";

    let library = apt::lone_package(arch, "libc6-dev")?.join(arch.libraries());
    let bytes = fs::read(library.join("libc.a")).context("cannot read libc.a")?;
    let mut places = bytes.windows(BEFORE.len());
    let found = places.position(|it| it == BEFORE);
    let version = found.and_then(|at| bytes[at + BEFORE.len()..].split(|it| *it == b')').next());
    let version = version.and_then(|it| str::from_utf8(it).ok());
    Ok(version.context("libc.a names no version")?.to_owned())
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
