//! Two facts that the kernel tells in no file: HZ, and which function its keepalive
//! timers call.
//!
//! A TCP socket is made and closed; the program on `tcp_destroy_sock` recognises it
//! by its cookie and copies the facts from it. That needs neither the kernel's
//! config nor kallsyms, which hardened hosts hide.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe_ebpf::config::Learned;
use rustix::net::{AddressFamily, SocketType, socket, sockopt};

/// What was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Timer ticks a second.
    pub hz: u32,
    /// The address of `tcp_keepalive_timer`, as timers hold it.
    pub timer_function: u64,
}

/// Makes a socket, tells `watch` its cookie, and closes it again.
///
/// # Errors
/// When no TCP socket can be made, or `watch` fails.
pub fn end_a_socket(watch: impl FnOnce(u64) -> Result<()>) -> Result<()> {
    let made = socket(AddressFamily::INET, SocketType::STREAM, None)
        .or_else(|_| socket(AddressFamily::INET6, SocketType::STREAM, None))
        .context("cannot make a TCP socket to learn the kernel's HZ from")?;
    let cookie = sockopt::socket_cookie(&made).context("cannot read a socket's cookie")?;
    watch(cookie)?;
    // Closing runs tcp_destroy_sock before it returns: a socket that was never
    // connected is destroyed at once (__tcp_close, net/ipv4/tcp.c).
    drop(made);
    Ok(())
}

/// Makes facts of what the program saw.
///
/// # Errors
/// When it saw nothing, or the sysctls give no HZ.
pub fn facts(seen: Learned) -> Result<Facts> {
    ensure!(
        seen.timer_function != 0,
        "the end of a socket made for the purpose was not seen: tracepoint tcp_destroy_sock is silent"
    );
    let hz = hz_of(seen.keepalive_time, "tcp_keepalive_time")?
        .or(hz_of(seen.keepalive_intvl, "tcp_keepalive_intvl")?)
        .context("cannot tell HZ: net.ipv4.tcp_keepalive_time and _intvl are both 0")?;
    Ok(Facts {
        hz,
        timer_function: seen.timer_function,
    })
}

/// The kernel keeps these sysctls in jiffies and shows them in seconds
/// (`proc_dointvec_jiffies`), so their ratio is HZ, exactly.
fn hz_of(jiffies: u32, sysctl: &str) -> Result<Option<u32>> {
    let path = format!("/proc/sys/net/ipv4/{sysctl}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let seconds: u32 = text
        .trim()
        .parse()
        .with_context(|| format!("{path} is no number: {text:?}"))?;
    Ok(jiffies.checked_div(seconds).filter(|&hz| hz > 0))
}
