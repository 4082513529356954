//! Names the commit that kaprobe is built from, for `kaprobe --version`.
//!
//! Only optimized builds name it: a developer's builds would be made anew at each commit.

use std::process::Command;
use std::{env, io};

/// What becomes part of the program, from the folder of this crate.
const INPUTS: [&str; 6] = [
    ".",
    "../kaprobe-ebpf",
    "../Cargo.lock",
    "../Cargo.toml",
    "../.cargo",
    "../rust-toolchain.toml",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit = match env::var("PROFILE").as_deref() {
        Ok("release") => commit().unwrap_or_else(|_| "unknown commit".to_owned()),
        _ => "debug build".to_owned(),
    };
    println!("cargo::rustc-env=KAPROBE_COMMIT={commit}");
}

/// The commit that is checked out, and whether the program's sources differ from it.
fn commit() -> io::Result<String> {
    // Not that of another repository which holds a copy of this folder.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // What git writes when another commit is checked out or made.
    let head = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    for file in ["HEAD", "logs/HEAD", "packed-refs", &head] {
        let path = git(&["rev-parse", "--git-path", file])?;
        // Cargo would run this again and again for a file that is missing.
        if std::fs::exists(&path)? {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--"], &INPUTS[..]].concat())?;
    Ok(if changes.is_empty() {
        commit
    } else {
        commit + "-dirty"
    })
}

/// What git prints, without the end of its last line.
fn git(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("git").args(arguments).output()?;
    if !output.status.success() {
        return Err(io::Error::other("git failed"));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(printed.trim_end().to_owned())
}
