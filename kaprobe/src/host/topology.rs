//! The network namespaces of this host as a graph, and the ways that packets take through
//! it. Pure.
//!
//! A packet goes from namespace to namespace through veth pairs, directly or over a
//! bridge. Only the main routing table is followed. A namespace with further routing
//! rules is not understood: where its packets go is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use crate::model::host_timeout::{HostRoute, NetnsRoutes};

/// Maximum number of namespaces that a path is followed through.
const MOST_HOPS: usize = 8;

/// Maximum number of steps that all paths together are followed.
const MOST_STEPS: usize = 65_536;

/// Maximum number of routes that are returned.
const MOST_ROUTES: usize = 4_096;

/// Network namespaces by inode number.
pub(super) type Topology = BTreeMap<u32, IpStack>;

/// The IP stack of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IpStack {
    /// IPv4 packets are forwarded (`net.ipv4.ip_forward`).
    pub forwards_v4: bool,
    /// IPv6 packets are forwarded (`net.ipv6.conf.all.forwarding`).
    pub forwards_v6: bool,
    /// Network devices by index.
    pub links: BTreeMap<u32, Link>,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The main routing table.
    pub routes: BTreeMap<IpNet, Route>,
    /// Something besides the main table decides, or not everything could be read.
    pub is_unknown: bool,
}

/// A network device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The device is a bridge.
    pub is_bridge: bool,
    /// Index of the bridge, or other device, that this device is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair: its namespace and index.
    pub peer: Option<(u32, u32)>,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// The next router, if the destination is not on the link.
    pub via: Option<IpAddr>,
    /// The device; `None` if packets are dropped, or go to several devices.
    pub device: Option<u32>,
    /// The kernel uses the route with the lowest metric.
    pub metric: u32,
}

impl IpStack {
    fn is_local(&self, to: IpNet) -> bool {
        host(to).is_some_and(|it| self.addresses.contains(&it) || it.is_loopback())
    }

    const fn forwards(&self, to: IpNet) -> bool {
        match to {
            IpNet::V4(_) => self.forwards_v4,
            IpNet::V6(_) => self.forwards_v6,
        }
    }

    /// The longest prefix that contains the destination, with its route.
    fn route(&self, to: IpNet) -> Option<&Route> {
        let lengths = (0..=to.prefix_len()).rev();
        let mut prefixes = lengths.filter_map(|it| IpNet::new(to.addr(), it).ok());
        prefixes.find_map(|it| self.routes.get(&it.trunc()))
    }

    /// The destinations within a prefix that this namespace tells apart.
    fn parts(&self, of: IpNet) -> impl Iterator<Item = IpNet> {
        let own = self.addresses.iter().map(|&it| IpNet::from(it));
        let all = self.routes.keys().copied().chain(own);
        all.filter(move |it| of.contains(it))
    }
}

/// The address of a prefix that contains only one.
fn host(it: IpNet) -> Option<IpAddr> {
    (it.prefix_len() == it.max_prefix_len()).then(|| it.addr())
}

/// For each namespace, the namespaces among `targets` that its packets pass, by
/// destination. A namespace whose routes are not known is left out, and so are all after
/// the one that has too many.
pub(super) fn routes(topology: &Topology, targets: &BTreeSet<u32>) -> Vec<NetnsRoutes> {
    let mut all = Vec::new();
    let (mut steps, mut kept) = (0, 0);
    for (&from, _) in topology.iter().filter(|(_, stack)| !stack.is_unknown) {
        let walk = Walk {
            topology,
            targets,
            from,
        };
        let destinations = walk.destinations(&mut steps);
        if steps > MOST_STEPS {
            break;
        }
        let routes = walk.routes(&destinations);
        kept += routes.len();
        if kept > MOST_ROUTES {
            break;
        }
        all.push(NetnsRoutes {
            netns: from,
            routes,
        });
    }
    all
}

/// Follows the packets of one namespace.
struct Walk<'a> {
    topology: &'a Topology,
    targets: &'a BTreeSet<u32>,
    from: u32,
}

