//! The only module that reads kernel memory.
//!
//! Every offset comes from [`Config`], by name from the running kernel's BTF. A
//! read that faults gives zeroes: `bpf_probe_read_kernel` clears its destination.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns, generated::bpf_probe_read_kernel};
use kaprobe_ebpf::{
    config::{ABSENT, Config},
    wire::{Event, Snapshot, Socket, flag, kind},
};

/// Set by user space before the programs are loaded.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::EMPTY;

/// A member of [`CONFIG`]. Volatile, so that the compiler takes no value from the
/// initializer: the verifier is who sees the real one.
macro_rules! config {
    ($($member:tt)+) => {
        // SAFETY: a place inside a static, aligned as its type is.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.$($member)+) }
    };
}
pub(crate) use config;

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `TCP_FIN_WAIT2`, include/net/tcp_states.h.
pub const TCP_FIN_WAIT2: u8 = 5;
/// `TCP_TIME_WAIT`: the state of a minisock.
const TCP_TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`.
pub const TCP_CLOSE: u8 = 7;
/// `TCP_NEW_SYN_RECV`: the state of another.
const TCP_NEW_SYN_RECV: u8 = 12;

/// Bits of the 14th byte of a TCP header (RFC 9293, 3.1).
const TCP_FLAG_SYN: u8 = 1 << 1;
/// Likewise.
pub const TCP_FLAG_RST: u8 = 1 << 2;
/// Likewise.
const TCP_FLAG_ACK: u8 = 1 << 4;

/// `enum sock_flags`, include/net/sock.h: the first entries, the same since 2.6.
const SOCK_DEAD: u64 = 1 << 0;
const SOCK_KEEPOPEN: u64 = 1 << 3;

/// Reads `size` bytes at `base + offset` to where they belong: the programs' stack
/// is 512 bytes, too small for copies.
#[inline(always)]
fn read_into(to: *mut u8, size: u32, base: u64, offset: u32) {
    // SAFETY: `to` has room for `size` bytes, as every caller here sees to. The
    // helper checks the address it reads itself.
    unsafe { bpf_probe_read_kernel(to.cast(), size, (base + offset as u64) as *const c_void) };
}

/// Reads a `T` at `base + offset`.
#[inline(always)]
fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    read_into((&raw mut value).cast(), size_of::<T>() as u32, base, offset);
    value
}

/// Fills a place from the member at an offset of [`Config::offsets`]. The place's
/// size is the member's.
macro_rules! fill {
    ($to:expr, $base:expr, $offset:ident) => {
        read_into(
            (&raw mut $to).cast(),
            size_of_val(&$to) as u32,
            $base,
            config!(offsets.$offset),
        )
    };
}

/// The member at an offset of [`Config::offsets`].
macro_rules! member {
    ($base:expr, $offset:ident) => {
        read($base, config!(offsets.$offset))
    };
    ($base:expr, $offset:ident => $type:ty) => {
        read::<$type>($base, config!(offsets.$offset))
    };
}

/// Now, in the kernel's 32-bit jiffies (`tcp_jiffies32`).
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as u32 }
}

/// Now, CLOCK_MONOTONIC ns.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The socket that a keepalive timer lies in.
#[inline(always)]
pub fn socket_of(timer: u64) -> u64 {
    timer - config!(offsets.timer) as u64
}

/// The keepalive timer of a socket.
#[inline(always)]
pub fn timer_of(sk: u64) -> u64 {
    sk + config!(offsets.timer) as u64
}

/// The function that a timer calls.
#[inline(always)]
pub fn timer_function(timer: u64) -> u64 {
    member!(timer, timer_function)
}

/// The socket's cookie, 0 where none was made.
#[inline(always)]
pub fn cookie(sk: u64) -> u64 {
    member!(sk, skc_cookie)
}

/// The keepalive time and interval of the socket's netns, jiffies.
#[inline(always)]
pub fn sysctls(sk: u64) -> (u32, u32) {
    let net: u64 = member!(sk, skc_net);
    (
        member!(net, net_keepalive_time),
        member!(net, net_keepalive_intvl),
    )
}

/// Which socket this is: all that the filters ask for, so that one filtered out
/// costs no more than this.
#[inline(always)]
pub fn identify(sk: u64) -> Socket {
    let mut socket = Socket::EMPTY;
    socket.sk = sk;
    fill!(socket.family, sk, skc_family);
    fill!(socket.lport, sk, inet_sport);
    fill!(socket.rport, sk, skc_dport);
    socket.lport = u16::from_be(socket.lport);
    socket.rport = u16::from_be(socket.rport);
    if socket.family == AF_INET6 && config!(offsets.skc_v6_daddr) != ABSENT {
        fill!(socket.laddr, sk, skc_v6_rcv_saddr);
        fill!(socket.raddr, sk, skc_v6_daddr);
    } else {
        fill_v4(&mut socket.laddr, sk, config!(offsets.skc_rcv_saddr));
        fill_v4(&mut socket.raddr, sk, config!(offsets.skc_daddr));
    }
    let net: u64 = member!(sk, skc_net);
    fill!(socket.netns, net, net_inum);
    socket
}

/// The ends of the segment in `skb`, seen from this host, and what else its headers
/// tell. `sk` is the socket or minisock that it met, 0 for none: it knows the network
/// namespace, and where there is none the device does. (`tcp_v4_rcv` takes the device
/// from a segment that has a socket.)
#[inline(always)]
pub fn dissect(sk: u64, skb: u64, event: &mut Event) {
    let head: u64 = member!(skb, skb_head);
    let network = member!(skb, skb_network_header => u16) as u64;
    let transport = member!(skb, skb_transport_header => u16) as u64;
    let (ip, tcp) = (head + network, head + transport);
    let socket = &mut event.socket;

    socket.rport = u16::from_be(read(tcp, 0));
    socket.lport = u16::from_be(read(tcp, 2));
    let tcp_bytes = (read::<u8>(tcp, 12) >> 4) as u64 * 4;
    event.segment_flags = read(tcp, 13);

    let ip_bytes = if read::<u8>(ip, 0) >> 4 == 6 {
        socket.family = AF_INET6;
        read_into(socket.raddr.as_mut_ptr(), 16, ip, 8);
        read_into(socket.laddr.as_mut_ptr(), 16, ip, 24);
        event.segment_ttl = read(ip, 7);
        40 + u16::from_be(read(ip, 4)) as u64
    } else {
        socket.family = AF_INET;
        fill_v4(&mut socket.raddr, ip, 12);
        fill_v4(&mut socket.laddr, ip, 16);
        event.segment_ttl = read(ip, 8);
        u16::from_be(read(ip, 2)) as u64
    };
    event.segment_len = ip_bytes.saturating_sub(transport - network + tcp_bytes) as u32;

    let net: u64 = if sk != 0 {
        event.state = member!(sk, skc_state);
        member!(sk, skc_net)
    } else {
        let dev: u64 = member!(skb, skb_dev);
        member!(dev, dev_net)
    };
    fill!(socket.netns, net, net_inum);
}

/// `icsk_probes_out`: probes sent and not answered.
#[inline(always)]
pub fn probes_out(sk: u64) -> u8 {
    member!(sk, icsk_probes_out)
}

/// FIN, SYN, RST, PSH, ACK, URG, ECE and CWR of the segment in `skb`, FIN in the lowest
/// bit.
#[inline(always)]
fn segment_flags(skb: u64) -> u8 {
    let head: u64 = member!(skb, skb_head);
    read(head + member!(skb, skb_transport_header => u16) as u64, 13)
}

/// Whether the segment in `skb` takes probes back: whether `tcp_ack` will come to where
/// it sets `icsk_probes_out` to 0 (net/ipv4/tcp_input.c).
///
/// `tcp_validate_incoming` lets through what is no reset, no SYN and not older than what
/// was received; a probe of the peer's own is older by one byte. (PAWS and a segment from
/// beyond the window are not asked for.) `tcp_ack` wants an acknowledgement of what is
/// outstanding or of all that was.
#[inline(always)]
pub fn takes_probes_back(sk: u64, skb: u64) -> bool {
    let flags = segment_flags(skb);
    let (end_seq, ack_seq): (u32, u32) = (member!(skb, skb_end_seq), member!(skb, skb_ack_seq));
    let (rcv_nxt, snd_una): (u32, u32) = (member!(sk, rcv_nxt), member!(sk, snd_una));
    let write_seq: u32 = member!(sk, write_seq);
    flags & TCP_FLAG_ACK != 0
        && flags & (TCP_FLAG_RST | TCP_FLAG_SYN) == 0
        && !before(end_seq, rcv_nxt)
        && !before(ack_seq, snd_una)
        && !before(write_seq, ack_seq)
}

/// `before`, include/net/tcp.h: sequence numbers wrap.
#[inline(always)]
fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// Reads an IPv4 address into the first four bytes of sixteen.
#[inline(always)]
fn fill_v4(wide: &mut [u8; 16], sk: u64, offset: u32) {
    let (v4, _) = wide.split_at_mut(4);
    read_into(v4.as_mut_ptr(), 4, sk, offset);
}

/// What the socket says of itself now, past its identity.
#[inline(always)]
pub fn describe(sk: u64, event: &mut Event) {
    event.mono_ns = now_ns();
    event.jiffies = jiffies();
    event.jiffies_after = event.jiffies;
    event.inode = inode(sk);
    event.cgroup = read_cgroup_id(cgroup_of(sk));
    event.flags |= flags(sk);
    fill!(event.cookie, sk, skc_cookie);
    fill!(event.uid, sk, sk_uid);
    fill!(event.state, sk, skc_state);
    fill!(event.retransmits, sk, icsk_retransmits);
    fill!(event.probes_out, sk, icsk_probes_out);
    fill!(event.packets_out, sk, packets_out);
    fill!(event.lrcvtime, sk, lrcvtime);
    fill!(event.rcv_tstamp, sk, rcv_tstamp);
    fill!(event.lsndtime, sk, lsndtime);
    fill!(event.err, sk, sk_err);
    fill!(event.expires, timer_of(sk), timer_expires);
    event.state_after = event.state;
    event.probes_out_after = event.probes_out;
    event.expires_after = event.expires;
    settings(sk, event);
}

/// The socket's own settings, and those of its netns.
#[inline(always)]
fn settings(sk: u64, event: &mut Event) {
    fill!(event.keepalive_time, sk, keepalive_time);
    fill!(event.keepalive_intvl, sk, keepalive_intvl);
    fill!(event.user_timeout, sk, icsk_user_timeout);
    event.keepalive_probes = member!(sk, keepalive_probes => u8) as u32;
    let net: u64 = member!(sk, skc_net);
    fill!(event.sysctl_time, net, net_keepalive_time);
    fill!(event.sysctl_intvl, net, net_keepalive_intvl);
    event.sysctl_probes = if config!(offsets.net_keepalive_probes_size) == 1 {
        member!(net, net_keepalive_probes => u8) as u32
    } else {
        member!(net, net_keepalive_probes)
    };
}

/// The [`flag`]s that the socket's own members tell.
#[inline(always)]
fn flags(sk: u64) -> u16 {
    let bits: u64 = member!(sk, sk_flags);
    let owned: u32 = member!(sk, sk_lock_owned);
    // `tcp_write_queue_empty`: the list head points to itself.
    let queue = sk + config!(offsets.sk_write_queue) as u64;
    let first: u64 = read(queue, 0);
    let mut flags = 0;
    if bits & SOCK_DEAD != 0 {
        flags |= flag::DEAD;
    }
    if bits & SOCK_KEEPOPEN != 0 {
        flags |= flag::KEEPOPEN;
    }
    if owned != 0 {
        flags |= flag::OWNED;
    }
    if first != queue {
        flags |= flag::WRITE_QUEUE;
    }
    flags
}

/// What a firing has changed: read once the function has returned. The socket may
/// be free by then, and even another's; the outcomes that free it do not look here.
#[inline(always)]
pub fn look_again(sk: u64, event: &mut Event) {
    let timer = timer_of(sk);
    let pprev: u64 = member!(timer, timer_pprev);
    if pprev != 0 {
        event.flags |= flag::PENDING_AFTER;
    }
    fill!(event.expires_after, timer, timer_expires);
    fill!(event.state_after, sk, skc_state);
    fill!(event.probes_out_after, sk, icsk_probes_out);
    fill!(event.err, sk, sk_err);
    event.jiffies_after = jiffies();
}

/// The socket that the iterator has come to, from its context; 0 at the end. The
/// second of what `bpf_iter_tcp` takes, net/ipv4/tcp_ipv4.c.
#[inline(always)]
pub fn iterated(ctx: *mut c_void) -> u64 {
    read(ctx as u64, 8)
}

/// The socket as it is. A minisock has no more of a socket than `sock_common`; what
/// lies past that is its own.
#[inline(always)]
pub fn snapshot(socket: Socket, snapshot: &mut Snapshot) {
    let sk = socket.sk;
    let event = &mut snapshot.event;
    event.socket = socket;
    event.kind = kind::SNAPSHOT;
    fill!(event.state, sk, skc_state);
    match event.state {
        TCP_TIME_WAIT => {
            fill!(snapshot.rto_expires, sk, tw_expires);
            fill!(snapshot.substate, sk, tw_substate);
        }
        TCP_NEW_SYN_RECV => {
            fill!(snapshot.rto_expires, sk, rsk_expires);
            snapshot.timeouts = member!(sk, rsk_num_timeout => u8) >> 1;
        }
        _ => {
            describe(sk, event);
            look_again(sk, event);
            fill!(snapshot.rto_expires, sk, rto_expires);
            fill!(snapshot.pending, sk, icsk_pending);
            fill!(snapshot.rcv_nxt, sk, rcv_nxt);
            fill!(snapshot.copied_seq, sk, copied_seq);
            fill!(snapshot.write_seq, sk, write_seq);
            fill!(snapshot.snd_una, sk, snd_una);
            fill!(snapshot.ack_backlog, sk, sk_ack_backlog);
            return;
        }
    }
    event.mono_ns = now_ns();
    event.jiffies = jiffies();
    event.jiffies_after = event.jiffies;
    // `inet_sport` is past what a minisock has.
    fill!(event.socket.lport, sk, skc_num);
}

/// The inode number of the socket's file; 0 for an orphan.
#[inline(always)]
fn inode(sk: u64) -> u64 {
    let socket: u64 = member!(sk, sk_socket);
    if socket == 0 {
        return 0;
    }
    member!(socket, socket_ino)
}

/// The cgroup v2 that the socket was made in; 0 where unknown.
#[inline(always)]
pub fn cgroup_of(sk: u64) -> u64 {
    if config!(offsets.sk_cgrp) == ABSENT {
        return 0;
    }
    let cgroup: u64 = member!(sk, sk_cgrp);
    // 5.10: `sock_cgroup_ptr`, include/linux/cgroup.h: the low bits say that no
    // pointer is held, and the socket then counts to the root.
    if config!(offsets.sk_cgrp_tagged) == 1 && cgroup & 3 != 0 {
        return 0;
    }
    cgroup
}

/// The id of a cgroup: its directory's inode number.
#[inline(always)]
pub fn read_cgroup_id(cgroup: u64) -> u64 {
    if cgroup == 0 {
        return 0;
    }
    let kn: u64 = member!(cgroup, cgroup_kn);
    member!(kn, kn_id)
}

/// The id of the cgroup's ancestor at `level`, itself included; 0 where it lies
/// above that level.
#[inline(always)]
pub fn ancestor_id(cgroup: u64, level: u32) -> u64 {
    let own: u32 = member!(cgroup, cgroup_level);
    if cgroup == 0 || own < level {
        return 0;
    }
    let slot = level * 8;
    if config!(offsets.cgroup_ancestors) != ABSENT {
        return read_cgroup_id(read(cgroup, config!(offsets.cgroup_ancestors) + slot));
    }
    read(cgroup, config!(offsets.cgroup_ancestor_ids) + slot)
}
