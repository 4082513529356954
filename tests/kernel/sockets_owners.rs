//! `kaprobe sockets` shows all processes that hold a socket, however they got it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use kaprobe::kernel::{SocketIterator, TracerConfig};
use kaprobe::traffic::pair::deafen;
use kaprobe_testkit::holder::{self, Holder};
use kaprobe_testkit::process::sleeper;
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, doctor, netns, snapshot, unprivileged};
use procfs::process::{FDTarget, Process};
use serde_json::{Value, json};
use socket2::Socket;

/// The iterator over descriptors finds the same sockets as /proc. kaprobe does not use it
/// if it hides something.
pub fn descriptors_equal_proc() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let bound = UnixListener::bind(&path)?;
    let again = bound.try_clone()?;
    // The file is a Unix socket's inode, but not of sockfs.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&path)?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let shared = TcpListener::bind("127.0.0.1:0")?;
    let child = sleeper(Command::new("sleep"), shared.try_clone()?.into())?;
    let ours: [&dyn AsRawFd; 5] = [&bound, &again, &file, &udp, &shared];
    let ours = ours.map(|it| it.as_raw_fd().unsigned_abs());
    // Other tests of this process open and close descriptors meanwhile.
    let is_stable = |pid, fd| pid != std::process::id() || ours.contains(&fd);

    let iterator = SocketIterator::load(&TracerConfig::default())?.take_descriptors();
    let iterator = iterator.context("no iterator over descriptors")?;
    let mut iterated = Vec::new();
    iterator.each(&mut |it| iterated.push((it.pid, it.fd, it.inode)))?;
    ensure!(
        iterated.is_sorted_by_key(|&(pid, fd, _)| (pid, fd)),
        "not in order: {iterated:?}"
    );
    for pid in [std::process::id(), child.id()] {
        let mut listed = Vec::new();
        for fd in Process::new(pid.cast_signed())?.fd()? {
            let fd = fd?;
            if let FDTarget::Socket(inode) = fd.target {
                listed.push((pid, fd.fd.unsigned_abs(), inode));
            }
        }
        listed.retain(|it| is_stable(pid, it.1));
        listed.sort_unstable();
        let own = iterated
            .iter()
            .filter(|it| it.0 == pid && is_stable(pid, it.1));
        let own: Vec<_> = own.copied().collect();
        ensure!(!listed.is_empty() && own == listed, "{own:?}: {listed:?}");
    }
    for (by, source) in [
        (command::kaprobe()?, "iter/task_file"),
        (unprivileged::without_ptrace()?, "/proc"),
    ] {
        let owners = &doctor::report(by)?["owners"];
        ensure!(owners["source"] == source, "{owners}");
    }
    Ok(())
}

