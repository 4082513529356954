//! Connections that a program closes for idleness, as people reported them: an HTTP server or
//! a proxy that counts bytes, not probes. kaprobe runs on both sides of a router.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kaprobe::traffic::pair::Keepalive;
use kaprobe_testkit::ipvs::exchange;
use kaprobe_testkit::router::{RoutedNetwork, connect};
use kaprobe_testkit::traces::{Ends, Expected, Traces};
use kaprobe_testkit::wait::{HANG, wait_until};
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
    let closed = "closed the connection after ";
    let no_data = "TCP keepalive was on, and probes were answered: they are no data, so they made \
                   no difference";
    logs.expect(
        client,
        ends,
        &[
            Expected {
                verdict: ["idle_close", "low"],
                words: &[closed, no_data],
                set: None,
            },
            Expected {
                verdict: ["idle_close", "medium"],
                words: &[
                    closed,
                    " later, without having read its end; ",
                    "keep idle connections in ",
                    " for less than ",
                    "or raise the idle timeout of ",
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
                    " later, without having read its end; ",
                    "the client should keep idle connections for less than ",
                    "or raise the idle timeout of ",
                ],
                set: None,
            },
        ],
    )
}

/// A server closes an idle connection while the next request is on its way, as an HTTP server
/// does: the proxy in front shows a 502.
pub fn server_closes_while_a_request_is_on_its_way() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let (mut near, mut far) = connect(client, server)?;
    let ends = Ends::of(&near)?;
    let traces = Traces::start(&[client, server])?;
    exchange(&mut near, &mut far)?;
    thread::sleep(QUIET);
    network.hold()?;
    near.write_all(b"next")?;
    drop(far);
    network.release(client)?;
    wait_for_end(&near)?;
    network.release(server)?;
    wait_until("the request has drawn a reset", || {
        Ok(near.take_error()?.is_some())
    })?;
    let logs = traces.stop()?;
    let closed = "closed the connection after ";
    let no_data = "TCP keepalive was off, and would have made no difference";
    let on_its_way = " was on its way, which ";
    logs.expect(
        client,
        ends,
        &[Expected {
            verdict: ["idle_close_race", "medium"],
            words: &[
                closed,
                on_its_way,
                "keep idle connections in ",
                " for less than ",
                "or raise the idle timeout of ",
                no_data,
            ],
            set: None,
        }],
    )?;
    logs.expect(
        server,
        ends.reversed(),
        &[
            Expected {
                verdict: ["idle_close", "low"],
                words: &[closed, no_data],
                set: None,
            },
            Expected {
                verdict: ["idle_close_race", "medium"],
                words: &[
                    closed,
                    on_its_way,
                    "(a proxy in front shows a 502); ",
                    "raise the idle timeout of ",
                    " above that of its clients and of the proxy in front",
                    no_data,
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

/// Requests of an hour, at one a second.
const REQUESTS: usize = 3_600;

/// Connections that are open at the same time.
const POOL: usize = 10;

/// Requests on each connection.
const ROUNDS: usize = 12;

/// The time after which a connection counts as idle.
const IDLE: Duration = Duration::from_secs(1);

/// How an HTTP connection is closed in order.
#[derive(Clone, Copy, Debug)]
enum HttpClose {
    ServerFirst,
    ClientFirst,
    Both,
    /// By the server, with its last answer: `Connection: close`.
    WithAnswer,
}

impl HttpClose {
    const ALL: [Self; 4] = [
        Self::ServerFirst,
        Self::ClientFirst,
        Self::Both,
        Self::WithAnswer,
    ];
}

/// An HTTP connection with keep-alive: both ends.
struct HttpConnection {
    near: TcpStream,
    far: TcpStream,
    ends: Ends,
    opened: Instant,
}

impl HttpConnection {
    /// A request and its answer.
    fn request(&mut self) -> Result<()> {
        send(&mut self.near, &mut self.far, REQUEST)?;
        send(&mut self.far, &mut self.near, ANSWER)
    }

    /// Closes both ends in order. Returns the ends if the connection never was idle.
    fn close(self, close: HttpClose) -> Result<Option<Ends>> {
        let Self {
            mut near,
            mut far,
            ends,
            opened,
        } = self;
        match close {
            HttpClose::ServerFirst => close_in_turn(far, near)?,
            HttpClose::ClientFirst => close_in_turn(near, far)?,
            HttpClose::Both => {
                let barrier = Barrier::new(2);
                thread::scope(|scope| {
                    for stream in [near, far] {
                        scope.spawn(|| {
                            barrier.wait();
                            drop(stream);
                        });
                    }
                });
            }
            HttpClose::WithAnswer => {
                send(&mut near, &mut far, REQUEST)?;
                far.write_all(LAST_ANSWER)?;
                drop(far);
                let mut answer = Vec::new();
                near.read_to_end(&mut answer)?;
                ensure!(answer == LAST_ANSWER, "another answer");
            }
        }
        Ok((opened.elapsed() < IDLE).then_some(ends))
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn send(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    from.write_all(bytes)?;
    let mut received = vec![0; bytes.len()];
    to.read_exact(&mut received)?;
    ensure!(received == bytes, "other bytes came");
    Ok(())
}

/// One end closes, and the other when it has read the end.
fn close_in_turn(first: TcpStream, mut second: TcpStream) -> Result<()> {
    drop(first);
    ensure!(second.read(&mut [0])? == 0, "more data came");
    Ok(())
}

/// As much ordinary HTTP traffic with keep-alive as an hour has: no verdict of failure, and no
/// record of a connection that was not idle. Some are idle meanwhile, with keepalive probes.
pub fn ordinary_http_has_no_records() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let traces = Traces::start(&[client, server])?;
    let listener = server.on(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let address = listener.local_addr()?;
    let open = || -> Result<_> {
        let near = client.on(|| Ok(TcpStream::connect(address)?))?;
        let (far, _) = listener.accept()?;
        near.set_read_timeout(Some(HANG))?;
        far.set_read_timeout(Some(HANG))?;
        Ok(HttpConnection {
            ends: Ends::of(&near)?,
            opened: Instant::now(),
            near,
            far,
        })
    };
    let mut idle = (0..POOL).map(|_| open()).collect::<Result<Vec<_>>>()?;
    for connection in &mut idle {
        connection.request()?;
        for stream in [&connection.near, &connection.far] {
            PROBING.apply(&SockRef::from(stream))?;
        }
    }
    let mut closes = HttpClose::ALL.into_iter().cycle();
    let mut busy = Vec::new();
    let mut requests = 0;
    while requests < REQUESTS {
        let mut pool = (0..POOL).map(|_| open()).collect::<Result<Vec<_>>>()?;
        if requests % 3 == 0 {
            for connection in &pool {
                PROBING.apply(&SockRef::from(&connection.near))?;
            }
        }
        for _ in 0..ROUNDS {
            pool.iter_mut().try_for_each(HttpConnection::request)?;
        }
        requests += POOL * ROUNDS;
        for (connection, close) in pool.into_iter().zip(&mut closes) {
            busy.extend(connection.close(close)?);
        }
    }
    wait_until("a timer has fired on the idle connections", || {
        Ok(idle.iter().all(|it| it.opened.elapsed() > 2 * IDLE))
    })?;
    for (mut connection, close) in idle.into_iter().zip(&mut closes) {
        connection.request()?;
        connection.close(close)?;
    }
    let logs = traces.stop()?;
    ensure!(
        !busy.is_empty(),
        "this machine is too slow: no connection was busy"
    );
    let merged = logs.merged.records.iter();
    let failures = merged.filter(|it| it.text("verdict").is_some_and(|it| it != "idle_close"));
    ensure!(failures.count() == 0, "{:#?}", logs.merged);
    for (host, reversed) in [(client, false), (server, true)] {
        ensure!(logs.of(host).is_empty(), "{:#?}", logs.of(host));
        for ends in &busy {
            let ends = if reversed { ends.reversed() } else { *ends };
            let records = logs.records(host, ends)?;
            ensure!(records.is_empty(), "{records:#?}");
        }
    }
    Ok(())
}
