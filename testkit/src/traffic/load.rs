//! Many idle connections whose keepalive timers fire.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::SockAddr;

use kaprobe::traffic::pair::{Keepalive, Pair, Path, Side, join};

/// One connection of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadMember {
    /// The keepalive settings.
    pub keepalive: Keepalive,
    /// Whether the peer answers probes.
    pub answered: bool,
}

/// Idle connections. Reset when dropped.
#[derive(Debug)]
pub struct Load {
    pairs: Vec<Pair>,
}

impl Load {
    /// Opens a connection for each member. One address is both local and remote. An
    /// address has about 28,000 free ports; every 127.x.y.z has its own.
    ///
    /// A peer answers until all connections are open, also one that is not to answer. When
    /// keepalive gives up, the kernel frees the local port (`tcp_set_state`, net/ipv4/tcp.c). A
    /// new connection may get it, and its SYN meets the old silent peer, which drops it.
    pub fn open(
        path: Path,
        address: IpAddr,
        members: impl IntoIterator<Item = LoadMember>,
    ) -> io::Result<Self> {
        let any_port = SockAddr::from(SocketAddr::new(address, 0));
        let listener = path.socket()?;
        listener.bind(&any_port)?;
        listener.listen(1)?;
        let open = |member: &LoadMember| {
            let client = path.socket()?;
            client.bind(&any_port)?;
            join(client, &listener, Side::Client, member.keepalive)
        };
        let members: Vec<_> = members.into_iter().collect();
        let pairs = members.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        for (pair, member) in pairs.iter().zip(&members) {
            if !member.answered {
                pair.silence()?;
            }
        }
        Ok(Self { pairs })
    }

    /// Opens connections of IPv4 on loopback that each send a probe a second, which is answered
    /// or not. Raises the limit of open files if need be.
    pub fn each_second(count: u32, answered: bool) -> io::Result<Self> {
        allow_open_files(count.into())?;
        let member = LoadMember {
            keepalive: Keepalive::new(1, 1, 3),
            answered,
        };
        let members = (0..count).map(|_| member);
        Self::open(Path::V4, Path::V4.loopback(), members)
    }

    /// The connections.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The connections, to change.
    pub fn pairs_mut(&mut self) -> &mut [Pair] {
        &mut self.pairs
    }

    /// Resets all connections. Afterwards none of their timers sends a probe.
    ///
    /// All timers are stopped before the first reset. Kprobes skip a timer that fires
    /// while this task is inside the kprobe of a reset (`kprobe_ftrace_handler`,
    /// arch/x86/kernel/kprobes/ftrace.c), and before 6.7 nothing counts that.
    pub fn end(self) -> io::Result<()> {
        Self::end_all(vec![self])
    }

    /// Like [`Self::end`], for several loads: the timers of all are stopped before the first
    /// reset of any.
    pub fn end_all(mut loads: Vec<Self>) -> io::Result<()> {
        let mut pairs = loads.iter().flat_map(|it| &it.pairs);
        pairs.try_for_each(Pair::disarm)?;
        let mut pairs = loads.iter_mut().flat_map(|it| &mut it.pairs);
        pairs.try_for_each(Pair::abort)
    }
}

/// Raises the limit of open files for a number of connections, two descriptors each.
pub fn allow_open_files(connections: u64) -> io::Result<()> {
    let wanted = connections.saturating_mul(2).saturating_add(1024);
    let mut limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let enough = |limit: Option<u64>| limit.is_none_or(|it| it >= wanted);
    if enough(limit.current) {
        return Ok(());
    }
    limit.current = Some(wanted);
    if !enough(limit.maximum) {
        limit.maximum = Some(wanted);
    }
    Ok(setrlimit(Resource::Nofile, limit)?)
}
