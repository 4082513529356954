//! Idle timeouts that this host applies to connections through it: those of IPVS and of
//! conntrack, in every network namespace that can be entered.
//!
//! Only timeouts in use are reported: a module that is merely loaded ends no connection.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::{fs, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use crate::host::netns;
use crate::model::header::HostTimeout;
use crate::text::escape::Escaped;

/// Directory of conntrack's sysctls, which are those of the reader's namespace.
const CONNTRACK: &str = "/proc/sys/net/netfilter";

/// Maximum number of namespaces to look at. Each takes a descriptor and a few calls.
const MOST: usize = 512;

/// Reads the timeouts. A namespace that can't be entered and a read that fails are left
/// out: these are hints, and a trace works without them.
#[must_use]
pub fn read() -> Vec<HostTimeout> {
    // Each thread has its own namespaces, so a new thread can go from one to the next.
    let reader = thread::Builder::new().name("timeouts".to_owned());
    let reader = reader.spawn(|| {
        let mut found = Vec::new();
        for (netns, namespace) in netns::all(MOST).found {
            let kind = Some(LinkNameSpaceType::Network);
            if netns::own().is_some_and(|own| own == netns)
                || move_into_link_name_space(namespace.file.as_fd(), kind).is_ok()
            {
                found.extend(here(netns));
            }
        }
        found
    });
    reader
        .ok()
        .and_then(|it| it.join().ok())
        .unwrap_or_default()
}

/// Timeouts of the namespace that this thread is in.
fn here(netns: u32) -> impl Iterator<Item = HostTimeout> {
    let timeout = move |what: &str, seconds| HostTimeout {
        what: Escaped::from(what),
        netns,
        seconds,
    };
    let ipvs = ipvs().map(|seconds| timeout("ipvs", seconds));
    let conntrack = conntrack(CONNTRACK.as_ref()).map(|seconds| timeout("conntrack", seconds));
    ipvs.into_iter().chain(conntrack)
}

/// How long conntrack keeps an idle established connection, s, if it tracks any.
fn conntrack(sysctls: &Path) -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(sysctls.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let count = read("nf_conntrack_count").filter(|&count| count > 0);
    count.and_then(|_| read("nf_conntrack_tcp_timeout_established"))
}

/// `IP_VS_BASE_CTL`, include/uapi/linux/ip_vs.h.
const IP_VS_BASE_CTL: libc::c_int = 64 + 1024 + 64;
/// `IP_VS_SO_GET_INFO`.
const GET_INFO: libc::c_int = IP_VS_BASE_CTL + 1;
/// `IP_VS_SO_GET_TIMEOUT`: what `ipvsadm --list --timeout` shows.
const GET_TIMEOUT: libc::c_int = IP_VS_BASE_CTL + 6;

/// `struct ip_vs_getinfo`.
#[repr(C)]
#[derive(Default)]
struct Info {
    version: u32,
    size: u32,
    num_services: u32,
}

/// `struct ip_vs_timeout_user`, s.
#[repr(C)]
#[derive(Default)]
struct Timeouts {
    tcp: i32,
    tcp_fin: i32,
    udp: i32,
}

/// How long IPVS keeps an idle connection, s, if it has a service. Needs CAP_NET_ADMIN over
/// the namespace.
fn ipvs() -> Option<u64> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    // SAFETY: `Info` is three integers, as the kernel's structure.
    let info: Info = unsafe { option(&socket, GET_INFO) }?;
    if info.num_services == 0 {
        return None;
    }
    // SAFETY: `Timeouts` is three integers, as the kernel's structure.
    let timeouts: Timeouts = unsafe { option(&socket, GET_TIMEOUT) }?;
    u64::try_from(timeouts.tcp)
        .ok()
        .filter(|&seconds| seconds > 0)
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
        assert_eq!(conntrack(sysctls.path()), None);
        write("nf_conntrack_tcp_timeout_established", "432000\n")?;
        write("nf_conntrack_count", "0\n")?;
        assert_eq!(conntrack(sysctls.path()), None);
        write("nf_conntrack_count", "3\n")?;
        assert_eq!(conntrack(sysctls.path()), Some(432_000));
        Ok(())
    }

    #[test]
    fn reading_leaves_this_thread_where_it_is() {
        let before = netns::own();
        for timeout in read() {
            assert!(timeout.seconds > 0, "{timeout:?}");
        }
        assert_eq!(netns::own(), before);
    }
}