/// Every process with a descriptor of a socket is shown, with each descriptor: after
/// accept(), dup(), exec and fork, and after passing over a Unix socket. A socket in
/// flight has unknown owners. An orphan and a socket that is not accepted have none.
pub fn all_owners_are_shown() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = || connect_to(&listener);
    let me = std::process::id();
    let mine = |socket: &TcpStream| (me, socket.as_raw_fd().unsigned_abs());
    let mut expected = Vec::new();

    let (own, accepted) = connect()?;
    expected.push(("connected", port(&own)?, vec![mine(&own)]));
    let (twice, _far) = connect()?;
    let again = twice.try_clone()?;
    expected.push((
        "duplicated",
        port(&twice)?,
        vec![mine(&twice), mine(&again)],
    ));
    let (shared, _far) = connect()?;
    let child = sleeper(Command::new("sleep"), shared.try_clone()?.into())?;
    let over_exec = vec![mine(&shared), (child.id(), 0)];
    expected.push(("inherited over exec", port(&shared)?, over_exec));

    let mut holder = Holder::start()?;
    let (kept, _far) = connect()?;
    let in_holder = (holder.pid(), holder.pass(&kept)?);
    expected.push((
        "passed and kept",
        port(&kept)?,
        vec![mine(&kept), in_holder],
    ));
    let (passed, _far_of_passed) = connect()?;
    let passed_port = port(&passed)?;
    let in_holder = (holder.pid(), holder.pass(&passed)?);
    drop(passed);
    expected.push(("passed and closed", passed_port, vec![in_holder]));
    let (in_flight, _far) = connect()?;
    let in_flight_port = port(&in_flight)?;
    let (left, right) = UnixStream::pair()?;
    holder::send(&left, b'!', in_flight)?;
    expected.push(("in flight", in_flight_port, vec![]));

    let (orphan, far_of_orphan) = connect()?;
    let orphan_port = port(&orphan)?;
    deafen(&Socket::from(far_of_orphan.try_clone()?))?;
    drop(orphan);
    let waiting = TcpStream::connect(listener.local_addr()?)?;

    let shown = SocketRows::read()?;
    for (what, port, owners) in &expected {
        shown.compare(*port, owners).context(*what)?;
    }
    let far = shown.socket("rport", port(&own)?)?;
    ensure!(
        far["owners"] == owners(&[mine(&accepted)])?,
        "accepted: {far}"
    );
    let far = shown.socket("rport", port(&waiting)?)?;
    ensure!(far["owners"].is_null(), "not accepted: {far}");
    let row = shown.socket("lport", orphan_port)?;
    ensure!(
        row["owners"].is_null() && row["orphan"] == true,
        "an orphan: {row}"
    );
    for (port, owner) in [
        (orphan_port, "- -".to_owned()),
        (in_flight_port, "? ?".to_owned()),
        (
            passed_port,
            format!("{} {}", holder.pid(), comm(holder.pid())?),
        ),
    ] {
        let text = text(port)?;
        let words: Vec<_> = text.split_whitespace().collect();
        let shown = words.get(3..5).context("too short")?.join(" ");
        ensure!(shown == owner, "{shown}, not {owner}: {text}");
    }

    let forked = holder.fork()?;
    let (_, Some(received)) = holder::receive(&right)? else {
        anyhow::bail!("no descriptor was received");
    };
    let received = TcpStream::from(received);
    let shown = SocketRows::read()?;
    shown.compare(passed_port, &[in_holder, (forked, in_holder.1)])?;
    shown.compare(in_flight_port, &[mine(&received)])?;

    // The holder's child is killed later, when the kernel signals its parent's death.
    drop(holder);
    wait_until(
        "the socket is an orphan after its last holder's death",
        || {
            let shown = SocketRows::read()?;
            let row = shown.socket("lport", passed_port)?;
            Ok(row["owners"].is_null() && row["state"] == "FIN_WAIT2")
        },
    )
}

fn port(socket: &TcpStream) -> Result<u16> {
    Ok(socket.local_addr()?.port())
}

fn text(port: u16) -> Result<String> {
    let output = command::run(&["sockets", "-H", "-L", &port.to_string()])?;
    Ok(String::from_utf8(output.stdout)?)
}

fn comm(pid: u32) -> Result<String> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    Ok(comm.trim_end().to_owned())
}

/// The JSON of owners, sorted by pid and descriptor.
fn owners(held: &[(u32, u32)]) -> Result<Value> {
    let mut held = held.to_vec();
    held.sort_unstable();
    let owner =
        |&(pid, fd): &(u32, u32)| anyhow::Ok(json!({ "pid": pid, "comm": comm(pid)?, "fd": fd }));
    held.iter().map(owner).collect()
}

/// The rows of this network namespace.
struct SocketRows(Vec<Value>);

impl SocketRows {
    fn read() -> Result<Self> {
        snapshot::here().map(Self)
    }

    /// The only row with this port.
    fn socket(&self, side: &str, port: u16) -> Result<&Value> {
        let mut matching = self.0.iter().filter(|row| row[side] == port);
        let row = matching
            .next()
            .with_context(|| format!("no {side} {port}"))?;
        ensure!(matching.next().is_none(), "more than one {side} {port}");
        Ok(row)
    }

    fn compare(&self, port: u16, held: &[(u32, u32)]) -> Result<()> {
        let row = self.socket("lport", port)?;
        let owners = owners(held)?;
        ensure!(row["owners"] == owners, "{row}, not {owners}");
        ensure!(row["pid"] == owners[0]["pid"], "not the lowest: {row}");
        Ok(())
    }
}
