//! `kaprobe sockets` against what the kernel says elsewhere: getsockopt, the sysctl files,
//! /proc/net/tcp, sock_diag; and against who is known to hold the sockets.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};

use super::support::process::{Part, Process};
use super::support::{kaprobe, netns};

const SCHEMA: &str = include_str!("../../schema/kaprobe-sockets.schema.json");

/// The sysctls of a namespace: idle time, interval, count.
type Sysctls = [u32; 3];

/// Every value that kaprobe reports is what getsockopt says, for all combinations of
/// own and inherited settings, in two namespaces of different sysctls.
pub fn are_what_getsockopt_says() -> Result<()> {
    for sysctls in [[300, 20, 5], [5000, 71, 9]] {
        in_namespace(sysctls)?;
    }
    Ok(())
}

fn in_namespace(sysctls: Sysctls) -> Result<()> {
    netns::enter_new()?;
    let names = [
        "tcp_keepalive_time",
        "tcp_keepalive_intvl",
        "tcp_keepalive_probes",
    ];
    for (name, value) in names.into_iter().zip(sysctls) {
        netns::set_ipv4_sysctl(name, value)?;
    }
    let mut made = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        for combination in 0..32 {
            made.push(Made::new(&listener, combination)?);
        }
    }
    let before = Proc::read()?;
    let rows = snapshot()?;
    let after = Proc::read()?;
    for socket in &made {
        let inode = socket.inode()?;
        let row = rows
            .get(&inode)
            .with_context(|| format!("no row of inode {inode}"))?;
        socket
            .compare(row)
            .with_context(|| format!("{:05b}: {row}", socket.combination))?;
        let [before, after] = [&before, &after].map(|it| it.0.get(&inode));
        let (before, after) = before.zip(after).context("not in /proc/net/tcp")?;
        before
            .compare(after, row)
            .with_context(|| format!("{before:?} {after:?} {row}"))?;
    }
    Ok(())
}

/// Every owner is told, whichever way a socket came to it; of a socket on its way from one
/// to another, that nobody is to be seen; of an orphan, nothing.
pub fn have_their_owners() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = || {
        let near = TcpStream::connect(listener.local_addr()?)?;
        anyhow::Ok((near, listener.accept()?.0))
    };
    let (own, accepted) = connect()?;
    let (shared, _far) = connect()?;
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(OwnedFd::from(shared.try_clone()?)))
        .spawn()?;
    let (sent, _far_of_sent) = connect()?;
    let sent_inode = inode(&sent)?;
    let (left, right) = UnixStream::pair()?;
    send(&left, OwnedFd::from(sent))?;
    let (orphan, _far_of_orphan) = connect()?;
    let orphaned = orphan.local_addr()?.port();
    drop(orphan);
    let rows = snapshot();
    child.kill()?;
    child.wait()?;
    let rows = rows?;
    let owners = |inode: u64| -> Result<Vec<u64>> {
        let row = rows.get(&inode).context("no row")?;
        let owners = row["owners"].as_array().context("no owners")?;
        Ok(owners.iter().filter_map(|it| it["pid"].as_u64()).collect())
    };
    let (me, child) = (u64::from(std::process::id()), u64::from(child.id()));
    for (what, inode, expected) in [
        ("connected", inode(&own)?, vec![me]),
        ("accepted", inode(&accepted)?, vec![me]),
        ("inherited", inode(&shared)?, vec![me, child]),
        ("in flight", sent_inode, vec![]),
    ] {
        let mut found = owners(inode)?;
        found.sort_unstable();
        ensure!(found == expected, "{what}: {found:?}, not {expected:?}");
    }
    let told = kaprobe::run(&["sockets", "--json", "-L", &orphaned.to_string()])?;
    let row: Value = serde_json::from_slice(&told.stdout)?;
    ensure!(row["state"] == "FIN_WAIT2", "{row}");
    ensure!(row["pid"].is_null() && row["owners"].is_null(), "{row}");

    let received = receive(&right)?;
    let rows = snapshot()?;
    let row = rows.get(&sent_inode).context("no row")?;
    let expected = json!([{
        "pid": me,
        "comm": fs::read_to_string("/proc/self/comm")?.trim_end(),
        "fd": received.as_raw_fd(),
    }]);
    ensure!(row["owners"] == expected, "{row}, not {expected}");
    Ok(())
}

