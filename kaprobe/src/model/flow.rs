//! The address and port pair that identifies a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::socket::Endpoints;

/// Local and remote address and port. Every tracked socket has a flow, and most are IPv4,
/// so the IPv4 variant is small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// Local and remote IPv4 addresses.
    V4(Ipv4Addr, Ipv4Addr, u16, u16),
    /// Local and remote IPv6 addresses; IPv4 ones are IPv4-mapped.
    V6(Box<(Ipv6Addr, Ipv6Addr, u16, u16)>),
}

impl Flow {
    /// Makes a flow from the local and the remote address and port.
    #[must_use]
    #[inline]
    pub fn new((laddr, lport): (IpAddr, u16), (raddr, rport): (IpAddr, u16)) -> Self {
        let v6 = |it| match it {
            IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
            IpAddr::V6(v6) => v6,
        };
        match (laddr, raddr) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Self::V4(local, remote, lport, rport),
            _ => Self::V6(Box::new((v6(laddr), v6(raddr), lport, rport))),
        }
    }

    /// Makes a flow in which an IPv4-mapped address equals its IPv4 address.
    #[must_use]
    #[inline]
    pub fn canonical(local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        let canonical = |(address, port): (IpAddr, u16)| (address.to_canonical(), port);
        Self::new(canonical(local), canonical(remote))
    }

    /// The flow as the other end sees it.
    #[must_use]
    pub fn reversed(&self) -> Self {
        match *self {
            Self::V4(local, remote, lport, rport) => Self::V4(remote, local, rport, lport),
            Self::V6(ref flow) => Self::V6(Box::new((flow.1, flow.0, flow.3, flow.2))),
        }
    }

    /// The local address and port.
    #[must_use]
    #[inline]
    pub fn local(&self) -> (IpAddr, u16) {
        match *self {
            Self::V4(local, _, port, _) => (local.into(), port),
            Self::V6(ref flow) => (flow.0.into(), flow.2),
        }
    }

    /// The remote address and port.
    #[must_use]
    #[inline]
    pub fn remote(&self) -> (IpAddr, u16) {
        match *self {
            Self::V4(_, remote, _, port) => (remote.into(), port),
            Self::V6(ref flow) => (flow.1.into(), flow.3),
        }
    }
}

impl Endpoints {
    /// The flow of these ends, in which an IPv4-mapped address equals its IPv4 address.
    #[must_use]
    #[inline]
    pub fn flow(&self) -> Flow {
        Flow::canonical(self.local(), self.remote())
    }
}

impl From<&Endpoints> for Flow {
    /// Keeps an IPv4-mapped address as it is.
    fn from(endpoints: &Endpoints) -> Self {
        Self::new(endpoints.local(), endpoints.remote())
    }
}

/// A key that identifies a connection: a flow and its network namespace. An IPv4-mapped
/// address equals its IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    flow: Flow,
    netns: u32,
}

impl FlowKey {
    /// The remote address and port.
    #[must_use]
    #[inline]
    pub fn remote(&self) -> (IpAddr, u16) {
        self.flow.remote()
    }
}

impl From<&Endpoints> for FlowKey {
    #[inline]
    fn from(it: &Endpoints) -> Self {
        Self {
            flow: it.flow(),
            netns: it.netns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_and_mapped_ones_are_equal_in_the_key() {
        let address = |text: &str| (text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 7);
        let (v4, mapped, v6) = (
            address("10.0.0.1"),
            address("::ffff:10.0.0.1"),
            address("fd00::1"),
        );
        for (local, remote) in [(v4, v4), (mapped, mapped), (v6, mapped), (v6, v6)] {
            let flow = Flow::new(local, remote);
            assert_eq!((flow.local(), flow.remote()), (local, remote));
            assert_eq!(flow.reversed(), Flow::new(remote, local));
            assert_eq!(flow.reversed().reversed(), flow);
        }
        let key = |local, remote, netns| FlowKey::from(&Endpoints::new(local, remote, netns));
        assert_eq!(key(v4, v4, 1), key(mapped, mapped, 1));
        assert_ne!(key(v4, v4, 1), key(v4, v4, 2));
        assert_ne!(key(v4, v6, 1), key(v6, v4, 1));
        assert_eq!(size_of::<Flow>(), 16);
    }
}
