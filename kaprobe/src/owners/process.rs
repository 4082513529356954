//! Reads what is known of a process: its name, what it runs, its unit and its container.

use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Result;

use crate::containers::cgroup_path::CgroupPath;
use crate::containers::names::ContainerNames;
use crate::model::socket::Process;
use crate::owners::descriptors;
use crate::programs::cmdline;
use crate::text::escape::Escaped;

/// The longest part of a command line that is read, bytes. A class path may be longer;
/// then the program is not found behind it.
const CMDLINE_LIMIT: usize = 1 << 17;

/// The longest part of /proc/PID/stat that is read, bytes.
const STAT_LIMIT: usize = 1 << 12;

/// The longest part of /proc/PID/cgroup that is read, bytes.
const CGROUP_LIMIT: usize = 1 << 13;

/// Reads a process. What may not be read is absent, except the name.
///
/// # Errors
/// If the process has ended or is hidden.
pub fn read(proc: BorrowedFd<'_>, pid: u32, names: &mut ContainerNames) -> Result<Process> {
    let mut process = Process {
        pid: Some(pid),
        comm: Some(descriptors::comm(proc, pid)?),
        cmdline: what_it_runs(proc, pid).unwrap_or_default(),
        ..Process::UNKNOWN
    };
    if let Ok(cgroup) = contents(proc, pid, "cgroup", CGROUP_LIMIT) {
        names.fill(&mut process, &CgroupPath::read(&cgroup));
    }
    Ok(process)
}

/// How long a process has run, s. `None` if it has ended or is hidden.
#[must_use]
pub fn age_s(proc: BorrowedFd<'_>, pid: u32) -> Option<u32> {
    let stat = contents(proc, pid, "stat", STAT_LIMIT).ok()?;
    let started = started_ticks(&stat)? / rustix::param::clock_ticks_per_second();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    u32::try_from(u64::try_from(now).ok()?.checked_sub(started)?).ok()
}

/// When a process started, ticks since boot: the 22nd field of /proc/PID/stat. The second
/// field is its name in parentheses, which may contain some.
fn started_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What a process runs, if its executable is a runtime.
fn what_it_runs(proc: BorrowedFd<'_>, pid: u32) -> Result<Option<Escaped>> {
    let executable = rustix::fs::readlinkat(proc, format!("{pid}/exe"), Vec::new())?;
    let executable = executable.as_bytes();
    if !cmdline::is_runtime(executable) {
        return Ok(None);
    }
    let arguments = contents(proc, pid, "cmdline", CMDLINE_LIMIT)?;
    Ok(cmdline::describe(executable, &arguments))
}

/// The first bytes of a file of a process, at most `limit`.
fn contents(proc: BorrowedFd<'_>, pid: u32, name: &str, limit: usize) -> Result<Vec<u8>> {
    let path = format!("{pid}/{name}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, path, flags, Mode::empty())?;
    let mut bytes = Vec::new();
    while bytes.len() < limit {
        bytes.reserve(4_096);
        if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))? == 0 {
            break;
        }
    }
    bytes.truncate(limit);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use anyhow::{Context as _, Result};

    use super::*;
    use crate::host::proc::open_proc;

    #[test]
    fn a_process_is_read() -> Result<()> {
        let proc = open_proc()?;
        let names = &mut ContainerNames::none();
        let own = read(proc.as_fd(), std::process::id(), names)?;
        assert_eq!(own.pid, Some(std::process::id()));
        assert_eq!(own.cmdline, None);
        assert!(read(proc.as_fd(), u32::MAX, names).is_err());
        assert_eq!(age_s(proc.as_fd(), u32::MAX), None);
        // Process 1 is as old as the machine, or as the container.
        let ages = [1, std::process::id()].map(|pid| age_s(proc.as_fd(), pid));
        assert!(ages[0] >= ages[1] && ages[1].is_some(), "{ages:?}");
        let stat = b"7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        assert_eq!(started_ticks(stat), Some(4242));
        assert_eq!(started_ticks(b"7 (a"), None);
        let mut perl = Command::new("perl");
        let perl = perl.args(["-e", "$| = 1; print 'x'; <STDIN>"]);
        let Ok(mut perl) = perl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            println!("skipped: no perl here");
            return Ok(());
        };
        // The kernel sets the command line later than `spawn` returns.
        let mut stdout = perl.stdout.take().context("no stdout")?;
        stdout.read_exact(&mut [0])?;
        let found = read(proc.as_fd(), perl.id(), names);
        perl.kill()?;
        perl.wait()?;
        let found = found?.cmdline.map(|it| it.to_string());
        assert!(found.is_some_and(|it| it.starts_with("perl") && it.ends_with(" -e")));
        Ok(())
    }
}
