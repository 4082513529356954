//! Decides which timeouts of this host are on the path of a connection. Pure.
//!
//! A timeout applies only to the connections whose packets pass its network namespace.
//! What is not known to pass is a hint at most.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::host_timeout::{HostTimeout, NetnsRoutes};
use crate::model::socket::Endpoints;

/// Whether a timeout of this host applies to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPath {
    /// It does, and this is how that is known.
    Yes(PathEvidence),
    /// It may.
    Unknown,
    /// It does not.
    No,
}

/// How a timeout is known to be on the path of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEvidence {
    /// Conntrack of the connection's own network namespace.
    OwnNetns,
    /// One end of the connection is this service of IPVS.
    Service(SocketAddr),
    /// The local end is this server of IPVS, which translates addresses.
    Server(SocketAddr),
    /// Conntrack of another namespace, through which this route leads.
    Route(IpNet),
}

impl Display for PathEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnNetns => f.write_str("the connection's own"),
            Self::Service(address) => write!(f, "which has the service {address}"),
            Self::Server(address) => write!(f, "which has the server {address}"),
            Self::Route(to) if to.prefix_len() == 0 => f.write_str("on the default route"),
            Self::Route(to) if to.prefix_len() == to.max_prefix_len() => {
                write!(f, "on the route to {}", to.addr())
            }
            Self::Route(to) => write!(f, "on the route to {to}"),
        }
    }
}

/// Whether a timeout of this host applies to a connection, given the routes of the host.
#[must_use]
pub fn on_path(it: &HostTimeout, routes: &[NetnsRoutes], connection: &Endpoints) -> OnPath {
    match it.what.as_str() {
        "ipvs" => ipvs(it, connection),
        "conntrack" => conntrack(it, routes, connection),
        _ => OnPath::Unknown,
    }
}

/// Conntrack of a namespace sees every connection of that namespace, and those that it
/// forwards.
fn conntrack(it: &HostTimeout, routes: &[NetnsRoutes], connection: &Endpoints) -> OnPath {
    if it.netns == connection.netns {
        return OnPath::Yes(PathEvidence::OwnNetns);
    }
    let remote = connection.raddr.to_canonical();
    if remote.is_loopback() {
        return OnPath::No;
    }
    let Some(routes) = routes.iter().find(|it| it.netns == connection.netns) else {
        return OnPath::Unknown;
    };
    match routes.towards(remote) {
        Some(route) if route.through.contains(&it.netns) => {
            OnPath::Yes(PathEvidence::Route(route.to))
        }
        _ => OnPath::No,
    }
}

/// IPVS forwards only connections to its services, in its own namespace too.
///
/// A client connects to the service. With direct routing or a tunnel, the server's end has
/// the address of the service; with masquerading it has the server's own.
fn ipvs(it: &HostTimeout, connection: &Endpoints) -> OnPath {
    let find = |all: &[SocketAddr], end| all.iter().find(|it| serves(it, end)).copied();
    let (local, remote) = (connection.local(), connection.remote());
    let service = find(&it.services, remote).or_else(|| find(&it.services, local));
    match (service, find(&it.servers, local)) {
        (Some(service), _) => OnPath::Yes(PathEvidence::Service(service)),
        (None, Some(server)) => OnPath::Yes(PathEvidence::Server(server)),
        // A log of an older version lists no services.
        _ if it.more_services || it.services.is_empty() => OnPath::Unknown,
        _ => OnPath::No,
    }
}

