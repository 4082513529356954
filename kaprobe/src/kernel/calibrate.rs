//! Calibration: HZ, and the function that keepalive timers call. No file of the kernel
//! tells either.
//!
//! kaprobe makes a TCP socket and closes it; the program on `tcp_destroy_sock` recognises
//! the socket by its cookie and copies both from it. That needs neither the kernel's
//! config nor kallsyms, which hardened hosts hide.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe_ebpf::config::{Learned, State};
use rustix::net::{AddressFamily, SocketType, socket, sockopt};

use crate::kernel::object::{self, LoadedObject};

/// The facts that calibration finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibration {
    /// Timer ticks a second.
    pub hz: u32,
    /// Address of `tcp_keepalive_timer`, as in `timer.function`.
    pub timer_function: u64,
}

impl LoadedObject {
    /// Makes and closes a socket, and reads what the programs saw of it. The hook
    /// `tcp_destroy_sock` must be attached.
    ///
    /// # Errors
    /// When a socket can't be made, its end was not seen, or the sysctls do not give HZ.
    pub fn calibrate(&mut self) -> Result<Calibration> {
        end_a_socket(|cookie| {
            let state = State {
                learn_cookie: cookie,
                ..State::EMPTY
            };
            object::set_state(&mut self.ebpf, state)
        })?;
        let found = calibration(object::calibration(&mut self.ebpf)?)?;
        self.timer_function = found.timer_function;
        Ok(found)
    }
}

/// Makes a socket, passes its cookie to `watch`, and closes it.
fn end_a_socket(watch: impl FnOnce(u64) -> Result<()>) -> Result<()> {
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

fn calibration(seen: Learned) -> Result<Calibration> {
    ensure!(
        seen.timer_function != 0,
        "the end of a socket made for the purpose was not seen: tracepoint tcp_destroy_sock is silent"
    );
    let hz = hz_of(seen.keepalive_time, "tcp_keepalive_time")?
        .or(hz_of(seen.keepalive_intvl, "tcp_keepalive_intvl")?)
        .context("cannot tell HZ: net.ipv4.tcp_keepalive_time and _intvl are both 0")?;
    Ok(Calibration {
        hz,
        timer_function: seen.timer_function,
    })
}

/// HZ by one sysctl. The kernel keeps it in jiffies and shows it in seconds
/// (`proc_dointvec_jiffies`), so the ratio is HZ, exactly.
fn hz_of(jiffies: u32, sysctl: &str) -> Result<Option<u32>> {
    let path = format!("/proc/sys/net/ipv4/{sysctl}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let seconds: u32 = text
        .trim()
        .parse()
        .with_context(|| format!("{path} is not a number: {text:?}"))?;
    Ok(jiffies.checked_div(seconds).filter(|&hz| hz > 0))
}
