//! The loopback device of a network namespace, which is down at first.

use std::io;
use std::os::fd::AsRawFd as _;

use crate::traffic::pair::Path;

/// Sets the loopback device of this thread's namespace up.
///
/// # Errors
/// Without CAP_NET_ADMIN in the namespace, or if it has neither IPv4 nor IPv6.
pub fn raise() -> io::Result<()> {
    let socket = Path::V4.socket().or_else(|_| Path::V6.socket())?;
    // SAFETY: `ifreq` is integers and unions of them: all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = socket.as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`.
    match unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
