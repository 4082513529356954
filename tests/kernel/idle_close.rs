//! Real HTTP servers of Debian close idle connections, between a client and a server with a
//! router between them. kaprobe runs on both sides, and on both at once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe::traffic::sockopt;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::ipvs::Host;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::package::{Root, Server, on_host_only};
use kaprobe_testkit::proc_net::{self, Row};
use kaprobe_testkit::router::RoutedNetwork;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traces::{Logs, Traces};
use kaprobe_testkit::traffic::ends::unacknowledged;
use kaprobe_testkit::wait::{HANG, wait_until};
use socket2::Socket;

const PORT: u16 = 8080;

const USERS: &str = "root:x:0:0::/:/bin/false\nuser:x:1000:1000::/tmp:/bin/false\n";
const GROUPS: &str = "root:x:0:\nuser:x:1000:\n";

/// An HTTP server of a package.
struct HttpServer {
    package: &'static str,
    /// Its name in /proc.
    comm: &'static str,
    /// Its program and arguments.
    command: &'static [&'static str],
    /// Its configuration: a path in its root, and the text. `PORT` and `ADDRESS` stand for
    /// those of the server.
    config: (&'static str, &'static str),
    /// The time without data after which it closes.
    timeout: Duration,
    /// How much later it may close.
    late: Duration,
    /// What kaprobe calls it by that time; empty if its default is another.
    named: &'static str,
}

const NGINX: HttpServer = HttpServer {
    package: "nginx",
    comm: "nginx",
    command: &["usr/sbin/nginx", "-c", "/etc/nginx.conf"],
    config: (
        "etc/nginx.conf",
        "daemon off; user root root; worker_processes 1; error_log stderr crit;
         pid /run/nginx.pid; events {}
         http { access_log off; keepalive_timeout 2s;
                server { listen ADDRESS:PORT; location / { return 200; } } }",
    ),
    timeout: Duration::from_secs(2),
    late: Duration::from_millis(500),
    named: "",
};

/// nginx closes after its `keepalive_timeout`.
pub fn nginx() -> Result<()> {
    closes(&NGINX)
}

const APACHE: HttpServer = HttpServer {
    package: "apache2-bin",
    comm: "apache2",
    command: &["usr/sbin/apache2", "-DFOREGROUND", "-f", "/etc/apache.conf"],
    config: (
        "etc/apache.conf",
        "ServerRoot /tmp
         ServerName a
         DefaultRuntimeDir /run
         PidFile /run/apache.pid
         Mutex pthread
         ErrorLog /run/error.log
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
         StartServers 1
         User #1000
         Group #1000
         Listen ADDRESS:PORT
         DocumentRoot /tmp
         KeepAliveTimeout 2",
    ),
    timeout: Duration::from_secs(2),
    late: Duration::from_secs(1),
    named: "",
};

/// Apache httpd shuts down its side after `KeepAliveTimeout`, and reads on for a while: a late
/// request draws no reset.
pub fn apache() -> Result<()> {
    closes(&APACHE)
}

const HAPROXY: HttpServer = HttpServer {
    package: "haproxy",
    comm: "haproxy",
    command: &["usr/sbin/haproxy", "-W", "-db", "-f", "/etc/haproxy.cfg"],
    config: (
        "etc/haproxy.cfg",
        "defaults\n mode http\n timeout client 1h\n timeout server 1h\n timeout connect 1m\n \
         timeout http-keep-alive 2s\nfrontend x\n bind ADDRESS:PORT\n \
         http-request return status 200\n",
    ),
    timeout: Duration::from_secs(2),
    late: Duration::from_millis(500),
    named: "",
};

/// HAProxy closes after its `timeout http-keep-alive`.
pub fn haproxy() -> Result<()> {
    closes(&HAPROXY)
}

const NODE: HttpServer = HttpServer {
    package: "nodejs",
    comm: "node",
    command: &["usr/bin/node", "/etc/server.js"],
    config: (
        "etc/server.js",
        "const server = require('http').createServer((_, response) => response.end('ok'));
         server.keepAliveTimeout = 2000;
         server.listen(PORT, 'ADDRESS');",
    ),
    timeout: Duration::from_secs(3),
    late: Duration::from_millis(500),
    named: "",
};

