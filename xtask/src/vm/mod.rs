//! Runs a command on another kernel: `cargo xtask vm --kernel 6.1 -- COMMAND…`.
//!
//! A kernel of Debian's boots in QEMU with an initramfs that holds busybox,
//! kaprobe and whatever else is asked for, and nothing beside it: no disk, no
//! network. Four seconds from nothing to the command, under plain emulation.

mod initramfs;
pub mod kernel;
mod qemu;
mod verdict;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::say;
use crate::vm::initramfs::Initramfs;
use crate::vm::kernel::Kernel;
pub use crate::vm::qemu::Machine;
pub use crate::vm::verdict::Verdict;
use crate::{apt, programs, workspace};

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    kernels: kernel::Choice,
    /// Put a file or folder into the guest, at DST or else in /root
    #[arg(long = "file", value_name = "SRC[:DST]")]
    files: Vec<String>,
    /// Load a module, with those it depends on
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Put a package of Debian into the guest, with what it depends on
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    #[command(flatten)]
    machine: Machine,
    /// What to run, as root; kaprobe and busybox are there
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What the guest holds and runs, whichever kernel it boots.
#[derive(Clone, Default)]
pub struct Guest {
    /// Pairs of a path here and a path there.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Modules to load; those that a kernel has built in are no error.
    pub modules: Vec<String>,
    /// Packages of Debian to unpack.
    pub packages: Vec<String>,
    /// Programs of packages, each with its path in there, of which the guest gets what
    /// they load and nothing else.
    pub programs: Vec<(&'static str, &'static str)>,
    /// Environment of the command.
    pub environment: Vec<(&'static str, &'static str)>,
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// A guest with all that it needs to boot on one kernel: from here on nothing is shared
/// with another.
pub struct Prepared {
    machine: qemu::Ready,
    console: PathBuf,
    /// Holds the initramfs.
    _image: TempDir,
}

/// Runs the command on each kernel asked for; our exit code is the last one that is not 0.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut guest = Guest {
        files: args.files.iter().map(|file| destination(file)).collect(),
        modules: args.modules.clone(),
        packages: args.packages.clone(),
        command: args.command.clone(),
        ..Guest::default()
    };
    let kaprobe = programs::kaprobe(&mut programs::static_cargo("build"))?;
    guest.files.push((kaprobe, "/bin/kaprobe".into()));

    let mut code = 0;
    for series in args.kernels.series() {
        let Some(kernel) = series.kernel()? else {
            bail!("Debian's archive no longer has a kernel {}", series.name);
        };
        say(format_args!("booting {kernel}"));
        let (mut out, mut err) = (unbuffered(io::stdout())?, unbuffered(io::stderr())?);
        let ready = guest.prepare(&kernel, series.name, &args.machine)?;
        match ready.boot(&mut out, &mut err)? {
            Verdict::Exited(0) => {}
            Verdict::Exited(status) => code = status,
            failure => bail!("{failure}"),
        }
    }
    Ok(code.into())
}

impl Guest {
    /// Gets ready to boot the guest; what its console says is kept under this name.
    pub fn prepare(&self, kernel: &Kernel, name: &str, machine: &Machine) -> Result<Prepared> {
        let scratch = workspace::scratch()?;
        let image = scratch.path().join("initramfs");
        self.pack(kernel, &image)
            .context("cannot make the guest's initramfs")?;

        let console = workspace::cache(&format!("console/{name}.log"));
        workspace::write(&console, "")?;
        Ok(Prepared {
            machine: qemu::Ready::new(machine, &kernel.image(), &image, &console)?,
            console,
            _image: scratch,
        })
    }

    fn pack(&self, kernel: &Kernel, image: &std::path::Path) -> Result<()> {
        let mut initramfs = Initramfs::create(image)?;
        // Not busybox's shell: that prefers its own `ip` to any other.
        let shell = apt::static_package("bash-static")?.join("usr/bin/bash-static");
        let busybox = apt::static_package("busybox-static")?.join("usr/bin/busybox");
        initramfs.add(&shell, "bin/bash".as_ref())?;
        initramfs.symlink("bin/sh".as_ref(), "bash")?;
        initramfs.add(&busybox, "bin/busybox".as_ref())?;
        initramfs.symlink("sbin/modprobe".as_ref(), "/bin/busybox")?;
        for package in &self.packages {
            initramfs.add_package(&apt::tree(package)?)?;
        }
        for (package, path) in &self.programs {
            for (source, destination) in apt::program(package, path)? {
                initramfs.add(&source, &destination)?;
            }
        }
        for (source, destination) in &self.files {
            initramfs.add(source, destination)?;
        }
        for file in kernel.module_files(&self.modules)? {
            initramfs.add(&kernel.home().join(&file), &file)?;
        }
        let loadable = kernel.loadable(&self.modules)?;
        initramfs.text("etc/modules", 0o644, &loadable.join("\n"))?;
        initramfs.text("etc/command", 0o755, &self.script())?;
        initramfs.text("init", 0o755, include_str!("init.sh"))?;
        initramfs.finish()
    }

    /// The command as a script that the guest's shell runs.
    fn script(&self) -> String {
        let exports = self
            .environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)));
        let words: Vec<_> = self.command.iter().map(|word| quote(word)).collect();
        format!(
            "#!/bin/sh\n{}exec {}\n",
            exports.collect::<String>(),
            words.join(" ")
        )
    }
}

impl Prepared {
    /// Boots the guest, with its output going to `out` and `err`, and waits for its end.
    pub fn boot(
        self,
        out: &mut (impl Write + Send),
        err: &mut (impl Write + Send),
    ) -> Result<Verdict> {
        let report = self.machine.run(out, err)?;
        Ok(verdict::judge(report, &self.console))
    }
}

/// One word of a shell, whatever it holds.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Splits `SRC[:DST]`.
fn destination(file: &str) -> (PathBuf, PathBuf) {
    match file.split_once(':') {
        Some((source, destination)) => (source.into(), destination.into()),
        None => {
            let source = PathBuf::from(file);
            let name = source.file_name().unwrap_or_default();
            let destination = PathBuf::from("/root").join(name);
            (source, destination)
        }
    }
}

/// A stream without the line buffer of the standard ones: the guest's bytes pass as they come.
fn unbuffered(stream: impl AsFd) -> Result<fs::File> {
    let fd = stream
        .as_fd()
        .try_clone_to_owned()
        .context("cannot duplicate a standard stream")?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_the_guest_as_it_is() {
        for (word, quoted) in [
            ("a", "'a'"),
            ("", "''"),
            ("$x `y` \\", "'$x `y` \\'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn a_file_goes_to_root_unless_told_otherwise() {
        for (file, source, there) in [
            ("target/x", "target/x", "/root/x"),
            ("x:/tmp/y", "x", "/tmp/y"),
        ] {
            assert_eq!(destination(file), (source.into(), there.into()));
        }
    }
}