fn inode(socket: &impl AsRawFd) -> Result<u64> {
    Ok(fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd()))?.ino())
}

/// Sends a descriptor away, and keeps none.
fn send(over: &UnixStream, sent: OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [sent.as_fd()];
    ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let data = [IoSlice::new(b"!")];
    sendmsg(over, &data, &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(over: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    recvmsg(over, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    { fds }.next().context("no descriptor came")
}

/// Without the privilege to load BPF programs: the same sockets, less what sock_diag does
/// not know, which is marked, and a note; no owners of another user's sockets.
pub fn are_what_sock_diag_says() -> Result<()> {
    const NOBODY: u32 = 65534;
    netns::enter_new()?;
    let mut made = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        for combination in [0, 0b1, 0b10011, 0b11111] {
            made.push(Made::new(&listener, combination)?);
        }
    }
    let by_root = snapshot()?;
    let dir = tempfile::tempdir()?;
    let kaprobe = super::manners::reachable(dir.path())?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&kaprobe);
        command
            .arg("sockets")
            .args(arguments)
            .gid(NOBODY)
            .uid(NOBODY);
        let output = command.output()?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{}: {stderr}", output.status);
        ensure!(
            stderr.contains("keepalive settings cannot be seen"),
            "{stderr}"
        );
        ensure!(stderr.contains("owners not found"), "{stderr}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let rows = parse(&run(&["--json"])?)?;
    for socket in &made {
        let inode = socket.inode()?;
        let row = rows.get(&inode).context("no row")?;
        let full = by_root.get(&inode).context("no row by root")?;
        let same = [
            "netns",
            "family",
            "laddr",
            "lport",
            "raddr",
            "rport",
            "state",
            "recvq",
            "sendq",
            "timer",
            "uid",
            "cgroup",
            "keepalive",
            "retransmits",
            "probes_out",
            "unacked",
        ];
        for name in same {
            ensure!(row[name] == full[name], "{name}: {row}, not {full}");
        }
        ensure!(
            row["source"] == "sock_diag" && row["owners"] == json!([]),
            "{row}"
        );
        ensure!(
            row["keepalive_time_ms"].is_null() && row["dead_in_ms"].is_null(),
            "{row}"
        );
        let ages = ["idle_ms", "lastrcv_ms", "lastack_ms", "lastsnd_ms"];
        for age in ages {
            let earlier = full[age].as_u64().context("no age")?;
            ensure!(
                row[age].as_u64().is_some_and(|it| it + 20 >= earlier),
                "{age}: {row}"
            );
        }
    }
    let text = run(&["--state", "established"])?;
    ensure!(
        text.lines().skip(1).all(|line| line.contains(" ? ")),
        "{text}"
    );
    ensure!(text.lines().count() == 1 + 2 * made.len(), "{text}");
    Ok(())
}

/// Watched by a program: one snapshot after the other, without a terminal's escapes, and a
/// clean end when told to.
pub fn are_watched_in_a_pipe() -> Result<()> {
    netns::enter_new()?;
    let _listener = TcpListener::bind("127.0.0.1:0")?;
    let mut child = Command::new(kaprobe::binary())
        .args(["sockets", "--watch=10ms"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    for _ in 0..3 {
        let (heading, row) = (
            lines.next().context("ended")??,
            lines.next().context("ended")??,
        );
        ensure!(heading.starts_with("STATE "), "{heading}");
        ensure!(row.starts_with("LISTEN "), "{row}");
    }
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: no pointer is passed; the child has not been waited for.
    ensure!(unsafe { libc::kill(pid, libc::SIGINT) } == 0, "kill {pid}");
    let rest: Vec<_> = lines.collect::<Result<_, _>>()?;
    ensure!(rest.len() % 2 == 0, "a picture broke off: {rest:?}");
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Many sockets: each is there once, and memory does not grow with them. In a virtual
/// machine as many as it opens in seconds; else first more than a snapshot holds at once
/// (`BATCH`, sockets/snapshot.rs), then twice as many.
pub fn are_all_there_in_little_memory() -> Result<()> {
    let (processes, each) = match env::var_os("KAPROBE_IN_VM") {
        Some(_) => (1, 1_500),
        None => (2, 9_000),
    };
    netns::enter_new()?;
    let (mut held, mut peaks) = (Vec::new(), Vec::new());
    for n in 1..=processes {
        let mut holder = Process::start(Part {
            comm: "holder".into(),
            holds: Some((Ipv4Addr::new(127, 0, n, 1).into(), each)),
            ..Part::default()
        })?;
        holder.go()?;
        held.push(holder);
        peaks.push(peak_of_a_snapshot(&held)?);
    }
    let few = peaks.iter().min().context("no snapshot")?;
    ensure!(
        peaks.iter().all(|it| *it < few + 4096),
        "{peaks:?} KiB: it grows with the sockets"
    );
    held.into_iter().try_for_each(Process::dismiss)
}

/// Takes a snapshot and finds each connection in it that is held; returns the most memory
/// that was resident (VmHWM), KiB.
fn peak_of_a_snapshot(held: &[Process]) -> Result<u64> {
    let ends = |local: SocketAddr, remote: SocketAddr| {
        let ip = |it: SocketAddr| json!(it.ip()).to_string();
        let port = |it: SocketAddr| it.port().to_string();
        [ip(local), port(local), ip(remote), port(remote)]
    };
    let connections = held.iter().flat_map(|it| &it.connections);
    let expected: HashSet<_> = connections
        .flat_map(|&(_, (_, local, remote))| [ends(local, remote), ends(remote, local)])
        .collect();
    // It waits after its snapshot, so that it can be looked at.
    let mut watching = Command::new(kaprobe::binary())
        .args(["sockets", "--json", "--state=established", "--watch=1h"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no stdout")?).lines();
    let mut told = HashSet::new();
    for line in lines.by_ref().take(expected.len()) {
        let row: Value = serde_json::from_str(&line?)?;
        let ends = ["laddr", "lport", "raddr", "rport"].map(|name| row[name].to_string());
        ensure!(told.insert(ends), "twice: {row}");
    }
    let missing = expected.difference(&told).count();
    ensure!(missing == 0, "{missing} of {} are missing", expected.len());
    let process = procfs::process::Process::new(i32::try_from(watching.id())?)?;
    let peak = process.status()?.vmhwm.context("no VmHWM")?;
    watching.kill()?;
    watching.wait()?;
    Ok(peak)
}

/// One row for each inode, each held to the schema.
fn snapshot() -> Result<HashMap<u64, Value>> {
    let output = kaprobe::run(&["sockets", "--json", "--all-netns"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    parse(&String::from_utf8(output.stdout)?)
}

fn parse(lines: &str) -> Result<HashMap<u64, Value>> {
    let schema = serde_json::from_str(SCHEMA)?;
    let validator =
        jsonschema::draft202012::new(&schema).map_err(|why| anyhow::anyhow!("{why}"))?;
    let mut rows = HashMap::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line)?;
        let wrong: Vec<_> = validator
            .iter_errors(&row)
            .map(|it| it.to_string())
            .collect();
        ensure!(wrong.is_empty(), "{wrong:?} in {line}");
        if let Some(inode) = row["inode"].as_u64() {
            ensure!(rows.insert(inode, row).is_none(), "twice: {line}");
        }
    }
    Ok(rows)
}

/// A connection whose near end has set what the bits of `combination` say: keepalive,
/// time, interval, count, user timeout.
struct Made {
    combination: u8,
    near: TcpStream,
    _far: TcpStream,
}

impl Made {
    fn new(listener: &TcpListener, combination: u8) -> Result<Self> {
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        let socket = SockRef::from(&near);
        let has = |bit: u8| combination >> bit & 1 != 0;
        let mut own = TcpKeepalive::new();
        if has(1) {
            own = own.with_time(Duration::from_secs(1234));
        }
        if has(2) {
            own = own.with_interval(Duration::from_secs(33));
        }
        if has(3) {
            own = own.with_retries(7);
        }
        // Setting these turns keepalive on; the last word has the combination.
        socket.set_tcp_keepalive(&own)?;
        socket.set_keepalive(has(0))?;
        if has(4) {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(98_765)))?;
        }
        // Left unread, so that there is a queue.
        far.write_all(&vec![0; combination.into()])?;
        Ok(Self {
            combination,
            near,
            _far: far,
        })
    }

    fn inode(&self) -> Result<u64> {
        inode(&self.near)
    }

    fn compare(&self, row: &Value) -> Result<()> {
        let socket = SockRef::from(&self.near);
        let ms = |time: Duration| json!(time.as_millis() as u64);
        let from = |bit: u8| {
            json!(if self.combination >> bit & 1 != 0 {
                "socket"
            } else {
                "sysctl"
            })
        };
        let timeout = socket.tcp_user_timeout()?.map_or(Value::Null, ms);
        let keepalive = socket.keepalive()?;
        for (name, expected) in [
            ("state", json!("ESTABLISHED")),
            ("netns", json!(netns::inode()?)),
            ("pid", json!(std::process::id())),
            ("laddr", json!(self.near.local_addr()?.ip())),
            ("lport", json!(self.near.local_addr()?.port())),
            ("rport", json!(self.near.peer_addr()?.port())),
            ("recvq", json!(self.combination)),
            ("source", json!("iter/tcp")),
            ("keepalive", json!(keepalive)),
            ("keepalive_time_ms", ms(socket.tcp_keepalive_time()?)),
            ("keepalive_time_from", from(1)),
            ("keepalive_intvl_ms", ms(socket.tcp_keepalive_interval()?)),
            ("keepalive_intvl_from", from(2)),
            ("keepalive_probes", json!(socket.tcp_keepalive_retries()?)),
            ("keepalive_probes_from", from(3)),
            ("user_timeout_ms", timeout),
        ] {
            ensure!(
                row[name] == expected,
                "{name} is {}, not {expected}",
                row[name]
            );
        }
        ensure!(row["dead_in_ms"].is_u64() == keepalive, "dead_in_ms");
        Ok(())
    }
}

/// What /proc/net/tcp and tcp6 tell of each inode.
struct Proc(HashMap<u64, Line>);

#[derive(Debug)]
struct Line {
    sendq: u64,
    recvq: u64,
    timer: u8,
    /// USER_HZ, which is 100.
    left_ticks: u64,
}

impl Proc {
    fn read() -> Result<Self> {
        let mut lines = HashMap::new();
        for file in ["tcp", "tcp6"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
            for line in text.lines().skip(1) {
                let fields: Vec<_> = line.split_whitespace().collect();
                let &[_, _, _, _, queues, timer, _, _, _, inode, ..] = fields.as_slice() else {
                    anyhow::bail!("{file}: {line}");
                };
                let (sendq, recvq) = queues.split_once(':').context("no queues")?;
                let (timer, left) = timer.split_once(':').context("no timer")?;
                let parsed = Line {
                    sendq: u64::from_str_radix(sendq, 16)?,
                    recvq: u64::from_str_radix(recvq, 16)?,
                    timer: u8::from_str_radix(timer, 16)?,
                    left_ticks: u64::from_str_radix(left, 16)?,
                };
                lines.insert(inode.parse()?, parsed);
            }
        }
        Ok(Self(lines))
    }
}

impl Line {
    /// The row was taken between the two: its timer has less left than the first, and
    /// more than the second, to a tick of either clock.
    fn compare(&self, after: &Self, row: &Value) -> Result<()> {
        let names = ["off", "on", "keepalive", "timewait", "probe"];
        let timer = names
            .get(usize::from(self.timer))
            .context("no such timer")?;
        ensure!(row["timer"] == *timer && self.timer == after.timer, "timer");
        ensure!(
            row["sendq"] == self.sendq && row["recvq"] == self.recvq,
            "queues"
        );
        if let Some(left) = row["timer_ms"].as_u64() {
            let (least, most) = (after.left_ticks * 10, self.left_ticks * 10);
            ensure!(left + 20 >= least && left <= most + 20, "timer_ms");
        }
        Ok(())
    }
}
