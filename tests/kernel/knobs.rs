//! `kaprobe audit` with real programs of Debian: the advice names the program's own
//! setting. Each test follows it, reloads the program as the advice says, and connects
//! again if it reaches only new connections. Then the audit is content.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Error, Result, ensure};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::package::{Root, Server, on_host_only};
use kaprobe_testkit::postgres::Postgres;
use kaprobe_testkit::wait::{HANG, wait_until};
use kaprobe_testkit::{command, netns, schema};
use rustix::process::Signal;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// The idle timeout that the audits assume. Half of it is advised.
const TIMEOUT: &str = "300s";
/// The sysctl that is advised.
const SYSCTL: &str = "net.ipv4.tcp_keepalive_time=150";

/// The port of the server under test, and of what is behind it.
const PORT: u16 = 9000;
const BEHIND: u16 = 9001;

/// The users of the programs.
const USERS: &str = "root:x:0:0::/:/bin/false\nsshd:x:100:65534::/run/sshd:/bin/false\n\
                     user:x:1000:1000::/tmp:/bin/false\n";
const GROUPS: &str = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n";

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A root of a package, in a network namespace of its own.
fn root(package: &str) -> Result<Root> {
    netns::enter_new()?;
    let root = Root::of(package)?;
    root.write("etc/passwd", USERS)?;
    root.write("etc/group", GROUPS)?;
    root.write("etc/hosts", "127.0.0.1 localhost\n")?;
    Ok(root)
}

/// The audit of the connections of one program.
#[derive(Debug)]
struct Audit {
    code: Option<i32>,
    /// Its connections.
    connections: Vec<Value>,
    text: String,
}

impl Audit {
    fn of(comm: &str) -> Result<Self> {
        let arguments = [
            "audit",
            "--idle-timeout",
            TIMEOUT,
            "--loopback",
            "--comm",
            comm,
        ];
        let json = command::run(&[&arguments[..], &["--json"]].concat())?;
        let text = command::run(&arguments)?;
        let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
        let mut connections = Vec::new();
        for line in String::from_utf8(json.stdout)?.lines() {
            let value = schema::check(&validator, line).map_err(Error::msg)?;
            if value["inode"].is_u64() {
                connections.push(value);
            }
        }
        Ok(Self {
            code: json.status.code(),
            connections,
            text: String::from_utf8(text.stdout)?,
        })
    }

    /// All connections are safe, and there is one.
    fn is_content(&self) -> bool {
        self.code == Some(0) && !self.connections.is_empty()
    }

    /// The advice for the connections that were accepted, or not.
    fn advice(&self, accepted: bool) -> Result<Advice> {
        let is_side = |it: &&Value| it["accepted"] == accepted && it["fate"] != "safe";
        let found = self.connections.iter().find(is_side);
        let found = found.with_context(|| format!("no advice: {self:?}"))?;
        let field = |name: &str| found[name].as_str().map(str::to_owned);
        let sysctl = field("set").filter(|_| found["set_in"] == "sysctl");
        let advice = Advice {
            set: field("program_set"),
            apply: field("program_apply").unwrap_or_default(),
            reaches: field("program_reaches").unwrap_or_default(),
            sysctl: field("program_sysctl").or(sysctl),
            cmdline: field("cmdline"),
            or_else: field("program_or"),
        };
        // People are told the same.
        for told in [&advice.set, &advice.sysctl].into_iter().flatten() {
            ensure!(self.text.contains(told), "no {told:?} in {}", self.text);
        }
        Ok(advice)
    }
}

/// What an audit says about a connection.
#[derive(Debug)]
struct Advice {
    set: Option<String>,
    apply: String,
    reaches: String,
    sysctl: Option<String>,
    cmdline: Option<String>,
    or_else: Option<String>,
}

impl Advice {
    /// Checks the program's own settings, and returns them as lines of a configuration.
    fn expect(&self, set: &str, apply: &str, reaches: &str) -> Result<String> {
        ensure!(self.set.as_deref() == Some(set), "{self:?}, not {set:?}");
        ensure!(self.apply.contains(apply), "{self:?}, not {apply:?}");
        ensure!(self.reaches == reaches, "{self:?}, not {reaches:?}");
        Ok(set.replace("; ", "\n"))
    }

    /// Follows the part that is a sysctl.
    fn set_sysctl(&self) -> Result<()> {
        ensure!(self.sysctl.as_deref() == Some(SYSCTL), "{self:?}");
        netns::set_ipv4_sysctl("tcp_keepalive_time", 150)
    }
}

