//! The cgroup v2 hierarchy, wherever it is mounted.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

/// The root of the hierarchy. It is mounted where nobody has done so.
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
            let (_device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        })
        .next()
        .context("not mounted")
}

fn mount() -> Result<PathBuf> {
    let place = std::env::temp_dir().join(format!("kaprobe-test-cgroup.{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let target = CString::new(place.as_os_str().as_encoded_bytes())?;
    // SAFETY: the three strings end in NUL and live through the call.
    let done = unsafe {
        libc::mount(
            c"none".as_ptr(),
            target.as_ptr(),
            c"cgroup2".as_ptr(),
            0,
            ptr::null(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error()).context("mount cgroup2");
    }
    Ok(place)
}

/// A cgroup of one's own, below the root. Removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
}

impl Cgroup {
    /// Makes one.
    pub fn new(name: &str) -> Result<Self> {
        let path = root()?.join(format!("kaprobe-test.{}.{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // One that is still in use stays; it holds nothing but its name.
        let _ = fs::remove_dir(&self.path);
    }
}
