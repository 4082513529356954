//! A network namespace in which kaprobe resets connections of its own, to test that its
//! programs see it. The counters of no other namespace change.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kaprobe_ebpf::config::SELF_TEST_USER_TIMEOUT;
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use crate::traffic::{loopback, sockopt};

/// TCP_LINGER2, s. An orphan that may stay longer in FIN_WAIT2 than a TIME_WAIT lasts stays a
/// socket until then (`tcp_close`, net/ipv4/tcp.c), and so knows that it is kaprobe's.
const LINGER2: libc::c_int = 100;

/// A network namespace where loopback is up. It ends when this is dropped.
pub struct Testbed {
    netns: OwnedFd,
}

impl Testbed {
    /// Makes the namespace.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when a thread or the namespace can't be made.
    pub fn new() -> Result<Self> {
        let made = on_thread(|| {
            // SAFETY: the thread ends with this function, and files are shared as before.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            loopback::raise()?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(open("/proc/thread-self/ns/net", flags, Mode::empty())?)
        });
        let netns = made.context("no network namespace can be made for a test")?;
        Ok(Self { netns })
    }

    /// Ends one connection of IPv4 and of IPv6 by a reset of its own, and one by data that
    /// comes in after its close. Returns whether the namespace has IPv4 and IPv6.
    ///
    /// # Errors
    /// When there is no memory, descriptor or port for it.
    pub fn reset_connections(&self) -> Result<[bool; 2]> {
        on_thread(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.netns.as_fd(), network)?;
            Ok([reset_connections(Path::V4)?, reset_connections(Path::V6)?])
        })
    }
}

/// Returns false if the namespace does not have this family.
fn reset_connections(path: Path) -> io::Result<bool> {
    let mut late = match marked(path) {
        Err(why) if is_missing(&why) => return Ok(false),
        pair => pair?,
    };
    sockopt::set(late.near()?, libc::IPPROTO_TCP, libc::TCP_LINGER2, LINGER2)?;
    late.close();
    late.far_sends()?;
    let aborted = marked(path)?;
    aborted.near()?.set_linger(Some(Duration::ZERO))?;
    Ok(true)
}

/// Whether this kernel, or the namespace, does not have an address family.
fn is_missing(why: &io::Error) -> bool {
    matches!(
        why.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Opens a connection whose sockets every kaprobe knows as those of a test.
fn marked(path: Path) -> io::Result<Pair> {
    let pair = Planned::bind(path)?.connect(Side::Client, Keepalive::SYSCTL)?;
    mark(pair.near()?)?;
    mark(pair.far()?)?;
    Ok(pair)
}

/// Makes a socket one that every kaprobe knows as that of a test.
///
/// # Errors
/// If the kernel refuses the option.
pub fn mark(socket: &impl AsFd) -> io::Result<()> {
    let own = libc::c_int::try_from(SELF_TEST_USER_TIMEOUT).unwrap_or(libc::c_int::MAX);
    sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, own)
}

/// Runs an action on a thread of its own, which may enter another namespace.
fn on_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let outcome = thread::scope(|scope| {
        let thread = thread::Builder::new().name("self-test".into());
        let running = thread.spawn_scoped(scope, act)?;
        running
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    });
    outcome.map_err(|why| anyhow!(why))
}
