//! Reads links, addresses and routes of network namespaces by rtnetlink, as `ip` does.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::host::netlink;
use crate::host::netns::Namespace;
use crate::host::topology::{IpStack, Link, Route, Topology};

/// Maximum number of links, of addresses, and of routes of one namespace. One with more is
/// not understood.
const MOST: usize = 4_096;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The other end of a veth pair as its namespace sees it: its index, and the identifier of
/// its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FarEnd {
    index: u32,
    nsid: i32,
}

/// What was read from namespaces, with the veth pairs still to be joined.
#[derive(Debug, Default)]
pub(super) struct Survey {
    topology: Topology,
    /// The veth devices whose other end is in another namespace, by namespace and index.
    far_ends: BTreeMap<(u32, u32), FarEnd>,
}

impl Survey {
    /// Adds the namespace that this thread is in. One that can't be read is added as
    /// unknown.
    pub(super) fn add(&mut self, netns: u32) {
        let mut stack = IpStack::default();
        let mut far_ends = Vec::new();
        let read = read(&mut stack, &mut far_ends);
        stack.is_unknown |= read.is_err();
        for (index, far_end) in far_ends {
            self.far_ends.insert((netns, index), far_end);
        }
        self.topology.insert(netns, stack);
    }

    /// Joins the veth pairs. `enter` moves this thread into a namespace, and returns
    /// whether it could.
    pub(super) fn join(
        mut self,
        namespaces: &BTreeMap<u32, Namespace>,
        enter: impl Fn(u32) -> bool,
    ) -> Topology {
        // A pair is two devices that name each other's index. Such a pair of indexes may
        // exist in several namespaces: the kernel tells which one it is.
        let mut by_indexes: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
        for (&(netns, index), far_end) in &self.far_ends {
            by_indexes
                .entry((index, far_end.index))
                .or_default()
                .push(netns);
        }
        let mut inside = None;
        for (&(netns, index), far_end) in &self.far_ends {
            let candidates = by_indexes.get(&(far_end.index, index));
            let mut candidates = candidates.into_iter().flatten().copied();
            if inside != Some(netns) && !enter(netns) {
                continue;
            }
            inside = Some(netns);
            let peer = candidates.find(|it| {
                let file = namespaces.get(it).map(|it| &it.file);
                *it != netns && file.is_some_and(|file| nsid(file) == Some(far_end.nsid))
            });
            let links = self.topology.get_mut(&netns).map(|it| &mut it.links);
            if let Some(link) = links.and_then(|it| it.get_mut(&index)) {
                link.peer = peer.map(|peer| (peer, far_end.index));
            }
        }
        self.topology
    }
}

/// The identifier of a namespace in this thread's namespace, if it has one.
fn nsid(namespace: &fs::File) -> Option<i32> {
    let mut request = NsidMessage::default();
    let fd = u32::try_from(namespace.as_raw_fd()).ok()?;
    request.attributes.push(NsidAttribute::Fd(fd));
    let answer = netlink::get(NETLINK_ROUTE, RouteNetlinkMessage::GetNsId(request));
    let RouteNetlinkMessage::NewNsId(answer) = answer.ok()? else {
        return None;
    };
    answer.attributes.iter().find_map(|it| match it {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    })
}