/// Node.js closes a second after `keepAliveTimeout`.
pub fn node() -> Result<()> {
    closes(&NODE)
}

const GUNICORN: HttpServer = HttpServer {
    package: "gunicorn",
    comm: "gunicorn",
    command: &[
        "usr/bin/gunicorn",
        "--config=/etc/server.py",
        "--chdir=/etc",
        "server:app",
    ],
    config: (
        "etc/server.py",
        "bind = 'ADDRESS:PORT'\nloglevel = 'error'\nworker_class = 'gthread'\n\
         worker_tmp_dir = '/tmp'\n\
         def app(_, start):\n start('200 OK', [('Content-Length', '0')])\n return []\n",
    ),
    timeout: Duration::from_secs(2),
    late: Duration::from_millis(1500),
    named: "gunicorn (2s by default)",
};

/// gunicorn looks once a second for connections that its `keepalive` has passed for.
pub fn gunicorn() -> Result<()> {
    closes(&GUNICORN)
}

impl HttpServer {
    fn root(&self) -> Result<Root> {
        let root = Root::of(self.package)?;
        root.write("etc/passwd", USERS)?;
        root.write("etc/group", GROUPS)?;
        Ok(root)
    }

    fn start(&self, host: &Host) -> Result<Server> {
        let root = self.root()?;
        let (path, text) = self.config;
        let address = host.address.to_string();
        let config = text.replace("ADDRESS", &address);
        root.write(path, &config.replace("PORT", &PORT.to_string()))?;
        let (program, arguments) = self.command.split_first().context("no program")?;
        host.on(|| root.serve(program, arguments, (host.address, PORT).into()))
    }
}

/// The traces of the client, of the server, and of both by one kaprobe.
struct AllTraces {
    each: Traces,
    both: Kaprobe,
}

/// Their logs.
struct AllLogs {
    each: Logs,
    both: TraceLog,
}

impl AllTraces {
    fn start(network: &RoutedNetwork) -> Result<Self> {
        let both = ["--netns", "client", "--netns", "server"];
        Ok(Self {
            both: Kaprobe::trace(&both)?.ready()?,
            each: Traces::start(&[&network.client, &network.server])?,
        })
    }

    fn stop(self) -> Result<AllLogs> {
        Ok(AllLogs {
            both: self.both.stop()?,
            each: self.each.stop()?,
        })
    }
}

impl AllLogs {
    /// The last verdict of the client and of the server on a connection, by the logs of one
    /// kaprobe for each, by a replay of these, and by one kaprobe for both.
    fn verdicts(&self, client_port: u16) -> Result<[Sides<'_>; 3]> {
        let [(_, client), (_, server)] = &self.each.logs[..] else {
            bail!("not two logs");
        };
        let sides = |client, server| -> Result<_> {
            Ok(Sides {
                client: last_verdict(client, "lport", client_port)?,
                server: last_verdict(server, "rport", client_port)?,
            })
        };
        let (merged, both) = (&self.each.merged, &self.both);
        Ok([
            sides(client, server)?,
            sides(merged, merged)?,
            sides(both, both)?,
        ])
    }
}

/// A verdict of each side.
#[derive(Debug)]
struct Sides<'a> {
    client: &'a Record,
    server: &'a Record,
}

fn last_verdict<'a>(log: &'a TraceLog, end: &str, port: u16) -> Result<&'a Record> {
    let verdicts = log.records.iter().filter(|it| it.event() == "verdict");
    let mut own = verdicts.filter(|it| it.number(end) == Some(port.into()));
    let last = own.next_back();
    last.with_context(|| format!("no verdict with {end} {port}"))
}

/// Checks a verdict, and words of its advice.
fn check(record: &Record, verdict: &str, words: &[&str]) -> Result<()> {
    let advice = record.text("advice").unwrap_or_default();
    let is_it = record.text("verdict") == Some(verdict);
    let missing = words.iter().find(|it| !advice.contains(**it));
    ensure!(
        is_it && missing.is_none(),
        "not {verdict}, {words:?}: {record:#?}"
    );
    Ok(())
}

