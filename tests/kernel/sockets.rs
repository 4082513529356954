//! `kaprobe sockets` against what the kernel tells of the same sockets elsewhere:
//! getsockopt, the sysctl files, /proc/net/tcp.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};

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

/// One row for each inode, each held to the schema.
fn snapshot() -> Result<HashMap<u64, Value>> {
    let schema = serde_json::from_str(SCHEMA)?;
    let validator =
        jsonschema::draft202012::new(&schema).map_err(|why| anyhow::anyhow!("{why}"))?;
    let output = kaprobe::run(&["sockets", "--json", "--all-netns"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    let mut rows = HashMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
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
        Ok(fs::metadata(format!("/proc/self/fd/{}", self.near.as_raw_fd()))?.ino())
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
