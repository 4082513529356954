//! Socket options that `socket2` lacks.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

/// Makes a later close send nothing to the peer: no FIN, no RST. Needs CAP_NET_ADMIN.
pub fn set_repair(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)
}

/// The start of `struct tcp_info`, which is the same on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// `tcpi_state`: the kernel's number of the TCP state.
    pub state: u8,
    /// `tcpi_probes`: `icsk_probes_out`, the number of unanswered probes.
    pub probes_out: u8,
    /// `tcpi_rto`: the time in us that the kernel waits before it sends data again.
    pub rto_us: u32,
}

/// Reads the TCP_INFO of a socket. Takes only the socket's spinlock, so a keepalive timer
/// never finds the socket owned by this call.
pub fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    let mut head = [0_u8; 12];
    let mut len = head.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `head`, and `len` is its size.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            head.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let [
        state,
        _ca_state,
        _retransmits,
        probes_out,
        _,
        _,
        _,
        _,
        rto @ ..,
    ] = head;
    Ok(TcpInfo {
        state,
        probes_out,
        rto_us: u32::from_ne_bytes(rto),
    })
}

/// Sets an integer option.
pub fn set(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from `value`, which lives
    // through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
