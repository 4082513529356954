//! Both ends of one connection on loopback.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, TcpKeepalive, Type};

use crate::traffic::sockopt;

/// The address family of a connection, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 through a socket made for IPv6: `::ffff:127.0.0.1`.
    V4Mapped,
}

impl Path {
    /// All address families.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::V4Mapped];

    /// The loopback address of this family.
    #[must_use]
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
            Self::V4Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        }
    }

    /// Makes a TCP socket of this family.
    pub fn socket(self) -> io::Result<Socket> {
        let domain = match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::V4Mapped => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if self == Self::V4Mapped {
            socket.set_only_v6(false)?;
        }
        Ok(socket)
    }
}

/// The end of a connection that has the keepalive timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that connected.
    Client,
    /// The accepted end. It inherits its settings from the listener.
    Server,
}

/// The settings of a keepalive timer. `None` means the sysctl's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// TCP_KEEPIDLE, s.
    pub time: Option<u32>,
    /// TCP_KEEPINTVL, s.
    pub intvl: Option<u32>,
    /// TCP_KEEPCNT.
    pub probes: Option<u32>,
    /// TCP_USER_TIMEOUT, ms.
    pub user_timeout: Option<u32>,
}

impl Keepalive {
    /// All settings from the sysctls.
    pub const SYSCTL: Self = Self {
        time: None,
        intvl: None,
        probes: None,
        user_timeout: None,
    };

    /// Settings without a user timeout. `time` and `intvl` are in seconds.
    #[must_use]
    pub const fn new(time: u32, intvl: u32, probes: u32) -> Self {
        Self {
            time: Some(time),
            intvl: Some(intvl),
            probes: Some(probes),
            user_timeout: None,
        }
    }

    /// Sets TCP_USER_TIMEOUT, ms.
    #[must_use]
    pub const fn user_timeout(mut self, ms: u32) -> Self {
        self.user_timeout = Some(ms);
        self
    }

    /// Applies the settings to a socket and turns keepalive on.
    pub fn apply(self, socket: &Socket) -> io::Result<()> {
        let seconds = |s| Duration::from_secs(u64::from(s));
        let mut options = TcpKeepalive::new();
        if let Some(time) = self.time {
            options = options.with_time(seconds(time));
        }
        if let Some(intvl) = self.intvl {
            options = options.with_interval(seconds(intvl));
        }
        if let Some(probes) = self.probes {
            options = options.with_retries(probes);
        }
        socket.set_tcp_keepalive(&options)?;
        self.apply_user_timeout(socket)
    }

    fn apply_user_timeout(self, socket: &Socket) -> io::Result<()> {
        match self.user_timeout {
            Some(ms) => socket.set_tcp_user_timeout(Some(Duration::from_millis(u64::from(ms)))),
            None => Ok(()),
        }
    }
}

/// A connection before its handshake. Both addresses are known, so filters can name them.
#[derive(Debug)]
pub struct Planned {
    client: Socket,
    listener: Socket,
    /// The client's address.
    pub client_addr: SocketAddr,
    /// The server's address.
    pub server_addr: SocketAddr,
}

impl Planned {
    /// Binds both ends to free ports.
    pub fn bind(path: Path) -> io::Result<Self> {
        let (client, listener) = (path.socket()?, path.socket()?);
        let any_port = SockAddr::from(SocketAddr::new(path.loopback(), 0));
        client.bind(&any_port)?;
        listener.bind(&any_port)?;
        listener.listen(1)?;
        Ok(Self {
            client_addr: addr(&client.local_addr()?)?,
            server_addr: addr(&listener.local_addr()?)?,
            client,
            listener,
        })
    }

    /// Connects. From now on the timer of `side` runs.
    pub fn connect(self, side: Side, keepalive: Keepalive) -> io::Result<Pair> {
        join(self.client, &self.listener, side, keepalive)
    }

    /// Starts to connect to a listener that drops all segments: the client stays in
    /// SYN_SENT. Turns keepalive on only in this state: the timer then runs without a
    /// connection to keep alive.
    pub fn connect_unheard(self, keepalive: Keepalive) -> io::Result<Pair> {
        deafen(&self.listener)?;
        keepalive.apply(&self.client)?;
        self.client.set_keepalive(false)?;
        self.client.set_nonblocking(true)?;
        match self.client.connect(&self.server_addr.into()) {
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
            Ok(()) => return Err(io::Error::other("a deaf listener answered")),
        }
        self.client.set_keepalive(true)?;
        Ok(Pair {
            near: Some(self.client),
            far: Some(self.listener),
            local: self.client_addr,
            remote: self.server_addr,
        })
    }
}

