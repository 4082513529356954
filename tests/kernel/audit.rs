//! `kaprobe audit` with real sockets. The tests follow its advice, by setsockopt and
//! sysctl, and audit again.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use kaprobe::traffic::sockopt;
use kaprobe_testkit::cgroup::TestCgroup;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::ipvs::{self, Network};
use kaprobe_testkit::package::Root;
use kaprobe_testkit::process::sleeper;
use kaprobe_testkit::snapshot::inode;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::wait::{HANG, wait_until};
use kaprobe_testkit::{command, netns, schema};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// SO_KEEPALIVE, TCP_KEEPIDLE and TCP_KEEPINTVL of a socket (s), and its advice for an
/// idle timeout of 350 s.
type AuditCase = (bool, Option<u64>, Option<u64>, &'static str);

const ROWS: [AuditCase; 6] = [
    (
        false,
        None,
        None,
        "unprotected keepalive_off program SO_KEEPALIVE=1 TCP_KEEPIDLE=175",
    ),
    (
        true,
        None,
        None,
        "at_risk late_probe sysctl net.ipv4.tcp_keepalive_time=175",
    ),
    (
        true,
        Some(900),
        None,
        "at_risk late_probe program TCP_KEEPIDLE=175",
    ),
    (
        true,
        Some(30),
        Some(400),
        "at_risk late_interval program TCP_KEEPINTVL=87",
    ),
    (true, Some(310), None, "safe"),
    (true, Some(120), None, "safe"),
];

/// The inode of a connection, with its fate and advice.
type AuditedConnection = (u64, String);

/// Each connection gets its fate. Following the advice makes all of them safe.
pub fn advice_makes_connections_safe() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sockets = HashMap::new();
    for (keepalive, time, intvl, _) in ROWS {
        let (near, far) = connect_to(&listener)?;
        set(&near, time, intvl)?;
        SockRef::from(&near).set_keepalive(keepalive)?;
        // Only the clients need advice: the other ends are safe.
        set(&far, Some(120), None)?;
        sockets.insert(inode(&near)?, near);
        sockets.insert(inode(&far)?, far);
    }
    let (code, audited) = audit(&["--idle-timeout", "350s"])?;
    ensure!(code == Some(5), "exit code {code:?}");
    let mut expected: Vec<_> = ROWS.iter().map(|row| row.3.to_owned()).collect();
    expected.extend(ROWS.iter().map(|_| "safe".to_owned()));
    let mut advice: Vec<_> = audited.iter().map(|(_, it)| it.clone()).collect();
    expected.sort();
    advice.sort();
    ensure!(advice == expected, "{advice:#?}");

    follow(&audited, &sockets)?;
    // A sysctl does not change pending timers. Setting TCP_KEEPIDLE rearms the timer.
    let (code, audited) = audit(&["--idle-timeout", "350s"])?;
    let late: Vec<_> = audited.iter().filter(|(_, it)| it != "safe").collect();
    ensure!(
        matches!(late.as_slice(), [(_, it)] if it == "at_risk late_timer program TCP_KEEPIDLE=175"),
        "{late:?}"
    );
    ensure!(code == Some(5), "exit code {code:?}");
    follow(&audited, &sockets)?;
    let (code, audited) = audit(&["--idle-timeout", "350s"])?;
    ensure!(code == Some(0), "exit code {code:?}: {audited:?}");
    Ok(())
}

/// Loopback connections are left out and counted, unless selected. No setting helps
/// against a proxy.
pub fn loopback_is_left_out() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (near, _far) = connect_to(&listener)?;
    set(&near, Some(10), None)?;
    let output = command::run(&["audit", "--behind", "aws-nlb", "--json"])?;
    let stdout = String::from_utf8(output.stdout)?;
    let summary = check(stdout.trim_end())?;
    ensure!(output.status.code() == Some(0), "{stdout}");
    ensure!(summary["summary"]["loopback_left_out"] == 2, "{stdout}");
    let (code, audited) = audit(&["--behind", "aws-alb"])?;
    ensure!(code == Some(5) && audited.len() == 2, "{audited:?}");
    ensure!(
        audited
            .iter()
            .all(|(_, it)| it == "unprotected not_refreshed"),
        "{audited:?}"
    );
    Ok(())
}

