//! `kaprobe audit` against real sockets: what it advises is done, by setsockopt and
//! sysctl, and asked again.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use kaprobe::traffic::sockopt;
use kaprobe_testkit::command;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::ipvs::{self, Network};
use kaprobe_testkit::netns;
use kaprobe_testkit::package::Root;
use kaprobe_testkit::schema;
use kaprobe_testkit::snapshot::inode;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::wait::{HANG, wait_until};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};

const SCHEMA: &str = include_str!("../../schema/kaprobe-audit.schema.json");

/// SO_KEEPALIVE, TCP_KEEPIDLE and TCP_KEEPINTVL of a socket, s; and what it is told by
/// a timeout of 350 s.
type Row = (bool, Option<u64>, Option<u64>, &'static str);

const ROWS: [Row; 6] = [
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

/// The inode of a connection, and what it was told.
type Told = (u64, String);

/// Each connection has its fate; whoever does what is advised makes all of them safe.
pub fn advises_what_saves() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sockets = HashMap::new();
    for (keepalive, time, intvl, _) in ROWS {
        let (near, far) = connect_to(&listener)?;
        set(&near, time, intvl)?;
        SockRef::from(&near).set_keepalive(keepalive)?;
        // Clients alone are asked about: the other ends are safe.
        set(&far, Some(120), None)?;
        sockets.insert(inode(&near)?, near);
        sockets.insert(inode(&far)?, far);
    }
    let (code, audited) = audit(&["--idle-timeout", "350s"])?;
    ensure!(code == Some(5), "exit code {code:?}");
    let mut expected: Vec<_> = ROWS.iter().map(|row| row.3.to_owned()).collect();
    expected.extend(ROWS.iter().map(|_| "safe".to_owned()));
    let mut told: Vec<_> = audited.iter().map(|(_, it)| it.clone()).collect();
    expected.sort();
    told.sort();
    ensure!(told == expected, "{told:#?}");

    follow(&audited, &sockets)?;
    // A sysctl leaves alone the timers that are set; who sets the value anew sets the
    // timer.
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

/// Connections of a host with itself are left out, and counted, unless asked for; what
/// a proxy does no setting cures.
pub fn leaves_out_what_passes_no_middlebox() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (near, _far) = connect_to(&listener)?;
    set(&near, Some(10), None)?;
    let output = command::run(&["audit", "--behind", "aws-nlb", "--json"])?;
    let said = String::from_utf8(output.stdout)?;
    let summary = check(said.trim_end())?;
    ensure!(output.status.code() == Some(0), "{said}");
    ensure!(summary["summary"]["loopback_left_out"] == 2, "{said}");
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

/// Sockets that inherit have the sysctl's new value once their timers have fired.
pub fn advises_a_sysctl_that_saves_in_time() -> Result<()> {
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
    for (_, told) in &audited {
        let expected = "at_risk late_probe sysctl net.ipv4.tcp_keepalive_time=2";
        ensure!(told == expected, "{told}");
    }
    follow(&audited, &sockets)?;
    wait_until("the timers have fired", || {
        Ok(audit(&["--idle-timeout", "4s"])?.0 == Some(0))
    })
}

/// TCP_KEEPIDLE of those whose peer forgets them, s: their age when they die.
const DIE_AT_S: u64 = 4;

/// TCP_KEEPIDLE and TCP_KEEPINTVL, s, and what they come to by a log that shows deaths at
/// that age.
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

/// Where a log shows that connections died of their age, others to there are judged by it,
/// and what is advised saves them. Of another place it shows nothing.
pub fn goes_by_what_a_log_shows() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log.jsonl");
    let log = log.to_str().context("a strange path")?;
    // Of loopback addresses no log shows anything: no middlebox is on that way.
    let iproute2 = Root::of("iproute2")?;
    iproute2.run("usr/bin/ip", &["addr", "add", "10.77.0.1/32", "dev", "lo"])?;
    let listener = TcpListener::bind("10.77.0.1:0")?;
    let trace = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-o", log])?.ready()?;
    // At two moments: one restart would explain two deaths at one.
    for _ in 0..2 {
        let (mut near, far) = connect_to(&listener)?;
        set(&near, Some(DIE_AT_S), None)?;
        sockopt::set_repair(&far)?;
        drop(far);
        ipvs::expect_death(&mut near, ErrorKind::ConnectionReset)?;
        let died = Instant::now();
        wait_until("that moment is over, by any kernel's ticks", || {
            Ok(died.elapsed() >= Duration::from_millis(100))
        })?;
    }
    trace.stop()?;

    let mut sockets = HashMap::new();
    let mut expected = HashMap::new();
    for (time, told) in LOGGED {
        let (near, far) = connect_to(&listener)?;
        if time.is_some() {
            set(&near, time, time)?;
        }
        set(&far, Some(1), Some(1))?;
        for (end, told) in [(near, told), (far, "safe")] {
            expected.insert(inode(&end)?, told);
            sockets.insert(inode(&end)?, end);
        }
    }
    let elsewhere = connect_to(&TcpListener::bind("127.9.9.9:0")?)?;
    for end in [&elsewhere.0, &elsewhere.1] {
        expected.insert(inode(end)?, "unknown no_timeout");
    }
    let (code, mut audited) = audit(&["--log", log])?;
    ensure!(code == Some(5), "exit code {code:?}");
    ensure!(audited.len() == expected.len(), "{audited:#?}");
    for (inode, told) in &audited {
        ensure!(expected.get(inode) == Some(&told.as_str()), "{audited:#?}");
    }
    drop(elsewhere);
    audited.retain(|(inode, _)| sockets.contains_key(inode));
    follow(&audited, &sockets)?;
    wait_until("all of them are safe", || {
        Ok(audit(&["--log", log])?.0 == Some(0))
    })
}

/// Told of no timeout, it goes by those of this host's IPVS and conntrack.
pub fn goes_by_what_this_host_does() -> Result<()> {
    ipvs::usable()?;
    netns::enter_new()?;
    ipvs::ipvsadm(&["--set", "900", "0", "0"])?;
    // To translate FTP, IPVS has conntrack look at this namespace's connections
    // (`__ip_vs_update_dest`, net/netfilter/ipvs/ip_vs_ctl.c).
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
    for timeout in ["350s of conntrack", "900s of ipvs"] {
        ensure!(text.contains(&format!("idle timeout {timeout}")), "{text}");
    }
    Ok(())
}

/// After how long the balancer forgets, s.
const FORGETS_S: u32 = 12;
/// What the audit is told of it.
const BALANCER: [&str; 4] = ["--idle-timeout", "12s", "--behind", "ipvs"];
/// TCP_KEEPIDLE of three clients, s: two of them too much and none at all.
const CLIENTS: [Option<u64>; 3] = [None, Some(30), Some(4)];

/// Those that the audit names die of a real balancer's timeout, and no other; once its
/// advice is followed none does.
pub fn names_those_that_a_balancer_kills() -> Result<()> {
    let network = Network::build(FORGETS_S)?;
    let mut clients = Clients::connect(&network)?;
    let (code, audited) = network.client.on(|| audit(&BALANCER))?;
    ensure!(code == Some(5), "exit code {code:?}: {audited:?}");
    let mut doomed: Vec<_> = audited
        .iter()
        .filter(|(_, told)| told != "safe")
        .map(|(inode, _)| *inode)
        .collect();
    ensure!(doomed.len() == 2 && audited.len() == 3, "{audited:?}");
    // Told of no timeout it finds this one itself, in a namespace of this host.
    let (code, found) = network.client.on(|| audit(&[]))?;
    ensure!(code == Some(5) && found == audited, "{code:?}: {found:?}");
    wait_until("the balancer has forgotten those", || {
        Ok(network.remembered()? == 1)
    })?;
    // Round robin: what is new to the balancer goes to the server that did not have the
    // last turn, so that one goes first whose own server did.
    while !doomed.is_empty() {
        let next = doomed
            .iter()
            .position(|inode| clients.server_of(*inode) == Some(clients.last))
            .context("both are of one server")?;
        let mut client = clients.take(doomed.swap_remove(next))?;
        client.write_all(b"ping")?;
        ipvs::expect_death(&mut client, ErrorKind::ConnectionReset)?;
        clients.last = 1 - clients.last;
    }
    clients.exchange()?;

    let survivors = clients;
    let mut clients = Clients::connect(&network)?;
    let before = network.client.on(netns::Counters::read)?;
    network.client.on(|| {
        let (_, mut audited) = audit(&BALANCER)?;
        audited.retain(|(inode, _)| clients.near.contains_key(inode));
        follow(&audited, &clients.near)?;
        let (code, audited) = audit(&BALANCER)?;
        ensure!(code == Some(0), "exit code {code:?}: {audited:?}");
        Ok(())
    })?;
    // No client sends more than one in 4 s.
    let all = clients.near.len() + survivors.near.len();
    wait_until("they have sent probes for longer than that", || {
        let now = network.client.on(netns::Counters::read)?;
        Ok(now.keepalive - before.keepalive >= 5 * all as u64)
    })?;
    let remembered = network.remembered()?;
    ensure!(remembered == all, "{remembered} of {all} are remembered");
    clients.exchange()
}

/// Connections through the balancer, by the inode of the client's end.
struct Clients {
    near: HashMap<u64, TcpStream>,
    /// Which server, and its end.
    far: HashMap<u64, (usize, TcpStream)>,
    /// The server that had the last turn.
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
        self.near.remove(&inode).context("not one of these")
    }

    /// Each client that is left asks and is answered.
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

/// The exit code, and of each connection its inode and `fate why set_in set`.
fn audit(arguments: &[&str]) -> Result<(Option<i32>, Vec<Told>)> {
    let arguments = [&["audit", "--loopback", "--json"], arguments].concat();
    let output = command::run(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout)?;
    let mut told = Vec::new();
    for line in stdout.lines() {
        let value = check(line)?;
        if let Some(inode) = value["inode"].as_u64() {
            let words = ["fate", "why", "set_in", "set"].map(|name| value[name].as_str());
            let words: Vec<_> = words.into_iter().flatten().collect();
            told.push((inode, words.join(" ")));
        }
    }
    ensure!(stdout.contains("\"summary\""), "{stdout}{stderr}");
    Ok((output.status.code(), told))
}

fn check(line: &str) -> Result<Value> {
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    schema::check(&validator, line).map_err(Error::msg)
}

/// Does what is advised, word for word and in that order.
fn follow(audited: &[Told], sockets: &HashMap<u64, TcpStream>) -> Result<()> {
    for (inode, told) in audited {
        let socket = sockets.get(inode).context("not one of these")?;
        for word in told.split(' ') {
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
                    None => bail!("no setting: {word}"),
                },
            }
        }
    }
    Ok(())
}
