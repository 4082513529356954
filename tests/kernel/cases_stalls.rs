//! Deaths that people reported, of connections whose data or probes nobody acknowledges: the
//! peer or a box on the way is gone without a word, a firewall rejects, the peer does not
//! read. kaprobe runs on both sides of a router.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::Keepalive;
use kaprobe_testkit::ipvs::{Host, exchange, expect_death, settle};
use kaprobe_testkit::netns::KernelCounters;
use kaprobe_testkit::router::{RoutedNetwork, connect};
use kaprobe_testkit::traces::{Ends, Expected, Traces};
use kaprobe_testkit::traffic::ends::is_window_shut;
use kaprobe_testkit::wait::{HANG, wait_until};
use socket2::{Domain, SockRef, Socket, Type};

/// A silence that a box on the way may have ended by forgetting the connection.
const SILENCE: Duration = Duration::from_millis(5_200);

/// Rules that drop all forwarded packets.
const DROP: &str = "table ip lossy {
    chain forwarded {
        type filter hook forward priority 0
        policy drop
    }
}";

/// Why keepalive is no remedy.
const KEEPALIVE_WAITS: &str = "no keepalive setting prevents: keepalive waits while data is out";

/// Makes the kernel of a host give up on data after some 3 s.
fn give_up_soon(host: &Host) -> Result<()> {
    host.on(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_retries2", "3")?))
}

fn set_keepalive(stream: &TcpStream, keepalive: Keepalive) -> Result<()> {
    Ok(keepalive.apply(&SockRef::from(stream))?)
}

/// Data is under way when the peer vanishes; keepalive is on, and does not help: the
/// retransmission timer ends the connection.
pub fn peer_vanishes_with_data_in_flight() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    give_up_soon(client)?;
    let (mut near, far) = connect(client, server)?;
    set_keepalive(&near, Keepalive::new(2, 1, 3))?;
    let ends = Ends::of(&near)?;
    let traces = Traces::start(&[client, server])?;
    settle(&near, &far)?;
    network.rules(router, DROP)?;
    near.write_all(b"SET k v")?;
    expect_death(&mut near, ErrorKind::TimedOut)?;
    let logs = traces.stop()?;
    let why = "too short for an idle timeout: the path or the peer's host is down";
    let sets = "net.ipv4.tcp_retries2 in netns client";
    logs.expect(
        client,
        ends,
        &[
            Expected {
                verdict: ["path_lost", "low"],
                words: &[
                    "7 bytes retransmitted 3 times",
                    why,
                    KEEPALIVE_WAITS,
                    "; the kernel gives up ",
                    sets,
                ],
                set: None,
            },
            Expected {
                verdict: ["path_lost", "high"],
                words: &[
                    "never acknowledged",
                    why,
                    KEEPALIVE_WAITS,
                    "; the kernel gave up ",
                    sets,
                ],
                set: None,
            },
        ],
    )?;
    // Nothing reaches the server any more.
    logs.expect(server, ends.reversed(), &[])?;
    let stalled = logs.only(client, ends, "stalled")?;
    ensure!(
        stalled.number("dead_in_ms") > Some(0) && stalled.text("dead_by") == Some("retransmission"),
        "{stalled:#?}"
    );
    let timeout = logs.only(client, ends, "timeout")?;
    ensure!(
        timeout.text("cause") == Some("retransmission")
            && timeout.text("err") == Some("ETIMEDOUT")
            && timeout.number("retransmits") >= Some(3),
        "{timeout:#?}"
    );
    Ok(())
}

/// The server's host begins to reject with ICMP, with data in flight and without. The kernel
/// keeps the error only for data: it takes none for a probe, and counts it.
pub fn server_rejects_with_icmp() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    give_up_soon(client)?;
    let (mut near, far) = connect(client, server)?;
    let (mut idle, mut idle_far) = connect(client, server)?;
    let (data_ends, idle_ends) = (Ends::of(&near)?, Ends::of(&idle)?);
    let traces = Traces::start(&[client, server])?;
    exchange(&mut idle, &mut idle_far)?;
    settle(&near, &far)?;
    let rules = "table ip strict {
        chain arriving {
            type filter hook input priority 0
            ip saddr 10.8.1.1 reject
        }
    }";
    network.rules(server, rules)?;
    let before = client.on(KernelCounters::read)?;
    set_keepalive(&idle, Keepalive::new(1, 1, 3))?;
    near.write_all(b"SET k v")?;
    expect_death(&mut idle, ErrorKind::TimedOut)?;
    expect_death(&mut near, ErrorKind::ConnectionRefused)?;
    let after = client.on(KernelCounters::read)?;
    let logs = traces.stop()?;
    let answered = "the network answered ECONNREFUSED (ICMP): a firewall rejects the segments, at \
                    the peer's host or before it, which no keepalive setting prevents";
    logs.expect(
        client,
        data_ends,
        &[
            Expected {
                verdict: ["icmp_rejected", "medium"],
                words: &[
                    "7 bytes retransmitted 3 times",
                    answered,
                    "; the kernel gives up ",
                ],
                set: None,
            },
            Expected {
                verdict: ["icmp_rejected", "high"],
                words: &[
                    "7 bytes retransmitted ",
                    " times in ",
                    answered,
                    "; the kernel gave up ",
                ],
                set: None,
            },
        ],
    )?;
    ensure!(
        after.out_of_window_icmps - before.out_of_window_icmps >= 3,
        "the kernel did not ignore the errors: {before:?}, {after:?}"
    );
    let ignored = "rejects the probes by ICMP, which the kernel ignores and counts as \
                   TcpExtOutOfWindowIcmps in netns client";
    logs.expect(
        client,
        idle_ends,
        &[Expected {
            verdict: ["peer_unreachable", "high"],
            words: &["3 probes unanswered", ignored],
            set: None,
        }],
    )?;
    for ends in [data_ends, idle_ends] {
        logs.expect(server, ends.reversed(), &[])?;
    }
    Ok(())
}