/// Sockets that inherit the sysctl use its new value once their timers have fired.
pub fn sysctl_advice_makes_connections_safe() -> Result<()> {
    netns::enter_new()?;
    netns::set_ipv4_sysctl("tcp_keepalive_time", 4)?;
    netns::set_ipv4_sysctl("tcp_keepalive_intvl", 1)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    SockRef::from(&listener).set_keepalive(true)?;
    let (near, far) = connect_to(&listener)?;
    SockRef::from(&near).set_keepalive(true)?;
    let sockets = HashMap::from([(inode(&near)?, near), (inode(&far)?, far)]);
    let (code, audited) = audit(&["--idle-timeout", "4s"])?;
    ensure!(code == Some(5), "exit code {code:?}");
    for (_, advice) in &audited {
        let expected = "at_risk late_probe sysctl net.ipv4.tcp_keepalive_time=2";
        ensure!(advice == expected, "{advice}");
    }
    follow(&audited, &sockets)?;
    wait_until("the timers have fired", || {
        Ok(audit(&["--idle-timeout", "4s"])?.0 == Some(0))
    })
}

/// TCP_KEEPIDLE of connections whose peer forgets them, s: their idle time at death.
const DIE_AT_S: u64 = 4;

/// TCP_KEEPIDLE and TCP_KEEPINTVL (s), and the advice from a log with deaths at
/// [`DIE_AT_S`].
const LOGGED: [(Option<u64>, &str); 3] = [
    (
        None,
        "unprotected keepalive_off program SO_KEEPALIVE=1 TCP_KEEPINTVL=1 TCP_KEEPIDLE=1",
    ),
    (
        Some(100),
        "at_risk late_probe program TCP_KEEPINTVL=1 TCP_KEEPIDLE=1",
    ),
    (Some(1), "safe"),
];

/// A log shows connections that died of an idle timeout. Other connections to the same
/// remote are judged by it, and the advice makes them safe. It says nothing about other
/// remotes.
pub fn timeouts_come_from_a_log() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let log = log.to_str().context("the path is not UTF-8")?;
    // Not a loopback address: deaths on loopback are ignored, as no middlebox is there.
    let iproute2 = Root::of("iproute2")?;
    iproute2.run("usr/bin/ip", &["addr", "add", "10.77.0.1/32", "dev", "lo"])?;
    let listener = TcpListener::bind("10.77.0.1:0")?;
    let trace = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-o", log])?.ready()?;
    // At different times: one restart would explain two deaths at the same time.
    for _ in 0..2 {
        let (mut near, far) = connect_to(&listener)?;
        set(&near, Some(DIE_AT_S), None)?;
        sockopt::set_repair(&far)?;
        drop(far);
        ipvs::expect_death(&mut near, ErrorKind::ConnectionReset)?;
        let died = Instant::now();
        wait_until("the next death has another time on every kernel", || {
            Ok(died.elapsed() >= Duration::from_millis(100))
        })?;
    }
    trace.stop()?;

    let (mut sockets, mut others) = (HashMap::new(), Vec::new());
    let mut expected = HashMap::new();
    for (time, advice) in LOGGED {
        let (near, far) = connect_to(&listener)?;
        if time.is_some() {
            set(&near, time, time)?;
        }
        expected.insert(inode(&near)?, advice);
        sockets.insert(inode(&near)?, near);
        // Without probes of its own, which would keep the connection alive.
        others.push(far);
    }
    let there = TcpListener::bind("127.9.9.9:0")?;
    let elsewhere = connect_to(&there)?;
    expected.insert(inode(&elsewhere.0)?, "unknown no_timeout");
    let of = |listener: &TcpListener| Ok::<_, Error>(listener.local_addr()?.port().to_string());
    let (port, both) = (
        of(&listener)?,
        format!("{},{}", of(&listener)?, of(&there)?),
    );
    let (code, mut audited) = audit(&["--log", log, "-D", &both])?;
    ensure!(code == Some(5), "exit code {code:?}");
    ensure!(audited.len() == expected.len(), "{audited:#?}");
    for (inode, advice) in &audited {
        ensure!(
            expected.get(inode) == Some(&advice.as_str()),
            "{audited:#?}"
        );
    }
    audited.retain(|(inode, _)| sockets.contains_key(inode));
    follow(&audited, &sockets)?;
    wait_until("all connections are safe", || {
        Ok(audit(&["--log", log, "-D", &port])?.0 == Some(0))
    })
}

