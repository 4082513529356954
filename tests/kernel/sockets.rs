//! Compares `kaprobe sockets` with getsockopt, the sysctls, /proc/net/tcp and sock_diag.

use std::collections::{HashMap, HashSet};
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::process::{Held, Process, Task};
use kaprobe_testkit::snapshot::{self, by_inode, inode, parse};
use kaprobe_testkit::unprivileged::PublicCopy;
use kaprobe_testkit::{command, netns, timers};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};

/// The keepalive sysctls of a namespace: time, interval, count.
type Sysctls = [u32; 3];

/// Every reported value equals getsockopt's, for all combinations of own and inherited
/// settings, in two namespaces with different sysctls.
pub fn rows_equal_getsockopt() -> Result<()> {
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
        for combination in 0..32 {
            made.push(TestConnection::connected(address, combination)?);
            made.push(TestConnection::accepted(address, combination)?);
        }
    }
    let before = timers::from_proc()?;
    let rows = snapshot()?;
    let after = timers::from_proc()?;
    for socket in &made {
        let inode = inode(&socket.near)?;
        let row = rows
            .get(&inode)
            .with_context(|| format!("no row of inode {inode}"))?;
        socket
            .compare(row)
            .with_context(|| format!("{:05b}: {row}", socket.combination))?;
        let key = timers::key(row)?;
        let (before, after) = (before.get(&key), after.get(&key));
        let (before, after) = before.zip(after).context("not in /proc/net/tcp")?;
        before
            .compare(after, row)
            .with_context(|| format!("{before:?} {after:?} {row}"))?;
    }
    Ok(())
}

/// Without the privilege to load BPF programs, kaprobe shows the same sockets, prints a
/// note, and marks values that sock_diag lacks. Sockets of other users have no owners.
pub fn fallback_rows_equal_sock_diag() -> Result<()> {
    netns::enter_new()?;
    let mut made = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        for combination in [0, 0b1, 0b10011, 0b11111] {
            made.push(TestConnection::connected(address, combination)?);
        }
    }
    let by_root = snapshot()?;
    let kaprobe = PublicCopy::make()?;
    let run = |arguments: &[&str]| {
        let arguments = [&["sockets"], arguments].concat();
        let (code, stdout, stderr) = command::run_as(kaprobe.as_nobody(), &arguments)?;
        ensure!(code == Some(0), "{code:?}: {stderr}");
        ensure!(
            stderr.contains("keepalive settings cannot be seen"),
            "{stderr}"
        );
        ensure!(stderr.contains("owner unknown for"), "{stderr}");
        Ok(stdout)
    };
    let rows = by_inode(parse(&run(&["--json"])?)?)?;
    for socket in &made {
        let inode = inode(&socket.near)?;
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

/// Every one of many sockets is shown once, and memory does not grow with their number. A
/// virtual machine has as many as it opens in seconds. Otherwise there are first more
/// than a batch of a snapshot (`BATCH`, sockets/snapshot.rs), then twice as many.
pub fn many_sockets_need_constant_memory() -> Result<()> {
    let (processes, each) = match env::var_os("KAPROBE_IN_VM") {
        Some(_) => (1, 1_500),
        None => (2, 9_000),
    };
    netns::enter_new()?;
    let (mut held, mut peaks) = (Vec::new(), Vec::new());
    for n in 1..=processes {
        let mut holder = Process::start(Task {
            comm: "holder".into(),
            holds: Some(Held {
                address: Ipv4Addr::new(127, 0, n, 1).into(),
                count: each,
                seconds: None,
            }),
            ..Task::default()
        })?;
        holder.go()?;
        held.push(holder);
        peaks.push(peak_of_a_snapshot(&held)?);
    }
    let few = peaks.iter().min().context("no snapshot")?;
    ensure!(
        peaks.iter().all(|it| *it < few + 4096),
        "{peaks:?} KiB: memory grows with the sockets"
    );
    held.into_iter().try_for_each(Process::dismiss)
}

/// Takes a snapshot and checks that it has every held connection. Returns kaprobe's peak
/// resident memory (VmHWM), KiB.
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
    let mut child = command::kaprobe()?
        .args(["sockets", "--json", "--state=established"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let process = procfs::process::Process::new(i32::try_from(child.id())?)?;
    let (mut shown, mut peak) = (HashSet::new(), None);
    for (n, line) in lines.enumerate() {
        let row: Value = serde_json::from_str(&line?)?;
        let ends = ["laddr", "lport", "raddr", "rport"].map(|name| row[name].to_string());
        ensure!(shown.insert(ends), "shown twice: {row}");
        // kaprobe waits in its last batch until most of that is read, and has its peak by then.
        if n % 64 == 0 {
            peak = process.status().ok().and_then(|it| it.vmhwm).or(peak);
        }
    }
    ensure!(child.wait()?.success(), "kaprobe failed");
    let missing = expected.difference(&shown).count();
    ensure!(missing == 0, "{missing} of {} are missing", expected.len());
    peak.context("no VmHWM")
}

/// The rows of every network namespace, by inode.
fn snapshot() -> Result<HashMap<u64, Value>> {
    by_inode(snapshot::take(&["--all-netns"])?)
}

/// A connection whose near end has own settings. The bits of `combination` are keepalive,
/// time, interval, count, user timeout.
struct TestConnection {
    combination: u8,
    near: TcpStream,
    _far: TcpStream,
    _listener: TcpListener,
}

impl TestConnection {
    /// The near end connects, and sets the options itself.
    fn connected(address: &str, combination: u8) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        set(SockRef::from(&near), combination)?;
        let (far, _) = listener.accept()?;
        Self::new(combination, near, far, listener)
    }

    /// The near end is accepted, and inherits the options from the listener.
    fn accepted(address: &str, combination: u8) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        set(SockRef::from(&listener), combination)?;
        let far = TcpStream::connect(listener.local_addr()?)?;
        let (near, _) = listener.accept()?;
        Self::new(combination, near, far, listener)
    }

    fn new(
        combination: u8,
        near: TcpStream,
        mut far: TcpStream,
        listener: TcpListener,
    ) -> Result<Self> {
        // The data stays unread, so that the queue is not empty.
        far.write_all(&vec![0; combination.into()])?;
        Ok(Self {
            combination,
            near,
            _far: far,
            _listener: listener,
        })
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

fn set(socket: SockRef<'_>, combination: u8) -> Result<()> {
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
    // Setting the times turns keepalive on, so keepalive itself is set after them.
    socket.set_tcp_keepalive(&own)?;
    socket.set_keepalive(has(0))?;
    if has(4) {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(98_765)))?;
    }
    Ok(())
}
