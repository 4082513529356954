//! Deaths that people reported, between a client and a server with a router between them.
//! kaprobe runs on both sides; each side gets the right answer, and so does a replay of both
//! logs. The router drops, rejects or translates by nftables.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe::traffic::sockopt;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::ipvs::{Host, exchange, expect_death};
use kaprobe_testkit::log::{Record, check};
use kaprobe_testkit::router::{RoutedNetwork, connect};
use kaprobe_testkit::traces::Traces;
use kaprobe_testkit::traffic::ends::tcp_option;
use kaprobe_testkit::wait::{HANG, wait_until};
use kaprobe_testkit::{command, doctor};
use socket2::{Domain, Protocol, Socket, Type};

/// How long connections are quiet. After less than 2 s, no probe could have been early enough.
const QUIET: Duration = Duration::from_millis(2_500);

/// Whether kaprobe sees the segments that resets come in, on this kernel.
fn sees_segments() -> Result<bool> {
    let report = doctor::report(command::kaprobe()?)?;
    let hooks = report["hooks"].as_array().context("no hooks")?;
    let hook = hooks.iter().find(|it| it["hook"] == "tcp_reset");
    Ok(hook.context("no tcp_reset")?["way"].is_string())
}

/// Waits until a socket has received data that nobody has read.
fn wait_for_data(stream: &TcpStream) -> Result<()> {
    wait_until("data has come", || Ok(stream.peek(&mut [0])? > 0))
}

/// A server closes an idle connection with the next request unread, so that a reset goes out
/// and no FIN. The client alone can't tell the server's program from a box between.
pub fn idle_close_with_data_unread() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let _alone = OwnCpu::take()?;
    let (mut near, mut far) = connect(client, server)?;
    exchange(&mut near, &mut far)?;
    let traces = Traces::start(&[client, server])?;
    thread::sleep(QUIET);
    near.write_all(b"next")?;
    wait_for_data(&far)?;
    drop(far);
    expect_death(&mut near, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    let alone = logs.one(client)?;
    ensure!(alone.text("confidence") != Some("high"), "{alone:#?}");
    // The server's kernel may have acknowledged the request before.
    let verdict = alone.text("verdict").unwrap_or_default();
    let advice = alone.text("advice").unwrap_or_default();
    let names_both = advice.contains("its program closed the connection, or a box between")
        || advice.contains("see the peer's log");
    let is_right = ["idle_eviction", "aborted_by_peer"].contains(&verdict);
    ensure!(is_right && names_both, "{alone:#?}");
    check(
        logs.one(server)?,
        ["aborted_locally", "high"],
        &["data unread"],
    )?;
    let other_end = "the other end is on server: ";
    check(
        logs.merged(client)?,
        ["aborted_by_peer", "high"],
        &[other_end, "data unread"],
    )
}

/// As before, but the server closes with a FIN, which is lost on the way. The reset that
/// answers the next request is the first thing that the client hears.
pub fn idle_close_whose_fin_is_lost() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    network.rules(
        router,
        "table ip lossy {
            chain forwarded {
                type filter hook forward priority 0
                ip saddr 10.8.2.1 tcp flags & (fin | rst) == fin drop
            }
        }",
    )?;
    let _alone = OwnCpu::take()?;
    let (mut near, mut far) = connect(client, server)?;
    exchange(&mut near, &mut far)?;
    let traces = Traces::start(&[client, server])?;
    thread::sleep(QUIET);
    drop(far);
    near.write_all(b"next")?;
    expect_death(&mut near, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    let both = "its program closed the connection, or a box between forgot it";
    check(logs.one(client)?, ["idle_eviction", "low"], &[both])?;
    check(
        logs.one(server)?,
        ["idle_close_race", "medium"],
        &["while data of its client was on its way"],
    )?;
    let closed = "had closed it, and data came afterwards";
    check(
        logs.merged(client)?,
        ["aborted_by_peer", "high"],
        &["is on server", closed],
    )
}

/// Ordinary connections that are closed in order have no verdict on either side.
pub fn ordinary_closes_are_silent() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let traces = Traces::start(&[client, server])?;
    for round in 0..40 {
        let (mut near, mut far) = connect(client, server)?;
        exchange(&mut near, &mut far)?;
        let (first, mut second) = if round % 2 == 0 {
            (near, far)
        } else {
            (far, near)
        };
        first.shutdown(Shutdown::Write)?;
        ensure!(second.read(&mut [0])? == 0, "no FIN");
        drop((second, first));
    }
    let logs = traces.stop()?;
    for host in [client, server] {
        ensure!(logs.of(host).is_empty(), "{:#?}", logs.of(host));
    }
    Ok(())
}