/// TCP_USER_TIMEOUT passes with data in flight, and before all probes are sent.
pub fn user_timeout_passes() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    let (mut near, far) = connect(client, server)?;
    let (mut idle, mut idle_far) = connect(client, server)?;
    let (data_ends, idle_ends) = (Ends::of(&near)?, Ends::of(&idle)?);
    let keepalive = |user_timeout| Keepalive {
        user_timeout: Some(user_timeout),
        ..Keepalive::new(1, 1, 9)
    };
    let traces = Traces::start(&[client, server])?;
    exchange(&mut idle, &mut idle_far)?;
    settle(&near, &far)?;
    network.rules(router, DROP)?;
    set_keepalive(&idle, keepalive(1_500))?;
    set_keepalive(&near, keepalive(4_000))?;
    near.write_all(b"SET k v")?;
    expect_death(&mut idle, ErrorKind::TimedOut)?;
    expect_death(&mut near, ErrorKind::TimedOut)?;
    let logs = traces.stop()?;
    logs.expect(
        client,
        data_ends,
        &[
            Expected {
                verdict: ["path_lost", "low"],
                words: &["7 bytes retransmitted 3 times", KEEPALIVE_WAITS],
                set: None,
            },
            Expected {
                verdict: ["user_timeout", "high"],
                words: &[
                    "TCP_USER_TIMEOUT of 4s passed with 7 bytes not acknowledged for ",
                    "of silence: the path or the peer's host is down; to wait longer for it, set a longer TCP_USER_TIMEOUT in ",
                ],
                set: None,
            },
        ],
    )?;
    logs.expect(
        client,
        idle_ends,
        &[Expected {
            verdict: ["user_timeout", "high"],
            words: &["TCP_USER_TIMEOUT of 1.5s overrides the probe count; to allow all 9 probes"],
            set: Some("TCP_USER_TIMEOUT=10000"),
        }],
    )?;
    let stalled = logs.only(client, data_ends, "stalled")?;
    ensure!(
        stalled.text("dead_by") == Some("user_timeout"),
        "{stalled:#?}"
    );
    for ends in [data_ends, idle_ends] {
        logs.expect(server, ends.reversed(), &[])?;
    }
    Ok(())
}

/// What the verdicts on a silent drop after [`SILENCE`] say.
const SILENT_DROP: [Expected<'_>; 2] = [
    Expected {
        verdict: ["silent_drop", "low"],
        words: &FORGOTTEN,
        set: Some("SO_KEEPALIVE=1 TCP_KEEPINTVL=1 TCP_KEEPIDLE=2"),
    },
    Expected {
        verdict: ["silent_drop", "medium"],
        words: &FORGOTTEN,
        set: Some("SO_KEEPALIVE=1 TCP_KEEPINTVL=1 TCP_KEEPIDLE=2"),
    },
];

const FORGOTTEN: [&str; 5] = [
    "of silence, 4 bytes retransmitted ",
    " times in ",
    "a box between may have forgotten the connection, and drops its segments, or the peer's host is gone",
    "the peer learns of it only if its program sends, or has keepalive on too",
    FIRST_PROBE,
];

const FIRST_PROBE: &str = "turn on SO_KEEPALIVE with TCP_KEEPINTVL=1 TCP_KEEPIDLE=2, as each \
                           later probe waits for the interval, answered or not (half of 5.";

