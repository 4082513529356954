//! cgroups of the unified hierarchy (v2): from a path to the numbers that BPF programs
//! compare. Every socket belongs to one of these, also where v1 hierarchies exist.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::text::escape::Escaped;

/// The inode number of the root of a hierarchy: the first that `__kernfs_new_node`
/// gives (fs/kernfs/dir.c: `idr_alloc_cyclic(…, 1, 0, …)`).
const ROOT_INODE: u64 = 1;

/// The inode number of the host's cgroup namespace: PROC_CGROUP_INIT_INO,
/// include/linux/proc_ns.h.
const HOST_NAMESPACE: &str = "cgroup:[4026531835]";

/// A cgroup, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Id of the cgroup: on 64-bit kernels, the inode number of its directory
    /// (`kernfs_ino`, include/linux/kernfs.h).
    pub id: u64,
    /// Depth below the root of the hierarchy, which has 0 (`cgroup->level`).
    pub level: u32,
}

/// Finds a cgroup by the path of its directory, or by its path below the root of the
/// hierarchy, as systemd, `ss` and /proc/PID/cgroup write it, with or without a leading
/// slash.
///
/// # Errors
/// When there is no such cgroup, or its depth is unknown: the directory is mounted without
/// those above it, and kaprobe is in a cgroup namespace of its own.
pub fn resolve(path: &Path) -> Result<Cgroup> {
    find(path).with_context(|| format!("cannot use {path:?} as a cgroup"))
}

fn find(path: &Path) -> Result<Cgroup> {
    if path.is_absolute()
        && let Ok(directory) = open(path)
        && is_cgroup(&directory)?
    {
        return read(directory);
    }
    let Some(root) = mounts()?.into_iter().find(|mount| mount.is_cgroup) else {
        bail!("no cgroup v2 hierarchy is mounted here");
    };
    let below = path.strip_prefix("/").unwrap_or(path);
    match open(&root.point.join(below)) {
        Ok(directory) if is_cgroup(&directory)? => read(directory),
        Err(why) if why != Errno::NOENT => Err(why.into()),
        _ if path.is_absolute() && path.exists() => {
            bail!("it exists, but not in the v2 hierarchy at {:?}", root.point)
        }
        _ => bail!("no such cgroup, nor one below {:?}", root.point),
    }
}

fn read(directory: OwnedFd) -> Result<Cgroup> {
    let id = DirectoryId::of(&directory)?.inode;
    let level = level(directory)?;
    Ok(Cgroup { id, level })
}

/// Counts the steps up to the root of the hierarchy.
fn level(mut directory: OwnedFd) -> Result<u32> {
    let mut id = DirectoryId::of(&directory)?;
    let mut steps = 0;
    while id.inode != ROOT_INODE {
        let parent = rustix::fs::openat(&directory, "..", FLAGS, Mode::empty())?;
        let above = DirectoryId::of(&parent)?;
        // The step left this mount, or it started at the root of the file tree.
        if above.mount != id.mount || above.inode == id.inode {
            return Ok(steps + level_of_mount(id.mount)?);
        }
        (directory, id) = (parent, above);
        steps += 1;
    }
    Ok(steps)
}

/// Depth of the directory that is the root of this mount.
///
/// The kernel writes that directory as a path from the root of the reader's cgroup
/// namespace (`cgroup_show_path`, kernel/cgroup/cgroup.c). The path gives the depth only if
/// that root is the root of the hierarchy.
fn level_of_mount(id: u64) -> Result<u32> {
    let namespace = fs::read_link("/proc/thread-self/ns/cgroup")?;
    let mount = mounts()?.into_iter().find(|mount| mount.id == id);
    let mount = mount.filter(|_| namespace == Path::new(HOST_NAMESPACE));
    let Some(mount) = mount else {
        bail!(
            "its depth is unknown inside a cgroup namespace: run kaprobe in the host's, e.g. \
             by `nsenter --target 1 --cgroup --mount`"
        );
    };
    Ok(u32::try_from(mount.root.components().skip(1).count())?)
}

/// A directory, by its inode number and its mount's id.
struct DirectoryId {
    inode: u64,
    mount: u64,
}

