//! How much memory kaprobe may use: what the host has, or what its cgroup allows.

use std::path::{Path, PathBuf};
use std::{fs, iter};

use crate::host::cgroup;

/// Memory that this process may use, bytes: that of the host, or less if `memory.max` of its
/// cgroup, or of one above it, says so. The kernel charges BPF maps to that cgroup
/// (`bpf_map_save_memcg`, kernel/bpf/syscall.c). A limit of cgroup v1 is not read.
#[must_use]
pub fn usable_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    // Of the size of a register.
    let (units, unit) = (info.totalram as u64, u64::from(info.mem_unit));
    own_directories()
        .into_iter()
        .flatten()
        .filter_map(|directory| limit(&directory))
        .fold(units.saturating_mul(unit), u64::min)
}

/// The directories of the cgroup of this process and of all above it. `None` without a
/// hierarchy of v2.
fn own_directories() -> Option<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own_path(&text)?.to_owned();
    let (root, point) = cgroup::mounted()?;
    let below = own.strip_prefix(&root).ok()?;
    let own = point.join(below);
    let all = iter::successors(Some(own), |it| it.parent().map(Path::to_path_buf));
    Some(all.take_while(|it| it.starts_with(&point)).collect())
}

/// The path of the v2 cgroup in /proc/PID/cgroup.
fn own_path(text: &str) -> Option<&Path> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(Path::new)
}

/// `memory.max` of a cgroup; `None` if it has no limit.
fn limit(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("memory.max")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_v2_is_found() {
        for (text, path) in [
            ("0::/a/b\n", Some("/a/b")),
            ("5:memory:/c\n0::/\n", Some("/")),
            ("5:memory:/c\n", None),
            ("", None),
        ] {
            assert_eq!(own_path(text), path.map(Path::new), "{text:?}");
        }
    }

    #[test]
    fn a_limit_is_a_number() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        assert_eq!(limit(folder.path()), None);
        for (text, bytes) in [("max\n", None), ("536870912\n", Some(512 << 20))] {
            fs::write(folder.path().join("memory.max"), text)?;
            assert_eq!(limit(folder.path()), bytes);
        }
        Ok(())
    }

    #[test]
    fn this_process_may_use_some_memory() {
        let bytes = usable_bytes();
        assert!(bytes > 1 << 20, "{bytes}");
    }
}
