//! Idle timeouts that this host applies to connections through it: those of IPVS and of
//! conntrack, in every network namespace that can be entered. And the names of these
//! namespaces.
//!
//! Only timeouts in use are reported: a module that is merely loaded ends no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::{fs, io, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use crate::host::netns::{self, Namespace};
use crate::host::rtnetlink::Survey;
use crate::host::topology;
use crate::host::uts;
use crate::model::host_timeout::{HostTimeout, HostTimeouts, NetnsRoutes};
use crate::text::escape::Escaped;

/// Directory of conntrack's sysctls, which are those of the reader's namespace.
const CONNTRACK: &str = "/proc/sys/net/netfilter";

/// The services of IPVS in the reader's namespace.
const SERVICES: &str = "/proc/thread-self/net/ip_vs";

/// Maximum number of namespaces to look at. Each takes a descriptor and a few calls.
const MOST: usize = 512;

/// Maximum number of services, and of servers, that are read.
const MOST_SERVICES: usize = 4_096;

/// The names of network namespaces, by inode number. Those without a name are left out.
pub type NetnsNames = BTreeMap<u32, Escaped>;

/// What is known of this host's network namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNamespaces {
    /// The timeouts, and the routes to those of conntrack.
    pub timeouts: HostTimeouts,
    /// The names.
    pub names: NetnsNames,
}

/// Reads the timeouts and the names. A namespace that can't be entered is left out.
///
/// # Errors
/// If a thread or descriptors have run out, or /proc can't be read.
pub fn read() -> Result<HostNamespaces> {
    // Each thread has its own namespaces, so a new thread can go from one to the next.
    let reader = thread::Builder::new().name("timeouts".to_owned());
    let reader = reader
        .spawn(|| anyhow::Ok(read_all(&netns::all(MOST)?.found)))
        .context("cannot start the thread that reads them")?;
    let read = reader.join();
    read.map_err(|_| anyhow!("the thread that reads them has died"))?
}

fn read_all(namespaces: &BTreeMap<u32, Namespace>) -> HostNamespaces {
    let enter = |netns: u32| {
        let kind = Some(LinkNameSpaceType::Network);
        let file = namespaces.get(&netns).map(|it| it.file.as_fd());
        netns::own().is_some_and(|own| own == netns)
            || file.is_some_and(|it| move_into_link_name_space(it, kind).is_ok())
    };
    let host_uts = uts::host_inode();
    let mut timeouts = Vec::new();
    let mut names = NetnsNames::new();
    for (&netns, namespace) in namespaces {
        let name = namespace.name(host_uts);
        if enter(netns) {
            timeouts.extend(here(netns, name.as_ref()));
        }
        names.extend(name.map(|name| (netns, name)));
    }
    HostNamespaces {
        timeouts: HostTimeouts {
            routes: routes(namespaces, &timeouts, enter),
            timeouts,
        },
        names,
    }
}

/// The routes to the timeouts of conntrack.
fn routes(
    namespaces: &BTreeMap<u32, Namespace>,
    timeouts: &[HostTimeout],
    enter: impl Fn(u32) -> bool,
) -> Vec<NetnsRoutes> {
    let conntrack = timeouts.iter().filter(|it| it.what.as_str() == "conntrack");
    let targets: BTreeSet<_> = conntrack.map(|it| it.netns).collect();
    // Within one namespace there is nothing to find out.
    if targets.is_empty() || namespaces.len() < 2 {
        return Vec::new();
    }
    let mut survey = Survey::default();
    for &netns in namespaces.keys().filter(|it| enter(**it)) {
        survey.add(netns);
    }
    topology::routes(&survey.join(namespaces, enter), &targets)
}

/// Timeouts of the namespace that this thread is in.
fn here(netns: u32, name: Option<&Escaped>) -> impl Iterator<Item = HostTimeout> {
    let conntrack = conntrack(CONNTRACK.as_ref());
    let all = ipvs().into_iter().chain(conntrack);
    all.map(move |it| HostTimeout {
        netns,
        netns_name: name.cloned(),
        ..it
    })
}

/// The timeouts of conntrack, if it tracks any connection.
fn conntrack(sysctls: &Path) -> Option<HostTimeout> {
    let read = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(sysctls.join(name)).ok()?;
        text.trim().parse().ok()
    };
    read("nf_conntrack_count").filter(|&count| count > 0)?;
    Some(HostTimeout {
        what: Escaped::from("conntrack"),
        seconds: read("nf_conntrack_tcp_timeout_established")?,
        half_closed_s: read("nf_conntrack_tcp_timeout_close_wait"),
        ..HostTimeout::default()
    })
}

/// `IP_VS_BASE_CTL`, include/uapi/linux/ip_vs.h.
const IP_VS_BASE_CTL: libc::c_int = 64 + 1024 + 64;
/// `IP_VS_SO_GET_TIMEOUT`: what `ipvsadm --list --timeout` shows.
const GET_TIMEOUT: libc::c_int = IP_VS_BASE_CTL + 6;

/// `struct ip_vs_timeout_user`, s.
#[repr(C)]
#[derive(Default)]
struct Timeouts {
    tcp: i32,
    tcp_fin: i32,
    udp: i32,
}

