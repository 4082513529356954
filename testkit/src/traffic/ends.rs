//! What the ends of a connection do in tests alone.

use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::Result;
use kaprobe::traffic::pair::{Keepalive, Pair};
use kaprobe::traffic::sockopt;

/// How long an orphan stays in FIN_WAIT2, in seconds, instead of the sysctl
/// `net.ipv4.tcp_fin_timeout`. Above 60 the keepalive timer counts the excess.
pub fn set_linger2(socket: &impl AsFd, seconds: c_int) -> io::Result<()> {
    sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_LINGER2, seconds)
}

/// How many bytes wait to be sent or acknowledged (SIOCOUTQ).
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<c_int> {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one `c_int`, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the near end's keepalive timer, anew if it runs.
pub fn near_asks(pair: &Pair, keepalive: Keepalive) -> io::Result<()> {
    keepalive.apply(pair.near()?)
}

/// Gives the far end a keepalive timer too.
pub fn far_asks(pair: &Pair, keepalive: Keepalive) -> io::Result<()> {
    keepalive.apply(pair.far()?)
}

/// The far end reads all that is there.
pub fn far_reads(pair: &Pair) -> io::Result<()> {
    let mut far = pair.far()?;
    while_there_is_room(|| far.read(&mut [0; 4096]))
}

/// The near end sends until neither end has room for more.
pub fn fill(pair: &Pair) -> io::Result<()> {
    let mut near = pair.near()?;
    near.set_nonblocking(true)?;
    while_there_is_room(|| near.write(&[b'?'; 4096]))?;
    near.set_nonblocking(false)
}

/// Repeats this until it moves no bytes any more, or would have to wait.
fn while_there_is_room(mut moves: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match moves() {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Both ends of a new connection to a listener that nobody else connects to meanwhile: the
/// client's, and the accepted one.
pub fn connect_to(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}
