//! Runs programs of Debian packages that are unpacked, not installed. `cargo xtask test`
//! fetches the packages for this host and for its guests.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustix::process::{Gid, Pid, Signal, Uid, kill_process_group};
use rustix::thread::{set_thread_gid, set_thread_uid};

use crate::harness::Skip;
use crate::mounts;
use crate::wait::wait_until;

/// The directory of the roots, in a private mount namespace.
const ROOTS: &str = "/mnt";

/// A file that shows that [`ROOTS`] is private.
const COVERED: &str = ".private";

/// The user and group that [`Root::command_as_user`] runs a program as.
pub const USER: u32 = 1000;

/// A root directory with a package's files, and this host's /dev and /proc. It disappears
/// once the thread that made it and all processes it started have ended.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// The unpacked package.
    package: PathBuf,
}

impl Root {
    /// Moves this thread into its own mount namespace, and makes the root there.
    pub fn of(package: &str) -> Result<Self> {
        let tree = tree(package)?;
        let usr = tree.join("usr");
        mounts::enter_new()?;
        let roots = Path::new(ROOTS);
        // The roots of this thread's other packages stay visible.
        if !roots.join(COVERED).exists() {
            fs::create_dir_all(roots)?;
            mounts::cover(roots)?;
            fs::write(roots.join(COVERED), "")?;
        }
        let root = Self {
            path: roots.join(package),
            package: tree,
        };
        for dir in ["usr", "etc", "run", "tmp", "var/lib/nginx"] {
            root.make_dir(dir)?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), root.path.join(dir))?;
        }
        root.bind(&usr, "usr")?;
        mounts::show_in(&root.path, &["dev", "proc"])?;
        Ok(root)
    }

    /// Binds a directory, read-only, to one in the root.
    fn bind(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.path.join(to);
        mount_bind(from, &to).with_context(|| format!("bind {}", from.display()))?;
        let read_only = MountFlags::BIND | MountFlags::RDONLY;
        Ok(mount_remount(to, read_only, c"")?)
    }

    /// Shows a directory of the package's /etc in the root's.
    pub fn use_etc(&self, directory: &str) -> Result<()> {
        let etc = Path::new("etc").join(directory);
        fs::create_dir_all(self.path.join(&etc))?;
        let etc = etc.to_str().context("the path is not UTF-8")?;
        self.bind(&self.package.join(etc), etc)
    }

    /// Writes a file in the root.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path.join(path), text)?)
    }

    /// Reads a file in the root.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.path.join(path);
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The name of the directory that begins so, in a directory of the root.
    pub fn find_dir(&self, directory: &str, start: &str) -> Result<String> {
        let entries = fs::read_dir(self.path.join(directory))?.flatten();
        let mut names = entries.map(|it| it.file_name().to_string_lossy().into_owned());
        let name = names.find(|it| it.starts_with(start));
        name.with_context(|| format!("no {start}* in {directory}"))
    }

    /// Makes a directory in the root.
    pub fn make_dir(&self, path: &str) -> Result<()> {
        Ok(fs::create_dir_all(self.path.join(path))?)
    }

    /// Makes a directory in the root that belongs to [`USER`].
    pub fn make_user_dir(&self, path: &str) -> Result<()> {
        self.make_dir(path)?;
        Ok(chown(self.path.join(path), Some(USER), Some(USER))?)
    }

    /// A command that runs a program of the package.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new("/").join(program));
        command.env_clear();
        mounts::use_root(&mut command, &self.path);
        command
    }

    /// A command that runs a program of the package as [`USER`]: some refuse root.
    pub fn command_as_user(&self, program: &str) -> Command {
        let mut command = self.command(program);
        let drop_root = || {
            set_thread_gid(Gid::from_raw(USER))?;
            Ok(set_thread_uid(Uid::from_raw(USER))?)
        };
        // SAFETY: two system calls.
        unsafe { command.pre_exec(drop_root) };
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
        command.args(arguments);
        Server::start(command, address)
    }
}

/// A running server and its children. Killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts a server, and waits until it accepts connections at an address.
    pub fn start(mut command: Command, address: SocketAddr) -> Result<Self> {
        command.process_group(0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self(child.with_context(|| format!("start {command:?}"))?);
        wait_until(&format!("{command:?} accepts connections"), || {
            if let Some(status) = server.0.try_wait()? {
                bail!("{command:?}: {status}");
            }
            Ok(TcpStream::connect(address).is_ok())
        })?;
        Ok(server)
    }

    /// Sends a signal to the server, but not to its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id())?;
        let pid = Pid::from_raw(pid).context("no pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // The server may have ended before. An error changes nothing.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.0.wait();
    }
}

/// The dynamic loader in a package.
const LOADER: &str = if cfg!(target_arch = "aarch64") {
    "usr/lib/ld-linux-aarch64.so.1"
} else {
    "usr/lib64/ld-linux-x86-64.so.2"
};

/// A command that runs a program of the package beside this host's files: with its own loader
/// and libraries, but in no root of its own.
pub fn beside_host(package: &str, program: &str) -> Result<Command> {
    let tree = tree(package)?;
    if !tree.join(program).exists() {
        return Err(Skip(format!("this guest has no {package}")).into());
    }
    let mut libraries = tree
        .join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH))
        .into_os_string();
    // Those that only this program has are in a folder of its name.
    if let Some(name) = Path::new(program).file_name() {
        libraries.push(":");
        libraries.push(tree.join("usr/lib").join(name));
    }
    let mut command = Command::new(tree.join(LOADER));
    command
        .arg("--library-path")
        .arg(libraries)
        .arg(tree.join(program));
    Ok(command)
}

/// The unpacked package. A guest has its programs in its own root, unless they are on a disk.
pub fn tree(package: &str) -> Result<PathBuf> {
    let trees = env::var_os("KAPROBE_PACKAGES").map(PathBuf::from);
    let tree = trees.map(|trees| trees.join(package));
    match tree.filter(|tree| tree.join("usr").is_dir()) {
        Some(tree) => Ok(tree),
        None if env::var_os("KAPROBE_IN_VM").is_some() => Ok("/".into()),
        None => Err(Skip(format!("no {package} here: `cargo xtask test` fetches it")).into()),
    }
}

/// Skips a test in a guest, which has no room for its packages.
pub fn on_host_only() -> Result<()> {
    if env::var_os("KAPROBE_IN_VM").is_some() {
        return Err(Skip("its packages are too big for a guest".to_owned()).into());
    }
    Ok(())
}