/// A segment from beyond the window is INVALID for the router's conntrack, and is not
/// translated back. The router itself answers it with a reset, and that ends a busy
/// connection.
pub fn invalid_segment_is_not_translated() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    network.rules(
        router,
        "table ip translate {
            chain out {
                type nat hook postrouting priority 100
                oifname \"eth2\" masquerade
            }
        }",
    )?;
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let address = listener.local_addr()?;
    let mut near = client.on(|| Ok(TcpStream::connect(address)?))?;
    let (mut far, translated) = listener.accept()?;
    near.set_read_timeout(Some(HANG))?;
    exchange(&mut near, &mut far)?;
    let traces = Traces::start(&[client, router, server])?;
    let segment = beyond_the_window(&far)?;
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (address, translated) else {
        bail!("not IPv4: {address} {translated}");
    };
    server.on(|| send_raw(from, to, segment))?;
    expect_death(&mut far, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    let words = [
        "took this segment for INVALID",
        "`conntrack -S`",
        "tcp_be_liberal=1",
    ];
    check(logs.one(router)?, ["stray_segment", "medium"], &words)?;
    ensure!(
        logs.one(router)?.text("set").is_none(),
        "{:#?}",
        logs.one(router)?
    );
    let verdict = logs.one(server)?;
    let found = (verdict.text("verdict"), verdict.text("set"));
    ensure!(found == (Some("aborted_by_peer"), None), "{verdict:#?}");
    let words = ["the other end is on router", "INVALID"];
    check(logs.merged(server)?, ["aborted_by_peer", "high"], &words)
}