/// Without a given timeout, the audit uses the timeouts of this host's IPVS and
/// conntrack.
pub fn timeouts_come_from_this_host() -> Result<()> {
    ipvs::usable()?;
    netns::enter_new()?;
    ipvs::ipvsadm(&["--set", "900", "0", "0"])?;
    // For FTP, IPVS enables conntrack in this namespace (`__ip_vs_update_dest`,
    // net/netfilter/ipvs/ip_vs_ctl.c).
    ipvs::ipvsadm(&["-A", "-t", "127.0.0.1:21", "-s", "rr"])?;
    ipvs::ipvsadm(&["-a", "-t", "127.0.0.1:21", "-r", "127.0.0.2:21", "-m"])?;
    let established = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    fs::write(established, "350").context(established)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (near, far) = connect_to(&listener)?;
    set(&near, Some(400), None)?;
    set(&far, Some(300), None)?;
    let (code, mut audited) = audit(&[])?;
    ensure!(code == Some(5), "exit code {code:?}");
    let mut expected = [
        (
            inode(&near)?,
            "at_risk late_probe program TCP_KEEPIDLE=175".to_owned(),
        ),
        (inode(&far)?, "safe".to_owned()),
    ];
    audited.sort();
    expected.sort();
    ensure!(audited == expected, "{audited:?}");
    let text = command::run(&["audit", "--loopback"])?;
    let text = String::from_utf8(text.stdout)?;
    for timeout in ["350s of this host's conntrack", "900s of this host's ipvs"] {
        ensure!(text.contains(&format!("idle timeout {timeout}")), "{text}");
    }
    Ok(())
}

/// A group names its program once, with the number of its processes, the unit that they
/// are in, and the network namespace by its name.
pub fn groups_name_their_place() -> Result<()> {
    netns::enter_named("blue")?;
    let cgroup = TestCgroup::new("place.service")?;
    let unit = cgroup.path.file_name().and_then(|it| it.to_str());
    let unit = unit.context("no name")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ends = Vec::new();
    for _ in 0..2 {
        let (near, far) = connect_to(&listener)?;
        let sleeper = sleeper(Command::new("sleep"), far.into())?;
        fs::write(cgroup.path.join("cgroup.procs"), sleeper.id().to_string())?;
        ends.push((near, sleeper));
    }
    let arguments = "audit --loopback --idle-timeout 350s --comm sleep";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let json = command::run(&[&arguments[..], &["--json"]].concat())?;
    let mut connections = 0;
    for line in String::from_utf8(json.stdout)?.lines() {
        let value = check(line)?;
        if value["inode"].is_u64() {
            ensure!(value["unit"] == unit, "{value}");
            ensure!(value["netns_name"] == "blue", "{value}");
            connections += 1;
        }
    }
    ensure!(connections == 2, "{connections} connections");
    let text = String::from_utf8(command::run(&arguments)?.stdout)?;
    for part in ["sleep (2 processes)", unit, " blue "] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    ensure!(!text.contains("sleep["), "{text}");
    Ok(())
}

/// The balancer's idle timeout, s.
const FORGETS_S: u32 = 12;
/// The arguments that describe the balancer to the audit.
const BALANCER: [&str; 4] = ["--idle-timeout", "12s", "--behind", "ipvs"];
/// TCP_KEEPIDLE of three clients, s: off, too long, and safe.
const CLIENTS: [Option<u64>; 3] = [None, Some(30), Some(4)];

/// A real balancer kills exactly the connections that the audit names. After following
/// the advice it kills none.
pub fn predicts_balancer_evictions() -> Result<()> {
    let network = Network::build(FORGETS_S)?;
    let mut clients = Clients::connect(&network)?;
    let (code, audited) = network.client.on(|| audit(&BALANCER))?;
    ensure!(code == Some(5), "exit code {code:?}: {audited:?}");
    let mut doomed: Vec<_> = audited
        .iter()
        .filter(|(_, advice)| advice != "safe")
        .map(|(inode, _)| *inode)
        .collect();
    ensure!(doomed.len() == 2 && audited.len() == 3, "{audited:?}");
    // Without a given timeout, the audit finds the balancer's in its namespace on this
    // host.
    let (code, found) = network.client.on(|| audit(&[]))?;
    ensure!(code == Some(5) && found == audited, "{code:?}: {found:?}");
    wait_until("the balancer has forgotten the unsafe connections", || {
        Ok(network.remembered()? == 1)
    })?;
    // Round robin: a connection that is new to the balancer goes to the server that was
    // not the last one. So the first to send is the one whose own server was the last.
    while !doomed.is_empty() {
        let next = doomed
            .iter()
            .position(|inode| clients.server_of(*inode) == Some(clients.last))
            .context("both connections have the same server")?;
        let mut client = clients.take(doomed.swap_remove(next))?;
        client.write_all(b"ping")?;
        ipvs::expect_death(&mut client, ErrorKind::ConnectionReset)?;
        clients.last = 1 - clients.last;
    }
    clients.exchange()?;

    let survivors = clients;
    let mut clients = Clients::connect(&network)?;
    let before = network.client.on(netns::KernelCounters::read)?;
    network.client.on(|| {
        let (_, mut audited) = audit(&BALANCER)?;
        audited.retain(|(inode, _)| clients.near.contains_key(inode));
        follow(&audited, &clients.near)?;
        let (code, audited) = audit(&BALANCER)?;
        ensure!(code == Some(0), "exit code {code:?}: {audited:?}");
        Ok(())
    })?;
    // A client sends at most one probe in 4 s.
    let all = clients.near.len() + survivors.near.len();
    wait_until("probes were sent for longer than the idle timeout", || {
        let now = network.client.on(netns::KernelCounters::read)?;
        Ok(now.keepalive - before.keepalive >= 5 * all as u64)
    })?;
    let remembered = network.remembered()?;
    ensure!(remembered == all, "{remembered} of {all} are remembered");
    clients.exchange()
}

