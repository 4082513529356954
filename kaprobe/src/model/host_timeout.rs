//! The idle timeouts that this host applies to connections that pass through it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::text::escape::Escaped;

/// The idle timeouts that the host itself applies, and the ways of packets to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTimeouts {
    /// The timeouts.
    pub timeouts: Vec<HostTimeout>,
    /// The routes of the network namespaces whose routes are known.
    pub routes: Vec<NetnsRoutes>,
}

/// An idle timeout that the host itself applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTimeout {
    /// What applies the timeout: `ipvs` or `conntrack`.
    pub what: Escaped,
    /// Network namespace of the timeout, inode number.
    pub netns: u32,
    /// Name of that namespace, as `ip netns` lists it, or the host name of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_name: Option<Escaped>,
    /// The timeout in seconds without a packet.
    pub seconds: u64,
    /// The timeout of a connection that one end has closed, s: conntrack's
    /// `nf_conntrack_tcp_timeout_close_wait`, or `tcpfin` of IPVS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_closed_s: Option<u64>,
    /// The addresses and ports that IPVS serves. Port 0 stands for every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<SocketAddr>,
    /// The servers to which IPVS translates: their connections have their own addresses,
    /// not those of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<SocketAddr>,
    /// IPVS has services that `services` does not list: by firewall mark, or too many.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more_services: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_false(it: &bool) -> bool {
    !*it
}

impl HostTimeout {
    /// The timeout by its component and namespace: `conntrack in netns router`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} in netns {}", self.what, self.netns_label())
    }

    /// The name of the namespace; without one, its inode number.
    #[must_use]
    pub fn netns_label(&self) -> String {
        let name = self.netns_name.as_ref().map(Escaped::to_string);
        name.unwrap_or_else(|| self.netns.to_string())
    }
}

/// Which network namespaces with a timeout the packets of a namespace pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRoutes {
    /// Network namespace of the sender, inode number.
    pub netns: u32,
    /// The ways by destination. What matches none passes no timeout of another namespace.
    pub routes: Vec<HostRoute>,
}

/// The way of the packets to a destination, in this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// The destination. The longest prefix applies.
    pub to: IpNet,
    /// The network namespaces with a timeout that the packets pass, in this order. The
    /// destination may be in the last one.
    pub through: Vec<u32>,
}

impl NetnsRoutes {
    /// The route with the longest prefix that contains an address.
    #[must_use]
    pub fn towards(&self, address: IpAddr) -> Option<&HostRoute> {
        let routes = self.routes.iter().filter(|it| it.to.contains(&address));
        routes.max_by_key(|it| it.to.prefix_len())
    }
}

/// The timeouts of a network namespace, and the ways of its packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsTimeouts {
    /// Network namespace, inode number.
    pub netns: u32,
    /// Its timeouts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeouts: Vec<HostTimeout>,
    /// The ways of its packets to the timeouts of others; `None` if they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<HostRoute>>,
}