/// Reads the namespace that this thread is in.
fn read(stack: &mut IpStack, far_ends: &mut Vec<(u32, FarEnd)>) -> Result<()> {
    let is_on = |path| fs::read_to_string(path).is_ok_and(|it| it.trim() != "0");
    stack.forwards_v4 = is_on("/proc/sys/net/ipv4/ip_forward");
    stack.forwards_v6 = is_on("/proc/sys/net/ipv6/conf/all/forwarding");
    let mut links = LinkMessage::default();
    let no_counters = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    links.attributes.push(no_counters);
    each(stack, RouteNetlinkMessage::GetLink(links), |stack, it| {
        if let RouteNetlinkMessage::NewLink(it) = it {
            add_link(stack, &it, far_ends);
        }
        stack.links.len()
    })?;
    let addresses = AddressMessage::default();
    each(
        stack,
        RouteNetlinkMessage::GetAddress(addresses),
        |stack, it| {
            if let RouteNetlinkMessage::NewAddress(it) = it {
                stack.addresses.extend(own_address(&it));
            }
            stack.addresses.len()
        },
    )?;
    for family in FAMILIES {
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        let mut count = 0;
        each(stack, RouteNetlinkMessage::GetRoute(routes), |stack, it| {
            if let RouteNetlinkMessage::NewRoute(it) = it {
                add_route(stack, &it);
            }
            count += 1;
            count
        })?;
        let mut rules = RuleMessage::default();
        rules.header.family = family;
        each(stack, RouteNetlinkMessage::GetRule(rules), |stack, it| {
            if let RouteNetlinkMessage::NewRule(it) = it {
                stack.is_unknown |= !is_default(&it);
            }
            0
        })?;
    }
    Ok(())
}

/// Passes all objects of a kind to `add`, which returns how many there are. If there are
/// too many, the namespace is not understood.
fn each(
    stack: &mut IpStack,
    request: RouteNetlinkMessage,
    mut add: impl FnMut(&mut IpStack, RouteNetlinkMessage) -> usize,
) -> Result<()> {
    netlink::dump(NETLINK_ROUTE, request, &mut |answer| {
        Ok(if add(stack, answer) > MOST {
            stack.is_unknown = true;
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })
}

fn add_link(stack: &mut IpStack, it: &LinkMessage, far_ends: &mut Vec<(u32, FarEnd)>) {
    let mut link = Link::default();
    let (mut is_pair, mut far_index, mut nsid) = (false, None, None);
    for attribute in &it.attributes {
        match attribute {
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => far_index = Some(*index),
            LinkAttribute::LinkNetNsId(id) => nsid = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.is_bridge = *kind == InfoKind::Bridge;
                        is_pair = matches!(kind, InfoKind::Veth | InfoKind::Netkit);
                    }
                }
            }
            _ => {}
        }
    }
    stack.links.insert(it.header.index, link);
    // Without an identifier, the other end is in the same namespace.
    if let (true, Some(index), Some(nsid)) = (is_pair, far_index, nsid) {
        far_ends.push((it.header.index, FarEnd { index, nsid }));
    }
}

/// The namespace's own address. Over a link to one peer, IFA_ADDRESS is the peer's
/// (include/uapi/linux/if_addr.h).
fn own_address(it: &AddressMessage) -> Option<IpAddr> {
    let local = it.attributes.iter().find_map(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        it.attributes.iter().find_map(|it| match it {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn add_route(stack: &mut IpStack, it: &RouteMessage) {
    let header = &it.header;
    let mut table = u32::from(header.table);
    let (mut to, mut route) = (None, Route::default());
    for attribute in &it.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => route.via = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => route.via = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.via = Some((*address).into()),
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return,
    };
    let Ok(to) = IpNet::new(to.unwrap_or(any), header.destination_prefix_length) else {
        return;
    };
    if header.kind != RouteType::Unicast {
        // Dropped, or refused.
        route.device = None;
    }
    let known = stack.routes.entry(to.trunc()).or_insert(route);
    if route.metric < known.metric {
        *known = route;
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Whether a routing rule is one of those that every namespace has: local, main, default
/// (`fib_default_rules_init`, net/ipv4/fib_rules.c).
fn is_default(it: &RuleMessage) -> bool {
    const DEFAULTS: [(u32, u32); 3] = [(0, 255), (32_766, 254), (32_767, 253)];
    let mut table = u32::from(it.header.table);
    let mut priority = 0;
    for attribute in &it.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let selects_all = (it.header.dst_len, it.header.src_len) == (0, 0);
    selects_all && DEFAULTS.contains(&(priority, table))
}
