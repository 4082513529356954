//! Reserves a CPU for a test.
//!
//! Some kernels run no BPF program while certain protected tasks are current. No tracer
//! sees a softirq that interrupts such a task, and nothing counts it. Seen on a hosted
//! 6.18: `TCPKeepAlive` and ftrace counted all of 3,140 firings; BPF programs of every
//! kind missed the few dozen that interrupted one daemon of the host. A test that needs
//! a certain firing, or compares with the kernel's counters, must keep its timers away
//! from such tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::{env, io};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins the thread to a CPU that runs only this thread and an idle loop, until dropped.
/// Timers armed on a CPU fire there.
///
/// The policy is SCHED_RR, not SCHED_FIFO: a process that waits for a child spins in the
/// kernel while another process releases the child's entries in /proc
/// (`select_collect2`, fs/dcache.c). With SCHED_FIFO the other would never get this CPU.
#[derive(Debug)]
pub struct OwnCpu {
    stop: Arc<AtomicBool>,
    idle: Option<JoinHandle<()>>,
    /// Where this thread ran before, and runs again.
    before: CpuSet,
}

impl OwnCpu {
    /// Reserves the last CPU. Threads and processes started meanwhile run there too. Does
    /// nothing in a virtual machine of the matrix: nothing else runs in there.
    pub fn take() -> Result<Option<Self>> {
        if env::var_os("KAPROBE_IN_VM").is_some() {
            return Ok(None);
        }
        let before = sched_getaffinity(None)?;
        pin(last()?).context("pin to a CPU")?;
        set_policy(libc::SCHED_RR, 1).context("become a real-time task")?;
        let stop = Arc::new(AtomicBool::new(false));
        let idle = thread::Builder::new().name("idle".into()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        // Higher than the loop, which inherited this thread's priority.
        set_policy(libc::SCHED_RR, 2).context("become a real-time task")?;
        Ok(Some(Self {
            stop,
            idle: Some(idle?),
            before,
        }))
    }
}

impl Drop for OwnCpu {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Drop cannot return an error; the next test has a thread of its own.
        let _ = set_policy(libc::SCHED_OTHER, 0);
        let _ = sched_setaffinity(None, &self.before);
        if let Some(idle) = self.idle.take() {
            let _ = idle.join();
        }
    }
}

/// Number of the last CPU that this thread may run on, if it may run on all.
pub fn last() -> Result<usize> {
    let cpu = thread::available_parallelism()?.get() - 1;
    ensure!(cpu > 0, "needs a second CPU");
    Ok(cpu)
}

/// Pins this thread to a CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Pins this thread to a CPU, where it runs before everything that is not real-time.
pub fn pin_real_time(cpu: usize) -> io::Result<()> {
    pin(cpu)?;
    set_policy(libc::SCHED_RR, 1)
}

fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the kernel reads one `sched_param`; 0 is this thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
