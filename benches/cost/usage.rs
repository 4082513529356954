//! What a process has used so far, by the kernel's account.

use anyhow::{Context as _, Result};
use procfs::process::Process;
use rustix::process::Pid;

/// All threads together.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// On a CPU, in user mode and in the kernel, ns: what utime and stime are made of,
    /// without their grain of 10 ms. Softirqs that interrupted it are in it too.
    pub cpu_ns: u64,
    /// How often it waited: each wait ends with a wake-up.
    pub waits: u64,
    /// How often it was made to give way.
    pub preemptions: u64,
    /// The most memory that was ever resident (VmHWM), bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Reads it from /proc.
    pub fn of(pid: Pid) -> Result<Self> {
        let process = Process::new(pid.as_raw_nonzero().get())?;
        let mut usage = Self {
            peak_bytes: process.status()?.vmhwm.context("no VmHWM")? * 1024,
            ..Self::default()
        };
        for task in process.tasks()? {
            let task = task?;
            let status = task.status()?;
            usage.cpu_ns += task.schedstat()?.sum_exec_runtime;
            usage.waits += status.voluntary_ctxt_switches.context("no switches")?;
            usage.preemptions += status.nonvoluntary_ctxt_switches.context("no switches")?;
        }
        Ok(usage)
    }

    /// What was used since `earlier`; the peak is that of all time.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            waits: self.waits.saturating_sub(earlier.waits),
            preemptions: self.preemptions.saturating_sub(earlier.preemptions),
            peak_bytes: self.peak_bytes,
        }
    }
}

/// Whether a process has a thread of that name.
pub fn has_thread(pid: Pid, name: &str) -> Result<bool> {
    for task in Process::new(pid.as_raw_nonzero().get())?.tasks()? {
        // It may end meanwhile.
        if task?.stat().is_ok_and(|it| it.comm == name) {
            return Ok(true);
        }
    }
    Ok(false)
}
