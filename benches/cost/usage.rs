//! The resources that a process has used so far, from /proc.

use anyhow::{Context as _, Result};
use procfs::process::Process;
use rustix::process::Pid;

/// The usage of a process, all threads together.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time in user mode and in the kernel, ns. Like utime and stime, but without
    /// their 10 ms resolution. Includes softirqs that interrupted the process.
    pub cpu_ns: u64,
    /// Voluntary context switches: each wait ends with a wake-up.
    pub waits: u64,
    /// Involuntary context switches.
    pub preemptions: u64,
    /// The peak resident memory (VmHWM), bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Reads the usage from /proc.
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

    /// The usage since `earlier`. The peak is since the process started.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            waits: self.waits.saturating_sub(earlier.waits),
            preemptions: self.preemptions.saturating_sub(earlier.preemptions),
            peak_bytes: self.peak_bytes,
        }
    }
}

/// Whether a process has a thread with this name.
pub fn has_thread(pid: Pid, name: &str) -> Result<bool> {
    for task in Process::new(pid.as_raw_nonzero().get())?.tasks()? {
        // The thread may end meanwhile.
        if task?.stat().is_ok_and(|it| it.comm == name) {
            return Ok(true);
        }
    }
    Ok(false)
}
