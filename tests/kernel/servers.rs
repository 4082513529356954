//! `kaprobe sockets` with real servers: checks the tables of docs/servers.md.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe_testkit::package::Root;
use kaprobe_testkit::wait::HANG;
use kaprobe_testkit::{command, netns};
use serde_json::{Value, json};

const TABLES: &str = include_str!("../../docs/servers.md");

const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The users of the servers.
const USERS: &str = "root:x:0:0::/:/bin/false\nsshd:x:100:65534::/run/sshd:/bin/false\n";
/// The port of the first setting. Each setting has its own port.
const FIRST: u16 = 9000;

/// A row of the table: a setting and its effect.
#[derive(Debug)]
struct ServerCase {
    setting: &'static str,
    /// The cells for keepalive, time, interval and count.
    shown: Vec<&'static str>,
    /// The port of the server with this setting.
    port: u16,
}

/// The cells of the rows with this first cell.
fn cells(first: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let rows = TABLES.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.map(|row| {
        row.trim_end_matches('|')
            .split(" |")
            .map(|cell| cell.trim().trim_matches('`'))
    });
    rows.map(Iterator::collect)
        .filter(move |row: &Vec<_>| row.first() == Some(&first))
}

fn rows(server: &str) -> Result<Vec<ServerCase>> {
    let rows = cells(server).filter(|row| row.len() == 6);
    let rows: Vec<_> = (FIRST..)
        .zip(rows)
        .map(|(port, row)| ServerCase {
            setting: row[1],
            shown: row[2..].to_vec(),
            port,
        })
        .collect();
    ensure!(!rows.is_empty(), "docs/servers.md has no rows on {server}");
    Ok(rows)
}

/// Prints a note if the table was made with another version. The comparison itself
/// decides whether the table is still right.
fn compare_version(server: &str, output: &[u8]) -> Result<()> {
    let output = String::from_utf8_lossy(output);
    let row = cells(server).find(|row| row.len() == 4);
    let known = row.context("no version")?[3];
    if !output.contains(known) {
        eprintln!("docs/servers.md is of {known}, this is {}", output.trim());
    }
    Ok(())
}

/// nginx sets keepalive on its listening sockets, and accepted sockets inherit it. nginx
/// sets it directly on connections to its upstream.
pub fn nginx() -> Result<()> {
    netns::enter_new()?;
    let root = Root::of("nginx")?;
    let program = "usr/sbin/nginx";
    let rows = rows("nginx")?;
    let servers: String = rows.iter().map(ServerCase::in_nginx).collect();
    let config = format!(
        "user root root; worker_processes 1; error_log stderr; pid /run/nginx.pid;
         events {{}} http {{ access_log off;\n{servers} }}\n"
    );
    root.write("etc/passwd", USERS)?;
    root.write("etc/group", "root:x:0:\n")?;
    root.write("etc/nginx.conf", &config)?;
    compare_version("nginx", &root.run(program, &["-v"])?.stderr)?;
    let arguments = ["-c", "/etc/nginx.conf", "-g", "daemon off;"];
    let last = rows.last().context("no rows")?;
    let _server = root.serve(program, &arguments, last.at(LOOPBACKS[0]))?;
    let clients = connect(&rows, |client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        expect_line(client, "HTTP/1.1 200 ")
    })?;
    let shown = ServerRows::read("nginx")?;
    for (row, client) in &clients {
        if row.is_proxy() {
            shown.compare(row, |it| it["rport"] == row.upstream())?;
            continue;
        }
        shown.compare_accepted(row, client)?;
        let at = client.peer_addr()?;
        let listener = shown.compare(row, |it| {
            it["state"] == "LISTEN" && it["lport"] == row.port && it["laddr"] == json!(at.ip())
        })?;
        let owners = listener["owners"].as_array().context("no owners")?;
        ensure!(owners.len() == 2, "not a master and a worker: {listener}");
    }
    Ok(())
}

/// Redis sets all keepalive options on every connection that it accepts.
pub fn redis() -> Result<()> {
    netns::enter_new()?;
    let root = Root::of("redis-server")?;
    let program = "usr/bin/redis-server";
    compare_version("redis", &root.run(program, &["--version"])?.stdout)?;
    let rows = rows("redis")?;
    let mut servers = Vec::new();
    for row in &rows {
        let ServerCase { setting, port, .. } = row;
        let file = format!("etc/redis-{port}.conf");
        let config = format!("bind 127.0.0.1 ::1\nport {port}\nsave \"\"\ndir /tmp\n{setting}\n");
        root.write(&file, &config)?;
        servers.push(root.serve(program, &[&file], row.at(LOOPBACKS[0]))?);
    }
    let clients = connect(&rows, |client| {
        client.write_all(b"PING\r\n")?;
        expect_line(client, "+PONG")
    })?;
    compare("redis-server", &clients)
}

