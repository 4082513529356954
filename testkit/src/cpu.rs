//! A CPU of one's own.
//!
//! A kernel may be built to run no BPF program while certain tasks are current, so
//! that those cannot be spied upon: a softirq that happens to interrupt one of them is
//! hidden from every tracer, and nothing counts it. Seen on a hosted 6.18: of 3,140
//! firings `TCPKeepAlive` and ftrace knew all, and BPF programs of any kind all but
//! the few dozen that interrupted one daemon of the host's. A test that needs a
//! certain firing told, or compares with the kernel's counters, must keep its timers away
//! from such tasks.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// While this lives, the thread that made it runs on one CPU, where nothing but
/// itself and an idle loop gets to run. Timers armed there fire there.
///
/// In turns (SCHED_RR), not first come, first served: a process that waits for a child
/// spins in the kernel while another one lets go of the child's entries in /proc
/// (`select_collect2`, fs/dcache.c), and would keep that from this CPU for ever.
#[derive(Debug)]
pub struct OwnCpu {
    over: Arc<AtomicBool>,
    idle: Option<JoinHandle<()>>,
}

impl OwnCpu {
    /// Takes the last CPU. What this thread starts from now on runs there too. Does
    /// nothing in a virtual machine of the matrix: nothing else runs in there.
    pub fn take() -> Result<Option<Self>> {
        if env::var_os("KAPROBE_IN_VM").is_some() {
            return Ok(None);
        }
        let cpu = thread::available_parallelism()?.get() - 1;
        ensure!(cpu > 0, "needs a second CPU");
        pin(cpu).context("pin to a CPU")?;
        set_policy(libc::SCHED_RR, 1).context("become a real-time task")?;
        let over = Arc::new(AtomicBool::new(false));
        let idle = thread::Builder::new().name("idle".into()).spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        // Above the loop, which has taken its priority from this thread.
        set_policy(libc::SCHED_RR, 2).context("become a real-time task")?;
        Ok(Some(Self {
            over,
            idle: Some(idle?),
        }))
    }
}

impl Drop for OwnCpu {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Nothing is left to do about a loop that panicked, or a thread that stays
        // what it was made.
        let _ = set_policy(libc::SCHED_OTHER, 0);
        if let Some(idle) = self.idle.take() {
            let _ = idle.join();
        }
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
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
