//! Reads TCP sockets from netlink sock_diag, as `ss` does, if BPF programs may not be
//! loaded. sock_diag has no keepalive settings.

use crate::model::socket::Endpoints;
use std::io;
use std::mem::{offset_of, size_of};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use netlink_packet_core::{DefaultNla, Nla as _, parse_u64};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer as DiagTimer,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::host::netlink;
use crate::model::row::{Row, RowSource, Timer};
use crate::model::time::Instant;
use crate::model::values::{Family, State};

/// `INET_DIAG_CGROUP_ID`, include/uapi/linux/inet_diag.h: since 5.8.
const CGROUP_ID: u16 = 21;

/// Reads every TCP socket of this thread's network namespace, which is `netns`.
///
/// # Errors
/// If the sockets can't be read, or `on_row` fails.
pub fn each(
    netns: u32,
    now: impl Fn() -> Instant,
    on_row: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        dump(
            family,
            any,
            &mut |response| match row(netns, now(), response) {
                Some(row) => on_row(row),
                None => Ok(()),
            },
        )
        .context("cannot ask sock_diag for the TCP sockets")?;
    }
    Ok(())
}

/// Names the modules that the kernel lacks if an error says that it lacks them. Without
/// sock_diag there is no such protocol (`netlink_create`, net/netlink/af_netlink.c); without
/// tcp_diag there is no handler (`inet_diag_lock_handler`, net/ipv4/inet_diag.c).
///
/// The kernel loads them itself on demand, where it may. kaprobe loads none.
fn missing_module(why: anyhow::Error) -> anyhow::Error {
    let errno = why
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    match errno {
        Some(libc::EPROTONOSUPPORT | libc::ENOENT) => anyhow!(
            "the kernel modules inet_diag and tcp_diag are not loaded, and the kernel did not load \
             them itself: `modprobe tcp_diag` does"
        ),
        _ => why,
    }
}

fn dump(
    family: u8,
    socket_id: SocketId,
    on_response: &mut dyn FnMut(&InetResponse) -> Result<()>,
) -> Result<()> {
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        // All states, including those of newer kernels.
        states: StateFlags::from_bits_retain(u32::MAX),
        socket_id,
    };
    let request = SockDiagMessage::InetRequest(request);
    let dumped = netlink::dump(NETLINK_SOCK_DIAG, request, &mut |answer| {
        if let SockDiagMessage::InetResponse(response) = answer {
            on_response(&response)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    dumped.map_err(missing_module)
}

/// Converts a response to a row. `None` if the TCP state is unknown.
fn row(netns: u32, at: Instant, response: &InetResponse) -> Option<Row> {
    let header = &response.header;
    let state = State::from_number(header.state)?;
    let id = &header.socket_id;
    let local = (id.source_address, id.source_port);
    let remote = (id.destination_address, id.destination_port);
    let mut endpoints = Endpoints::new(local, remote, netns);
    if header.family != AF_INET {
        endpoints.family = Family::Inet6;
    }
    let mut row = Row::new(at, endpoints, state, RowSource::SockDiag);
    row.recvq = header.recv_queue.into();
    // For a listener this is the maximum backlog.
    if state != State::Listen {
        row.sendq = header.send_queue.into();
    }
    row.timer = timer(header.timer.as_ref());
    row.timer_ms = timer_ms(header.timer.as_ref());
    let cookie = u64::from_ne_bytes(id.cookie);
    let minisock = matches!(state, State::TimeWait | State::SynRecv) && header.inode == 0;
    row.identity.cookie = (cookie != 0).then_some(cookie);
    if minisock {
        return Some(row);
    }
    row.identity.uid = Some(header.uid);
    row.identity.inode = (header.inode != 0).then_some(header.inode.into());
    row.settings.keepalive = keepalive(&row);
    row.keepalive_next_ms = row.timer_ms.filter(|_| row.timer == Timer::Keepalive);
    for nla in &response.nlas {
        match nla {
            Nla::TcpInfo(info) => add_info(&mut row, info),
            Nla::Other(other) if other.kind() == CGROUP_ID => row.identity.cgroup = cgroup(other),
            _ => {}
        }
    }
    Some(row)
}

/// Infers SO_KEEPALIVE from the timer. With SO_KEEPALIVE, an open connection has a
/// keepalive timer from the handshake on (`tcp_finish_connect`, net/ipv4/tcp_input.c).
/// sock_diag reports it if no other timer is pending (`inet_sk_diag_fill`,
/// net/ipv4/inet_diag.c).
fn keepalive(row: &Row) -> Option<bool> {
    match (row.state, row.timer) {
        (State::Established | State::CloseWait, Timer::Keepalive) => Some(true),
        (State::Established | State::CloseWait, Timer::Off) => Some(false),
        _ => None,
    }
}

fn timer(pending: Option<&DiagTimer>) -> Timer {
    match pending {
        None => Timer::Off,
        Some(DiagTimer::Retransmit(..)) => Timer::On,
        Some(DiagTimer::KeepAlive(_)) => Timer::Keepalive,
        Some(DiagTimer::TimeWait) => Timer::TimeWait,
        Some(DiagTimer::Probe(_)) => Timer::Probe,
    }
}

fn timer_ms(pending: Option<&DiagTimer>) -> Option<u64> {
    let ms = |left: &Duration| u64::try_from(left.as_millis()).ok();
    match pending? {
        DiagTimer::Retransmit(left, _) | DiagTimer::KeepAlive(left) | DiagTimer::Probe(left) => {
            ms(left)
        }
        // The library does not parse this value.
        DiagTimer::TimeWait => None,
    }
}

/// Adds fields of a `struct tcp_info`. An older kernel's struct may be shorter than the
/// library's, so fields are read by offset.
fn add_info(row: &mut Row, info: &[u8]) {
    macro_rules! member {
        ($name:ident: $type:ty) => {{
            let at = offset_of!(libc::tcp_info, $name);
            let bytes = info.get(at..at + size_of::<$type>());
            bytes
                .and_then(|it| it.try_into().ok())
                .map(<$type>::from_ne_bytes)
        }};
    }
    row.retransmits = member!(tcpi_retransmits: u8);
    row.probes_out = member!(tcpi_probes: u8);
    // In these states the fields below have another meaning, or none (`tcp_get_info`,
    // net/ipv4/tcp.c).
    if matches!(row.state, State::Listen | State::SynSent | State::Close) {
        return;
    }
    row.unacked = member!(tcpi_unacked: u32);
    let ms = |age: Option<u32>| age.map(u64::from);
    row.ages.lastsnd_ms = ms(member!(tcpi_last_data_sent: u32));
    row.ages.lastrcv_ms = ms(member!(tcpi_last_data_recv: u32));
    row.ages.lastack_ms = ms(member!(tcpi_last_ack_recv: u32));
    row.ages.idle_ms = row.ages.lastrcv_ms.min(row.ages.lastack_ms);
}

fn cgroup(nla: &DefaultNla) -> Option<u64> {
    let mut bytes = [0; 8];
    if nla.value_len() != bytes.len() {
        return None;
    }
    nla.emit_value(&mut bytes);
    parse_u64(&bytes).ok().filter(|&id| id != 0)
}