/// A query runs for longer than a box on the way remembers: the result never arrives. The
/// client waits for ever, and knows nothing.
pub fn result_of_a_long_query_is_dropped() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    give_up_soon(server)?;
    let (near, mut far) = connect(client, server)?;
    let ends = Ends::of(&near)?;
    let traces = Traces::start(&[client, server])?;
    settle(&far, &near)?;
    thread::sleep(SILENCE);
    network.rules(router, DROP)?;
    far.write_all(b"rows")?;
    expect_death(&mut far, ErrorKind::TimedOut)?;
    let logs = traces.stop()?;
    logs.expect(server, ends.reversed(), &SILENT_DROP)?;
    logs.expect(client, ends, &[])
}

/// A client sends after a silence, and a box on the way has forgotten that connection. Another
/// connection to the same port is used meanwhile: its peer's host is there.
pub fn request_after_a_silence_is_dropped() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, router, server) = (&network.client, &network.router, &network.server);
    give_up_soon(client)?;
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let address = listener.local_addr()?;
    let open = || -> Result<_> {
        let near = client.on(|| Ok(TcpStream::connect(address)?))?;
        near.set_read_timeout(Some(HANG))?;
        Ok((near, listener.accept()?.0))
    };
    let (mut near, far) = open()?;
    let (other, _other_far) = open()?;
    let ends = Ends::of(&near)?;
    let other_ends = Ends::of(&other)?;
    let traces = Traces::start(&[client, server])?;
    settle(&near, &far)?;
    thread::sleep(SILENCE);
    let forget = format!(
        "table ip lossy {{
            chain forwarded {{
                type filter hook forward priority 0
                tcp sport {} drop
            }}
        }}",
        near.local_addr()?.port()
    );
    network.rules(router, &forget)?;
    near.write_all(b"next")?;
    set_keepalive(&other, Keepalive::new(1, 1, 9))?;
    expect_death(&mut near, ErrorKind::TimedOut)?;
    let logs = traces.stop()?;
    let words = [
        "a box between may have forgotten the connection, and drops its segments; the peer learns of it only if",
        "another connection to the same address was heard meanwhile, so the peer's host is up",
        FIRST_PROBE,
    ];
    let [unsure, end] = SILENT_DROP;
    let end = Expected {
        words: &words,
        ..end
    };
    // The stall is reported before the other connection is heard, or after.
    let low = logs.expect(client, ends, &[unsure, end]);
    low.or_else(|_| logs.expect(client, ends, &[end, end]))?;
    logs.expect(server, ends.reversed(), &[])?;
    logs.expect(client, other_ends, &[])
}

/// The peer acknowledges and does not read: its window stays closed until TCP_USER_TIMEOUT
/// passes. A program that closes while its data waits has closed no idle connection.
pub fn user_timeout_passes_in_a_zero_window() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let traces = Traces::start(&[client, server])?;
    let (near, far) = connect_to_a_small_window(client, server)?;
    let (waiting, waiting_far) = connect_to_a_small_window(client, server)?;
    let (ends, waiting_ends) = (Ends::of(&near)?, Ends::of(&waiting)?);
    for stream in [&near, &waiting] {
        stream.set_nonblocking(true)?;
        while (&*stream).write(&[0; 65_536]).is_ok() {}
        wait_until("the window is shut", || Ok(is_window_shut(stream)?))?;
    }
    SockRef::from(&near).set_tcp_user_timeout(Some(Duration::from_secs(3)))?;
    wait_until("TCP_USER_TIMEOUT has passed", || {
        Ok(near.take_error()?.is_some())
    })?;
    // Nothing was sent for longer than a connection is called idle after.
    drop(waiting);
    let logs = traces.stop()?;
    let words = [
        "TCP_USER_TIMEOUT of 3s passed while the peer's window was closed",
        "its host acknowledges (heard ",
        "its program does not read",
        " waited here",
    ];
    logs.expect(
        client,
        ends,
        &[Expected {
            verdict: ["user_timeout", "high"],
            words: &words,
            set: None,
        }],
    )?;
    logs.expect(client, waiting_ends, &[])?;
    for ends in [ends, waiting_ends] {
        logs.expect(server, ends.reversed(), &[])?;
    }
    drop((far, waiting_far));
    Ok(())
}

/// A connection whose accepting end has a small receive buffer.
fn connect_to_a_small_window(client: &Host, server: &Host) -> Result<(TcpStream, TcpStream)> {
    let listener = server.on(|| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_recv_buffer_size(4_096)?;
        listener.bind(&std::net::SocketAddr::from((server.address, 0)).into())?;
        listener.listen(1)?;
        Ok(TcpListener::from(listener))
    })?;
    let address = listener.local_addr()?;
    let near = client.on(|| {
        let near = TcpStream::connect(address)?;
        SockRef::from(&near).set_send_buffer_size(65_536)?;
        Ok(near)
    })?;
    Ok((near, listener.accept()?.0))
}
