//! Hosts with a router between them that tracks connections: a client and a server behind
//! the router, three hosts on a bridge in it, two neighbours on a cable of their own, and a
//! host that is not connected.
//!
//! Each has its own network namespace. They disappear once the thread that built them and
//! all processes it started have ended.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::harness::Skip;
use crate::ipvs::{Host, NETNS_DIR, ip};
use crate::mounts;
use crate::package::Root;
use crate::wait::HANG;

/// The established timeout of conntrack in the reader's network namespace.
const ESTABLISHED: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";

/// Rules that make conntrack see every packet of a network namespace.
const TRACK: &str = "table inet track {
    chain here {
        type filter hook prerouting priority 0
        ct state established accept
    }
}";

/// The hosts.
#[derive(Debug)]
pub struct RoutedNetwork {
    /// The client, behind the router.
    pub client: Host,
    /// Forwards between client and server.
    pub router: Host,
    /// The server, behind the router.
    pub server: Host,
    /// Hosts on a bridge in the router's namespace, as containers are.
    pub bridged: [Host; 3],
    /// A host that has a cable to `right`.
    pub left: Host,
    /// A host that has a cable to `left`.
    pub right: Host,
    /// A host with nothing but loopback.
    pub alone: Host,
    nftables: Root,
}

impl RoutedNetwork {
    /// Builds the network. Moves this thread into its own mount namespace, which holds the
    /// names of the hosts' network namespaces.
    pub fn build() -> Result<Self> {
        let nftables = Root::of("nftables")?;
        mounts::enter_new()?;
        fs::create_dir_all(NETNS_DIR)?;
        mounts::cover(Path::new(NETNS_DIR))?;
        let host = |name, address: [u8; 4]| Host {
            name,
            address: Ipv4Addr::from(address),
        };
        let network = Self {
            client: host("client", [10, 8, 1, 1]),
            router: host("router", [10, 8, 1, 254]),
            server: host("server", [10, 8, 2, 1]),
            bridged: [
                host("bridged1", [10, 8, 4, 1]),
                host("bridged2", [10, 8, 4, 2]),
                host("bridged3", [10, 8, 4, 3]),
            ],
            left: host("left", [10, 8, 3, 1]),
            right: host("right", [10, 8, 3, 2]),
            alone: host("alone", [127, 0, 0, 1]),
            nftables,
        };
        network.connect()?;
        Ok(network)
    }

