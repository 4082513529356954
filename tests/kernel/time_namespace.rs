//! kaprobe in a time namespace, where CLOCK_MONOTONIC is not the kernel's.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::{command, netns};
use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// Times on the host's clocks: RFC 3339 in UTC, and CLOCK_MONOTONIC in ns.
fn now() -> Result<(String, u64)> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let wall = kaprobe::model::time::WallTime(i64::try_from(wall)?);
    let mono = clock_gettime(ClockId::Monotonic);
    let mono_ns = u64::try_from(mono.tv_sec)? * 1_000_000_000 + u64::try_from(mono.tv_nsec)?;
    Ok((wall.to_string(), mono_ns))
}

/// Runs kaprobe as a process that is forked: of a process that shares this one's memory until
/// it executes kaprobe, old kernels leave the time namespace as it is (`copy_namespaces`,
/// kernel/nsproxy.c).
fn run(arguments: &[&str]) -> Result<Output> {
    let mut kaprobe: Command = command::kaprobe()?;
    kaprobe.args(arguments).stdin(Stdio::null());
    // SAFETY: it does nothing.
    unsafe { kaprobe.pre_exec(|| Ok(())) };
    Ok(kaprobe.output()?)
}

/// The times of records and of sockets are the host's.
pub fn times_are_the_hosts() -> Result<()> {
    netns::enter_new()?;
    // SAFETY: no file descriptor is touched.
    if let Err(why) = unsafe { unshare_unsafe(UnshareFlags::NEWTIME) } {
        return Err(Skip(format!("this kernel has no time namespaces: {why}")).into());
    }
    // Before kaprobe starts, its clock would be 28 hours later than the host's.
    // The file is not among those of a thread below its process.
    let offsets = format!("/proc/{}/timens_offsets", gettid().as_raw_nonzero());
    fs::write(offsets, "monotonic 100000 7\n").context("cannot set the offset")?;
    let member = LoadMember {
        keepalive: Keepalive::new(1, 1, 3),
        answered: true,
    };
    let load = Load::open(Path::V4, Path::V4.loopback(), [member; 20])?;
    let here = ["--netns", "/proc/self/ns/net", "--json"];
    for command in [
        &["trace", "--no-snapshot", "-c", "30", "--duration", "60s"][..],
        &["sockets"],
    ] {
        let before = now()?;
        let output = run(&[command, &here].concat())?;
        let after = now()?;
        ensure!(output.status.success(), "{command:?}: {output:?}");
        let text = String::from_utf8(output.stdout)?;
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let lines: Vec<_> = lines.collect::<Result<_, _>>()?;
        let is_row = |it: &&Value| it.get("header").is_none() && it.get("trailer").is_none();
        let rows = lines.iter().filter(is_row);
        ensure!(rows.clone().count() >= 30, "{command:?}: {text}");
        for row in rows {
            let (wall, mono) = (row["time"].as_str(), row["mono_ns"].as_u64());
            let (wall, mono) = (wall.context("no time")?, mono.context("no mono_ns")?);
            let is_within = *before.0 <= *wall && *wall <= *after.0;
            ensure!(is_within, "{command:?}: {before:?}, {after:?}: {row}");
            let is_within = before.1 <= mono && mono <= after.1;
            ensure!(is_within, "{command:?}: {before:?}, {after:?}: {row}");
        }
    }
    load.end()?;
    Ok(())
}

/// A process that has left its time namespace can't tell its offset: it says so.
pub fn an_unknown_offset_is_refused() -> Result<()> {
    // SAFETY: no file descriptor is touched.
    if let Err(why) = unsafe { unshare_unsafe(UnshareFlags::NEWTIME) } {
        return Err(Skip(format!("this kernel has no time namespaces: {why}")).into());
    }
    let mut kaprobe = command::kaprobe()?;
    kaprobe.args(["sockets"]).stdin(Stdio::null());
    let leave = || {
        // SAFETY: no file descriptor is touched.
        unsafe { unshare_unsafe(UnshareFlags::NEWTIME) }?;
        Ok(())
    };
    // SAFETY: a system call.
    unsafe { kaprobe.pre_exec(leave) };
    let output = kaprobe.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Err(Skip("this kernel enters time namespaces at exec".into()).into());
    }
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(stderr.contains("has left its time namespace"), "{stderr}");
    Ok(())
}