/// Sequence numbers of a segment that a stream could send, but far beyond the window.
fn beyond_the_window(stream: &TcpStream) -> Result<(u32, u32)> {
    /// `enum` of include/uapi/linux/tcp.h.
    const TCP_RECV_QUEUE: i32 = 1;
    const TCP_SEND_QUEUE: i32 = 2;
    sockopt::set(stream, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)?;
    let sequence = |queue| -> Result<u32> {
        sockopt::set(stream, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
        Ok(tcp_option(stream, libc::TCP_QUEUE_SEQ)?.cast_unsigned())
    };
    let (next, acknowledged) = (sequence(TCP_SEND_QUEUE)?, sequence(TCP_RECV_QUEUE)?);
    /// `TCP_REPAIR_OFF_NO_WP`: no window probe follows.
    const OFF: i32 = -1;
    sockopt::set(stream, libc::IPPROTO_TCP, libc::TCP_REPAIR, OFF)?;
    Ok((next.wrapping_add(50_000_000), acknowledged))
}

/// Sends a segment with data that no socket sends.
fn send_raw(from: SocketAddrV4, to: SocketAddrV4, (seq, ack): (u32, u32)) -> Result<()> {
    const ACK_AND_PUSH: u8 = 0x18;
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    // A header of five words, and a window.
    segment.extend([5 << 4, ACK_AND_PUSH, 1, 0]);
    // The checksum and the urgent pointer, then the data.
    segment.extend([0; 4]);
    segment.extend([b'x'; 100]);
    let checksum = checksum(*from.ip(), *to.ip(), &segment).to_be_bytes();
    segment[16..18].copy_from_slice(&checksum);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    let to = SocketAddrV4::new(*to.ip(), 0);
    ensure!(socket.send_to(&segment, &to.into())? == segment.len());
    Ok(())
}

/// The checksum of a TCP segment (RFC 9293, 3.1).
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let protocol = [0, 6];
    let len = u16::try_from(segment.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &protocol, &len, segment].concat();
    let words = pseudo.chunks(2).map(|it| {
        let [high, low] = [it[0], it.get(1).copied().unwrap_or(0)];
        u32::from(u16::from_be_bytes([high, low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A program does not close what its peer has closed. The peer's host forgets its half, and
/// the late FIN draws a reset: neither side has lost anything. With keepalive on, the probe
/// draws it, and the peer had closed.
pub fn late_close_is_no_eviction() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    server.on(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "1")?))?;
    let _alone = OwnCpu::take()?;
    for keepalive in [false, true] {
        let (mut near, mut far) = connect(client, server)?;
        let port = far.local_addr()?.port();
        let traces = Traces::start(&[client, server])?;
        exchange(&mut near, &mut far)?;
        drop(far);
        ensure!(near.read(&mut [0])? == 0, "no FIN");
        wait_until("the server has forgotten its half", || {
            Ok(!server.on(|| has_port(port))?)
        })?;
        if keepalive {
            sockopt::set(&near, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1)?;
            sockopt::set(&near, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
            wait_until("the probe has drawn a reset", || {
                Ok(near.take_error()?.is_some())
            })?;
        } else {
            drop(near);
            wait_until("the FIN has drawn a reset", || {
                Ok(!client.on(|| has_port(port))?)
            })?;
        }
        let logs = traces.stop()?;
        if keepalive {
            let advice = ["the peer had already closed"];
            check(logs.one(client)?, ["probe_reset", "high"], &advice)?;
            // A probe has neither data nor FIN, and a busy close has no record: the server may
            // not know that it had the connection.
            let words = ["this host has closed the connection, and ", " has not; or "];
            for verdict in logs.of(server) {
                check(verdict, ["stray_segment", "low"], &words)?;
            }
            check(logs.merged(client)?, ["probe_reset", "high"], &advice)?;
        } else {
            for host in [client, server] {
                ensure!(logs.of(host).is_empty(), "{:#?}", logs.of(host));
            }
        }
    }
    Ok(())
}

/// Whether this network namespace has a socket or minisock with a port at one end.
fn has_port(port: u16) -> Result<bool> {
    let sockets = fs::read_to_string("/proc/thread-self/net/tcp")?;
    Ok(sockets.contains(&format!(":{port:04X} ")))
}

/// The accept queue of a server becomes full while several handshakes are under way, and it
/// is told to reset what overflows.
pub fn accept_queue_overflows() -> Result<()> {
    const BACKLOG: i32 = 4;
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    let listener = server.on(|| {
        fs::write("/proc/sys/net/ipv4/tcp_abort_on_overflow", "1")?;
        let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        listener.bind(&SocketAddr::from((server.address, 0)).into())?;
        listener.listen(BACKLOG)?;
        Ok(listener)
    })?;
    let address = listener.local_addr()?.as_socket().context("no address")?;
    let connect = || -> Result<_> {
        let socket = client.on(|| Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(why) if why.raw_os_error() != Some(libc::EINPROGRESS) => Err(why.into()),
            _ => Ok(socket),
        }
    };
    let _queued = (0..BACKLOG)
        .map(|_| connect())
        .collect::<Result<Vec<_>>>()?;
    wait_for_handshakes(server, address.port(), ESTABLISHED)?;
    let traces = Traces::start(&[client, server])?;
    let hold = "table ip hold {
        chain forwarded {
            type filter hook forward priority 0
            tcp flags & (syn | ack) == (syn | ack) drop
        }
    }";
    network.rules(router, hold)?;
    let late = (0..BACKLOG)
        .map(|_| connect())
        .collect::<Result<Vec<_>>>()?;
    wait_for_handshakes(server, address.port(), SYN_RECV)?;
    network.rules(router, "delete table ip hold")?;
    wait_until("a connection is reset", || {
        let errors = late.iter().map(Socket::take_error);
        let errors = errors.collect::<Result<Vec<_>, _>>()?;
        Ok(errors.iter().any(Option::is_some))
    })?;
    let logs = traces.stop()?;
    ensure!(!logs.of(server).is_empty(), "nothing overflowed");
    for verdict in logs.of(server) {
        let advice = verdict.text("advice").unwrap_or_default();
        let is_named = advice.contains("accept queue") && advice.contains("tcp_abort_on_overflow");
        ensure!(is_named, "{verdict:#?}");
    }
    ensure!(!logs.of(client).is_empty(), "no client was reset");
    for verdict in logs.of(client) {
        let words = [
            "reset before the peer had sent any data",
            "its accept queue was full",
        ];
        check(verdict, ["aborted_by_peer", "medium"], &words)?;
        ensure!(verdict.text("set").is_none(), "{verdict:#?}");
    }
    let of_client = |it: &&Record| it.event() == "verdict" && it.text("host") == Some(client.name);
    let knows = |it: &&Record| {
        let confidence = it.text("confidence");
        it.event() == "verdict"
            && it.text("host") == Some(server.name)
            && confidence == Some("high")
    };
    // Before 6.10 the kernel gives no reason, and the server knows no more than the client.
    let confidence = match logs.merged.records.iter().find(knows) {
        Some(_) => "high",
        None => "medium",
    };
    for verdict in logs.merged.records.iter().filter(of_client) {
        check(verdict, ["aborted_by_peer", confidence], &["accept queue"])?;
    }
    Ok(())
}

/// Numbers of TCP states: include/net/tcp_states.h.
const ESTABLISHED: &str = "01";
const SYN_RECV: &str = "03";

/// Waits until four connections to a port have this state.
fn wait_for_handshakes(host: &Host, port: u16, state: &str) -> Result<()> {
    wait_until("the handshakes have come so far", || {
        let sockets = host.on(|| Ok(fs::read_to_string("/proc/thread-self/net/tcp")?))?;
        let local = format!(":{port:04X}");
        let in_state = sockets.lines().filter(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let is_local = fields.next().is_some_and(|it| it.ends_with(&local));
            is_local && fields.nth(1) == Some(state)
        });
        Ok(in_state.count() == 4)
    })
}

/// The router translates, and forgets a half-closed connection before the server answers.
pub fn half_closed_connection_is_forgotten() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    network.rules(
        router,
        "table ip translate {
            chain in {
                type nat hook prerouting priority -100
                ip daddr 10.8.1.254 tcp dport 988 dnat to 10.8.2.1
            }
        }",
    )?;
    router.on(|| {
        let set = |name: &str, value: &str| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_{name}");
            fs::write(&path, value).context(path)
        };
        set("timeout_close_wait", "1")?;
        set("loose", "0")
    })?;
    // A slow machine may start the traces after conntrack has forgotten the connection.
    let _tracking = network.track(router, 432_000)?;
    let _alone = OwnCpu::take()?;
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 988))?))?;
    let near = client.on(|| Ok(TcpStream::connect((router.address, 988))?))?;
    let (mut far, _) = listener.accept()?;
    near.shutdown(Shutdown::Write)?;
    ensure!(far.read(&mut [0])? == 0, "no FIN");
    let traces = Traces::start(&[client, server])?;
    // Longer than conntrack keeps it.
    thread::sleep(2 * QUIET);
    far.write_all(b"answer")?;
    wait_until("the answer has drawn a reset", || {
        Ok(far.take_error()?.is_some())
    })?;
    let logs = traces.stop()?;
    let words = ["one end had closed, and this host's conntrack in netns router forgets"];
    check(logs.one(server)?, ["aborted_by_peer", "medium"], &words)?;
    let words = [
        "a NAT between forgot an idle or half-closed connection of this host, and sent its segment \
         here without translating it",
        "nf_conntrack_tcp_timeout_close_wait",
    ];
    check(logs.one(client)?, ["stray_segment", "low"], &words)?;
    check(logs.merged(client)?, ["stray_segment", "low"], &words)
}