    fn connect(&self) -> Result<()> {
        let mut hosts = vec![
            &self.client,
            &self.router,
            &self.server,
            &self.left,
            &self.right,
            &self.alone,
        ];
        hosts.extend(&self.bridged);
        let add = |host: &&Host| format!("netns add {}\n", host.name);
        ip(None, &hosts.iter().map(add).collect::<String>())?;
        for host in hosts {
            ip(Some(host.name), "link set lo up\n")?;
        }
        let cable = |from: &Host, near: &str, to: &Host| {
            let to = to.name;
            ip(
                Some(from.name),
                &format!("link add {near} type veth peer name eth0 netns {to}\n"),
            )
        };
        let set = |host: &Host, device: &str, address: Ipv4Addr| {
            let mac = mac(address);
            let lines =
                format!("addr add {address}/24 dev {device}\nlink set {device} address {mac} up\n");
            ip(Some(host.name), &lines)
        };
        cable(&self.router, "eth1", &self.client)?;
        cable(&self.router, "eth2", &self.server)?;
        cable(&self.left, "eth0", &self.right)?;
        for host in [&self.client, &self.server, &self.left, &self.right] {
            set(host, "eth0", host.address)?;
        }
        for (host, device, via) in self.routed() {
            set(&self.router, device, via)?;
            ip(Some(host.name), &format!("route add default via {via}\n"))?;
        }
        self.bridge()?;
        self.router
            .on(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
    }

    /// The hosts that the router forwards for, its device towards each, and its address there.
    fn routed(&self) -> [(&Host, &'static str, Ipv4Addr); 2] {
        [
            (&self.client, "eth1", self.router.address),
            (&self.server, "eth2", Ipv4Addr::new(10, 8, 2, 254)),
        ]
    }

    /// Makes the router hold all packets between client and server, until they are released.
    ///
    /// It does not know the hosts' link addresses, they don't answer when it asks, and the
    /// kernel keeps the packets meanwhile (`__neigh_event_send`, net/core/neighbour.c).
    pub fn hold(&self) -> Result<()> {
        for (host, device, via) in self.routed() {
            // The host asks no question that tells the router its address.
            let know = format!("neigh replace {via} lladdr {} dev eth0\n", mac(via));
            ip(Some(host.name), &know)?;
            host.on(|| Ok(fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "8")?))?;
            self.router.on(|| {
                let solicits = format!("/proc/sys/net/ipv4/neigh/{device}/mcast_solicit");
                Ok(fs::write(solicits, "1000")?)
            })?;
            ip(
                Some(self.router.name),
                &format!("neigh flush dev {device}\n"),
            )?;
        }
        Ok(())
    }

    /// Delivers the packets that the router holds for a host, and those that follow.
    pub fn release(&self, to: &Host) -> Result<()> {
        let routed = self.routed().into_iter().find(|it| it.0.name == to.name);
        let (host, device, _) = routed.context("the router does not forward to it")?;
        let (address, mac) = (host.address, mac(host.address));
        let known = format!("neigh replace {address} lladdr {mac} dev {device}\n");
        ip(Some(self.router.name), &known)
    }

    /// Connects the hosts on the bridge.
    fn bridge(&self) -> Result<()> {
        let gateway = Ipv4Addr::new(10, 8, 4, 254);
        let veth = |host: &Host| {
            let name = host.name;
            format!(
                "link add {name} type veth peer name eth0 netns {name}\n\
                 link set {name} master br0 up\n"
            )
        };
        let ports: String = self.bridged.iter().map(veth).collect();
        let lines = format!(
            "link add br0 type bridge\naddr add {gateway}/24 dev br0\nlink set br0 up\n{ports}"
        );
        ip(Some(self.router.name), &lines)?;
        for Host { name, address } in &self.bridged {
            let lines = format!(
                "addr add {address}/24 dev eth0\nlink set eth0 up\n\
                 route add default via {gateway}\n"
            );
            ip(Some(name), &lines)?;
        }
        Ok(())
    }

    /// Makes conntrack of a host track connections, with this idle timeout.
    pub fn track(&self, host: &Host, seconds: u32) -> Result<Tracking> {
        self.rules(host, TRACK)?;
        // Conntrack remembers it for the default time, five days.
        let tracked = connect(host, host)?;
        host.on(|| fs::write(ESTABLISHED, seconds.to_string()).context(ESTABLISHED))?;
        Ok(Tracking { _tracked: tracked })
    }

    /// Adds rules of nftables to a host.
    pub fn rules(&self, host: &Host, rules: &str) -> Result<()> {
        host.on(|| {
            let mut nft = self.nftables.command("usr/sbin/nft");
            let child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
            let mut child = child.context("run nft")?;
            let mut stdin = child.stdin.take().context("no stdin")?;
            stdin.write_all(rules.as_bytes())?;
            drop(stdin);
            if child.wait()?.success() {
                return Ok(());
            }
            let why = "this kernel lacks a module of nftables, or has not loaded it";
            Err(Skip(why.into()).into())
        })
    }
}

/// A connection of a host with itself, which its conntrack does not forget: a timeout of
/// conntrack counts only while it tracks something.
#[derive(Debug)]
#[must_use]
pub struct Tracking {
    _tracked: (TcpStream, TcpStream),
}

/// The link address of the device that has an address.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A connection from one host to a port of another: both ends.
pub fn connect(from: &Host, to: &Host) -> Result<(TcpStream, TcpStream)> {
    let listener = to.on(|| Ok(TcpListener::bind((to.address, 0))?))?;
    let address = listener.local_addr()?;
    let near = from.on(|| Ok(TcpStream::connect(address)?))?;
    let (far, peer) = listener.accept()?;
    ensure!(peer == near.local_addr()?, "someone else connected: {peer}");
    near.set_read_timeout(Some(HANG))?;
    Ok((near, far))
}
