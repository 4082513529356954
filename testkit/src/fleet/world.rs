//! The hosts and services of a fleet, and what happens between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;

use crate::fleet::truth::{Story, Truth};

/// When the logs begin, as kaprobe's questions take it.
pub const START: &str = "2026-11-01 00:00:00";

/// The same, ns since 1970.
pub(super) const START_NS: u64 = 1_793_491_200 * SECOND;

/// When the logs end, ns after they begin.
pub(super) const END_NS: u64 = 12 * 3_600 * SECOND;

/// ns of a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// Hosts for each service.
const HOSTS_PER_SERVICE: u32 = 5;

/// The ports of services.
const PORTS: [u16; 5] = [5432, 5672, 6379, 9092, 443];

/// The idle timeouts of boxes between, s.
const TIMEOUTS_S: [u64; 3] = [350, 600, 900];

/// The idle timeout of balancers, s.
pub(super) const BALANCER_S: u64 = 900;

/// A service that hosts connect to.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) path: Path,
}

/// What may happen to connections to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Nothing.
    Plain,
    /// A box forgets those that were idle for so long, s, and answers what follows with a reset.
    Timeout(u64),
    /// The same, but the box drops what follows.
    Drop(u64),
    /// The server restarts at this time, ns after the logs begin.
    Restart(u64),
    /// A balancer forgets idle ones, and sends what follows to another server.
    Balancer {
        /// The number of the host that serves, and of the other one.
        servers: [u32; 2],
    },
}

/// A connection that a balancer forgets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forgotten {
    pub(super) service: usize,
    /// The number of the host that connected.
    pub(super) client: u32,
    pub(super) port: u16,
    pub(super) servers: [u32; 2],
    /// When both ends were last heard, ns after the logs begin.
    pub(super) quiet_ns: u64,
    /// When the client sends again, ns after the logs begin.
    pub(super) sent_ns: u64,
}

/// The size of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The number of hosts, at least 10.
    pub hosts: u32,
    /// Connections of each host, but for those that a balancer forgets.
    pub connections: u32,
    /// Everything else is made from it.
    pub seed: u64,
}

/// A fleet.
#[derive(Debug)]
pub(super) struct World {
    pub(super) size: Size,
    pub(super) services: Vec<Service>,
    pub(super) forgotten: Vec<Forgotten>,
}

impl World {
    /// Makes a fleet.
    pub(super) fn new(size: Size) -> Self {
        let mut rng = Rng::with_seed(size.seed);
        let count = (size.hosts / HOSTS_PER_SERVICE).max(4);
        let services: Vec<_> = (0..count)
            .map(|number| service(number, size.hosts, &mut rng))
            .collect();
        let mut forgotten = Vec::new();
        for (number, service) in services.iter().enumerate() {
            if let Path::Balancer { servers } = service.path {
                // Some balancers have forgotten nothing yet.
                for port in 0..rng.u16(0..3) {
                    forgotten.push(forget(number, servers, port, size.hosts, &mut rng));
                }
            }
        }
        Self {
            size,
            services,
            forgotten,
        }
    }

    /// What happens that no single host knows.
    pub(super) fn truth(&self) -> Truth {
        let mut truth = Truth::default();
        for service in &self.services {
            let endpoint = service.address.to_string();
            match service.path {
                Path::Plain => {}
                Path::Timeout(seconds) | Path::Drop(seconds) => {
                    truth.timeouts_ms.insert(endpoint, seconds * 1_000);
                }
                Path::Restart(_) => {
                    truth.restarted.insert(endpoint);
                }
                Path::Balancer { .. } => {
                    truth.timeouts_ms.insert(endpoint, BALANCER_S * 1_000);
                }
            }
        }
        let stories = self.forgotten.iter().map(|it| Story {
            client: host_name(it.client),
            endpoint: self.services[it.service].address.to_string(),
            strayed_to: host_name(it.servers[1]),
            held_by: host_name(it.servers[0]),
        });
        truth.stories = stories.collect();
        truth
    }
}

fn service(number: u32, hosts: u32, rng: &mut Rng) -> Service {
    let [.., high, low] = number.to_be_bytes();
    // Each has a network of its own: kaprobe learns of networks too.
    let address = if number % 10 == 9 {
        let network = u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfd00, 1, 0, network, 0, 0, 0, 1).into()
    } else {
        IpAddr::from([10, 200 + high, low, 1])
    };
    let timeout_s = TIMEOUTS_S[rng.usize(..TIMEOUTS_S.len())];
    let path = match number % 4 {
        0 if number.is_multiple_of(8) => Path::Timeout(timeout_s),
        0 => Path::Drop(timeout_s),
        1 => Path::Balancer {
            servers: [2 * number % hosts, (2 * number + 1) % hosts],
        },
        2 => Path::Restart(rng.u64(4..8) * 3_600 * SECOND),
        _ => Path::Plain,
    };
    let port = PORTS[number as usize % PORTS.len()];
    Service {
        address: SocketAddr::new(address, port),
        path,
    }
}

fn forget(service: usize, servers: [u32; 2], port: u16, hosts: u32, rng: &mut Rng) -> Forgotten {
    let client = loop {
        let client = rng.u32(..hosts);
        if !servers.contains(&client) {
            break client;
        }
    };
    // Early enough that the server gives up before the logs end.
    let quiet_ns = rng.u64(600..5 * 3_600) * SECOND + rng.u64(..SECOND);
    let gap_s = BALANCER_S + rng.u64(5..200);
    Forgotten {
        service,
        client,
        port: 61_000 + port,
        servers,
        quiet_ns,
        sent_ns: quiet_ns + gap_s * SECOND,
    }
}

/// The name of a host.
pub(super) fn host_name(number: u32) -> String {
    format!("node-{number:04}")
}

/// The address of a host towards a peer.
pub(super) fn host_address(number: u32, towards: IpAddr) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    match towards {
        IpAddr::V4(_) => Ipv4Addr::new(10, 50 + high, low, 10).into(),
        IpAddr::V6(_) => {
            let network = u16::from_be_bytes([high, low]);
            Ipv6Addr::new(0xfd00, 2, 0, network, 0, 0, 0, 10).into()
        }
    }
}