/// sshd turns keepalive on for every connection that it accepts. The times are the
/// sysctls'. Each connection belongs to its own process.
pub fn sshd() -> Result<()> {
    netns::enter_new()?;
    let root = Root::of("openssh-server")?;
    let program = "usr/sbin/sshd";
    root.write("etc/passwd", USERS)?;
    root.make_dir("run/sshd")?;
    let key = ["-q", "-t", "ed25519", "-N", "", "-f", "/etc/key"];
    root.run("usr/bin/ssh-keygen", &key)?;
    compare_version("sshd", &root.run(program, &["-V"])?.stderr)?;
    let rows = rows("sshd")?;
    let mut servers = Vec::new();
    for row in &rows {
        let ServerCase { setting, port, .. } = row;
        let file = format!("etc/sshd-{port}");
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nListenAddress ::1\nHostKey /etc/key\n\
             UsePAM no\nPidFile none\nLogLevel QUIET\n{setting}\n"
        );
        root.write(&file, &config)?;
        let arguments = ["-D", "-e", "-f", &file];
        servers.push(root.serve(program, &arguments, row.at(LOOPBACKS[0]))?);
    }
    let clients = connect(&rows, |client| expect_line(client, "SSH-2.0-"))?;
    compare("sshd-session", &clients)
}

/// Connects clients to each row's server over IPv4 and IPv6, and waits until each is
/// served.
fn connect(
    rows: &[ServerCase],
    wait_served: impl Fn(&mut TcpStream) -> Result<()>,
) -> Result<Vec<(&ServerCase, TcpStream)>> {
    let mut clients = Vec::new();
    for row in rows {
        for loopback in LOOPBACKS {
            let mut client = TcpStream::connect(row.at(loopback))?;
            wait_served(&mut client).with_context(|| format!("{row:?}"))?;
            clients.push((row, client));
            if row.is_proxy() {
                break;
            }
        }
    }
    Ok(clients)
}

/// Reads a line, which shows that the server has accepted the connection.
fn expect_line(client: &mut TcpStream, start: &str) -> Result<()> {
    client.set_read_timeout(Some(HANG))?;
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line)?;
    ensure!(line.starts_with(start), "{line:?}, not {start}");
    Ok(())
}

fn compare(comm: &str, clients: &[(&ServerCase, TcpStream)]) -> Result<()> {
    let shown = ServerRows::read(comm)?;
    clients
        .iter()
        .try_for_each(|(row, client)| shown.compare_accepted(row, client))
}

/// kaprobe's rows for a server's sockets.
struct ServerRows(Vec<Value>);

impl ServerRows {
    fn read(comm: &str) -> Result<Self> {
        let output = command::run(&["sockets", "--json", "--comm", comm])?;
        let lines = String::from_utf8(output.stdout)?;
        let rows = lines.lines().map(serde_json::from_str);
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    /// Compares the server's end of a connection.
    fn compare_accepted(&self, row: &ServerCase, client: &TcpStream) -> Result<()> {
        let port = client.local_addr()?.port();
        self.compare(row, |it| it["rport"] == port && it["lport"] == row.port)?;
        Ok(())
    }

    /// Compares the only socket that matches a predicate. Returns its row.
    fn compare(&self, row: &ServerCase, is: impl Fn(&Value) -> bool) -> Result<&Value> {
        let mut matching = self.0.iter().filter(|it| is(it));
        let (Some(socket), None) = (matching.next(), matching.next()) else {
            bail!("{row:?}: none or several matching sockets");
        };
        let cells = cells_of(socket);
        ensure!(row.shown == cells, "{row:?}: {cells:?}, {socket}");
        Ok(socket)
    }
}

/// The cells of the table for a socket.
fn cells_of(socket: &Value) -> [String; 4] {
    let on = socket["keepalive"] == true;
    let cell = |name: &str, from: &str, unit: &str, per: u64| match socket[name].as_u64() {
        Some(value) if on => {
            let from = socket[from].as_str().unwrap_or_default();
            format!("{}{unit}, {from}", value / per)
        }
        _ => String::new(),
    };
    [
        if on { "on" } else { "off" }.to_owned(),
        cell("keepalive_time_ms", "keepalive_time_from", " s", 1000),
        cell("keepalive_intvl_ms", "keepalive_intvl_from", " s", 1000),
        cell("keepalive_probes", "keepalive_probes_from", "", 1),
    ]
}

impl ServerCase {
    fn at(&self, host: IpAddr) -> SocketAddr {
        SocketAddr::new(host, self.port)
    }

    /// Whether the setting is for connections to nginx's upstream.
    fn is_proxy(&self) -> bool {
        self.setting.starts_with("proxy_")
    }

    /// The port of the upstream.
    fn upstream(&self) -> u16 {
        self.port + 1000
    }

    /// The part of nginx's configuration.
    fn in_nginx(&self) -> String {
        let Self { setting, port, .. } = self;
        let server = |listen: &str, answer: &str| {
            let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
            format!("server {{ listen {v4} {listen}; listen {v6} {listen}; {answer} }}\n")
        };
        if !self.is_proxy() {
            return server(setting, "return 200;");
        }
        let upstream = self.upstream();
        let pass = format!(
            "location / {{ proxy_pass http://up{port}; proxy_http_version 1.1;
             proxy_set_header Connection \"\"; {setting}; }}"
        );
        format!(
            "upstream up{port} {{ server 127.0.0.1:{upstream}; keepalive 1; }}
             server {{ listen 127.0.0.1:{upstream}; return 200; }}\n{}",
            server("", &pass)
        )
    }
}
