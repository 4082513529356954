//! Many connections that only sit there, with timers that fire.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::SockAddr;

use kaprobe::traffic::pair::{Keepalive, Pair, Path, Side, join};

/// One connection of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The timer's settings.
    pub keepalive: Keepalive,
    /// Whether the peer answers probes.
    pub answered: bool,
}

/// Connections that sit there until this is dropped; then all are reset.
#[derive(Debug)]
pub struct Load {
    pairs: Vec<Pair>,
}

impl Load {
    /// Opens a connection for each member, all from and to one address. An address
    /// has about 28,000 ports to give; every 127.x.y.z has its own.
    pub fn open(
        path: Path,
        address: IpAddr,
        members: impl IntoIterator<Item = Member>,
    ) -> io::Result<Self> {
        let any_port = SockAddr::from(SocketAddr::new(address, 0));
        let listener = path.socket()?;
        listener.bind(&any_port)?;
        listener.listen(1)?;
        let open = |member: Member| {
            let client = path.socket()?;
            client.bind(&any_port)?;
            let pair = join(client, &listener, Side::Client, member.keepalive)?;
            if !member.answered {
                pair.silence()?;
            }
            Ok(pair)
        };
        let pairs = members.into_iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { pairs })
    }

    /// The connections.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Resets all of them; once this returns no timer of theirs will send a probe.
    ///
    /// Every timer is stopped before the first reset. One that fires while this task is
    /// inside the kprobe of a reset is skipped by kprobes (`kprobe_ftrace_handler`,
    /// arch/x86/kernel/kprobes/ftrace.c), and before 6.7 that is counted nowhere.
    pub fn end(mut self) -> io::Result<()> {
        self.pairs.iter().try_for_each(Pair::disarm)?;
        self.pairs.iter_mut().try_for_each(Pair::abort)
    }
}

/// Lets this process hold so many connections, two descriptors each.
pub fn allow_open_files(connections: u64) -> io::Result<()> {
    let wanted = connections.saturating_mul(2).saturating_add(1024);
    let mut limit = getrlimit(Resource::Nofile);
    // Nothing stands for no limit.
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
