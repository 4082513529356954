//! kaprobe in a UTS namespace of its own, as in a container: there, the host name is another.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::{command, netns};
use rustix::system::{sethostname, uname};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;

/// The UTS namespace that has the host's name.
pub const HOST: &str = "/proc/1/ns/uts";

/// A log names the host, not the container.
pub fn a_log_names_the_host() -> Result<()> {
    if let Err(why) = fs::metadata(HOST) {
        return Err(Skip(format!("{HOST} can't be read: {why}")).into());
    }
    netns::enter_new()?;
    let host = uname().nodename().to_str()?.to_owned();
    // SAFETY: no file descriptor is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.context("unshare the host name")?;
    sethostname(b"a-container")?;
    let trace = ["trace", "--json", "--no-snapshot", "--duration", "1ms"];
    let output = command::run(&[&trace[..], &["--netns", "/proc/self/ns/net"]].concat())?;
    let log = String::from_utf8(output.stdout)?;
    let header: Value = serde_json::from_str(log.lines().next().context("an empty log")?)?;
    ensure!(header["header"]["host"] == host, "not {host}: {header}");
    Ok(())
}