impl DirectoryId {
    fn of(directory: impl AsFd) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self {
            inode: found.stx_ino,
            mount: found.stx_mnt_id,
        })
    }
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, FLAGS, Mode::empty())
}

fn is_cgroup(directory: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(rustix::fs::fstatfs(directory)?.f_type == libc::CGROUP2_SUPER_MAGIC)
}

/// Paths of the cgroups that kaprobe can see, by id. A path starts at the root of the mount,
/// as `ss --cgroup` and systemd write it. Empty if no hierarchy is mounted.
#[must_use]
pub fn paths() -> HashMap<u64, Escaped> {
    let mounts = mounts().unwrap_or_default();
    let mut paths = HashMap::new();
    let Some(root) = mounts.into_iter().find(|mount| mount.is_cgroup) else {
        return paths;
    };
    let mut waiting = vec![root.point.clone()];
    while let Some(directory) = waiting.pop() {
        // It was removed meanwhile.
        let Ok(inode) = fs::metadata(&directory).map(|it| it.ino()) else {
            continue;
        };
        let below = directory.strip_prefix(&root.point).unwrap_or(&directory);
        let path = Path::new("/").join(below);
        paths.insert(inode, Escaped::from_bytes(path.as_os_str().as_bytes()));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(folders.map(|it| it.path()));
    }
    paths
}

/// Where the hierarchy is mounted: the cgroup at the root of the mount, and the directory.
#[must_use]
pub(super) fn mounted() -> Option<(PathBuf, PathBuf)> {
    let mut mounts = mounts().ok()?.into_iter();
    let mount = mounts.find(|mount| mount.is_cgroup)?;
    Some((mount.root, mount.point))
}

/// A line of mountinfo, proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    /// Directory of the file system that is mounted.
    root: PathBuf,
    /// Directory that it is mounted on.
    point: PathBuf,
    /// The file system is a cgroup v2 hierarchy.
    is_cgroup: bool,
}

/// Mounts that this thread sees.
fn mounts() -> io::Result<Vec<Mount>> {
    let text = fs::read("/proc/thread-self/mountinfo")?;
    Ok(text
        .split(|&byte| byte == b'\n')
        .filter_map(parse_mount)
        .collect())
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (root, point) = (fields.nth(2)?, fields.next()?);
    let fs_type = fields.skip_while(|&field| field != b"-").nth(1)?;
    Some(Mount {
        id,
        root: unescape(root),
        point: unescape(point),
        is_cgroup: fs_type == b"cgroup2",
    })
}

