//! Connections that a program closes for idleness, as people reported them: an HTTP server or
//! a proxy that counts bytes, not probes. kaprobe runs on both sides of a router.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kaprobe::traffic::pair::Keepalive;
use kaprobe_testkit::ipvs::exchange;
use kaprobe_testkit::router::{RoutedNetwork, connect};
use kaprobe_testkit::traces::{Ends, Expected, Traces};
use kaprobe_testkit::wait::wait_until;
use socket2::SockRef;

/// How long connections are quiet. Keepalive probes are answered meanwhile.
const QUIET: Duration = Duration::from_millis(2_600);

/// Longer than data is on its way.
const LATER: Duration = Duration::from_millis(1_200);

/// Keepalive probes as often as can be.
const PROBING: Keepalive = Keepalive::new(1, 1, 9);

/// A proxy counts bytes: it closes a connection whose probes were answered all the time. A
/// pool has not read the end, and uses the connection later.
pub fn proxy_closes_though_probes_are_answered() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let (mut near, mut far) = connect(client, server)?;
    let ends = Ends::of(&near)?;
    let traces = Traces::start(&[client, server])?;
    exchange(&mut near, &mut far)?;
    PROBING.apply(&SockRef::from(&near))?;
    thread::sleep(QUIET);
    drop(far);
    wait_for_end(&near)?;
    thread::sleep(LATER);
    near.write_all(b"SELECT 1")?;
    wait_until("the data has drawn a reset", || {
        Ok(near.take_error()?.is_some())
    })?;
    let logs = traces.stop()?;
    let closed = "closed the connection after 2.";
    let no_data = "TCP keepalive was on, and probes were answered: they are no data, so they do \
                   not count";
    logs.expect(
        client,
        ends,
        &[
            Expected {
                verdict: ["idle_close", "low"],
                words: &["the peer's program", closed, no_data],
                set: None,
            },
            Expected {
                verdict: ["idle_close", "medium"],
                words: &[
                    "the peer's program",
                    closed,
                    " later, without having read its end: keep idle connections in ",
                    " for less than 2.",
                    "or raise the idle timeout of the peer's program",
                    no_data,
                ],
                set: None,
            },
        ],
    )?;
    logs.expect(
        server,
        ends.reversed(),
        &[
            Expected {
                verdict: ["idle_close", "low"],
                words: &[
                    closed,
                    "TCP keepalive was off, and would have made no difference",
                ],
                set: None,
            },
            Expected {
                verdict: ["idle_close", "medium"],
                words: &[
                    closed,
                    "and its client wrote to it ",
                    " later, without having read its end: the client should keep idle connections \
                     for less than 2.",
                    "or raise the idle timeout of ",
                ],
                set: None,
            },
        ],
    )
}

/// Waits until the peer's FIN has come, without reading it.
fn wait_for_end(stream: &TcpStream) -> Result<()> {
    wait_until("the peer has closed", || Ok(stream.peek(&mut [0])? == 0))
}