/// A firewall on the client's own host resets the connection: by the loopback device, though
/// the server is elsewhere. On the server's host, the handshake showed where the client is.
pub fn own_firewall_is_told_from_the_peer() -> Result<()> {
    if !sees_segments()? {
        return Err(Skip("this kernel does not show the segment of a reset".into()).into());
    }
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    for (host, confidence) in [(client, "medium"), (server, "high")] {
        let rules = "table ip strict {
            chain out {
                type filter hook output priority 0
                ip length > 1000 reject with tcp reset
            }
        }";
        network.rules(host, rules)?;
        let (near, far) = connect(client, server)?;
        let traces = Traces::start(&[client, server])?;
        let ends = [near, far];
        let [mut own, mut other] = ends;
        if host.name == server.name {
            (own, other) = (other, own);
        }
        // Just before, so that the connection is in use.
        exchange(&mut own, &mut other)?;
        own.write_all(&LONG)?;
        expect_death(&mut own, ErrorKind::ConnectionReset)?;
        let logs = traces.stop()?;
        network.rules(host, "delete table ip strict")?;
        let words = ["this host itself sent the reset", "`nft list ruleset`"];
        check(logs.one(host)?, ["aborted_locally", confidence], &words)?;
        ensure!(logs.one(host)?.text("set").is_none());
    }
    Ok(())
}

/// A client's connection is redirected to a proxy on its own host, as by a service mesh. The
/// proxy's reset comes by the loopback device too, and its own record tells who sent it.
pub fn redirected_connection_names_its_proxy() -> Result<()> {
    if !sees_segments()? {
        return Err(Skip("this kernel does not show the segment of a reset".into()).into());
    }
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let rules = "table ip mesh {
        chain out {
            type nat hook output priority -100
            tcp dport 9999 redirect to :15001
        }
    }";
    network.rules(client, rules)?;
    let proxy = client.on(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15_001))?))?;
    let mut near = client.on(|| Ok(TcpStream::connect((server.address, 9_999))?))?;
    let (mut far, _) = proxy.accept()?;
    near.set_read_timeout(Some(HANG))?;
    let traces = Traces::start(&[client])?;
    exchange(&mut near, &mut far)?;
    near.write_all(b"next")?;
    wait_for_data(&far)?;
    drop(far);
    expect_death(&mut near, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    let verdicts = logs.of(client);
    let redirected = verdicts.iter().find(|it| it.number("rport") == Some(9_999));
    let redirected = redirected.with_context(|| format!("{verdicts:#?}"))?;
    let words = ["the other end is on this host", "data unread"];
    check(redirected, ["aborted_by_peer", "high"], &words)
}

