//! Runs commands with a folder as their root, in namespaces of their own.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::arch::Arch;

/// Mounts what the folder has a place for, and goes there. The network is a loopback interface.
const ENTER: &str = r#"
set -e
busybox=$1 root=$2
shift 2
"$busybox" ip link set lo up
# RPM asks for a root that is a mount of its own.
mount --bind "$root" "$root"
[ ! -d "$root/proc" ] || mount -t proc proc "$root/proc"
for folder in dev sys; do
    [ ! -d "$root/$folder" ] || mount --rbind "/$folder" "$root/$folder"
done
exec chroot "$root" "$@"
"#;

/// A command that runs these words with this folder as its root. What it starts ends with it. It
/// needs root.
pub fn command(root: &Path, words: &[&str]) -> Result<Command> {
    let busybox = apt::lone_package(Arch::HOST, "busybox-static")?.join("usr/bin/busybox");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--net", "--ipc", "--uts"])
        .args(["--fork", "--kill-child", "sh", "-c", ENTER, "sh"])
        .args([&busybox, root])
        .args(words)
        .env_clear()
        .envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
    Ok(command)
}
