//! Runs a virtual machine in QEMU.

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::FdFlags;

use crate::apt;
use crate::arch::Arch;
use crate::process::CommandExt;
use crate::vm::disk::Disk;
use crate::vm::kernel::Kernel;
use crate::vm::verdict::Report;

/// The oldest usable major version of QEMU: older ones crash a guest in one boot of four.
const OLDEST: u32 = 8;

/// The machine to emulate.
#[derive(clap::Args)]
pub struct Machine {
    /// Memory of the guest
    #[arg(long, default_value = "1G", value_name = "SIZE")]
    memory: String,
    /// Processors of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    smp: u32,
    /// Seconds after which the guest is stopped
    #[arg(long, default_value = "1800", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// How QEMU runs the guest
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    accel: Accel,
    /// Further parameters of the kernel, such as lockdown=confidentiality
    #[arg(long, default_value = "", value_name = "PARAMETERS")]
    append: String,
}

/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Accel {
    /// Emulated, on a clock that counts instructions: the load of this host does not
    /// affect the guest's timers
    Tcg,
    /// Emulated, with its processors at the same time, on this host's clock: they meet as
    /// on a real machine, but timers are late where this host is busy
    TcgParallel,
    /// On this host's processor and clock; faster, but not every host can
    Kvm,
}

impl Accel {
    /// QEMU's arguments for this accelerator.
    ///
    /// `shift=3`: an emulated instruction takes 8 ns of guest time. `sleep=off`: the
    /// clock jumps ahead while the guest is idle.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcg => &[
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=3,sleep=off",
            ],
            Self::TcgParallel => &["-accel", "tcg,thread=multi"],
            Self::Kvm => &["-accel", "kvm"],
        }
    }
}

impl Machine {
    /// A QEMU command for this machine, without default devices.
    fn command(&self, arch: Arch) -> Result<Command> {
        if self.accel == Accel::Kvm && arch != Arch::HOST {
            bail!(
                "this host's processor cannot run a guest of {}",
                arch.name()
            );
        }
        let mut qemu = program(arch)?;
        qemu.args(board(arch));
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        qemu.args(["-display", "none"]);
        qemu.args(self.accel.arguments());
        qemu.args(["-m", &self.memory, "-smp", &self.smp.to_string()]);
        Ok(qemu)
    }
}

/// QEMU's arguments for the machine of an architecture.
///
/// Arm has no machine by default. The processor has what newer ones have, pages of 16 KiB
/// among that. It signs pointers by a method of QEMU's own: the real one is slow to emulate.
const fn board(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[],
        Arch::Aarch64 => &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
    }
}

