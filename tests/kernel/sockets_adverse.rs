//! `kaprobe sockets` and `audit` while sockets and namespaces disappear, and without the
//! privilege to see everything.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use kaprobe_testkit::process::sleeper;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::unprivileged::{self, NOBODY, PublicCopy};
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, mounts, netns, snapshot};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};

/// The number of connections and of namespaces that come and go.
const CONNECTIONS: u64 = 2000;
const NAMESPACES: u64 = 20;

/// The directory of iproute2's named network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Thousands of connections and their processes come and go during snapshots. Each
/// snapshot succeeds, reports what it could not find out, and has the lasting connections
/// with their owners.
pub fn survive_connections_that_vanish() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stay: Vec<_> = (0..20)
        .map(|_| connect_to(&listener))
        .collect::<Result<_>>()?;
    let stay: Vec<_> = stay.iter().flat_map(|(near, far)| [near, far]).collect();
    let copy = PublicCopy::make()?;
    let may_miss = iterator_counts()?;
    let mut seen = HashSet::new();
    let come = TcpListener::bind("127.0.0.1:0")?;
    let come_and_go = |count| come_and_go(&come, count);
    while_many(CONNECTIONS, come_and_go, || {
        for (by, owned) in [(command::kaprobe()?, true), (copy.as_nobody(), false)] {
            let (code, stdout, stderr) = command::run_as(by, &["sockets", "--json"])?;
            ensure!(code == Some(0), "{code:?}: {stderr}");
            let rows = snapshot::parse(&stdout)?;
            for socket in &stay {
                let inode = snapshot::inode(*socket)?;
                let mut matching = rows.iter().filter(|row| row["inode"] == inode);
                let Some(row) = matching.next() else {
                    ensure!(may_miss, "no row of inode {inode}");
                    continue;
                };
                let pid = owned.then(std::process::id);
                ensure!(is_owned(row, pid), "owner {pid:?}: {row}");
                ensure!(matching.next().is_none(), "shown twice: {row}");
                seen.insert(inode);
            }
            let marked = rows.iter().any(|row| row["owners"] == json!([]));
            ensure!(marked == stderr.contains("owner unknown for"), "{stderr}");
        }
        let arguments = ["audit", "--idle-timeout", "350s", "--loopback", "--json"];
        let (code, stdout, stderr) = command::run_as(command::kaprobe()?, &arguments)?;
        ensure!(code == Some(5), "{code:?}: {stderr}");
        let last = stdout.lines().last().context("no summary")?;
        let summary: Value = serde_json::from_str(last)?;
        let connections = summary["summary"]["connections"].as_u64();
        let all = connections >= Some(stay.len() as u64);
        ensure!(all || may_miss, "{summary}");
        Ok(())
    })?;
    ensure!(seen.len() == stay.len(), "some were never seen");
    Ok(())
}

/// Whether a row names this owner, or none. A child that was forked just now holds the same
/// descriptors until it executes its program.
fn is_owned(row: &Value, pid: Option<u32>) -> bool {
    let owners = row["owners"].as_array().map_or(&[][..], Vec::as_slice);
    match pid {
        Some(pid) => owners.iter().any(|it| it["pid"] == pid),
        None => row["pid"].is_null(),
    }
}

/// Whether this kernel's iterator resumes by position, as before the batches of 5.15. It
/// may miss a socket if an earlier one disappears meanwhile.
fn iterator_counts() -> Result<bool> {
    let types = fs::read("/sys/kernel/btf/vmlinux")?;
    Ok(!types.windows(BATCH.len()).any(|it| it == BATCH))
}

/// The name of `struct bpf_tcp_iter_state`, net/ipv4/tcp_ipv4.c.
const BATCH: &[u8] = b"bpf_tcp_iter_state";

/// Opens and closes a connection. Some are held by a short-lived process.
fn come_and_go(listener: &TcpListener, count: u64) -> Result<()> {
    let (near, far) = connect_to(listener)?;
    SockRef::from(&far).set_keepalive(true)?;
    match count % 64 {
        0 => {
            let mut process = Command::new("true");
            process.stdin(OwnedFd::from(near)).spawn()?.wait()?;
        }
        // Most are reset: there are not enough ports for so many sockets in TIME_WAIT.
        1 => {}
        _ => SockRef::from(&near).set_linger(Some(Duration::ZERO))?,
    }
    Ok(())
}

