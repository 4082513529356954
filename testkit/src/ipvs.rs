//! A network of a client, an IPVS balancer in direct-routing mode and two servers. Each
//! host has its own network namespace and host name. One bridge connects them.
//!
//! The balancer sees the segments of the client, but not the replies of the servers. It
//! forgets a connection after an idle timeout of a few seconds, and sends its next
//! segment to the other server (`net.ipv4.vs.sloppy_tcp`, round robin). The namespaces
//! disappear once the thread that built them and all processes it started have ended.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kaprobe::traffic::sockopt::tcp_info;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::system::sethostname;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::harness::Skip;
use crate::mounts;
use crate::wait::{HANG, wait_until};

/// The directory of iproute2's named network namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The namespace that holds the bridge and nothing else.
const SWITCH: &str = "switch";

/// The address that the client connects to. The balancer and both servers have it.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIRTUAL), 5672);

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);

/// A host of the test network.
#[derive(Debug)]
pub struct Host {
    /// The host name, which is also the name of the network namespace.
    pub name: &'static str,
    /// The address that only this host has.
    pub address: Ipv4Addr,
}

/// The hosts of the test network.
#[derive(Debug)]
pub struct Network {
    /// Connects to [`SERVICE`].
    pub client: Host,
    /// Forwards segments, and forgets idle connections.
    pub balancer: Host,
    /// Accept connections.
    pub servers: [Host; 2],
}

impl Network {
    /// Builds the network; the balancer has this idle timeout. Moves this thread into its
    /// own mount namespace, which holds the names of the hosts' network namespaces.
    pub fn build(idle_timeout_s: u32) -> Result<Self> {
        usable()?;
        mounts::enter_new()?;
        fs::create_dir_all(NETNS_DIR)?;
        mounts::cover(Path::new(NETNS_DIR))?;
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
            server.add_virtual_address()?;
        }
        network.balance(idle_timeout_s)?;
        Ok(network)
    }

    fn hosts(&self) -> [&Host; 4] {
        let [first, second] = &self.servers;
        [&self.client, &self.balancer, first, second]
    }

    /// Creates the namespaces, a bridge, and a veth pair to each host.
    fn connect(&self) -> Result<()> {
        let names = self.hosts().map(|host| host.name);
        let add = |name| format!("netns add {name}\n");
        let all: String = names.iter().copied().chain([SWITCH]).map(add).collect();
        ip(None, &all)?;
        let veth = |name| {
            format!(
                "link add {name} type veth peer name eth0 netns {name}\n\
                 link set {name} master br0 up\n"
            )
        };
        let veths: String = names.into_iter().map(veth).collect();
        ip(
            Some(SWITCH),
            &format!("link add br0 type bridge\nlink set br0 up\n{veths}"),
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
            // Schedules a mid-stream segment of an unknown connection like the first
            // segment of a new one.
            set_sysctl("vs/sloppy_tcp", "1")
        })
    }

    /// The number of connections in the balancer's table.
    pub fn remembered(&self) -> Result<usize> {
        self.balancer.on(|| {
            // The first two lines are headings.
            let table = fs::read_to_string("/proc/thread-self/net/ip_vs_conn")?;
            Ok(table.lines().filter(|line| line.starts_with("TCP")).count())
        })
    }
}

impl Host {
    /// Runs a function on a thread with this host's network namespace and host name.
    /// Sockets and processes that it creates stay on the host.
    pub fn on<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let done = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()
                    .with_context(|| format!("enter {}", self.name))?;
                act()
            });
            thread.join()
        });
        done.map_err(|_| anyhow!("a thread panicked on {}", self.name))?
    }

    fn enter(&self) -> Result<()> {
        let namespace = File::open(Path::new(NETNS_DIR).join(self.name))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        // SAFETY: no file descriptor is touched.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?;
        Ok(sethostname(self.name.as_bytes())?)
    }

    /// Accepts segments to the virtual address, but does not answer ARP requests for it:
    /// the balancer does.
    fn add_virtual_address(&self) -> Result<()> {
        self.on(|| {
            set_sysctl("conf/all/arp_ignore", "1")?;
            set_sysctl("conf/all/arp_announce", "2")
        })?;
        ip(Some(self.name), &format!("addr add {VIRTUAL}/32 dev lo\n"))
    }
}

/// Waits for a connection, and returns the index of the listener that has it.
pub fn accepted(listeners: &[TcpListener; 2]) -> Result<usize> {
    let mut waiting = listeners
        .each_ref()
        .map(|listener| PollFd::new(listener, PollFlags::IN));
    let limit = Timespec::try_from(HANG)?;
    poll(&mut waiting, Some(&limit))?;
    let first = waiting.iter().position(|it| !it.revents().is_empty());
    first.context("neither server was connected to")
}

/// The client sends a request and the server responds.
pub fn exchange(mut client: impl Read + Write, mut server: impl Read + Write) -> Result<()> {
    let mut bytes = [0; 4];
    client.write_all(b"ping").context("send the request")?;
    server.read_exact(&mut bytes).context("read the request")?;
    server.write_all(b"pong").context("send the response")?;
    client.read_exact(&mut bytes).context("read the response")?;
    Ok(())
}

/// Exchanges requests until the client's kernel would wait for no longer than [`SHORT_RTO`]
/// before it sends data again.
///
/// A round trip that a busy machine made long leaves a long timeout. Then data is sent less
/// often again before the kernel gives up on it.
pub fn settle<S: AsFd>(client: &S, server: &S) -> Result<()>
where
    for<'a> &'a S: Read + Write,
{
    wait_until("the retransmission timeout is short", || {
        exchange(client, server)?;
        let rto = Duration::from_micros(tcp_info(client)?.rto_us.into());
        Ok(rto <= SHORT_RTO)
    })
}

/// Little longer than TCP_RTO_MIN (200 ms) and a delayed acknowledgement.
const SHORT_RTO: Duration = Duration::from_millis(300);

/// Waits until the connection ends. Any error but this one is a failure.
pub fn expect_death(stream: &mut TcpStream, error: ErrorKind) -> Result<()> {
    match stream.read(&mut [0; 4]) {
        Err(why) if why.kind() == error => Ok(()),
        other => bail!("not {error:?}: {other:?}"),
    }
}

/// Sets a `net.ipv4` sysctl of this thread's network namespace.
fn set_sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .with_context(|| format!("write net.ipv4.{name}"))
}

/// Skips the test if the network cannot be built here. Loads no kernel module: that is up
/// to the host's owner.
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

/// Runs a batch of `ip` commands, in a named network namespace.
pub(crate) fn ip(netns: Option<&str>, lines: &str) -> Result<()> {
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