/// Undoes `mangle` (fs/proc_namespace.c), which writes a blank, a tab, a line end and a
/// backslash of a path as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let escaped = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(byte));
        rest = escaped.map_or(after, |_| &after[3..]);
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::{process, thread};

    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use rustix::thread::UnshareFlags;

    use super::*;

    /// A cgroup two below the root of the hierarchy, removed with the test.
    struct Nested(PathBuf);

    impl Nested {
        /// Makes the cgroup. `None`, and a line that says why, if this host or this user
        /// can't.
        fn new(name: &str) -> Result<Option<Self>> {
            let Some(root) = mounts()?.into_iter().find(|mount| mount.is_cgroup) else {
                println!("skipped: no cgroup v2 hierarchy is mounted here");
                return Ok(None);
            };
            let parent = root.point.join(format!("kaprobe-{name}-{}", process::id()));
            match fs::create_dir_all(parent.join("inner")) {
                Ok(()) => Ok(Some(Self(parent.join("inner")))),
                Err(why) => {
                    println!("skipped: cannot make a cgroup: {why}");
                    Ok(None)
                }
            }
        }

        fn parent(&self) -> &Path {
            self.0.parent().unwrap_or(&self.0)
        }

        fn id(&self) -> Result<u64> {
            Ok(fs::metadata(&self.0)?.ino())
        }
    }

    impl Drop for Nested {
        fn drop(&mut self) {
            for directory in [&self.0, self.parent()] {
                // One that can't be removed is empty and harmless.
                let _busy = fs::remove_dir(directory);
            }
        }
    }

    #[test]
    fn a_cgroup_is_found_by_its_directory_and_by_its_path_in_the_hierarchy() -> Result<()> {
        let Some(nested) = Nested::new("paths")? else {
            return Ok(());
        };
        let root = nested.parent().parent().context("it has a root")?;
        let relative = nested.0.strip_prefix(root)?;
        let expected = Cgroup {
            id: nested.id()?,
            level: 2,
        };
        let directory = tempfile::tempdir()?;
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&nested.0, &link)?;
        for path in [&nested.0, relative, &Path::new("/").join(relative), &link] {
            assert_eq!(resolve(path)?, expected, "{path:?}");
        }
        assert_eq!(resolve(nested.parent())?.level, 1);
        let path = Path::new("/").join(relative);
        let known = paths().get(&expected.id).map(ToString::to_string);
        assert_eq!(known.as_deref(), path.to_str());
        assert_eq!(
            resolve(root)?,
            Cgroup {
                id: ROOT_INODE,
                level: 0
            }
        );
        Ok(())
    }

    #[test]
    fn the_depth_counts_what_is_not_mounted_or_is_unknown() -> Result<()> {
        let Some(nested) = Nested::new("mounted")? else {
            return Ok(());
        };
        let point = tempfile::tempdir()?;
        let expected = Cgroup {
            id: nested.id()?,
            level: 2,
        };
        // The namespaces of a thread end with it, and their mounts with them.
        let seen = thread::scope(|scope| {
            scope
                .spawn(|| {
                    // SAFETY: only this thread leaves the namespaces, and it does not
                    // need the old ones.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
                    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                    mount_change("/", private)?;
                    mount_bind(nested.parent(), point.path())?;
                    let inner = point.path().join("inner");
                    let seen = resolve(&inner);
                    // SAFETY: as above.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
                    anyhow::Ok((seen?, resolve(&inner)))
                })
                .join()
        });
        let Ok(seen) = seen else {
            bail!("the thread panicked");
        };
        let (outside, inside) = seen?;
        assert_eq!(outside, expected);
        let said = inside.map_err(|why| format!("{:#}", why.root_cause()));
        assert!(
            matches!(&said, Err(why) if why.starts_with("its depth is unknown")),
            "{said:?}"
        );
        Ok(())
    }

    #[test]
    fn what_is_not_a_cgroup_is_refused() {
        for (path, expected) in [
            ("/none/such", "no such cgroup"),
            ("none", "no such cgroup"),
            ("/proc", "it exists, but not in the v2 hierarchy at "),
            ("/etc/passwd", "it exists, but not in the v2 hierarchy at "),
        ] {
            let said = resolve(path.as_ref()).map_err(|why| format!("{why:#}"));
            let start = format!("cannot use {path:?} as a cgroup: ");
            let why = said
                .as_ref()
                .err()
                .and_then(|said| said.strip_prefix(&start));
            let no_hierarchy = "no cgroup v2 hierarchy is mounted here";
            assert!(
                why.is_some_and(|why| why.starts_with(expected) || why == no_hierarchy),
                "{said:?}"
            );
        }
    }

    #[test]
    fn mountinfo_is_read_whatever_the_path() {
        let mount = |id, root: &str, point: &str, is_cgroup| {
            Some(Mount {
                id,
                root: root.into(),
                point: point.into(),
                is_cgroup,
            })
        };
        let rows = [
            (
                "38 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
                mount(38, "/", "/sys/fs/cgroup/unified", true),
            ),
            (
                "7 1 0:3 /a.slice /a\\040b\\134c rw shared:1 master:2 - cgroup2 none rw",
                mount(7, "/a.slice", "/a b\\c", true),
            ),
            (
                "9 1 0:4 / /cgroup2 rw - tmpfs cgroup2 rw",
                mount(9, "/", "/cgroup2", false),
            ),
            ("9 1 0:4 / /cut\\04", None),
            ("", None),
        ];
        for (line, expected) in rows {
            assert_eq!(parse_mount(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(unescape(b"\\04"), Path::new("\\04"));
    }
}
