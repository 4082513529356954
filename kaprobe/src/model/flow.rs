//! A connection as a packet names it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::event::SocketEvent;
use crate::model::record::Record;
use crate::model::row::Row;

/// An address and a port.
pub type End = (IpAddr, u16);

/// Both ends, this host's first. They are kept of every socket, and mostly are IPv4: so
/// that is small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pair {
    /// Of IPv4 both.
    V4(Ipv4Addr, Ipv4Addr, u16, u16),
    /// Of IPv6 both, or as IPv6 writes them.
    V6(Box<(Ipv6Addr, Ipv6Addr, u16, u16)>),
}

impl Pair {
    /// These two.
    #[must_use]
    pub fn new((laddr, lport): End, (raddr, rport): End) -> Self {
        let v6 = |it| match it {
            IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
            IpAddr::V6(v6) => v6,
        };
        match (laddr, raddr) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Self::V4(local, remote, lport, rport),
            _ => Self::V6(Box::new((v6(laddr), v6(raddr), lport, rport))),
        }
    }

    /// Those of an event, as its socket has them.
    #[must_use]
    pub fn of(event: &SocketEvent) -> Self {
        Self::new((event.laddr, event.lport), (event.raddr, event.rport))
    }

    /// This host's.
    #[must_use]
    pub fn local(&self) -> End {
        match *self {
            Self::V4(local, _, port, _) => (local.into(), port),
            Self::V6(ref pair) => (pair.0.into(), pair.2),
        }
    }

    /// The other.
    #[must_use]
    pub fn remote(&self) -> End {
        match *self {
            Self::V4(_, remote, _, port) => (remote.into(), port),
            Self::V6(ref pair) => (pair.1.into(), pair.3),
        }
    }
}

/// Both ends, and where. IPv4 over an IPv6 socket is the same as without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pair: Pair,
    netns: u32,
}

impl Ends {
    fn new((laddr, lport): End, (raddr, rport): End, netns: u32) -> Self {
        let (local, remote) = (laddr.to_canonical(), raddr.to_canonical());
        Self {
            pair: Pair::new((local, lport), (remote, rport)),
            netns,
        }
    }

    /// Those of a record, where it is about a connection.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let (local, remote) = (
            (record.laddr?, record.lport?),
            (record.raddr?, record.rport?),
        );
        Some(Self::new(local, remote, record.netns?))
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> End {
        self.pair.remote()
    }
}

impl From<&Row> for Ends {
    fn from(row: &Row) -> Self {
        Self::new((row.laddr, row.lport), (row.raddr, row.rport), row.netns)
    }
}

impl From<&SocketEvent> for Ends {
    fn from(event: &SocketEvent) -> Self {
        let (local, remote) = ((event.laddr, event.lport), (event.raddr, event.rport));
        Self::new(local, remote, event.netns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_given_back_and_mapped_ones_are_the_same() {
        let end = |text: &str| (text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 7);
        let (v4, mapped, v6) = (end("10.0.0.1"), end("::ffff:10.0.0.1"), end("fd00::1"));
        for (local, remote) in [(v4, v4), (mapped, mapped), (v6, mapped), (v6, v6)] {
            let pair = Pair::new(local, remote);
            assert_eq!((pair.local(), pair.remote()), (local, remote));
        }
        assert_eq!(Ends::new(v4, v4, 1), Ends::new(mapped, mapped, 1));
        assert_ne!(Ends::new(v4, v4, 1), Ends::new(v4, v4, 2));
        assert_ne!(Ends::new(v4, v6, 1), Ends::new(v6, v4, 1));
        assert_eq!(size_of::<Pair>(), 16);
    }
}