/// A server closes an idle connection, one whose keepalive probes it answers, and one for
/// which a request is on its way.
fn closes(server: &HttpServer) -> Result<()> {
    on_host_only()?;
    let network = RoutedNetwork::build()?;
    let _server = server.start(&network.server)?;
    let traces = AllTraces::start(&network)?;
    let [plain, probed, raced] = play(&network)?;
    // A server that reads on closes in its own time.
    traces.each.wait_for(&network.server, "closed", raced)?;
    let logs = traces.stop()?;
    for (port, keepalive) in [
        (plain, "keepalive was off"),
        (probed, "probes were answered"),
    ] {
        let verdicts = logs.verdicts(port)?;
        for sides in &verdicts {
            let words = [server.comm, "closed the connection after"];
            check(sides.client, "idle_close", &words[1..])?;
            check(sides.server, "idle_close", &words)?;
            server.check_time(sides)?;
        }
        let [each, merged, both] = verdicts;
        for sides in [&each, &merged] {
            check(sides.client, "idle_close", &[keepalive, "no difference"])?;
        }
        // One trace has both ends: the one that closed has the rest.
        let client = both.client.text("advice").unwrap_or_default();
        ensure!(!client.contains("no difference"), "{client}");
        check(each.client, "idle_close", &["the peer's program closed"])?;
        check(
            merged.client,
            "idle_close",
            &[server.comm, "on server closed"],
        )?;
        let words = [server.comm, "on this host, in netns server"];
        check(both.client, "idle_close", &words)?;
    }
    let verdicts = logs.verdicts(raced)?;
    for sides in &verdicts {
        let words = [
            "was on its way",
            "keep idle connections in",
            "for less than",
        ];
        check(sides.client, "idle_close_race", &words)?;
        let raise = "raise the idle timeout of";
        let words = [words[0], raise, server.comm, "above that of its clients"];
        check(sides.server, "idle_close_race", &words)?;
        server.check_time(sides)?;
    }
    let [_, merged, both] = verdicts;
    for it in [merged, both] {
        check(it.client, "idle_close_race", &[server.comm])?;
    }
    // Nothing else happened, on either side.
    for host in [&network.client, &network.server] {
        logs.each.one(host)?;
    }
    Ok(())
}

