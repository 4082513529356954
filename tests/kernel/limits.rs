//! What kaprobe says where it runs out of descriptors or threads, or lacks /proc: an error
//! that names the cause, and nothing about the kernel or about other processes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use kaprobe_testkit::unprivileged::{self, PublicCopy, limit};
use kaprobe_testkit::{command, mounts, netns};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

const FAILURE: Option<i32> = Some(1);
const PRIVILEGE: Option<i32> = Some(3);

/// The commands that need descriptors. No socket has that address (RFC 5737): whatever else
/// runs on this host, an audit finds nothing.
const COMMANDS: [&[&str]; 4] = [
    &[
        "trace",
        "--duration",
        "1s",
        "--no-snapshot",
        "--netns",
        "self",
    ],
    &["sockets", "--all-netns"],
    &[
        "audit",
        "--idle-timeout",
        "350s",
        "--all-netns",
        "--addr",
        "192.0.2.1",
    ],
    &["doctor"],
];

/// What a kaprobe without descriptors must not claim.
const UNTRUE: [&str; 6] = [
    "no way to hook",
    "refused",
    "may not be looked at",
    "hidepid",
    "CONFIG_",
    "without tcp_",
];

fn rlimit(current: u64, maximum: u64) -> Rlimit {
    let [current, maximum] = [current, maximum].map(Some);
    Rlimit { current, maximum }
}

/// With any number of descriptors, each command either works, or fails with exit code 1 and
/// says what it lacks.
pub fn descriptors_that_run_out() -> Result<()> {
    netns::enter_new()?;
    for arguments in COMMANDS {
        let mut refused = 0;
        let mut worked = false;
        // Without any, the dynamic loader fails.
        for count in (6..200).step_by(3) {
            let mut by = command::kaprobe()?;
            limit(&mut by, Resource::Nofile, rlimit(count, count));
            let (code, stdout, stderr) = command::run_as(by, arguments)?;
            let run = format!("{arguments:?} with {count}: {code:?}\n{stdout}{stderr}");
            let is_short = code == FAILURE;
            for untrue in UNTRUE {
                // Lines before the last are the banner of a trace.
                let last = stderr.lines().last().unwrap_or_default();
                let said = [&*stdout, last].map(|it| it.contains(untrue));
                ensure!(!is_short || !said.contains(&true), "{untrue}: {run}");
            }
            let says_why = [&stdout, &stderr].map(|it| it.contains("Too many open files"));
            ensure!(says_why.contains(&true) == is_short, "{run}");
            refused += u32::from(is_short);
            worked = !is_short;
            if worked {
                break;
            }
        }
        ensure!(
            refused > 0 && worked,
            "{arguments:?}: refused {refused} times, worked {worked}"
        );
    }
    Ok(())
}

/// A low soft limit does not matter: kaprobe raises it.
pub fn soft_limit_is_raised() -> Result<()> {
    netns::enter_new()?;
    for arguments in COMMANDS {
        let mut by = command::kaprobe()?;
        limit(&mut by, Resource::Nofile, rlimit(6, 4096));
        let (code, stdout, stderr) = command::run_as(by, arguments)?;
        ensure!(code == Some(0), "{arguments:?}: {code:?}\n{stdout}{stderr}");
    }
    Ok(())
}

/// A thread that can't be made is an error of one line.
pub fn threads_that_run_out() -> Result<()> {
    // No other process has this user id, and root is exempt from the limit.
    const USER: u32 = 61_234;
    netns::enter_new()?;
    let copy = PublicCopy::make()?;
    let mut by = copy.run_as(USER);
    limit(&mut by, Resource::Nproc, rlimit(1, 1));
    let (code, stdout, stderr) = command::run_as(by, &["sockets"])?;
    ensure!(code == FAILURE, "{code:?}: {stdout}{stderr}");
    ensure!(
        stderr.lines().count() == 1 && stderr.contains("cannot start the thread"),
        "{stderr}"
    );
    let mut by = copy.run_as(USER);
    limit(&mut by, Resource::Nproc, rlimit(1, 1));
    let (code, stdout, stderr) = command::run_as(by, &["audit"])?;
    ensure!(code == FAILURE, "{code:?}: {stdout}{stderr}");
    ensure!(
        stderr.contains("cannot read the idle timeouts of this host: cannot start the thread"),
        "{stderr}"
    );
    Ok(())
}

/// Where /proc is missing or that of another pid namespace, kaprobe says that, and nothing
/// about hidepid.
pub fn proc_that_is_not_there() -> Result<()> {
    netns::enter_new()?;
    mounts::enter_new()?;
    mounts::cover(Path::new("/proc"))?;
    for arguments in COMMANDS {
        let (code, stdout, stderr) = command::run_as(command::kaprobe()?, arguments)?;
        let run = format!("{arguments:?}: {code:?}\n{stdout}{stderr}");
        ensure!(code == FAILURE, "{run}");
        ensure!(
            stderr.contains("no proc file system is mounted there"),
            "{run}"
        );
        ensure!(!stderr.contains("hidepid") && stdout.is_empty(), "{run}");
    }
    Ok(())
}

/// Without CAP_NET_ADMIN the demo shows what it can, or says with exit code 3 what it lacks.
pub fn demo_without_net_admin() -> Result<()> {
    netns::enter_new()?;
    let by: Command = unprivileged::without(CapabilitySet::NET_ADMIN)?;
    let (code, stdout, stderr) = command::run_as(by, &["demo"])?;
    let run = format!("{code:?}\n{stdout}{stderr}");
    if code == Some(0) {
        ensure!(
            stdout.contains("left out, because it needs CAP_NET_ADMIN"),
            "{run}"
        );
        return Ok(());
    }
    ensure!(code == PRIVILEGE && stdout.is_empty(), "{run}");
    ensure!(
        stderr.lines().count() == 1 && stderr.contains("needs CAP_NET_ADMIN"),
        "{run}"
    );
    Ok(())
}
