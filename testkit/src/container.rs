//! Runs kaprobe in a container, as Kubernetes has a runtime do it: by crun of Debian, with the
//! capabilities, the mounts and the seccomp profile that a pod gets.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::Killed;
use crate::{command, mounts, package};

/// The host name in the container.
pub const HOST_NAME: &str = "a-pod";

/// The seccomp profile of podman and CRI-O. That of containerd allows the same with these
/// capabilities.
const SECCOMP: &str = "usr/share/containers/seccomp.json";

/// The package that has [`SECCOMP`], and the one with the runtime.
const PACKAGES: [&str; 2] = ["golang-github-containers-common", "crun"];

/// What a runtime hides from a container, and what it lets nobody write there (the defaults of
/// containerd, `WithDefaultPathsMaskedReadonly`).
const MASKED: [&str; 6] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// What a container is given.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The arguments of kaprobe.
    pub arguments: Vec<String>,
    /// The capabilities, such as `CAP_BPF`.
    pub capabilities: Vec<String>,
    /// Folders of this host, where they are in the container, and whether it may write to them.
    pub mounts: Vec<(PathBuf, String, bool)>,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// Whether nothing can be written to its root directory.
    pub read_only: bool,
}

/// A running container, in this thread's network namespace, and in the pid namespace of the
/// tests. Killed when dropped.
#[derive(Debug)]
pub struct Container {
    child: Killed,
    bundle: TempDir,
    pid_file: PathBuf,
}

impl Container {
    /// Starts kaprobe. This thread moves into a mount namespace of its own.
    pub fn start(spec: &Spec) -> Result<Self> {
        for package in PACKAGES {
            package::tree(package)?;
        }
        let bundle = tempfile::tempdir()?;
        let config = config(spec)?;
        fs::create_dir(bundle.path().join("rootfs"))?;
        fs::write(bundle.path().join("config.json"), config.to_string())?;
        mounts::enter_new()?;
        unified_cgroups()?;
        let file = |name: &str| bundle.path().join(name);
        let pid_file = file("pid");
        let name = format!("kaprobe-{}", std::process::id());
        let mut crun = package::beside_host("crun", "usr/bin/crun")?;
        crun.arg("--cgroup-manager=disabled")
            .arg("--root")
            .arg(file("state"))
            .args(["run", "--pid-file"])
            .arg(&pid_file)
            .arg("--bundle")
            .arg(bundle.path())
            .arg(name)
            .stdin(Stdio::null())
            .stdout(fs::File::create(file("stdout"))?)
            .stderr(fs::File::create(file("stderr"))?);
        let child = Killed(crun.spawn().context("start crun")?);
        Ok(Self {
            child,
            bundle,
            pid_file,
        })
    }

    /// Fails if it has ended, with what it said.
    pub fn check_runs(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{ended:?}: {}", self.said()?);
        Ok(())
    }

    /// What it has written to standard error.
    pub fn said(&self) -> Result<String> {
        let mut text = String::new();
        fs::File::open(self.bundle.path().join("stderr"))?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The process of kaprobe.
    fn pid(&self) -> Result<Pid> {
        let pid = fs::read_to_string(&self.pid_file)?.trim().parse()?;
        Pid::from_raw(pid).context("no pid")
    }

    /// Ends kaprobe by SIGTERM, and waits until it has ended. Fails unless it exits with 0.
    pub fn stop(mut self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {}", self.said()?);
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Without its runtime it would run on. After `stop`, the number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.pid().map(|it| kill_process(it, Signal::KILL));
        }
    }
}

/// Shows the v2 hierarchy alone: crun refuses hosts that have both.
fn unified_cgroups() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", root, "cgroup2", none, None).context("mount the cgroups")
}

/// The configuration of the runtime (the runtime specification of OCI).
fn config(spec: &Spec) -> Result<Value> {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "mode=755"],
        }),
        json!({
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }),
    ];
    let mut bind = |from: &Path, to: &str, may_write: bool| {
        let access = if may_write { "rw" } else { "ro" };
        mounts.push(json!({
            "destination": to, "type": "bind", "source": from, "options": ["bind", access],
        }));
    };
    for (from, to, may_write) in &spec.mounts {
        bind(from, to, *may_write);
    }
    // The image has a static kaprobe; that of the tests needs the libraries of this host.
    let binary = command::binary()?.canonicalize()?;
    bind(binary.parent().context("no folder")?, "/usr/bin", false);
    for libraries in ["/lib", "/lib64"] {
        if let Ok(real) = Path::new(libraries).canonicalize() {
            bind(&real, libraries, false);
        }
    }
    let mut arguments = vec!["/usr/bin/kaprobe".to_owned()];
    arguments.extend(spec.arguments.iter().cloned());
    let capabilities = &spec.capabilities;
    let namespaces = ["mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    Ok(json!({
        "ociVersion": "1.0.0",
        "hostname": HOST_NAME,
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "env": ["PATH=/usr/bin"],
            "args": arguments,
            "noNewPrivileges": spec.no_new_privileges,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": { "path": "rootfs", "readonly": spec.read_only },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp(capabilities)?,
        },
    }))
}

/// The seccomp profile of a container with these capabilities, as the runtime takes it.
fn seccomp(capabilities: &[String]) -> Result<Value> {
    let path = package::tree(PACKAGES[0])?.join(SECCOMP);
    let profile: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let rules = profile["syscalls"].as_array().context("no rules")?;
    let rules: Vec<_> = rules
        .iter()
        .filter(|rule| applies(rule, capabilities))
        .cloned()
        .map(|mut rule| {
            if let Some(rule) = rule.as_object_mut() {
                rule.retain(|key, value| {
                    ["names", "action", "args", "errnoRet"].contains(&key.as_str())
                        && !value.is_null()
                });
            }
            rule
        })
        .collect();
    Ok(json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "syscalls": rules,
    }))
}

/// Whether a rule of the profile is for this architecture and these capabilities.
fn applies(rule: &Value, capabilities: &[String]) -> bool {
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let list = |which: &str, of: &str| -> Vec<String> {
        let names = rule[which][of].as_array().into_iter().flatten();
        names
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    let (arches, caps) = (list("includes", "arches"), list("includes", "caps"));
    let not_for = list("excludes", "caps");
    (arches.is_empty() || arches.iter().any(|it| it == arch))
        && !list("excludes", "arches").iter().any(|it| it == arch)
        && caps.iter().all(|it| capabilities.contains(it))
        && !not_for.iter().any(|it| capabilities.contains(it))
}
