//! Runs a command until it exits, with its output discarded.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use procfs::process::Process;
use wait4::Wait4 as _;

/// The interval at which the memory is read.
const TICK: Duration = Duration::from_millis(1);

/// The resources that a command used.
pub struct RunUsage {
    /// CPU time, in user mode and in the kernel.
    pub cpu: Duration,
    /// The wall-clock time.
    pub elapsed: Duration,
    /// The peak resident memory (VmHWM), bytes. Not from wait4, which includes the
    /// parent's memory at the fork.
    pub peak_bytes: u64,
}

/// Runs a command, and returns the resources that it used.
pub fn until_exit(mut command: Command) -> Result<RunUsage> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let process = Process::new(i32::try_from(child.id())?)?;
    let mut peak_kib = 0;
    let used = loop {
        // VmHWM never shrinks. It is not readable after the exit.
        if let Some(kib) = process.status().ok().and_then(|it| it.vmhwm) {
            peak_kib = kib;
        }
        if let Some(used) = child.try_wait4()? {
            break used;
        }
        thread::sleep(TICK);
    };
    ensure!(used.status.success(), "{command:?}: {}", used.status);
    Ok(RunUsage {
        cpu: used.rusage.utime + used.rusage.stime,
        elapsed: started.elapsed(),
        peak_bytes: peak_kib * 1024,
    })
}