impl Walk<'_> {
    /// Destinations as prefixes. All packets to a prefix go one way, except for those to
    /// longer prefixes in the set.
    fn destinations(&self, steps: &mut usize) -> BTreeSet<IpNet> {
        let mut found = BTreeSet::new();
        for all in [IpNet::default(), IpNet::V6(Ipv6Net::default())] {
            self.divide(&mut vec![self.from], all, &mut found, steps);
        }
        found
    }

    /// Divides a destination into the parts that the last passed namespace, and those
    /// behind it, tell apart.
    fn divide(
        &self,
        passed: &mut Vec<u32>,
        to: IpNet,
        found: &mut BTreeSet<IpNet>,
        steps: &mut usize,
    ) {
        let here = passed.last().copied().unwrap_or_default();
        let Some(stack) = self.topology.get(&here) else {
            return;
        };
        for part in stack.parts(to).chain([to]) {
            *steps += 1;
            if *steps > MOST_STEPS {
                return;
            }
            found.insert(part);
            let next = match self.way_out(here, part) {
                // Each address on the link is elsewhere.
                Some(WayOut::Bridge(owner, bridge, None)) => {
                    let members = self.members(owner, bridge);
                    let targets = members.filter(|it| self.targets.contains(it));
                    found.extend(targets.flat_map(|it| self.addresses(it, part)));
                    continue;
                }
                way => way.and_then(|it| self.next(&it)),
            };
            let Some(next) = next.filter(|it| !passed.contains(it)) else {
                continue;
            };
            if self.targets.contains(&next) {
                found.extend(self.addresses(next, part));
            }
            let is_done = |it: &u32| passed.contains(it) || *it == next;
            if passed.len() < MOST_HOPS && !self.targets.iter().all(is_done) {
                passed.push(next);
                self.divide(passed, part, found, steps);
                passed.pop();
            }
        }
    }

    /// The addresses of a namespace within a prefix.
    fn addresses(&self, netns: u32, within: IpNet) -> impl Iterator<Item = IpNet> {
        let stack = self.topology.get(&netns);
        let all = stack.map(|it| it.addresses.iter()).into_iter().flatten();
        all.map(|&it| IpNet::from(it))
            .filter(move |it| within.contains(it))
    }

    /// The routes by destination, without those that equal the next wider one.
    fn routes(&self, destinations: &BTreeSet<IpNet>) -> Vec<HostRoute> {
        let mut by_length: Vec<_> = destinations.iter().copied().collect();
        by_length.sort_by_key(|it| (it.prefix_len(), *it));
        let mut kept: BTreeMap<IpNet, Vec<u32>> = BTreeMap::new();
        for to in by_length {
            let through = self.through(to);
            let wider = (0..to.prefix_len()).rev();
            let mut wider = wider.filter_map(|it| IpNet::new(to.addr(), it).ok());
            let wider = wider.find_map(|it| kept.get(&it.trunc()));
            if wider.map_or(&[][..], Vec::as_slice) != through {
                kept.insert(to, through);
            }
        }
        kept.into_iter()
            .map(|(to, through)| HostRoute { to, through })
            .collect()
    }

    /// The targets that packets to a destination pass. The last one may be where the
    /// destination is.
    fn through(&self, to: IpNet) -> Vec<u32> {
        let mut passed = vec![self.from];
        while passed.len() <= MOST_HOPS {
            let here = passed.last().copied().unwrap_or_default();
            let next = self.way_out(here, to).and_then(|it| self.next(&it));
            let enters = |next: &u32| {
                let stack = self.topology.get(next);
                !passed.contains(next) && stack.is_some_and(|it| it.forwards(to) || it.is_local(to))
            };
            let Some(next) = next.filter(enters) else {
                break;
            };
            passed.push(next);
        }
        passed.remove(0);
        passed.retain(|it| self.targets.contains(it));
        passed
    }

    /// Where packets to a destination leave a namespace. `None` if they end there, leave
    /// this host, or go where it is not known.
    fn way_out(&self, here: u32, to: IpNet) -> Option<WayOut> {
        let stack = self.topology.get(&here).filter(|it| !it.is_unknown)?;
        if stack.is_local(to) {
            return None;
        }
        let route = stack.route(to)?;
        let next_hop = route.via.or(host(to));
        let index = route.device?;
        let link = stack.links.get(&index)?;
        if link.is_bridge {
            return Some(WayOut::Bridge(here, index, next_hop));
        }
        let (peer, index) = link.peer?;
        let peer_links = &self.topology.get(&peer)?.links;
        let Some(master) = peer_links.get(&index)?.master else {
            return Some(WayOut::Direct(peer));
        };
        let is_bridge = peer_links.get(&master).is_some_and(|it| it.is_bridge);
        is_bridge.then_some(WayOut::Bridge(peer, master, next_hop))
    }

    /// The namespace on the way out, if it is known.
    fn next(&self, way: &WayOut) -> Option<u32> {
        match *way {
            WayOut::Direct(next) => Some(next),
            WayOut::Bridge(owner, bridge, hop) => {
                let has = |it: &u32| {
                    self.topology
                        .get(it)?
                        .addresses
                        .contains(&hop?)
                        .then_some(())
                };
                self.members(owner, bridge).find(|it| has(it).is_some())
            }
        }
    }

    /// The namespaces on a bridge: that of the bridge, and those of its ports' peers.
    fn members(&self, owner: u32, bridge: u32) -> impl Iterator<Item = u32> {
        let links = self.topology.get(&owner).map(|it| it.links.values());
        let ports = links.into_iter().flatten();
        let ports = ports.filter(move |it| it.master == Some(bridge));
        std::iter::once(owner).chain(ports.filter_map(|it| Some(it.peer?.0)))
    }
}