/// Data that makes a segment longer than the rules let through.
const LONG: [u8; 1_200] = [b'x'; 1_200];

/// The router rejects a connection of the server: the reset is nearer than the client, whose
/// handshake showed how far away it is.
pub fn reset_of_a_box_is_told_from_the_peer() -> Result<()> {
    if !sees_segments()? {
        return Err(Skip("this kernel does not show the segment of a reset".into()).into());
    }
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    let rules = "table ip strict {
        chain through {
            type filter hook forward priority 0
            ip length > 1000 reject with tcp reset
        }
    }";
    network.rules(router, rules)?;
    let (mut near, mut far) = connect(client, server)?;
    let traces = Traces::start(&[server])?;
    exchange(&mut near, &mut far)?;
    far.write_all(&LONG)?;
    expect_death(&mut far, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    let words = ["a box between sent the reset: its TTL is 64, where the peer's segments have 63"];
    check(logs.one(server)?, ["aborted_by_peer", "medium"], &words)?;
    ensure!(logs.one(server)?.text("set").is_none());
    Ok(())
}

/// A server's program restarts. A segment of a connection to the earlier one meets the new
/// listener, and the verdict tells since when its process runs.
pub fn younger_listener_is_named() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let address = listener.local_addr()?;
    let mut near = client.on(|| Ok(TcpStream::connect(address)?))?;
    let (far, _) = listener.accept()?;
    near.set_read_timeout(Some(HANG))?;
    // Without a word, as by a kill and a rule that drops what follows.
    sockopt::set_repair(&far)?;
    drop((far, listener));
    let traces = Traces::start(&[server])?;
    let _again = server.on(|| Ok(TcpListener::bind(address)?))?;
    near.write_all(b"next")?;
    expect_death(&mut near, ErrorKind::ConnectionReset)?;
    let logs = traces.stop()?;
    // In a guest, the host started only lately too.
    // In a guest, this process may have run for a while.
    let words = ["started ", "s ago, "];
    check(logs.one(server)?, ["stray_segment", "low"], &words)?;
    let mut records = logs.logs.iter().flat_map(|(_, log)| &log.records);
    let sent = records.find(|it| it.event() == "rst_sent");
    let sent = sent.context("no rst_sent")?;
    let pid = sent.number("pid");
    ensure!(pid == Some(std::process::id().into()), "{sent:#?}");
    ensure!(sent.number("process_age_s").is_some(), "{sent:#?}");
    Ok(())
}

/// A client's host restarts, and its client uses the same ports again. The server still has
/// the old connection.
pub fn ports_are_used_again_after_a_restart() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let address = listener.local_addr()?;
    let (near, local) = client.on(|| {
        let near = TcpStream::connect(address)?;
        let local = near.local_addr()?;
        Ok((near, local))
    })?;
    let (mut far, _) = listener.accept()?;
    // Without a word, as by a restart.
    sockopt::set_repair(&near)?;
    drop(near);
    let traces = Traces::start(&[client, server])?;
    let again = client.on(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&local.into())?;
        socket.connect(&address.into())?;
        Ok(socket)
    })?;
    expect_death(&mut far, ErrorKind::ConnectionReset)?;
    drop(again);
    let logs = traces.stop()?;
    let words = ["the peer still has an older connection with the ports of this new one"];
    let strays = logs.of(client);
    let first = strays.first().context("no verdict on the client")?;
    check(first, ["stray_segment", "medium"], &words)?;
    let ends = logs.of(server);
    ensure!(
        ends.iter().all(|it| it.text("confidence") != Some("high")),
        "{ends:#?}"
    );
    let merged = logs
        .merged
        .records
        .iter()
        .filter(|it| it.event() == "verdict");
    let mut merged = merged.filter(|it| it.text("host") == Some(server.name));
    let words = ["the other end is on client: it opened a new connection with the same ports"];
    check(
        merged.next().context("no verdict")?,
        ["aborted_by_peer", "high"],
        &words,
    )
}
