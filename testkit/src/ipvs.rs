//! A client, an IPVS balancer in direct-routing mode and two servers: each a host with
//! a network namespace and a host name of its own, on one bridge.
//!
//! What the client sends goes through the balancer; what the servers answer goes past
//! it. The balancer forgets a connection after an idle timeout of a few seconds, and
//! sends the next segment of it to the other server (`net.ipv4.vs.sloppy_tcp`, round
//! robin). The namespaces and their names are gone with the thread that built them and
//! with what it started.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::system::sethostname;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::harness::Skip;
use crate::mounts;
use crate::wait::HANG;

/// Where iproute2 keeps the namespaces that it made, by name.
const NAMED: &str = "/run/netns";

/// The namespace that holds the bridge and nothing else.
const SWITCH: &str = "switch";

/// What the client connects to: an address that the balancer and both servers have.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIRTUAL), 5672);

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);

/// A host of the network.
#[derive(Debug)]
pub struct Host {
    /// Its host name, which is also that of its network namespace.
    pub name: &'static str,
    /// Its own address.
    pub address: Ipv4Addr,
}

/// The hosts.
#[derive(Debug)]
pub struct Network {
    /// Who connects.
    pub client: Host,
    /// Who forgets.
    pub balancer: Host,
    /// Who answers.
    pub servers: [Host; 2],
}

impl Network {
    /// Builds it, with a balancer that forgets after so many seconds. Moves this thread
    /// into a mount namespace of its own, where the names of the hosts' network
    /// namespaces are.
    pub fn build(idle_timeout_s: u32) -> Result<Self> {
        usable()?;
        mounts::enter_new()?;
        fs::create_dir_all(NAMED)?;
        mounts::cover(Path::new(NAMED))?;
        let host = |name, last| Host {
            name,
            address: Ipv4Addr::new(10, 9, 0, last),
        };
        let network = Self {
            client: host("client", 1),
            balancer: host("balancer", 2),
            servers: [host("server1", 11), host("server2", 12)],
        };
        network.connect()?;
        for server in &network.servers {
            server.hold_virtual_address()?;
        }
        network.balance(idle_timeout_s)?;
        Ok(network)
    }

    fn hosts(&self) -> [&Host; 4] {
        let [first, second] = &self.servers;
        [&self.client, &self.balancer, first, second]
    }

    /// Namespaces, a bridge, and a cable to each host.
    fn connect(&self) -> Result<()> {
        let names = self.hosts().map(|host| host.name);
        let add = |name| format!("netns add {name}\n");
        let all: String = names.iter().copied().chain([SWITCH]).map(add).collect();
        ip(None, &all)?;
        let cable = |name| {
            format!(
                "link add {name} type veth peer name eth0 netns {name}\n\
                 link set {name} master br0 up\n"
            )
        };
        let cables: String = names.into_iter().map(cable).collect();
        ip(
            Some(SWITCH),
            &format!("link add br0 type bridge\nlink set br0 up\n{cables}"),
        )?;
        for Host { name, address } in self.hosts() {
            let up = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
            ip(Some(name), &up)?;
        }
        Ok(())
    }

    fn balance(&self, idle_timeout_s: u32) -> Result<()> {
        let virtual_address = format!("addr add {VIRTUAL}/32 dev eth0\n");
        ip(Some(self.balancer.name), &virtual_address)?;
        let service = SERVICE.to_string();
        self.balancer.on(|| {
            ipvsadm(&["-A", "-t", &service, "-s", "rr"])?;
            for server in &self.servers {
                ipvsadm(&[
                    "-a",
                    "-t",
                    &service,
                    "-r",
                    &server.address.to_string(),
                    "-g",
                ])?;
            }
            ipvsadm(&["--set", &idle_timeout_s.to_string(), "0", "0"])?;
            // A segment in mid-stream of an unknown connection is scheduled like the
            // first one of a new.
            set_sysctl("vs/sloppy_tcp", "1")
        })
    }

    /// How many connections the balancer has in mind.
    pub fn remembered(&self) -> Result<usize> {
        self.balancer.on(|| {
            // Two lines of headings.
            let table = fs::read_to_string("/proc/thread-self/net/ip_vs_conn")?;
            Ok(table.lines().filter(|line| line.starts_with("TCP")).count())
        })
    }
}

impl Host {
    /// Does something there, on a thread in its network namespace and under its name.
    /// Sockets and processes that come of it stay there.
    pub fn on<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let done = thread::scope(|scope| {
            let there = scope.spawn(|| {
                self.enter()
                    .with_context(|| format!("enter {}", self.name))?;
                act()
            });
            there.join()
        });
        done.map_err(|_| anyhow!("it panicked on {}", self.name))?
    }

    fn enter(&self) -> Result<()> {
        let namespace = File::open(Path::new(NAMED).join(self.name))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        // SAFETY: no file descriptor is touched.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?;
        Ok(sethostname(self.name.as_bytes())?)
    }

    /// Takes what is sent to the virtual address, and does not answer for it: the
    /// balancer does.
    fn hold_virtual_address(&self) -> Result<()> {
        self.on(|| {
            set_sysctl("conf/all/arp_ignore", "1")?;
            set_sysctl("conf/all/arp_announce", "2")
        })?;
        ip(Some(self.name), &format!("addr add {VIRTUAL}/32 dev lo\n"))
    }
}

/// Which of the listeners has a connection waiting.
pub fn accepted(listeners: &[TcpListener; 2]) -> Result<usize> {
    let mut waiting = listeners
        .each_ref()
        .map(|listener| PollFd::new(listener, PollFlags::IN));
    let limit = Timespec::try_from(HANG)?;
    poll(&mut waiting, Some(&limit))?;
    let first = waiting.iter().position(|it| !it.revents().is_empty());
    first.context("neither server was connected to")
}

/// The client asks and the server answers.
pub fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let mut heard = [0; 4];
    client.write_all(b"ping").context("ask")?;
    server.read_exact(&mut heard).context("hear")?;
    server.write_all(b"pong").context("answer")?;
    client.read_exact(&mut heard).context("hear the answer")?;
    Ok(())
}

/// Waits until the connection ends, with this error and no other.
pub fn died(stream: &mut TcpStream, of: ErrorKind) -> Result<()> {
    match stream.read(&mut [0; 4]) {
        Err(why) if why.kind() == of => Ok(()),
        other => bail!("not {of:?}: {other:?}"),
    }
}

/// Sets `net.ipv4.…` of this thread's network namespace.
fn set_sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .with_context(|| format!("write net.ipv4.{name}"))
}

/// Whether such a network can be built here. No module is loaded for it: what a host's
/// kernel has loaded is its owner's business.
pub fn usable() -> Result<()> {
    let in_vm = env::var_os("KAPROBE_IN_VM").is_some();
    if !Path::new("/proc/net/ip_vs").exists() {
        return Err(Skip("this kernel has no IPVS, or has not loaded ip_vs_rr".into()).into());
    }
    for tool in ["ip", "ipvsadm"] {
        let found = Command::new(tool)
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() && !in_vm {
            return Err(Skip(format!("there is no {tool} on PATH")).into());
        }
    }
    Ok(())
}

/// Gives iproute2 some lines to do, in a namespace by name.
fn ip(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(name) = netns {
        ip.args(["-netns", name]);
    }
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run ip")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "ip {netns:?}: {status}\n{lines}");
    Ok(())
}

/// Runs `ipvsadm`.
pub fn ipvsadm(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ipvsadm").args(arguments).status();
    let status = status.context("run ipvsadm")?;
    ensure!(status.success(), "ipvsadm {arguments:?}: {status}");
    Ok(())
}