/// Has the server close an idle connection, one whose keepalive probes it answers, and one
/// for which a request is on its way. Returns the client's ports.
fn play(network: &RoutedNetwork) -> Result<[u16; 3]> {
    let (client, server) = (&network.client, &network.server);
    let address = SocketAddr::from((server.address, PORT));
    let (mut plain, mut probed) = (asked(client, address)?, asked(client, address)?);
    sockopt::set(&probed, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1)?;
    sockopt::set(&probed, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for stream in [&mut plain, &mut probed] {
        ensure!(stream.read(&mut [0])? == 0, "no FIN");
    }
    let closed = [plain.local_addr()?.port(), probed.local_addr()?.port()];
    // What is held later has no part in their ends.
    drop((plain, probed));
    let mut raced = asked(client, address)?;
    // What comes within a second was on its way.
    let _alone = OwnCpu::take()?;
    network.hold()?;
    let port = raced.local_addr()?.port();
    wait_until("the server has closed", || {
        Ok(!server.on(|| is_established(port))?)
    })?;
    raced.write_all(REQUEST)?;
    network.release(client)?;
    ensure!(raced.peek(&mut [0])? == 0, "no FIN");
    network.release(server)?;
    let raced = Socket::from(raced);
    wait_until("the server has the request", || {
        Ok(raced.take_error()?.is_some() || unacknowledged(&raced)? == 0)
    })?;
    Ok([closed[0], closed[1], port])
}

impl HttpServer {
    /// Checks the time without data, and the known timeout that explains it.
    fn check_time(&self, sides: &Sides<'_>) -> Result<()> {
        for side in [sides.client, sides.server] {
            let ms = Duration::from_millis(side.number("idle_ms").context("no idle_ms")?);
            // A jiffy, and the way.
            let around = self.timeout.saturating_sub(JITTER)..=self.timeout + self.late + JITTER;
            ensure!(around.contains(&ms), "{ms:?}, not {around:?}: {side:#?}");
        }
        // Where the program is known, no other is named.
        let named = sides.server.text("middlebox").unwrap_or_default();
        ensure!(named == self.named, "{named:?}: {:#?}", sides.server);
        // Where it is not, the default is one of several, if the close was not much later.
        let text = |field| sides.client.text(field).unwrap_or_default();
        let is_known = text("advice").contains(self.comm);
        let has_name = text("middlebox").contains(self.named);
        ensure!(has_name || !is_known, "{:#?}", sides.client);
        Ok(())
    }
}

/// How much the age of a connection may differ between its ends.
const JITTER: Duration = Duration::from_millis(100);

/// A proxy keeps connections to a server for longer than that does. It sends a request while
/// the server closes, and its client gets a 502.
pub fn proxy() -> Result<()> {
    on_host_only()?;
    let network = RoutedNetwork::build()?;
    let (client, server) = (&network.client, &network.server);
    let _server = NODE.start(server)?;
    let front = SocketAddr::from((client.address, 80));
    let root = NGINX.root()?;
    let config = format!(
        "daemon off; user root root; worker_processes 1; error_log stderr crit;
         pid /run/nginx.pid; events {{}}
         http {{ access_log off; upstream up {{ server {}:{PORT}; keepalive 1; }}
                server {{ listen {front}; location / {{ proxy_pass http://up;
                         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}",
        server.address
    );
    root.write(NGINX.config.0, &config)?;
    let (program, arguments) = NGINX.command.split_first().context("no program")?;
    let _proxy = client.on(|| root.serve(program, arguments, front))?;
    let traces = AllTraces::start(&network)?;
    let mut front = asked(client, front)?;
    // What comes within a second was on its way.
    let _alone = OwnCpu::take()?;
    network.hold()?;
    wait_until("the server has closed", || {
        Ok(!server.on(|| is_established(PORT))?)
    })?;
    // What is no GET is not sent again.
    front.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")?;
    wait_until("the proxy has sent the request", || {
        client.on(|| Ok(sent_to(PORT)?.is_some()))
    })?;
    let port = client.on(|| sent_to(PORT))?.context("no connection")?;
    network.release(client)?;
    let answer = response(&mut front)?;
    ensure!(answer.starts_with("HTTP/1.1 502 "), "{answer:?}");
    network.release(server)?;
    wait_until("the request has drawn a reset", || {
        client.on(|| Ok(sent_to(PORT)?.is_none()))
    })?;
    let logs = traces.stop()?;
    for sides in &logs.verdicts(port)? {
        let words = ["keep idle connections in", "for less than 3"];
        check(sides.client, "idle_close_race", &words)?;
        let words = ["node", "502", "of the proxy in front"];
        check(sides.server, "idle_close_race", &words)?;
    }
    Ok(())
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection whose first request was answered.
fn asked(client: &Host, server: SocketAddr) -> Result<TcpStream> {
    let mut stream = client.on(|| Ok(TcpStream::connect(server)?))?;
    stream.set_read_timeout(Some(HANG))?;
    stream.write_all(REQUEST)?;
    let response = response(&mut stream)?;
    ensure!(response.starts_with("HTTP/1.1 "), "{response:?}");
    Ok(stream)
}

/// A response of one segment.
fn response(stream: &mut TcpStream) -> Result<String> {
    let mut response = [0; 4096];
    let len = stream.read(&mut response)?;
    Ok(String::from_utf8_lossy(&response[..len]).into_owned())
}

/// Whether an established connection has this port at one end.
fn is_established(port: u16) -> Result<bool> {
    let has_port = |it: &Row| it.is_established && (it.local == port || it.remote == port);
    Ok(proc_net::rows()?.iter().any(has_port))
}

/// The port of a connection that has data in flight to a port.
fn sent_to(port: u16) -> Result<Option<u16>> {
    let mut rows = proc_net::rows()?.into_iter();
    let sent = rows.find(|it| it.remote == port && it.in_flight);
    Ok(sent.map(|it| it.local))
}