/// The connections through the balancer, by the inode of the client's end.
struct Clients {
    near: HashMap<u64, TcpStream>,
    /// The index of the server, and its end of the connection.
    far: HashMap<u64, (usize, TcpStream)>,
    /// The server that got the last new connection.
    last: usize,
}

impl Clients {
    fn connect(network: &Network) -> Result<Self> {
        let [first, second] = &network.servers;
        let listen = |host: &ipvs::Host| host.on(|| Ok(TcpListener::bind(ipvs::SERVICE)?));
        let listeners = [listen(first)?, listen(second)?];
        let mut all = Self {
            near: HashMap::new(),
            far: HashMap::new(),
            last: 0,
        };
        for time in CLIENTS {
            let near = network
                .client
                .on(|| Ok(TcpStream::connect(ipvs::SERVICE)?))?;
            near.set_read_timeout(Some(HANG))?;
            if time.is_some() {
                set(&near, time, time)?;
            }
            all.last = ipvs::accepted(&listeners)?;
            let (far, _) = listeners[all.last].accept()?;
            let inode = inode(&near)?;
            all.near.insert(inode, near);
            all.far.insert(inode, (all.last, far));
        }
        all.exchange()?;
        Ok(all)
    }

    fn server_of(&self, inode: u64) -> Option<usize> {
        self.far.get(&inode).map(|(server, _)| *server)
    }

    fn take(&mut self, inode: u64) -> Result<TcpStream> {
        self.near.remove(&inode).context("unknown inode")
    }

    /// Each remaining client sends a request and gets a response.
    fn exchange(&mut self) -> Result<()> {
        for (inode, near) in &mut self.near {
            let (_, far) = self.far.get_mut(inode).context("no server")?;
            ipvs::exchange(near, far)?;
        }
        Ok(())
    }
}

fn set(stream: &TcpStream, time: Option<u64>, intvl: Option<u64>) -> Result<()> {
    let mut own = TcpKeepalive::new();
    if let Some(s) = time {
        own = own.with_time(Duration::from_secs(s));
    }
    if let Some(s) = intvl {
        own = own.with_interval(Duration::from_secs(s));
    }
    Ok(SockRef::from(stream).set_tcp_keepalive(&own)?)
}

/// Runs an audit. Returns the exit code, and for each connection `fate why set_in set`.
fn audit(arguments: &[&str]) -> Result<(Option<i32>, Vec<AuditedConnection>)> {
    let arguments = [&["audit", "--loopback", "--json"], arguments].concat();
    let output = command::run(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout)?;
    let mut audited = Vec::new();
    for line in stdout.lines() {
        let value = check(line)?;
        if let Some(inode) = value["inode"].as_u64() {
            let words = ["fate", "why", "set_in", "set"].map(|name| value[name].as_str());
            let words: Vec<_> = words.into_iter().flatten().collect();
            audited.push((inode, words.join(" ")));
        }
    }
    ensure!(stdout.contains("\"summary\""), "{stdout}{stderr}");
    Ok((output.status.code(), audited))
}

fn check(line: &str) -> Result<Value> {
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    schema::check(&validator, line).map_err(Error::msg)
}

/// Follows the advice literally and in order.
fn follow(audited: &[AuditedConnection], sockets: &HashMap<u64, TcpStream>) -> Result<()> {
    for (inode, advice) in audited {
        let socket = sockets.get(inode).context("unknown inode")?;
        for word in advice.split(' ') {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let value: u64 = value.parse()?;
            match name {
                "SO_KEEPALIVE" => SockRef::from(socket).set_keepalive(value == 1)?,
                "TCP_KEEPIDLE" => set(socket, Some(value), None)?,
                "TCP_KEEPINTVL" => set(socket, None, Some(value))?,
                _ => match name.strip_prefix("net.ipv4.") {
                    Some(sysctl) => netns::set_ipv4_sysctl(sysctl, u32::try_from(value)?)?,
                    None => bail!("unknown setting: {word}"),
                },
            }
        }
    }
    Ok(())
}
