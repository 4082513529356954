//! Runs a command on another kernel: `cargo xtask vm --kernel 6.1 -- COMMAND…`.
//!
//! A Debian kernel boots in QEMU with an initramfs of busybox, kaprobe and the files
//! that the options name. There is no network. Under emulation the command starts after
//! about four seconds. With `--systemd`, systemd starts it in a small Debian.

mod archive;
mod disk;
mod initramfs;
mod kernel;
mod qemu;
pub mod series;
mod system;
mod verdict;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::arch::Arch;
use crate::process::say;
use crate::vm::disk::Disk;
use crate::vm::initramfs::Initramfs;
use crate::vm::kernel::Kernel;
pub use crate::vm::qemu::Machine;
pub use crate::vm::verdict::Verdict;
use crate::{apt, programs, workspace};

/// Where a guest has its disks of packages.
pub const PACKAGES: &str = "/packages";

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    kernels: series::Choice,
    /// Put a file or folder into the guest, at DST or by default in /root
    #[arg(long = "file", value_name = "SRC[:DST]")]
    files: Vec<String>,
    /// Load a kernel module and its dependencies
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Put a Debian package and its dependencies into the guest
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Start the command by systemd, in a small Debian that is writable and has no network
    #[arg(long)]
    systemd: bool,
    #[command(flatten)]
    machine: Machine,
    /// The command to run, as root; the guest has kaprobe and busybox
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The files and the command of a guest, for any kernel.
#[derive(Clone, Default)]
pub struct Guest {
    /// Pairs of a path on this host and a path in the guest.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Modules to load; a built-in module is not an error.
    pub modules: Vec<String>,
    /// Debian packages to unpack, with their dependencies.
    pub packages: Vec<String>,
    /// Programs: a Debian package, and a path in it. The guest gets only the files that
    /// they load.
    pub programs: Vec<(&'static str, &'static str)>,
    /// Debian packages with their dependencies, each on a disk in [`PACKAGES`] under its name. A
    /// guest reads of them what it uses, so they may be big.
    pub disks: Vec<&'static str>,
    /// Whether systemd is the first process. Otherwise it is a script that runs the command.
    pub systemd: bool,
    /// Environment variables of the command.
    pub environment: Vec<(&'static str, &'static str)>,
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// A guest that is ready to boot on one kernel; it shares no file with another guest.
pub struct PreparedGuest {
    machine: qemu::ReadyMachine,
    console: PathBuf,
    /// The folder of the initramfs, deleted on drop.
    _image: TempDir,
}

/// Runs the command on each chosen kernel; returns the last exit code other than 0.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut guest = Guest {
        files: args.files.iter().map(|file| destination(file)).collect(),
        modules: args.modules.clone(),
        packages: args.packages.clone(),
        command: args.command.clone(),
        systemd: args.systemd,
        ..Guest::default()
    };
    let kaprobe = programs::static_kaprobe(args.kernels.arch)?;
    guest.files.push((kaprobe, "/bin/kaprobe".into()));

    let mut code = 0;
    for series in args.kernels.series() {
        let kernel = series.kernel()?;
        say(format_args!("booting {kernel}"));
        let (mut out, mut err) = (unbuffered(io::stdout())?, unbuffered(io::stderr())?);
        let ready = guest.prepare(&kernel, &series.name.to_string(), &args.machine)?;
        match ready.boot(&mut out, &mut err)? {
            Verdict::Exited(0) => {}
            Verdict::Exited(status) => code = status,
            failure => bail!("{failure}"),
        }
    }
    Ok(code.into())
}