/// The guest's console, and the ports that its init writes to: the command's stdout and stderr,
/// and the report.
const fn ports(arch: Arch) -> [&'static str; 4] {
    match arch {
        Arch::X86_64 => ["ttyS0", "ttyS1", "ttyS2", "ttyS3"],
        Arch::Aarch64 => ["ttyAMA0", "ttyS0", "ttyS1", "ttyS2"],
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// Held from the creation of a QEMU's pipes until that QEMU runs and our ends are closed.
///
/// Another QEMU that starts in between would inherit the pipes and keep them open.
static STARTING: Mutex<()> = Mutex::new(());

/// A machine that is ready to boot.
pub struct ReadyMachine {
    qemu: Command,
    arch: Arch,
    timeout: Duration,
}

impl ReadyMachine {
    /// A machine that boots `kernel` and appends its console output to a file.
    pub fn new(
        machine: &Machine,
        kernel: &Kernel,
        initramfs: &Path,
        disks: &[Disk],
        console: &Path,
    ) -> Result<Self> {
        let log = OpenOptions::new()
            .append(true)
            .open(console)
            .with_context(|| format!("cannot open {}", console.display()))?;
        let mut qemu = machine.command(kernel.arch)?;
        qemu.arg("-kernel").arg(kernel.image());
        qemu.arg("-initrd").arg(initramfs);
        for disk in disks {
            add_disk(&mut qemu, disk);
        }
        // The kernel gives init the parameters that it does not know as environment variables.
        let [tty, out, err, report] = ports(kernel.arch);
        let parameters = format!(
            "console={tty} quiet panic=-1 PORT_OUT={out} PORT_ERR={err} PORT_REPORT={report} {}",
            machine.append
        );
        qemu.args(["-append", parameters.trim_end()]);
        qemu.stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        add_port(&mut qemu, kernel.arch, &console.display().to_string());
        Ok(Self {
            qemu,
            arch: kernel.arch,
            timeout: machine.timeout,
        })
    }

    /// Boots the machine and waits until it ends.
    ///
    /// The second of its [`ports`] goes to `out`, the third to `err` and the last to the
    /// report.
    pub fn run(
        mut self,
        out: &mut (impl Write + Send),
        err: &mut (impl Write + Send),
    ) -> Result<Report> {
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let (out_reader, out_writer) = pipe(&mut self.qemu, self.arch)?;
        let (err_reader, err_writer) = pipe(&mut self.qemu, self.arch)?;
        let (verdict_reader, verdict_writer) = pipe(&mut self.qemu, self.arch)?;

        let mut child = self.qemu.spawn().context("cannot run QEMU")?;
        // QEMU is now the only writer: each pipe ends when QEMU ends.
        drop((out_writer, err_writer, verdict_writer, starting));

        thread::scope(|scope| {
            let (reports, report) = mpsc::channel();
            let (from_out, from_err) = (reports.clone(), reports.clone());
            scope.spawn(move || pass_on(out_reader, out, &from_out));
            scope.spawn(move || pass_on(err_reader, err, &from_err));
            scope.spawn(move || {
                let mut said = String::new();
                // Output that is not UTF-8 is not a verdict either.
                let _ = { verdict_reader }.read_to_string(&mut said);
                reports.send(Report::Said(said))
            });
            let report = report
                .recv_timeout(self.timeout)
                .unwrap_or(Report::TimedOut(self.timeout));
            if !matches!(report, Report::Said(_)) {
                child.kill().context("cannot stop QEMU")?;
            }
            child.wait().context("cannot wait for QEMU")?;
            Ok(report)
        })
    }
}

/// A pipe whose write end is the guest's next serial port.
fn pipe(qemu: &mut Command, arch: Arch) -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    rustix::io::fcntl_setfd(&writer, FdFlags::empty()).context("cannot hand a pipe to QEMU")?;
    add_port(qemu, arch, &format!("/proc/self/fd/{}", writer.as_raw_fd()));
    Ok((reader, writer))
}

fn add_port(qemu: &mut Command, arch: Arch, path: &str) {
    let number = qemu.get_args().filter(|arg| *arg == "-chardev").count();
    let path = path.replace(',', ",,"); // A single comma would end the value.
    qemu.args([
        "-chardev",
        &format!("file,id=port{number},append=on,path={path}"),
    ]);
    // The machine of Arm has one port of its own.
    if arch == Arch::Aarch64 && number > 0 {
        qemu.args(["-device", &format!("pci-serial,chardev=port{number}")]);
    } else {
        qemu.args(["-serial", &format!("chardev:port{number}")]);
    }
}

/// Adds a disk that the guest reads only, and finds by its serial number.
fn add_disk(qemu: &mut Command, disk: &Disk) {
    let name = disk.name;
    let path = disk.image.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id={name},format=raw,readonly=on,file={path}");
    let device = format!("virtio-blk-pci,drive={name},serial={name}");
    qemu.args(["-drive", &drive, "-device", &device]);
}

fn pass_on(mut from: PipeReader, to: &mut impl Write, reports: &Sender<Report>) {
    if io::copy(&mut from, to).is_err() {
        // If the machine has ended, there is no receiver.
        let _ = reports.send(Report::OutputClosed);
    }
}

/// The QEMU on PATH if it is new enough, else Debian's, unpacked.
fn program(arch: Arch) -> Result<Command> {
    let name = format!("qemu-system-{}", arch.name());
    let package = match arch {
        Arch::X86_64 => "qemu-system-x86",
        Arch::Aarch64 => "qemu-system-arm",
    };
    let installed = Command::new(&name)
        .arg("--version")
        .stderr(Stdio::null())
        .read();
    if installed.is_ok_and(|text| major(&text) >= Some(OLDEST)) {
        return Ok(Command::new(&name));
    }
    let tree = apt::tree(package).with_context(|| {
        format!("no {name} of version {OLDEST} or newer on PATH, and Debian's cannot be unpacked")
    })?;
    let mut qemu = apt::loader(&tree);
    qemu.arg(tree.join("usr/bin").join(name));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        qemu.arg("-L").arg(tree.join(firmware));
    }
    Ok(qemu)
}

/// The major version in `QEMU emulator version 10.0.2 (…)`.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright",
                Some(10),
            ),
            ("QEMU emulator version 7.2.17", Some(7)),
            ("nothing", None),
        ] {
            assert_eq!(major(text), version);
        }
    }
}
