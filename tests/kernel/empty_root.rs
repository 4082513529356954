//! kaprobe in a root directory that contains its binary and nothing else, as an image of a
//! container may.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::command::{copy_binary, kaprobe, run_as};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::{doctor, mounts, netns, snapshot};
use socket2::{SockRef, TcpKeepalive};

use crate::demo;

/// What of a socket does not depend on when it is read.
const FIXED: [&str; 12] = [
    "laddr",
    "lport",
    "raddr",
    "rport",
    "state",
    "keepalive",
    "keepalive_time_ms",
    "keepalive_intvl_ms",
    "keepalive_probes",
    "user_timeout_ms",
    "owners",
    "source",
];

/// In an empty root, `doctor`, `sockets` and `demo` say that they need /proc. With this host's
/// /proc and /sys, the first two report what they report outside, and `demo` explains its
/// connections.
pub fn three_commands_run() -> Result<()> {
    if cfg!(not(target_feature = "crt-static")) {
        return Err(Skip(
            "this kaprobe needs shared libraries: it was built for tests here".into(),
        )
        .into());
    }
    netns::enter_new()?;
    mounts::enter_new()?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    mounts::cover(root)?;
    copy_binary(&root.join("kaprobe"))?;
    let inside = || in_root(root);

    for name in ["doctor", "sockets", "demo"] {
        let (code, stdout, stderr) = run_as(inside(), &[name])?;
        let is_refused = code == Some(1) && stdout.is_empty() && stderr.contains("/proc");
        ensure!(is_refused, "{name}: {code:?} {stdout}{stderr}");
    }
    mounts::show_in(root, &["proc"])?;
    let (code, _, stderr) = run_as(inside(), &["trace", "--duration", "1s"])?;
    let names_sysfs = code == Some(1) && stderr.contains("no sysfs is mounted at /sys");
    ensure!(names_sysfs, "{code:?} {stderr}");
    mounts::show_in(root, &["sys"])?;

    let (report, expected) = (doctor::report(inside())?, doctor::report(kaprobe()?)?);
    ensure!(report == expected, "{report}, not {expected}");
    sockets_are_as_outside(inside())?;
    let _alone = OwnCpu::take()?;
    demo::explains_its_connections(inside())
}

/// A command for the kaprobe in a root directory. It has no environment.
fn in_root(root: &Path) -> Command {
    let mut command = Command::new("/kaprobe");
    command.env_clear();
    mounts::use_root(&mut command, root);
    command
}

/// `sockets` reports the same in a root as outside, and reads it from the kernel by BPF.
fn sockets_are_as_outside(inside: Command) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connection = TcpStream::connect(listener.local_addr()?)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(300));
    SockRef::from(&connection).set_tcp_keepalive(&keepalive)?;

    let (code, stdout, stderr) = run_as(inside, &["sockets", "--json"])?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?} {stderr}");
    let mut rows = snapshot::by_inode(snapshot::parse(&stdout)?)?;
    let outside = snapshot::by_inode(snapshot::here()?)?;
    let own = outside
        .get(&snapshot::inode(&connection)?)
        .context("no row")?;
    ensure!(own["keepalive_time_ms"] == 300_000, "{own}");
    ensure!(rows.len() == outside.len(), "{stdout}");
    for (inode, expected) in &outside {
        let row = rows.remove(inode).with_context(|| format!("no {inode}"))?;
        let differs = FIXED.iter().find(|it| row[**it] != expected[**it]);
        ensure!(differs.is_none(), "{differs:?}: {row}, not {expected}");
    }
    Ok(())
}
