//! Programs of Debian's packages, unpacked and not installed: `cargo xtask test` fetches
//! them for this host, and puts them into its guests.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount_bind, mount_bind_recursive, mount_remount};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::Skip;
use crate::mounts;
use crate::wait::wait_until;

/// Where roots are, in mount namespaces that nobody else sees.
const ROOTS: &str = "/mnt";

/// A package's files as the root directory of what runs there, beside this host's devices
/// and /proc. It is gone with the thread that made it and with what that started.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Moves this thread into a mount namespace of its own, and makes the root in there.
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

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.join(path), text)?)
    }

    /// Makes a directory.
    pub fn make_dir(&self, path: &str) -> Result<()> {
        Ok(fs::create_dir_all(self.0.join(path))?)
    }

    /// A command that runs a program in there.
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

    /// Runs a program to its end, which has to be a good one.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program).args(arguments).output();
        let output = output.with_context(|| format!("run {program}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?}: {stderr}");
        Ok(output)
    }

    /// Starts a server, and waits until it takes connections there.
    pub fn serve(&self, program: &str, arguments: &[&str], at: SocketAddr) -> Result<Server> {
        let mut command = self.command(program);
        command.args(arguments).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Server(child.with_context(|| format!("start {program}"))?);
        wait_until(&format!("{program} takes connections"), || {
            if let Some(status) = server.0.try_wait()? {
                bail!("{program} {arguments:?}: {status}");
            }
            Ok(TcpStream::connect(at).is_ok())
        })?;
        Ok(server)
    }
}

/// A server that runs, with those that it started. Killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // Ended already or not: either way there is nothing left to do about it.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.0.wait();
    }
}

/// Where the files of a package are.
fn usr(package: &str) -> Result<PathBuf> {
    if env::var_os("KAPROBE_IN_VM").is_some() {
        return Ok("/usr".into());
    }
    let trees = env::var_os("KAPROBE_PACKAGES").map(PathBuf::from);
    let usr = trees.map(|trees| trees.join(package).join("usr"));
    usr.filter(|usr| usr.is_dir())
        .ok_or_else(|| Skip(format!("no {package} here: `cargo xtask test` fetches it")).into())
}
