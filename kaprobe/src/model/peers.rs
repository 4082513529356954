//! The service end of connections: what connections of the same kind have in common.

use std::fmt::{self, Display};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::socket::Endpoints;
use crate::text::cell::put_endpoint;

/// The remote end of connections, seen from this host. The port of a client differs from
/// connection to connection, so it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peers {
    /// Clients of this local port.
    Clients(u16),
    /// A server at this remote address and port.
    Server(IpAddr, u16),
}

impl Peers {
    /// The remote end of a connection. An IPv4-mapped address is the IPv4 address.
    #[must_use]
    pub const fn of(endpoints: &Endpoints, accepted: bool) -> Self {
        if accepted {
            Self::Clients(endpoints.lport)
        } else {
            Self::Server(endpoints.raddr.to_canonical(), endpoints.rport)
        }
    }
}

impl Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        match *self {
            Self::Clients(port) => text = format!("clients of :{port}"),
            Self::Server(address, port) => put_endpoint(&mut text, (address, port)),
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_the_port_that_listens_or_the_server() {
        let end = |text: &str, port| (text.parse().unwrap_or(IpAddr::from([0; 4])), port);
        for (remote, accepted, text) in [
            (end("10.0.0.5", 40_000), true, "clients of :5672"),
            (end("10.0.0.5", 443), false, "10.0.0.5:443"),
            (end("::ffff:10.0.0.5", 443), false, "10.0.0.5:443"),
            (end("fd00::5", 443), false, "[fd00::5]:443"),
        ] {
            let endpoints = Endpoints::new(end("10.0.0.1", 5672), remote, 1);
            assert_eq!(Peers::of(&endpoints, accepted).to_string(), text);
        }
    }
}