impl Guest {
    /// Prepares the guest for a kernel; its console log is named `name`.
    pub fn prepare(&self, kernel: &Kernel, name: &str, machine: &Machine) -> Result<PreparedGuest> {
        let scratch = workspace::scratch()?;
        let image = scratch.path().join("initramfs");
        self.pack(kernel, &image)
            .context("cannot make the guest's initramfs")?;
        let disks = self.disks(kernel.arch)?;

        let console = kernel.arch.cache(&format!("console/{name}.log"));
        workspace::write(&console, "")?;
        Ok(PreparedGuest {
            machine: qemu::ReadyMachine::new(machine, kernel, &image, &disks, &console)?,
            console,
            _image: scratch,
        })
    }

    fn pack(&self, kernel: &Kernel, image: &std::path::Path) -> Result<()> {
        let mut initramfs = Initramfs::create(image)?;
        // Not busybox's shell: it prefers busybox's `ip` to the one on PATH.
        let arch = kernel.arch;
        let shell = apt::lone_package(arch, "bash-static")?.join("usr/bin/bash-static");
        let busybox = apt::lone_package(arch, "busybox-static")?.join("usr/bin/busybox");
        initramfs.add(&shell, "bin/bash".as_ref())?;
        initramfs.symlink("bin/sh".as_ref(), "bash")?;
        initramfs.add(&busybox, "bin/busybox".as_ref())?;
        initramfs.symlink("sbin/modprobe".as_ref(), "/bin/busybox")?;
        for package in &self.packages {
            initramfs.add_package(&apt::tree_for(arch, package)?)?;
        }
        for (package, path) in &self.programs {
            for (source, destination) in apt::program(arch, package, path)? {
                initramfs.add(&source, &destination)?;
            }
        }
        for (source, destination) in &self.files {
            initramfs.add(source, destination)?;
        }
        let modules = self.modules();
        for file in kernel.module_files(&modules)? {
            initramfs.add(&kernel.home.join(&file), &file)?;
        }
        let loadable = kernel.loadable(&modules)?;
        initramfs.text("etc/modules", 0o644, &loadable.join("\n"))?;
        initramfs.text("etc/command", 0o755, &self.script())?;
        initramfs.text("etc/run", 0o755, include_str!("run.sh"))?;
        initramfs.text("init", 0o755, include_str!("init.sh"))?;
        if self.systemd {
            system::add_files(&mut initramfs)?;
        }
        initramfs.finish()
    }

    /// The guest's disks.
    fn disks(&self, arch: Arch) -> Result<Vec<Disk>> {
        let package = |name: &&'static str| Disk::of(arch, name, &apt::tree_for(arch, name)?);
        let mut disks = self.disks.iter().map(package).collect::<Result<Vec<_>>>()?;
        if self.systemd {
            disks.push(system::disk(arch)?);
        }
        Ok(disks)
    }

    /// Modules to load: those asked for, after those that disks need.
    fn modules(&self) -> Vec<String> {
        let of_disks: &[&str] = if self.systemd || !self.disks.is_empty() {
            &disk::MODULES
        } else {
            &[]
        };
        let of_system: &[&str] = if self.systemd { &system::MODULES } else { &[] };
        let own = of_disks.iter().chain(of_system).map(|it| (*it).to_owned());
        own.chain(self.modules.iter().cloned()).collect()
    }

    /// A shell script that runs the command.
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

impl PreparedGuest {
    /// Boots the guest and waits until it ends; its output goes to `out` and `err`.
    pub fn boot(
        self,
        out: &mut (impl Write + Send),
        err: &mut (impl Write + Send),
    ) -> Result<Verdict> {
        let report = self.machine.run(out, err)?;
        Ok(verdict::judge(report, &self.console))
    }
}

/// Quotes a word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Splits `SRC[:DST]` into a host path and a guest path.
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

/// A standard stream without its line buffer: the guest's bytes pass immediately.
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
    fn a_word_reaches_the_guest_unchanged() {
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
    fn a_file_goes_to_root_by_default() {
        for (file, source, guest_path) in [
            ("target/x", "target/x", "/root/x"),
            ("x:/tmp/y", "x", "/tmp/y"),
        ] {
            assert_eq!(destination(file), (source.into(), guest_path.into()));
        }
    }
}
