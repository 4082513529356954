//! Reads files below the root directory of the host, but none that another user prepared.
//!
//! A path is resolved below that root, links included. Only what root or kaprobe's own user
//! has made is read, and where nobody else can write. `docs/files.md` has the rule.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::path::Path;
use std::{fs, io};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;

/// The root directory of process 1: that of the host for who sees its processes, also in a
/// container.
const ROOT: &str = "/proc/1/root";

/// Most entries of a folder that are read.
const MAX_ENTRIES: usize = 1 << 14;

/// Most bytes of a file that are read.
const MAX_BYTES: u64 = 4 << 20;

/// The root directory of the host.
#[derive(Debug)]
pub(super) struct Node {
    root: OwnedFd,
}

impl Node {
    /// Opens the root directory of the host.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens the root directory of process 1 or, without the privilege for it, kaprobe's own.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn of_process_1() -> io::Result<Self> {
        Self::open(Path::new(ROOT)).or_else(|_| Self::open(Path::new("/")))
    }

    /// Opens a folder that only root can change.
    ///
    /// # Errors
    /// When it can't be opened, or others can change it.
    pub(super) fn folder(&self, path: &str) -> io::Result<NodeFolder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let (folder, found) = self.open_trusted(path, flags)?;
        let modified = (found.st_mtime, found.st_mtime_nsec);
        Ok(NodeFolder { folder, modified })
    }

    /// Reads a file of JSON that only root can change. `None` if there is none, or if it is
    /// not as it should be.
    pub(super) fn json<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        // A FIFO must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let (file, found) = self.open_trusted(path, flags).ok()?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        let is_short = u64::try_from(found.st_size).is_ok_and(|it| it <= MAX_BYTES);
        if !is_file || !is_short {
            return None;
        }
        let mut bytes = Vec::new();
        let mut file = fs::File::from(file).take(MAX_BYTES);
        file.read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn open_trusted(&self, path: &str, flags: OFlags) -> io::Result<(OwnedFd, Stat)> {
        // No way out of the root, and none through an open file of a process.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        let found = rustix::fs::fstat(file.as_fd())?;
        if is_trusted(&found) {
            Ok((file, found))
        } else {
            Err(Errno::PERM.into())
        }
    }
}

/// Whether only root and the user who runs kaprobe can change something.
fn is_trusted(found: &Stat) -> bool {
    let others = Mode::WGRP | Mode::WOTH;
    let is_own = found.st_uid == 0 || found.st_uid == geteuid().as_raw();
    is_own && !Mode::from_raw_mode(found.st_mode).intersects(others)
}

/// A folder that only root can change.
pub(super) struct NodeFolder {
    folder: OwnedFd,
    /// When an entry was last made or removed, s and ns.
    pub(super) modified: (i64, u64),
}

impl NodeFolder {
    /// Calls `each` with the names of the entries. Follows no link.
    pub(super) fn each_name(&self, mut each: impl FnMut(&str)) {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        for _ in 0..MAX_ENTRIES {
            let Some(Ok(entry)) = entries.next() else {
                return;
            };
            if let Ok(name) = entry.file_name().to_str() {
                each(name);
            }
        }
    }
}
