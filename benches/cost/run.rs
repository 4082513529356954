//! Runs a command to its end, its output into nothing.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use procfs::process::Process;
use wait4::Wait4 as _;

/// How often its memory is looked at.
const TICK: Duration = Duration::from_millis(1);

/// What a command used.
pub struct Used {
    /// CPU time, in user mode and in the kernel.
    pub cpu: Duration,
    /// By the wall clock.
    pub elapsed: Duration,
    /// The most memory that was resident (VmHWM), bytes. Not wait4's: that counts what
    /// its parent had when it forked.
    pub peak_bytes: u64,
}

/// Runs it, and returns what it used.
pub fn to_its_end(mut command: Command) -> Result<Used> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let process = Process::new(i32::try_from(child.id())?)?;
    let mut peak_kib = 0;
    let used = loop {
        // It only ever grows; nothing is left of it once it has ended.
        if let Some(kib) = process.status().ok().and_then(|it| it.vmhwm) {
            peak_kib = kib;
        }
        if let Some(used) = child.try_wait4()? {
            break used;
        }
        thread::sleep(TICK);
    };
    ensure!(used.status.success(), "{command:?}: {}", used.status);
    Ok(Used {
        cpu: used.rusage.utime + used.rusage.stime,
        elapsed: begun.elapsed(),
        peak_bytes: peak_kib * 1024,
    })
}
