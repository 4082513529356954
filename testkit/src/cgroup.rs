//! The cgroup v2 hierarchy, wherever it is mounted.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use rustix::mount::MountFlags;

/// The root of the cgroup v2 hierarchy. Mounts it if it is not mounted.
pub fn root() -> Result<PathBuf> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    ROOT.get_or_init(|| find().or_else(|_| mount()).map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(|e| anyhow!("cgroup v2: {e}"))
}

fn find() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_device, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .next()
        .context("not mounted")
}

fn mount() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("kaprobe-test-cgroup.{}", std::process::id()));
    fs::create_dir_all(&path)?;
    let flags = MountFlags::empty();
    rustix::mount::mount("none", &path, "cgroup2", flags, None).context("mount cgroup2")?;
    Ok(path)
}

/// A new cgroup below the root. Removed when dropped.
#[derive(Debug)]
pub struct TestCgroup {
    /// The directory of the cgroup.
    pub path: PathBuf,
}

impl TestCgroup {
    /// Creates the cgroup.
    pub fn new(name: &str) -> Result<Self> {
        let path = root()?.join(format!("kaprobe-test.{}.{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // A cgroup that is still in use stays. It is empty then.
        let _ = fs::remove_dir(&self.path);
    }
}
