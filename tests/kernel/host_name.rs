//! kaprobe with a UTS namespace and a root directory of its own, as in a container: there, the
//! host name is another.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::{command, netns};
use rustix::system::uname;
use serde_json::Value;

/// The UTS namespace that has the host's name.
pub const HOST: &str = "/proc/1/ns/uts";

/// Runs its arguments in a host's container: process 1 has the name of the host, they have
/// another. The pid namespace is new, as process 1 of some machines lets nobody look.
const IN_CONTAINER: [&str; 8] = [
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "sh",
    "-c",
    r#"unshare --uts --mount sh -c '
        hostname a-container
        root=$(mktemp -d)
        mount -t tmpfs none "$root"
        for folder in /*/; do
            mkdir "$root$folder" && mount --rbind "$folder" "$root$folder"
        done
        exec chroot "$root" "$@"' sh "$@"; exit $?"#,
    "sh",
];

/// A log names the host, not the container.
pub fn a_log_names_the_host() -> Result<()> {
    netns::enter_new()?;
    let trace = ["trace", "--json", "--no-snapshot", "--duration", "1ms"];
    let output = Command::new("unshare")
        .args(IN_CONTAINER)
        .arg(command::binary()?)
        .args(trace)
        .args(["--netns", "/proc/self/ns/net"])
        .output()
        .context("run unshare")?;
    ensure!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stdout)?;
    let header: Value = serde_json::from_str(log.lines().next().context("an empty log")?)?;
    let host = uname();
    let host = host.nodename().to_str()?;
    ensure!(header["header"]["host"] == host, "not {host}: {header}");
    Ok(())
}
