//! Enters a new network namespace, and reads its counters.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kaprobe::traffic::loopback;
use rustix::mount::mount_bind;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::mounts;

/// Moves this thread into a new network namespace and brings its loopback up. Threads and
/// processes started later are in it too.
pub fn enter_new() -> Result<()> {
    // SAFETY: no file descriptor is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare a network namespace")?;
    loopback::raise().context("bring lo up")
}

/// Like [`enter_new`], and gives the namespace a name, as `ip netns` does. Only this thread,
/// and threads and processes started later, see that name.
pub fn enter_named(name: &str) -> Result<()> {
    mounts::enter_new()?;
    enter_new()?;
    mounts::cover(Path::new("/run"))?;
    let file = Path::new("/run/netns").join(name);
    fs::create_dir("/run/netns")?;
    fs::write(&file, "")?;
    mount_bind("/proc/thread-self/ns/net", &file).context("bind the namespace to its name")
}

/// The inode number of this thread's network namespace.
pub fn inode() -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Sets a `net.ipv4` sysctl of this thread's network namespace.
pub fn set_ipv4_sysctl(name: &str, value: u32) -> Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value.to_string())
        .with_context(|| format!("write net.ipv4.{name}"))
}

/// TCP counters of this thread's network namespace since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// TcpExt `TCPKeepAlive`: probe attempts.
    pub keepalive: u64,
    /// TcpExt `TCPAbortOnTimeout`: connections that keepalive or retransmission gave up.
    pub abort_on_timeout: u64,
    /// Tcp `EstabResets`: changes from ESTABLISHED or CLOSE_WAIT to CLOSE.
    pub estab_resets: u64,
    /// Tcp `OutRsts`: resets sent.
    pub out_rsts: u64,
    /// TcpExt `TCPTimeouts`: retransmission timers that fired.
    pub timeouts: u64,
    /// TcpExt `OutOfWindowIcmps`: ICMP errors that no socket took, as they quoted a segment
    /// from outside its window.
    pub out_of_window_icmps: u64,
}

impl KernelCounters {
    /// Reads the counters.
    pub fn read() -> Result<Self> {
        let netstat = table("/proc/thread-self/net/netstat")?;
        let snmp = table("/proc/thread-self/net/snmp")?;
        let get = |table: &HashMap<String, u64>, name: &str| {
            table
                .get(name)
                .copied()
                .with_context(|| format!("no counter {name}"))
        };
        Ok(Self {
            keepalive: get(&netstat, "TcpExt.TCPKeepAlive")?,
            abort_on_timeout: get(&netstat, "TcpExt.TCPAbortOnTimeout")?,
            estab_resets: get(&snmp, "Tcp.EstabResets")?,
            out_rsts: get(&snmp, "Tcp.OutRsts")?,
            timeouts: get(&netstat, "TcpExt.TCPTimeouts")?,
            out_of_window_icmps: get(&netstat, "TcpExt.OutOfWindowIcmps")?,
        })
    }
}

/// Reads a file of line pairs: names, then values. Both lines start with the group.
fn table(path: &str) -> Result<HashMap<String, u64>> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = HashMap::new();
    for pair in lines.chunks(2) {
        let &[names, values] = pair else {
            bail!("{path}: names without values");
        };
        let (group, names) = names.split_once(':').context("no group")?;
        let (_, values) = values.split_once(':').context("no group")?;
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // A negative value, such as MaxConn -1, is not a counter.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    Ok(counters)
}