/// Connects a client to a listener. No other client may connect to it meanwhile.
pub fn join(
    client: Socket,
    listener: &Socket,
    side: Side,
    keepalive: Keepalive,
) -> io::Result<Pair> {
    // TCP_USER_TIMEOUT limits the handshake too (`tcp_write_timeout`, net/ipv4/tcp_timer.c), and
    // a busy guest may need longer.
    let untimed = Keepalive {
        user_timeout: None,
        ..keepalive
    };
    match side {
        Side::Client => untimed.apply(&client)?,
        Side::Server => keepalive.apply(listener)?,
    }
    client.connect(&listener.local_addr()?)?;
    if matches!(side, Side::Client) {
        keepalive.apply_user_timeout(&client)?;
    }
    let (accepted, _) = listener.accept()?;
    let (near, far) = match side {
        Side::Client => (client, accepted),
        Side::Server => (accepted, client),
    };
    far.set_nonblocking(true)?;
    Ok(Pair {
        local: addr(&near.local_addr()?)?,
        remote: addr(&near.peer_addr()?)?,
        near: Some(near),
        far: Some(far),
    })
}

/// Both ends of a connection. The near end has the keepalive timer; scripts act on the
/// far end. Dropping this resets the ends that are still open.
#[derive(Debug)]
pub struct Pair {
    near: Option<Socket>,
    far: Option<Socket>,
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
}

impl Pair {
    /// The near end.
    pub fn near(&self) -> io::Result<&Socket> {
        self.near.as_ref().ok_or_else(gone)
    }

    /// The far end.
    pub fn far(&self) -> io::Result<&Socket> {
        self.far.as_ref().ok_or_else(gone)
    }

    /// Makes the far end drop all incoming segments, so it answers nothing.
    pub fn silence(&self) -> io::Result<()> {
        deafen(self.far()?)
    }

    /// Makes the far end receive segments again.
    pub fn hear(&self) -> io::Result<()> {
        self.far()?.detach_filter()
    }

    /// Closes the far end without a FIN or RST. A reset answers the next segment, because
    /// there is no socket for it. Needs CAP_NET_ADMIN.
    pub fn vanish(&mut self) -> io::Result<()> {
        sockopt::set_repair(self.far()?)?;
        self.far = None;
        Ok(())
    }

    /// Closes the far end as an application would.
    pub fn far_closes(&mut self) {
        self.far = None;
    }

    /// Sends a byte from the far end.
    pub fn far_sends(&self) -> io::Result<()> {
        self.far()?.write_all(b"!")
    }

    /// Sends a byte from the near end.
    pub fn send(&self) -> io::Result<()> {
        self.near()?.write_all(b"?")
    }

    /// Closes the near end as an application would.
    pub fn close(&mut self) {
        self.near = None;
    }

    /// Turns the near end's keepalive off: its timer no longer fires.
    pub fn disarm(&self) -> io::Result<()> {
        self.near
            .as_ref()
            .map_or(Ok(()), |near| near.set_keepalive(false))
    }

    /// Resets the ends that are still open. Leaves nothing behind, not even a TIME_WAIT.
    pub fn abort(&mut self) -> io::Result<()> {
        for end in [&mut self.near, &mut self.far] {
            if let Some(socket) = end.take() {
                socket.set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // An end that can't be reset is still closed.
        let _ = self.abort();
    }
}

/// Whether this process may call [`Pair::vanish`].
#[must_use]
pub fn can_vanish() -> bool {
    let tried = Path::V4.socket().and_then(|s| sockopt::set_repair(&s));
    tried.is_ok()
}

/// Whether this process may call [`Pair::silence`]. Linux lets every process attach a socket
/// filter; there are hosts that require CAP_NET_ADMIN (seen on a 6.18 of a cloud).
#[must_use]
pub fn can_silence() -> bool {
    Path::V4.socket().and_then(|s| deafen(&s)).is_ok()
}

/// Attaches a classic socket filter that drops every segment.
pub fn deafen(socket: &Socket) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    socket.attach_filter(&[SockFilter::new(RETURN_CONSTANT, 0, 0, 0)])
}

fn addr(addr: &SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this end is closed already")
}