/// Whether an address and port of IPVS matches an end of a connection.
fn serves(it: &SocketAddr, (address, port): (IpAddr, u16)) -> bool {
    it.ip() == address.to_canonical() && (it.port() == port || it.port() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host_timeout::HostRoute;
    use crate::text::escape::Escaped;

    fn end(text: &str) -> SocketAddr {
        text.parse().expect("an address and a port")
    }

    #[test]
    fn ipvs_applies_to_its_services_and_conntrack_to_its_namespace() {
        let conntrack = HostTimeout {
            what: Escaped::from("conntrack"),
            netns: 7,
            seconds: 8,
            ..HostTimeout::default()
        };
        let ipvs = HostTimeout {
            what: Escaped::from("ipvs"),
            services: vec![end("10.9.0.100:5672"), end("[fd00::1]:0")],
            servers: vec![end("10.9.0.11:5672")],
            ..conntrack.clone()
        };
        let marks = HostTimeout {
            more_services: true,
            ..ipvs.clone()
        };
        let old = HostTimeout {
            services: vec![],
            servers: vec![],
            ..ipvs.clone()
        };
        let future = HostTimeout {
            what: Escaped::from("tc"),
            ..conntrack.clone()
        };
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let route = |to, through: &[u32]| HostRoute {
            to: prefix(to),
            through: through.to_vec(),
        };
        let routes = [
            NetnsRoutes {
                netns: 10,
                routes: vec![
                    route("0.0.0.0/0", &[7]),
                    route("10.0.0.0/24", &[]),
                    route("10.0.0.2/32", &[6, 7]),
                ],
            },
            NetnsRoutes {
                netns: 11,
                routes: vec![],
            },
        ];
        let by = |to| OnPath::Yes(PathEvidence::Route(prefix(to)));
        let service = |text| OnPath::Yes(PathEvidence::Service(end(text)));
        let server = |text| OnPath::Yes(PathEvidence::Server(end(text)));
        let (client, balanced) = ("10.9.0.1:40000", "10.9.0.100:5672");
        #[rustfmt::skip]
        let rows = [
            ("its own namespace", &conntrack, 7, client, "10.0.0.2:80", OnPath::Yes(PathEvidence::OwnNetns)),
            ("another namespace, its routes unknown", &conntrack, 8, client, "10.0.0.2:80", OnPath::Unknown),
            ("the default route leads there", &conntrack, 10, client, "8.8.8.8:80", by("0.0.0.0/0")),
            ("the longest prefix applies", &conntrack, 10, client, "10.0.0.3:80", OnPath::No),
            ("behind another namespace", &conntrack, 10, client, "[::ffff:10.0.0.2]:80", by("10.0.0.2/32")),
            ("within its namespace", &conntrack, 10, "127.0.0.1:40000", "127.0.0.1:80", OnPath::No),
            ("no route leads there", &conntrack, 11, client, "8.8.8.8:80", OnPath::No),
            ("the client of a service", &ipvs, 8, client, balanced, service(balanced)),
            ("the client, IPv4-mapped", &ipvs, 8, "[::ffff:10.9.0.1]:40000", "[::ffff:10.9.0.100]:5672", service(balanced)),
            ("a service on every port", &ipvs, 8, "[fd00::9]:40000", "[fd00::1]:443", service("[fd00::1]:0")),
            ("the server's end, direct routing", &ipvs, 8, balanced, client, service(balanced)),
            ("the server's end, masquerading", &ipvs, 8, "10.9.0.11:5672", client, server("10.9.0.11:5672")),
            ("a client of the server itself", &ipvs, 8, client, "10.9.0.11:5672", OnPath::No),
            ("another port of the service", &ipvs, 8, client, "10.9.0.100:22", OnPath::No),
            ("its own namespace, no service", &ipvs, 7, client, "10.0.0.2:80", OnPath::No),
            ("services by firewall mark", &marks, 8, client, "10.0.0.2:80", OnPath::Unknown),
            ("a listed service beside them", &marks, 8, client, balanced, service(balanced)),
            ("no services known", &old, 7, client, balanced, OnPath::Unknown),
            ("an unknown component", &future, 7, client, balanced, OnPath::Unknown),
        ];
        for (name, timeout, netns, local, remote, expected) in rows {
            let (local, remote) = (end(local), end(remote));
            let connection = Endpoints::new(
                (local.ip(), local.port()),
                (remote.ip(), remote.port()),
                netns,
            );
            let found = on_path(timeout, &routes, &connection);
            assert_eq!(found, expected, "{name}");
        }
    }
}
