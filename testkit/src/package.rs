//! Runs programs of Debian packages that are unpacked, not installed. `cargo xtask test`
//! fetches the packages for this host and for its guests.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount_bind, mount_bind_recursive, mount_remount};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::Skip;
use crate::mounts;
use crate::wait::wait_until;

/// The directory of the roots, in a private mount namespace.
const ROOTS: &str = "/mnt";

/// A root directory with a package's files, and this host's /dev and /proc. It disappears
/// once the thread that made it and all processes it started have ended.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Moves this thread into its own mount namespace, and makes the root there.
    pub fn of(package: &str) -> Result<Self> {
        let usr = usr(package)?;
        mounts::enter_new()?;
        fs::create_dir_all(ROOTS)?;
        mounts::cover(Path::new(ROOTS))?;
        let root = Self(Path::new(ROOTS).join(package));
        for dir in ["usr", "dev", "proc", "etc", "run", "tmp", "var/lib/nginx"] {
            root.make_dir(dir)?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), root.0.join(dir))?;
        }
        mount_bind(&usr, root.0.join("usr")).with_context(|| format!("bind {}", usr.display()))?;
        let read_only = MountFlags::BIND | MountFlags::RDONLY;
        mount_remount(root.0.join("usr"), read_only, c"")?;
        for dir in ["dev", "proc"] {
            mount_bind_recursive(Path::new("/").join(dir), root.0.join(dir))?;
        }
        Ok(root)
    }

    /// Writes a file in the root.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.join(path), text)?)
    }

    /// Makes a directory in the root.
    pub fn make_dir(&self, path: &str) -> Result<()> {
        Ok(fs::create_dir_all(self.0.join(path))?)
    }

    /// A command that runs a program of the package.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new("/").join(program));
        command.env_clear();
        let root = self.0.clone();
        let enter = move || {
            rustix::process::chroot(&root)?;
            Ok(rustix::process::chdir("/")?)
        };
        // SAFETY: two system calls on a path that was made before the fork.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a program until it exits. An error unless it exits with 0.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program).args(arguments).output();
        let output = output.with_context(|| format!("run {program}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?}: {stderr}");
        Ok(output)
    }

    /// Starts a server, and waits until it accepts connections at an address.
    pub fn serve(&self, program: &str, arguments: &[&str], address: SocketAddr) -> Result<Server> {
        let mut command = self.command(program);
        command.args(arguments).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Server(child.with_context(|| format!("start {program}"))?);
        wait_until(&format!("{program} accepts connections"), || {
            if let Some(status) = server.0.try_wait()? {
                bail!("{program} {arguments:?}: {status}");
            }
            Ok(TcpStream::connect(address).is_ok())
        })?;
        Ok(server)
    }
}

/// A running server and its children. Killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // The server may have ended before. An error changes nothing.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.0.wait();
    }
}

/// The `usr` directory of a package.
fn usr(package: &str) -> Result<PathBuf> {
    if env::var_os("KAPROBE_IN_VM").is_some() {
        return Ok("/usr".into());
    }
    let trees = env::var_os("KAPROBE_PACKAGES").map(PathBuf::from);
    let usr = trees.map(|trees| trees.join(package).join("usr"));
    usr.filter(|usr| usr.is_dir())
        .ok_or_else(|| Skip(format!("no {package} here: `cargo xtask test` fetches it")).into())
}