/// Where packets leave a namespace.
enum WayOut {
    /// To this namespace, through a veth pair.
    Direct(u32),
    /// Over a bridge, by its namespace and index, to the member that has this address.
    Bridge(u32, u32, Option<IpAddr>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn prefix(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    /// A namespace with these addresses and routes `to device [via]`. It forwards.
    fn stack(addresses: &[&str], routes: &[(&str, u32, Option<&str>)]) -> IpStack {
        let route = |&(to, device, via): &(&str, u32, Option<&str>)| {
            let route = Route {
                via: via.map(address),
                device: Some(device),
                metric: 0,
            };
            (prefix(to), route)
        };
        IpStack {
            forwards_v4: true,
            addresses: addresses.iter().copied().map(address).collect(),
            routes: routes.iter().map(route).collect(),
            ..IpStack::default()
        }
    }

    /// Joins two namespaces by a veth pair. The port of a bridge has the bridge's index.
    fn join(topology: &mut Topology, ends: [(u32, u32, Option<u32>); 2]) {
        let [a, b] = ends;
        for ((netns, index, master), peer) in [(a, b), (b, a)] {
            let link = Link {
                master,
                peer: Some((peer.0, peer.1)),
                ..Link::default()
            };
            topology.entry(netns).or_default().links.insert(index, link);
        }
    }

    fn bridge(topology: &mut Topology, netns: u32, index: u32) {
        let link = Link {
            is_bridge: true,
            ..Link::default()
        };
        topology.entry(netns).or_default().links.insert(index, link);
    }

    /// The host (1) has eth0 (2), a container behind a veth pair (10), two on a bridge (11
    /// and 12), and a switch (20) that joins two hosts (21 and 22) with a router (23).
    fn host_with_containers() -> Topology {
        let on_bridge = |last| {
            stack(
                &[&format!("172.17.0.{last}")],
                &[
                    ("0.0.0.0/0", 2, Some("172.17.0.1")),
                    ("172.17.0.0/16", 2, None),
                ],
            )
        };
        let mut topology = BTreeMap::from([
            (
                1,
                stack(
                    &["192.0.2.1", "172.17.0.1"],
                    &[
                        ("0.0.0.0/0", 2, Some("192.0.2.254")),
                        ("192.0.2.0/24", 2, None),
                        ("10.244.0.5/32", 3, None),
                        ("172.17.0.0/16", 4, None),
                    ],
                ),
            ),
            (
                10,
                stack(&["10.244.0.5"], &[("0.0.0.0/0", 2, Some("169.254.1.1"))]),
            ),
            (11, on_bridge(2)),
            (12, on_bridge(3)),
            (
                21,
                stack(
                    &["10.0.1.1"],
                    &[
                        ("10.0.1.0/24", 2, None),
                        ("0.0.0.0/0", 2, Some("10.0.1.254")),
                    ],
                ),
            ),
            (
                22,
                stack(
                    &["10.0.1.2"],
                    &[
                        ("10.0.1.0/24", 2, None),
                        ("10.0.2.0/24", 2, Some("10.0.1.254")),
                    ],
                ),
            ),
            (
                23,
                stack(
                    &["10.0.1.254", "10.0.2.254"],
                    &[("10.0.1.0/24", 2, None), ("10.0.2.0/24", 3, None)],
                ),
            ),
            (
                24,
                stack(&["10.0.2.1"], &[("0.0.0.0/0", 2, Some("10.0.2.254"))]),
            ),
        ]);
        let link = Link::default();
        topology.entry(1).or_default().links.insert(2, link);
        join(&mut topology, [(1, 3, None), (10, 2, None)]);
        bridge(&mut topology, 1, 4);
        join(&mut topology, [(1, 5, Some(4)), (11, 2, None)]);
        join(&mut topology, [(1, 6, Some(4)), (12, 2, None)]);
        bridge(&mut topology, 20, 1);
        join(&mut topology, [(20, 2, Some(1)), (21, 2, None)]);
        join(&mut topology, [(20, 3, Some(1)), (22, 2, None)]);
        join(&mut topology, [(20, 4, Some(1)), (23, 2, None)]);
        join(&mut topology, [(23, 3, None), (24, 2, None)]);
        topology
    }

    /// The targets on the way from a namespace to an address, as the routes tell.
    fn through<'a>(all: &'a [NetnsRoutes], from: u32, to: &str) -> Option<&'a [u32]> {
        let routes = all.iter().find(|it| it.netns == from)?;
        let route = routes.towards(address(to));
        Some(route.map_or(&[], |it| &it.through))
    }

