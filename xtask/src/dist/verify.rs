//! Whether the artifacts are what they should be: their sums are right, and what can be unpacked
//! and run on this host, runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::dist::release::Release;
use crate::dist::{folder, notices, oci, sbom};
use crate::process::{CommandExt as _, say};
use crate::{apt, chroot, pypi, rustc, workspace};

/// Where the program is in a root.
const PROGRAM: &str = "usr/bin/kaprobe";

/// Verifies the artifacts of a release in a folder, for these architectures. It needs root. The
/// packages have tests of their own.
pub fn run(release: &Release, arches: &[Arch], folder: &Path) -> Result<()> {
    say("checking the sums of the artifacts");
    Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", folder::SUMS])
        .current_dir(folder)
        .check_to_stderr()?;
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let name = format!("kaprobe-{}", release.version);
    say("checking the bill of materials");
    pypi::install()?;
    let bill = read(&format!("{name}.cdx.json"))?;
    sbom::validate(&serde_json::from_slice(&bill)?)?;
    for &arch in arches {
        say(format_args!("running the artifacts for {}", arch.name()));
        let name = format!("{name}-{}", arch.name());
        runs(&read(&name)?, arch, release)?;
        archive_runs(&folder.join(format!("{name}.tar.gz")), arch, release)?;
        image_runs(&folder.join(oci::file(release)), arch, release)?;
    }
    Ok(())
}

/// Fails unless the program runs in a root that has nothing else, and says what it is.
fn runs(program: &[u8], arch: Arch, release: &Release) -> Result<()> {
    let root = workspace::scratch()?;
    let path = root.path().join(PROGRAM);
    workspace::write(&path, program)?;
    rustc::make_executable(&path)?;
    let says = |arguments: &[&str]| -> Result<String> {
        if arch == Arch::HOST {
            let words = [&["/usr/bin/kaprobe"][..], arguments].concat();
            return chroot::command(root.path(), &words)?.read();
        }
        // It emulates programs, but not the kernel.
        let emulator = format!("usr/bin/qemu-{}", arch.name());
        let emulator = apt::lone_package(Arch::HOST, "qemu-user")?.join(emulator);
        Command::new(emulator).arg(&path).args(arguments).read()
    };
    let version = says(&["--version"])?;
    let commit = release.commit.get(..12).unwrap_or_default();
    let expected = format!("kaprobe {} ({commit}", release.version);
    ensure!(version.starts_with(&expected), "{version}is not {expected}");
    let help = says(&["explain", "idle_eviction"])?;
    ensure!(help.contains("idle"), "it explains nothing: {help}");
    if arch == Arch::HOST {
        for place in ["proc", "sys", "dev"] {
            fs::create_dir(root.path().join(place))?;
        }
        let found = says(&["doctor"])?;
        ensure!(found.contains("Tracing is possible."), "{found}");
    }
    Ok(())
}

/// Fails unless the program in a tar archive runs.
fn archive_runs(archive: &Path, arch: Arch, release: &Release) -> Result<()> {
    let unpacked = workspace::scratch()?;
    Command::new("tar")
        .args(["--extract", "--strip-components=1", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(unpacked.path())
        .check_to_stderr()?;
    runs(&fs::read(unpacked.path().join("kaprobe"))?, arch, release)
}

/// Fails unless tools that other people use can unpack the image, and its program runs.
pub fn image_runs(archive: &Path, arch: Arch, release: &Release) -> Result<()> {
    let scratch = workspace::scratch()?;
    let at = |name: &str| scratch.path().join(name);
    let go = oci::architecture(arch).to_string();
    let source = format!("oci-archive:{}", archive.display());
    let mut inspect = tool("skopeo")?;
    inspect.args(["inspect", "--override-arch", &go, &source]);
    let found: serde_json::Value = serde_json::from_str(&inspect.read()?)?;
    ensure!(found["Architecture"] == go, "{found}");
    let labels = &found["Labels"];
    ensure!(
        labels["org.opencontainers.image.version"] == release.version,
        "{labels}"
    );
    ensure!(
        labels["org.opencontainers.image.revision"] == release.commit,
        "{labels}"
    );
    let notices = format!("kaprobe-{}-{}", release.version, notices::FILE);
    ensure!(labels[oci::NOTICES] == notices, "{labels}");

    let layout = format!("{}:image", at("layout").display());
    tool("skopeo")?
        .args([
            "--insecure-policy",
            "--override-arch",
            &go,
            "copy",
            "--quiet",
            &source,
        ])
        .arg(format!("oci:{layout}"))
        .check_to_stderr()?;
    tool("umoci")?
        .args(["unpack", "--image", &layout])
        .arg(at("bundle"))
        .check_to_stderr()?;
    let root = at("bundle/rootfs");
    let names = |folder: &Path| -> Result<Vec<String>> {
        let entries = fs::read_dir(folder)?;
        let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    let bin = root.join("usr/bin");
    ensure!(
        names(&root)? == ["usr"] && names(&bin)? == ["kaprobe"],
        "more than a program"
    );
    let program = fs::read(root.join(PROGRAM)).context("the image has no program")?;
    runs(&program, arch, release)
}

/// A program of a Debian package of the same name.
fn tool(name: &str) -> Result<Command> {
    let tree = apt::tree(name)?;
    let mut command = apt::loader(&tree);
    command.arg(tree.join("usr/bin").join(name));
    Ok(command)
}