/// The idle timeout of IPVS and its services, if it has some for TCP. Needs CAP_NET_ADMIN
/// over the namespace.
fn ipvs() -> Option<HostTimeout> {
    let services = services(fs::File::open(SERVICES).ok()?)?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    // SAFETY: `Timeouts` is three integers, as the kernel's structure.
    let timeouts: Timeouts = unsafe { option(&socket, GET_TIMEOUT) }?;
    let some = |it: i32| u64::try_from(it).ok().filter(|&it| it > 0);
    Some(HostTimeout {
        seconds: some(timeouts.tcp)?,
        half_closed_s: some(timeouts.tcp_fin),
        ..services
    })
}

/// The services of IPVS for TCP, and the servers to which it translates; `None` if there
/// is no service. The format is that of `ip_vs_info_seq_show`
/// (net/netfilter/ipvs/ip_vs_ctl.c). It has IPv6 and firewall marks too, unlike
/// `IP_VS_SO_GET_SERVICES`.
fn services(table: impl io::Read) -> Option<HostTimeout> {
    let mut found = HostTimeout {
        what: Escaped::from("ipvs"),
        ..HostTimeout::default()
    };
    let mut is_tcp = false;
    for line in io::BufReader::new(table).lines() {
        // The rest is not known.
        let Ok(line) = line else {
            found.more_services = true;
            break;
        };
        let mut words = line.split_ascii_whitespace();
        let (Some(kind), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        let list = match kind {
            "TCP" => {
                is_tcp = true;
                &mut found.services
            }
            // A mark is set by a rule of the firewall, whatever the address.
            "FWM" => {
                is_tcp = false;
                found.more_services = true;
                continue;
            }
            // With masquerading, the server's end has its own address.
            "->" if is_tcp && words.next() == Some("Masq") => &mut found.servers,
            "->" => continue,
            _ => {
                is_tcp = false;
                continue;
            }
        };
        match address_and_port(address) {
            Some(end) if list.len() < MOST_SERVICES => list.push(end),
            _ => found.more_services = true,
        }
    }
    (found.more_services || !found.services.is_empty()).then_some(found)
}

/// Reads `0A090064:1628` or `[fd00:…:0001]:1628`: the port is hexadecimal, and so is an
/// IPv4 address.
fn address_and_port(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(v6) => IpAddr::from(v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::from(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// Reads a socket option of the IP level.
///
/// # Safety
/// Every pattern of bits must be a `T`, since the kernel fills it in.
unsafe fn option<T: Default>(socket: &Socket, name: libc::c_int) -> Option<T> {
    let mut value = T::default();
    let mut len = libc::socklen_t::try_from(size_of::<T>()).ok()?;
    // SAFETY: the pointers are to a live value and to its length; the kernel does not
    // write beyond that length.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    (code == 0 && len as usize == size_of::<T>()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_is_reported_if_it_is_in_use() -> std::io::Result<()> {
        let sysctls = tempfile::tempdir()?;
        let write = |name: &str, text: &str| fs::write(sysctls.path().join(name), text);
        let read = || {
            let found = conntrack(sysctls.path());
            found.map(|it| (it.seconds, it.half_closed_s))
        };
        assert_eq!(read(), None);
        write("nf_conntrack_tcp_timeout_established", "432000\n")?;
        write("nf_conntrack_count", "0\n")?;
        assert_eq!(read(), None);
        write("nf_conntrack_count", "3\n")?;
        assert_eq!(read(), Some((432_000, None)));
        write("nf_conntrack_tcp_timeout_close_wait", "60\n")?;
        assert_eq!(read(), Some((432_000, Some(60))));
        Ok(())
    }

    #[test]
    fn services_are_read_from_the_table_of_ipvs() {
        let heading = "IP Virtual Server version 1.2.1 (size=4096)\n\
                       Prot LocalAddress:Port Scheduler Flags\n  \
                       -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        #[rustfmt::skip]
        let rows = [
            ("", None),
            ("UDP  0A090064:0035 rr \n  -> 0A09000B:0035      Masq    1      0          0\n", None),
            (
                "TCP  0A090064:1628 rr persistent 300 FFFFFFFF\n  -> 0A09000B:1628      Route   1      0          0\n\
                 TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0000 wlc \n  \
                 -> [fd00:0000:0000:0000:0000:0000:0000:0011]:0050      Masq    1      0          0\n\
                 UDP  0A090064:0035 rr ops \n  -> 0A09000C:0035      Masq    1      0          0\n",
                Some("10.9.0.100:5672 [fd00::1]:0; [fd00::11]:80; false"),
            ),
            ("FWM  00000001 rr \n  -> 0A09000B:0050      Masq    1      0          0\n", Some("; ; true")),
            ("TCP  nonsense rr \n", Some("; ; true")),
        ];
        for (table, expected) in rows {
            let found = services(format!("{heading}{table}").as_bytes()).map(|it| {
                let list = |all: &[SocketAddr]| {
                    let all: Vec<_> = all.iter().map(SocketAddr::to_string).collect();
                    all.join(" ")
                };
                let (services, servers) = (list(&it.services), list(&it.servers));
                format!("{services}; {servers}; {}", it.more_services)
            });
            assert_eq!(found.as_deref(), expected, "{table}");
        }
        let many = "TCP  0A090064:1628 rr \n".repeat(MOST_SERVICES + 1);
        let found = services(many.as_bytes());
        let found = found.map(|it| (it.services.len(), it.more_services));
        assert_eq!(found, Some((MOST_SERVICES, true)));
    }

    #[test]
    fn reading_leaves_this_thread_where_it_is() -> Result<()> {
        let before = netns::own();
        for timeout in read()?.timeouts.timeouts {
            assert!(timeout.seconds > 0, "{timeout:?}");
        }
        assert_eq!(netns::own(), before);
        Ok(())
    }
}