/// Named namespaces come and go, and no snapshot of all namespaces fails.
pub fn survive_namespaces_that_vanish() -> Result<()> {
    netns::enter_new()?;
    cover_netns_dir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let take = || {
        let rows = snapshot::take(&["--all-netns", "--state", "listen"])?;
        let own = rows.iter().filter(|row| row["lport"] == port);
        ensure!(own.count() == 1, "the namespace that stays is missing");
        Ok(())
    };
    while_many(NAMESPACES, |_| TemporaryNetns::make().map(drop), take)?;
    wait_until(
        "a namespace was removed during a snapshot",
        removed_during_snapshot,
    )
}

/// Removes a namespace after kaprobe has opened it, and before it is entered. False if
/// the snapshot was too fast.
fn removed_during_snapshot() -> Result<bool> {
    let doomed = TemporaryNetns::make()?;
    let inode = doomed.inode;
    let mut command = command::kaprobe()?;
    command.args(["sockets", "--json", "--all-netns", "--state", "listen"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let descriptors = format!("/proc/{}/fd", child.id());
    let holds = || {
        let links = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        let mut files = links.filter_map(|link| fs::metadata(link.path()).ok());
        files.any(|file| file.ino() == inode)
    };
    let mut caught = false;
    while !caught && child.try_wait()?.is_none() {
        if holds() {
            // The child is not reaped yet, so the pid is still its own.
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let pid = pid.context("no pid")?;
            kill_process(pid, Signal::STOP)?;
            caught = holds();
            drop(doomed);
            kill_process(pid, Signal::CONT)?;
            break;
        }
        thread::yield_now();
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    snapshot::parse(&String::from_utf8(output.stdout)?)?;
    Ok(caught)
}

/// Sockets whose owners a /proc with hidepid hides are marked, and a note says why.
pub fn hidden_processes_are_reported() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (_roots, far) = connect_to(&listener)?;
    let mut sleep = Command::new("sleep");
    sleep.uid(NOBODY).gid(NOBODY);
    let inode = snapshot::inode(&far)?;
    let holder = sleeper(sleep, OwnedFd::from(far))?;
    mounts::enter_new()?;
    mount("proc", "/proc", "proc", MountFlags::empty(), c"hidepid=2")?;

    let copy = PublicCopy::make()?;
    let own = json!([{ "pid": holder.id(), "comm": "sleep", "fd": 0 }]);
    for (by, source, owners) in [
        (copy.as_nobody(), "sock_diag", own),
        (unprivileged::without_ptrace()?, "iter/tcp", json!([])),
    ] {
        let (code, stdout, stderr) = command::run_as(by, &["sockets", "--json", "--all-netns"])?;
        ensure!(code == Some(0), "{code:?}: {stderr}");
        for note in ["owner unknown for", "network namespaces may be left out"] {
            let is_noted = stderr.lines().any(|line| {
                line.contains(note)
                    && line.contains("/proc hides")
                    && line.contains("CAP_SYS_PTRACE")
            });
            ensure!(is_noted, "{note}: {stderr}");
        }
        let here = netns::inode()?;
        let mut rows = snapshot::parse(&stdout)?;
        rows.retain(|row| row["netns"] == here);
        ensure!(rows.len() == 3, "{rows:?}");
        for row in rows {
            let owners = if row["inode"] == inode {
                &owners
            } else {
                &json!([])
            };
            ensure!(row["source"] == source && row["owners"] == *owners, "{row}");
            ensure!(row["pid"] == owners[0]["pid"], "{row}");
        }
    }
    Ok(())
}

/// Without CAP_SYS_PTRACE, kaprobe shows everything but the owners, and says so. An audit
/// that may have missed namespaces does not pass.
pub fn missing_privilege_is_reported() -> Result<()> {
    netns::enter_new()?;
    // No other test uses this address, in any namespace.
    let listener = TcpListener::bind("127.41.0.1:0")?;
    let (near, far) = connect_to(&listener)?;
    let soon = TcpKeepalive::new().with_time(Duration::from_secs(10));
    for end in [&near, &far] {
        SockRef::from(end).set_tcp_keepalive(&soon)?;
    }
    let (code, stdout, stderr) =
        command::run_as(unprivileged::without_ptrace()?, &["sockets", "--json"])?;
    ensure!(code == Some(0), "{code:?}: {stderr}");
    let rows = snapshot::parse(&stdout)?;
    ensure!(rows.len() == 3, "{stdout}");
    for row in rows {
        ensure!(row["pid"].is_null() && row["owners"] == json!([]), "{row}");
        ensure!(row["keepalive_time_ms"].is_u64(), "{row}");
    }
    let is_noted = stderr.contains("owner unknown for 3 sockets: ");
    ensure!(is_noted && stderr.contains("CAP_SYS_PTRACE"), "{stderr}");

    let here = [
        "audit",
        "--idle-timeout",
        "350s",
        "--loopback",
        "--addr",
        "127.41.0.1",
    ];
    let everywhere = [&here[..], &["--all-netns"]].concat();
    let without_ptrace = unprivileged::without_ptrace;
    for (by, arguments, expected, sees) in [
        (command::kaprobe()?, &everywhere[..], 0, true),
        (without_ptrace()?, &here, 0, false),
        (without_ptrace()?, &everywhere, 5, false),
    ] {
        let (code, stdout, stderr) = command::run_as(by, arguments)?;
        let groups = stdout.lines().filter(|line| line.starts_with("safe"));
        let mut programs = groups.filter_map(|line| line.split_whitespace().nth(2));
        ensure!(programs.all(|it| (it != "?") == sees), "{stdout}");
        let all_safe = stdout.contains("2 connections: 2 safe");
        ensure!(
            code == Some(expected) && all_safe,
            "{code:?}: {stdout}{stderr}"
        );
        let left_out = stderr.contains("network namespaces may be left out");
        ensure!(left_out || expected == 0, "{stderr}");
    }
    Ok(())
}

/// Repeats `background` on another thread and `check` on this thread, until the first has
/// run `count` times and the second twice.
fn while_many(
    count: u64,
    mut background: impl FnMut(u64) -> Result<()> + Send,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let meanwhile = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                background(done.fetch_add(1, Ordering::Relaxed))?;
            }
            Ok(())
        });
        let mut checks = 0;
        let checked = wait_until("both functions have run often enough", || {
            check()?;
            checks += 1;
            let enough = done.load(Ordering::Relaxed) >= count && checks >= 2;
            Ok(enough || meanwhile.is_finished())
        });
        stop.store(true, Ordering::Relaxed);
        let meanwhile = meanwhile
            .join()
            .map_err(|_| anyhow!("the background thread panicked"))?;
        checked.and(meanwhile)
    })
}

/// Gives this thread and its children a private [`NETNS_DIR`].
fn cover_netns_dir() -> Result<()> {
    mounts::enter_new()?;
    fs::create_dir_all(NETNS_DIR)?;
    mounts::cover(Path::new(NETNS_DIR))
}

/// A named network namespace with a listener. Removed when dropped.
struct TemporaryNetns {
    name: PathBuf,
    inode: u64,
    _listener: TcpListener,
}

impl TemporaryNetns {
    fn make() -> Result<Self> {
        let made = thread::spawn(|| {
            netns::enter_new()?;
            let inode = netns::inode()?;
            let name = Path::new(NETNS_DIR).join(inode.to_string());
            File::create(&name)?;
            mount_bind("/proc/thread-self/ns/net", &name)?;
            anyhow::Ok(Self {
                name,
                inode,
                _listener: TcpListener::bind("127.0.0.1:0")?,
            })
        });
        made.join().map_err(|_| anyhow!("the thread panicked"))?
    }
}

impl Drop for TemporaryNetns {
    fn drop(&mut self) {
        // On an error, the rest disappears with the test's mount namespace.
        let _ = unmount(&self.name, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.name);
    }
}