/// Connects again and again until the audit is content with all connections of a program:
/// a server that was told to reload does so in its own time.
fn reconnect_until_content<T>(comm: &str, mut connect: impl FnMut() -> Result<T>) -> Result<()> {
    wait_until(&format!("the audit of {comm} is content"), || {
        let _connected = match connect() {
            Err(why) if is_restarting(&why) => return Ok(false),
            connected => connected?,
        };
        let audit = Audit::of(comm)?;
        Ok(audit.is_content())
    })
}

/// Whether a server is not there just now: some start anew to read their settings.
fn is_restarting(why: &anyhow::Error) -> bool {
    let kind = why.downcast_ref::<io::Error>().map(io::Error::kind);
    use ErrorKind::{ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        Some(ConnectionRefused | ConnectionReset | UnexpectedEof)
    )
}

/// A client that got its first bytes from the server, so it was accepted.
fn greeted(port: u16) -> Result<TcpStream> {
    client(port, b"")
}

/// A client that sent a request and got the first bytes of the response.
fn client(port: u16, request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(at(port))?;
    stream.set_read_timeout(Some(HANG))?;
    stream.write_all(request)?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// A program that holds a connection until its standard input ends, and its first line.
fn held(mut command: Command) -> Result<(Killed, String)> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Killed(child.spawn().with_context(|| format!("{command:?}"))?);
    let mut line = String::new();
    let stdout = child.0.stdout.as_mut().context("no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, line))
}

/// PostgreSQL sets the options of open sessions too, when their next command comes after a
/// reload. psql's are in its connection string.
pub fn postgresql() -> Result<()> {
    on_host_only()?;
    netns::enter_new()?;
    let postgres = Postgres::make(at(PORT))?;
    let _server = postgres.start()?;
    let mut client = postgres.session("")?;

    let advice = Audit::of("postgres")?.advice(true)?;
    let lines = advice.expect("tcp_keepalives_idle = 150", "pg_reload_conf()", "next_use")?;
    postgres.configure(&lines)?;
    // As the advice says: an idle session keeps its own.
    ensure!(
        !Audit::of("postgres")?.is_content(),
        "it reached an idle session"
    );
    client.send("select 1;")?;
    wait_until("the audit of the used session is content", || {
        Ok(Audit::of("postgres")?.is_content())
    })?;

    let advice = Audit::of("psql")?.advice(false)?;
    let parameters = advice.expect("keepalives_idle=150", "connection string", "new")?;
    drop(client);
    let _client = postgres.session(&parameters)?;
    ensure!(Audit::of("psql")?.is_content(), "{:?}", Audit::of("psql")?);
    Ok(())
}

/// PgBouncer has its own settings from a reload on, for new connections.
pub fn pgbouncer() -> Result<()> {
    on_host_only()?;
    let root = root("pgbouncer")?;
    root.make_user_dir("pb")?;
    let config = |more: &str| {
        format!(
            "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {PORT}\n\
             unix_socket_dir =\nauth_type = any\nlogfile = /pb/log\n{more}\n"
        )
    };
    root.write("pb/pgbouncer.ini", &config(""))?;
    let mut pgbouncer = root.command_as_user("usr/sbin/pgbouncer");
    pgbouncer.args(["-q", "/pb/pgbouncer.ini"]);
    let server = Server::start(pgbouncer, at(PORT))?;
    // PgBouncer answers this request for encryption by one byte.
    let connect = || client(PORT, &[0, 0, 0, 8, 4, 210, 22, 47]);
    let old = connect()?;
    let advice = Audit::of("pgbouncer")?.advice(true)?;
    let lines = advice.expect("tcp_keepidle = 150", "SIGHUP", "new")?;
    root.write("pb/pgbouncer.ini", &config(&lines))?;
    server.signal(Signal::HUP)?;
    drop(old);
    reconnect_until_content("pgbouncer", connect)
}

/// HAProxy has other settings towards clients than towards servers.
pub fn haproxy() -> Result<()> {
    on_host_only()?;
    let root = root("haproxy")?;
    let behind = TcpListener::bind(at(BEHIND))?;
    behind.set_nonblocking(true)?;
    let config = |more: &str| {
        format!(
            "global\n stats socket /run/ha\ndefaults\n mode tcp\n timeout client 1h\n \
             timeout server 1h\n timeout connect 1m\nlisten x\n bind 127.0.0.1:{PORT}\n \
             server s 127.0.0.1:{BEHIND}\n{more}\n"
        )
    };
    root.write("etc/haproxy.cfg", &config(""))?;
    let server = root.serve(
        "usr/sbin/haproxy",
        &["-W", "-db", "-f", "/etc/haproxy.cfg"],
        at(PORT),
    )?;
    let connect = || {
        let mut near = TcpStream::connect(at(PORT))?;
        near.write_all(b"x")?;
        let mut far = None;
        wait_until("HAProxy has passed the byte on", || {
            let (mut next, _) = match behind.accept() {
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                accepted => accepted?,
            };
            // Connections that were only tests for the port end at once.
            let is_ours = next.read(&mut [0])? == 1;
            far = Some(next).filter(|_| is_ours);
            Ok(is_ours)
        })?;
        anyhow::Ok((near, far.context("no connection")?))
    };
    let old = connect()?;
    let audit = Audit::of("haproxy")?;
    let clients = audit.advice(true)?;
    let clients = clients.expect("option clitcpka; clitcpka-idle 150s", "reload", "new")?;
    let servers = audit.advice(false)?;
    let servers = servers.expect("option srvtcpka; srvtcpka-idle 150s", "reload", "new")?;
    root.write("etc/haproxy.cfg", &config(&format!("{clients}\n{servers}")))?;
    server.signal(Signal::USR2)?;
    drop(old);
    reconnect_until_content("haproxy", connect)
}

/// nginx has its own times towards clients, and only a switch towards servers.
pub fn nginx() -> Result<()> {
    on_host_only()?;
    let root = root("nginx")?;
    let config = |listen: &str, location: &str| {
        format!(
            "user root root; worker_processes 1; error_log stderr crit; pid /run/nginx.pid;
             events {{}} http {{ access_log off; keepalive_timeout 1h;
             upstream up {{ server 127.0.0.1:{BEHIND}; keepalive 1; }}
             server {{ listen 127.0.0.1:{BEHIND} so_keepalive=60:: ; return 200; }}
             server {{ listen 127.0.0.1:{PORT} {listen}; location / {{ proxy_pass http://up;
             proxy_http_version 1.1; proxy_set_header Connection \"\"; {location} }} }} }}\n"
        )
    };
    root.write("etc/nginx.conf", &config("", ""))?;
    let program = "usr/sbin/nginx";
    let _server = root.serve(
        program,
        &["-c", "/etc/nginx.conf", "-g", "daemon off;"],
        at(PORT),
    )?;
    let connect = || client(PORT, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let old = connect()?;
    let audit = Audit::of("nginx")?;
    let listen = audit.advice(true)?;
    let listen = listen.expect("so_keepalive=150::", "nginx -s reload", "new")?;
    let upstream = audit.advice(false)?;
    let location = upstream.expect("proxy_socket_keepalive on", "nginx -s reload", "new")?;
    upstream.set_sysctl()?;
    root.write("etc/nginx.conf", &config(&listen, &format!("{location};")))?;
    root.run(program, &["-c", "/etc/nginx.conf", "-s", "reload"])?;
    drop(old);
    reconnect_until_content("nginx", connect)
}

/// Redis takes its setting at once, for new connections.
pub fn redis() -> Result<()> {
    on_host_only()?;
    let root = root("redis-server")?;
    let port = PORT.to_string();
    let arguments = [
        "--port",
        &port,
        "--save",
        "",
        "--dir",
        "/tmp",
        "--loglevel",
        "warning",
    ];
    let _server = root.serve("usr/bin/redis-server", &arguments, at(PORT))?;
    let connect = || client(PORT, b"PING\r\n");
    let mut old = connect()?;
    let advice = Audit::of("redis-server")?.advice(true)?;
    let set = advice.expect("tcp-keepalive 150", "CONFIG SET", "new")?;
    old.write_all(format!("CONFIG SET {set}\r\n").as_bytes())?;
    let mut answers = [0; "PONG\r\n+OK\r\n".len()];
    old.read_exact(&mut answers)?;
    ensure!(answers.ends_with(b"+OK\r\n"), "{answers:?}");
    // As the advice says: an open connection keeps its own.
    ensure!(
        !Audit::of("redis-server")?.is_content(),
        "it reached open connections"
    );
    drop(old);
    reconnect_until_content("redis-server", connect)
}

/// MariaDB has no setting: the advice is the sysctl alone.
pub fn mariadb() -> Result<()> {
    on_host_only()?;
    let root = root("mariadb-server")?;
    root.make_dir("db")?;
    let mut mariadbd = root.command("usr/sbin/mariadbd");
    let port = format!("--port={PORT}");
    mariadbd.args(["--no-defaults", "--user=root", "--datadir=/db", &port]);
    mariadbd.args([
        "--skip-grant-tables",
        "--skip-networking=0",
        "--bind-address=127.0.0.1",
    ]);
    mariadbd.args([
        "--socket=/tmp/db",
        "--innodb-flush-method=nosync",
        "--skip-name-resolve",
    ]);
    mariadbd.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"]);
    mariadbd.stderr(Stdio::null());
    let _server = Server::start(mariadbd, at(PORT))?;
    let old = greeted(PORT)?;
    let advice = Audit::of("mariadbd")?.advice(true)?;
    ensure!(advice.set.is_none(), "{advice:?}");
    advice.set_sysctl()?;
    drop(old);
    reconnect_until_content("mariadbd", || greeted(PORT))
}

/// RabbitMQ has a switch; the times are the sysctl's.
pub fn rabbitmq() -> Result<()> {
    on_host_only()?;
    let root = root("rabbitmq-server")?;
    let rabbit = Rabbit::new(&root)?;
    let server = rabbit.start("")?;
    let connect = || client(PORT, b"AMQP\0\0\x09\x01");
    let old = connect()?;
    let advice = Audit::of("beam.smp")?.advice(true)?;
    ensure!(
        advice.cmdline.as_deref() == Some("beam.smp -s rabbit"),
        "{advice:?}"
    );
    let line = advice.expect("tcp_listen_options.keepalive = true", "restart", "new")?;
    advice.set_sysctl()?;
    drop((old, server));
    let _server = rabbit.start(&line)?;
    let audit = |name: &str| {
        let _client = connect()?;
        let audit = Audit::of(name)?;
        // Its connections with itself and with epmd are no clients'.
        let clients = audit
            .connections
            .into_iter()
            .filter(|it| it["lport"] == PORT);
        anyhow::Ok(clients.collect::<Vec<_>>())
    };
    let clients = audit("beam.smp")?;
    ensure!(
        !clients.is_empty() && clients.iter().all(|it| it["fate"] == "safe"),
        "{clients:?}"
    );
    Ok(())
}

/// A RabbitMQ node, without the scripts that Debian starts it by.
struct Rabbit<'a> {
    root: &'a Root,
    environment: BTreeMap<&'static str, String>,
    bin: String,
    _epmd: Killed,
}

impl<'a> Rabbit<'a> {
    fn new(root: &'a Root) -> Result<Self> {
        let erlang = "/usr/lib/erlang";
        let bin = format!("{erlang}/{}/bin", root.find_dir("usr/lib/erlang", "erts-")?);
        let lib = "/usr/lib/rabbitmq/lib";
        let home = format!(
            "{lib}/{}",
            root.find_dir("usr/lib/rabbitmq/lib", "rabbitmq_server-")?
        );
        root.make_dir("rb")?;
        root.write("rb/enabled", "[].")?;
        let epmd_port = (PORT + 3).to_string();
        let mut epmd = root.command(&format!("{bin}/epmd"));
        let epmd = epmd
            .args(["-port", &epmd_port])
            .stderr(Stdio::null())
            .spawn()?;
        let environment = [
            ("PATH", "/usr/bin".to_owned()),
            ("HOME", "/rb".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("ROOTDIR", erlang.to_owned()),
            ("BINDIR", bin.clone()),
            ("EMU", "beam".to_owned()),
            ("PROGNAME", "erl".to_owned()),
            ("ERL_LIBS", format!("{home}/plugins")),
            ("ERL_EPMD_PORT", epmd_port),
            ("SYS_PREFIX", String::new()),
            ("RABBITMQ_HOME", home.clone()),
            ("RABBITMQ_PLUGINS_DIR", format!("{home}/plugins")),
            ("RABBITMQ_CONFIG_FILE", "/rb/rabbitmq".to_owned()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "/rb/enabled".to_owned()),
            ("RABBITMQ_MNESIA_BASE", "/rb/mnesia".to_owned()),
            ("RABBITMQ_LOG_BASE", "/rb/log".to_owned()),
            ("RABBITMQ_NODENAME", "r@localhost".to_owned()),
            ("RABBITMQ_DIST_PORT", (PORT + 2).to_string()),
        ];
        Ok(Self {
            root,
            environment: environment.into(),
            bin,
            _epmd: Killed(epmd),
        })
    }

    /// Starts the node with another line in its configuration.
    fn start(&self, more: &str) -> Result<Server> {
        let config = format!("listeners.tcp.1 = 127.0.0.1:{PORT}\nlog.console = false\n{more}\n");
        self.root.write("rb/rabbitmq.conf", &config)?;
        let mut erl = self.root.command(&format!("{}/erlexec", self.bin));
        erl.args([
            "-noinput",
            "-s",
            "rabbit",
            "boot",
            "-boot",
            "start_sasl",
            "+sbwt",
            "none",
        ]);
        erl.args([
            "-syslog",
            "logger",
            "[]",
            "-kernel",
            "prevent_overlapping_partitions",
            "false",
        ]);
        // They look at the system with programs that are not in the tree.
        for monitor in ["start_cpu_sup", "start_disksup", "start_memsup"] {
            erl.args(["-os_mon", monitor, "false"]);
        }
        erl.envs(&self.environment).stderr(Stdio::null());
        Server::start(erl, at(PORT))
    }
}

/// sshd has a switch; the times are the sysctl's. It is told of the heartbeat too.
pub fn sshd() -> Result<()> {
    on_host_only()?;
    let root = root("openssh-server")?;
    root.make_dir("run/sshd")?;
    let key = ["-q", "-t", "ed25519", "-N", "", "-f", "/etc/key"];
    root.run("usr/bin/ssh-keygen", &key)?;
    let config = |more: &str| {
        format!(
            "Port {PORT}\nListenAddress 127.0.0.1\nHostKey /etc/key\nUsePAM no\nPidFile none\n\
             LogLevel QUIET\n{more}\n"
        )
    };
    root.write("etc/sshd", &config("TCPKeepAlive no"))?;
    let server = root.serve("usr/sbin/sshd", &["-D", "-e", "-f", "/etc/sshd"], at(PORT))?;
    let old = greeted(PORT)?;
    let advice = Audit::of("sshd-session")?.advice(true)?;
    let line = advice.expect("TCPKeepAlive yes", "reload", "new")?;
    let or_else = advice.or_else.as_deref();
    ensure!(
        or_else == Some("ClientAliveInterval 150, which sends data"),
        "{advice:?}"
    );
    advice.set_sysctl()?;
    root.write("etc/sshd", &config(&line))?;
    server.signal(Signal::HUP)?;
    drop(old);
    reconnect_until_content("sshd-session", || greeted(PORT))
}

/// A Java program is told by its archive, and its socket options by Java's names.
pub fn java() -> Result<()> {
    on_host_only()?;
    let root = root("rhino")?;
    root.use_etc("java-21-openjdk")?;
    let listener = TcpListener::bind(at(PORT))?;
    let jvm = root.find_dir("usr/lib/jvm", "java-21-openjdk-")?;
    let run = |options: &str| {
        let script = format!(
            "importClass(java.net.StandardSocketOptions);
             importClass(Packages.jdk.net.ExtendedSocketOptions);
             var socket = new java.net.Socket('127.0.0.1', {PORT});
             function setOption(name, value) {{
                 // JavaScript's numbers are Java's doubles.
                 if (typeof value == 'number') value = java.lang.Integer.valueOf(value);
                 socket.setOption(name, value);
             }}
             {options}
             java.lang.System.out.println('set');
             java.lang.System['in'].read();\n"
        );
        root.write("tmp/client.js", &script)?;
        let mut java = root.command(&format!("usr/lib/jvm/{jvm}/bin/java"));
        java.args([
            "-Xshare:auto",
            "-Xint",
            "-jar",
            "/usr/share/java/js.jar",
            "/tmp/client.js",
        ]);
        let (java, line) = held(java)?;
        ensure!(line == "set\n", "{line:?}");
        anyhow::Ok((java, listener.accept()?))
    };
    let old = run("")?;
    let advice = Audit::of("java")?.advice(false)?;
    ensure!(
        advice.cmdline.as_deref() == Some("java -jar js.jar"),
        "{advice:?}"
    );
    let set = "setOption(StandardSocketOptions.SO_KEEPALIVE, true); \
               setOption(ExtendedSocketOptions.TCP_KEEPIDLE, 150)";
    let lines = advice.expect(set, "source", "new")?;
    drop(old);
    let _new = run(&lines)?;
    ensure!(Audit::of("java")?.is_content(), "{:?}", Audit::of("java")?);
    Ok(())
}