    #[test]
    fn packets_are_followed_from_namespace_to_namespace() {
        let topology = host_with_containers();
        let everywhere = topology.keys().copied().collect();
        let all = routes(&topology, &everywhere);
        #[rustfmt::skip]
        let rows: &[(&str, u32, &str, &[u32])] = &[
            ("a container to the world", 10, "8.8.8.8", &[1]),
            ("a container to its host", 10, "192.0.2.1", &[1]),
            ("a container to another", 10, "172.17.0.2", &[1, 11]),
            ("a container to itself", 10, "10.244.0.5", &[]),
            ("no such container", 10, "172.17.0.9", &[1]),
            ("the host to the world", 1, "8.8.8.8", &[]),
            ("the host to a container", 1, "10.244.0.5", &[10]),
            ("the host to a container on the bridge", 1, "172.17.0.3", &[12]),
            ("on one bridge", 11, "172.17.0.3", &[12]),
            ("from the bridge to the world", 11, "8.8.8.8", &[1]),
            ("from the bridge to a container", 11, "10.244.0.5", &[1, 10]),
            ("over a switch, which does not see it", 21, "10.0.1.2", &[22]),
            ("through the router", 21, "10.0.2.1", &[23, 24]),
            ("to the router's far address", 22, "10.0.2.254", &[23]),
            ("no route", 22, "8.8.8.8", &[]),
            ("back through the router", 24, "10.0.1.1", &[23, 21]),
            ("beyond the router", 24, "8.8.8.8", &[23]),
            ("another family", 10, "2001:db8::1", &[]),
        ];
        for (name, from, to, expected) in rows {
            assert_eq!(through(&all, *from, to), Some(*expected), "{name}");
        }
        // Only the targets are told, and only as many routes as it takes.
        let all = routes(&topology, &BTreeSet::from([1]));
        for (name, from, to, expected) in rows {
            let expected: Vec<_> = expected.iter().copied().filter(|&it| it == 1).collect();
            assert_eq!(through(&all, *from, to), Some(&*expected), "{name}");
        }
        let of = |netns| {
            all.iter()
                .find(|it| it.netns == netns)
                .map(|it| it.routes.len())
        };
        assert_eq!((of(1), of(10), of(21)), (Some(0), Some(2), Some(0)));
    }

