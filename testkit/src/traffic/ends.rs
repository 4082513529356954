//! Actions of a connection's ends that only tests need.

use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::Result;
use kaprobe::traffic::pair::{Keepalive, Pair};
use kaprobe::traffic::sockopt;

/// Sets how long an orphan stays in FIN_WAIT2, in seconds, instead of the sysctl
/// `net.ipv4.tcp_fin_timeout`. The keepalive timer counts what exceeds 60 s.
pub fn set_linger2(socket: &impl AsFd, seconds: c_int) -> io::Result<()> {
    sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_LINGER2, seconds)
}

/// The bytes that are unsent or unacknowledged (SIOCOUTQ).
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<c_int> {
    count_of_bytes(socket, libc::TIOCOUTQ as _)
}

/// Whether data waits to be sent, and none is in flight: the peer's window is shut.
pub fn is_window_shut(socket: &impl AsFd) -> io::Result<bool> {
    /// `SIOCOUTQNSD`, uapi/linux/sockios.h: the bytes that are not sent yet.
    const SIOCOUTQNSD: u32 = 0x894B;
    let waiting = unacknowledged(socket)?;
    Ok(waiting > 0 && waiting == count_of_bytes(socket, SIOCOUTQNSD)?)
}

/// Reads a number of bytes of a socket.
fn count_of_bytes(socket: &impl AsFd, request: u32) -> io::Result<c_int> {
    let mut bytes: c_int = 0;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `c_int`, which lives through the call.
    let done = unsafe { libc::ioctl(descriptor, request as _, &raw mut bytes) };
    if done == 0 {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an integer option of TCP.
pub fn tcp_option(socket: &impl AsFd, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and `len` is its size.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if done == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the near end's keepalive, and rearms its timer if it is pending.
pub fn set_near_keepalive(pair: &Pair, keepalive: Keepalive) -> io::Result<()> {
    keepalive.apply(pair.near()?)
}

/// Sets the far end's keepalive.
pub fn set_far_keepalive(pair: &Pair, keepalive: Keepalive) -> io::Result<()> {
    keepalive.apply(pair.far()?)
}

/// The far end reads everything that has arrived.
pub fn far_reads(pair: &Pair) -> io::Result<()> {
    let mut far = pair.far()?;
    repeat_until_blocked(|| far.read(&mut [0; 4096]))
}

/// The near end sends until the buffers of both ends are full.
pub fn fill(pair: &Pair) -> io::Result<()> {
    let mut near = pair.near()?;
    near.set_nonblocking(true)?;
    repeat_until_blocked(|| near.write(&[b'?'; 4096]))?;
    near.set_nonblocking(false)
}

/// Repeats an operation until it returns 0 bytes or would block.
fn repeat_until_blocked(mut operation: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match operation() {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Connects to a listener. Returns the client's end and the accepted end. Nothing else
/// may connect to the listener meanwhile.
pub fn connect_to(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}
