//! Counts what kaprobe's programs could not see because a thread of process 1 ran.
//!
//! Some kernels run no BPF program while a thread of process 1 is current, not even in a
//! softirq that interrupts it (seen on Linux 6.18.44-fc). Nothing counts what is skipped
//! there. A perf event that counts a tracepoint in these threads does: of 34,000 firings, the
//! 2,972 that a trace lacked were the 2,972 that it counted.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::LazyLock;
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow, bail};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use perf_event_open_sys::ioctls;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The tracepoints that kaprobe attaches to.
const TRACEPOINTS: [&str; 7] = [
    TIMER,
    "sock/inet_sock_set_state",
    "tcp/tcp_destroy_sock",
    "tcp/tcp_probe",
    "tcp/tcp_receive_reset",
    "tcp/tcp_retransmit_skb",
    "tcp/tcp_send_reset",
];

/// It fires for each timer of the kernel. Those of keepalive are counted.
const TIMER: &str = "timer/timer_expire_entry";

/// Passes the timers of keepalive only. The kernel's list of symbols is long: it is read once.
static OF_KEEPALIVE: LazyLock<Result<CString, String>> = LazyLock::new(|| {
    let address = keepalive_timer().map_err(|why| why.to_string())?;
    CString::new(format!("function == {address:#x}")).map_err(|why| why.to_string())
});

/// Counts the tracepoints that fire while a thread of process 1 is current.
pub struct SkippedPrograms(Vec<Counter>);

impl SkippedPrograms {
    /// Starts to count. Threads that process 1 starts later are not counted.
    pub fn count() -> Result<Self> {
        let tracefs = tracefs()?;
        let of_keepalive = OF_KEEPALIVE.as_ref().map_err(|why| anyhow!("{why}"))?;
        let mut counters = Vec::new();
        for tracepoint in TRACEPOINTS {
            // Older kernels lack some.
            let Ok(id) = read(&tracefs, &format!("events/{tracepoint}/id")) else {
                continue;
            };
            let id = id.trim().parse()?;
            let filter = (tracepoint == TIMER).then_some(of_keepalive);
            for thread in fs::read_dir("/proc/1/task")? {
                let thread = thread?.file_name();
                let thread = thread.to_str().context("not a thread")?.parse()?;
                // A thread may end meanwhile.
                if let Ok(counter) = counter(id, thread, filter) {
                    counters.push(counter);
                }
            }
        }
        if counters.is_empty() {
            bail!("no tracepoint can be counted in process 1");
        }
        Ok(Self(counters))
    }

    /// How many there were so far.
    pub fn total(&mut self) -> Result<u64> {
        let counts = self.0.iter_mut().map(Counter::read);
        let counts: Vec<_> = counts.collect::<Result<_, _>>()?;
        Ok(counts.into_iter().sum())
    }
}

/// Counts a tracepoint in a thread, if the filter matches.
fn counter(id: u64, thread: i32, filter: Option<&CString>) -> Result<Counter> {
    let mut builder = Builder::new(Tracepoint::with_id(id));
    let mut counter = builder.observe_pid(thread).include_kernel().build()?;
    if let Some(filter) = filter {
        // SAFETY: the kernel copies the filter, and changes nothing of it.
        let result = unsafe { ioctls::SET_FILTER(counter.as_raw_fd(), filter.as_ptr().cast_mut()) };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("filter by timer");
        }
    }
    counter.enable()?;
    Ok(counter)
}

/// The address of `tcp_keepalive_timer` in the kernel.
fn keepalive_timer() -> Result<u64> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let line = symbols
        .lines()
        .find(|line| line.ends_with(" tcp_keepalive_timer"));
    let address = line.and_then(|line| line.split(' ').next());
    let address = address.context("the kernel has no tcp_keepalive_timer")?;
    Ok(u64::from_str_radix(address, 16)?)
}

/// The root of tracefs, mounted nowhere.
fn tracefs() -> Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).context("open tracefs")?;
    fsconfig_create(context.as_fd()).context("create tracefs")?;
    let flags = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    fsmount(context.as_fd(), flags.0, flags.1).context("mount tracefs")
}

fn read(directory: &OwnedFd, path: &str) -> Result<String> {
    let file = openat(
        directory,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(io::read_to_string(fs::File::from(file))?)
}