    /// A name, a change of the router, and the namespaces that are passed behind a host and
    /// behind the router.
    type RouterCase = (
        &'static str,
        fn(&mut IpStack),
        Option<&'static [u32]>,
        Option<&'static [u32]>,
    );

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let rows: [RouterCase; 4] = [
            ("all is known", |_| {}, Some(&[23, 24]), Some(&[23, 24])),
            (
                "it does not forward",
                |it| it.forwards_v4 = false,
                Some(&[]),
                Some(&[23, 24]),
            ),
            (
                "it has routing rules",
                |it| it.is_unknown = true,
                Some(&[23]),
                None,
            ),
            (
                "it has no such route",
                |it| it.routes.clear(),
                Some(&[23]),
                Some(&[]),
            ),
        ];
        for (name, change, from_host, from_router) in rows {
            let mut topology = host_with_containers();
            topology.entry(23).and_modify(change);
            let all = routes(&topology, &topology.keys().copied().collect());
            assert_eq!(through(&all, 21, "10.0.2.1"), from_host, "{name}");
            let expected = from_router.map(|it| &it[it.len().min(1)..]);
            assert_eq!(through(&all, 23, "10.0.2.1"), expected, "{name}");
            // Its own address is there, forwarding or not.
            assert_eq!(through(&all, 21, "10.0.2.254"), Some(&[23][..]), "{name}");
        }
    }

    #[test]
    fn a_loop_and_a_crowd_end() {
        // Two namespaces send everything to each other.
        let everything = |via| stack(&[], &[("0.0.0.0/0", 2, Some(via))]);
        let mut topology =
            BTreeMap::from([(1, everything("10.0.0.2")), (2, everything("10.0.0.1"))]);
        join(&mut topology, [(1, 2, None), (2, 2, None)]);
        let all = routes(&topology, &BTreeSet::from([1, 2]));
        assert_eq!(through(&all, 1, "8.8.8.8"), Some(&[2][..]));

        // Each of many containers tells all others apart: there is a limit.
        let mut topology = Topology::new();
        for n in 0..400 {
            let own = format!("10.1.{}.{}", n / 200, n % 200);
            let container = stack(&[&own], &[("0.0.0.0/0", 2, Some("169.254.1.1"))]);
            topology.insert(10 + n, container);
            join(&mut topology, [(1, 10 + n, None), (10 + n, 2, None)]);
            let host = topology.entry(1).or_default();
            host.forwards_v4 = true;
            let route = Route {
                device: Some(10 + n),
                ..Route::default()
            };
            host.routes.insert(prefix(&format!("{own}/32")), route);
        }
        let all = routes(&topology, &topology.keys().copied().collect());
        let count: usize = all.iter().map(|it| it.routes.len()).sum();
        assert!(
            all.len() > 1 && count <= MOST_ROUTES,
            "{} {count}",
            all.len()
        );
        assert_eq!(through(&all, 1, "10.1.1.5"), Some(&[215][..]));
        assert_eq!(through(&all, 409, "10.1.1.5"), None);
        // One target for all of them is no crowd.
        let all = routes(&topology, &BTreeSet::from([1]));
        assert_eq!(all.len(), 401);
        assert_eq!(through(&all, 409, "10.1.1.5"), Some(&[1][..]));
    }
}
