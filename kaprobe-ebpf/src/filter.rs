//! The filters that decide which sockets to keep.
//!
//! A socket must pass every filter that user space has set. A filter that is not set costs
//! nothing, since the verifier drops it.

use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::Key;
use kaprobe_ebpf::config::{MAX_CGROUPS, MAX_NETNS, filter};

use crate::kernel::{AF_INET6, Identity, ancestor_id, cgroup_of, config};
use crate::maps::{ADDRESSES, EITHER_PORTS, LOCAL_PORTS, REMOTE_PORTS};

/// Whether any filter is set.
#[inline(always)]
pub fn any() -> bool {
    config!(filters) != 0
        || config!(family) != 0
        || config!(netns_count) != 0
        || config!(cgroup_count) != 0
}

/// Whether a socket passes all filters. If it has not been read yet, only the members
/// that a filter needs are read, and those that cost most are read last.
#[inline(always)]
pub fn keeps(socket: &impl Identity) -> bool {
    family(socket) && ports(socket) && netns(socket) && addresses(socket) && cgroups(socket)
}

#[inline(always)]
fn family(socket: &impl Identity) -> bool {
    config!(family) == 0 || config!(family) == socket.family() as u32
}

#[inline(always)]
fn ports(socket: &impl Identity) -> bool {
    let set = config!(filters);
    (set & filter::LOCAL_PORT == 0 || has_port(&LOCAL_PORTS, socket.lport()))
        && (set & filter::REMOTE_PORT == 0 || has_port(&REMOTE_PORTS, socket.rport()))
        && (set & filter::EITHER_PORT == 0
            || has_port(&EITHER_PORTS, socket.lport())
            || has_port(&EITHER_PORTS, socket.rport()))
}

#[inline(always)]
fn has_port(ports: &Array<u64>, port: u16) -> bool {
    ports
        .get(port as u32 / 64)
        .is_some_and(|word| word & (1 << (port % 64)) != 0)
}

#[inline(always)]
fn netns(socket: &impl Identity) -> bool {
    let count = config!(netns_count) as usize;
    if count == 0 {
        return true;
    }
    let netns = socket.netns();
    for i in 0..MAX_NETNS {
        if i < count && config!(netns[i]) == netns {
            return true;
        }
    }
    false
}

#[inline(always)]
fn addresses(socket: &impl Identity) -> bool {
    if config!(filters) & filter::ADDRESS == 0 {
        return true;
    }
    let family = socket.family();
    let (laddr, raddr) = socket.addresses(family);
    has_address(family, &laddr) || has_address(family, &raddr)
}

#[inline(always)]
fn has_address(family: u16, address: &[u8; 16]) -> bool {
    let wide = if family == AF_INET6 {
        *address
    } else {
        let mut mapped = [0; 16];
        mapped[10] = 0xff;
        mapped[11] = 0xff;
        mapped[12..].copy_from_slice(&address[..4]);
        mapped
    };
    ADDRESSES.get(Key::new(128, wide)).is_some()
}

#[inline(always)]
fn cgroups(socket: &impl Identity) -> bool {
    let count = config!(cgroup_count) as usize;
    if count == 0 {
        return true;
    }
    let cgroup = cgroup_of(socket.sk());
    for i in 0..MAX_CGROUPS {
        if i < count && ancestor_id(cgroup, config!(cgroups[i].level)) == config!(cgroups[i].id) {
            return true;
        }
    }
    false
}
