//! Which BPF programs and maps a process holds, and whether they are still there.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};

/// A BPF object, by the id that the kernel gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A program.
    Program(u32),
    /// A map.
    Map(u32),
}

/// All that a process holds a descriptor of, itself or by a link.
pub fn held_by(pid: u32) -> Result<Vec<Object>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut held = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.clone())? {
        // A descriptor may be closed between the listing and the reading.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        held.extend(info.lines().filter_map(object));
    }
    held.sort();
    held.dedup();
    Ok(held)
}

fn object(line: &str) -> Option<Object> {
    let (name, id) = line.split_once(':')?;
    let id = id.trim().parse().ok()?;
    match name {
        "prog_id" => Some(Object::Program(id)),
        "map_id" => Some(Object::Map(id)),
        _ => None,
    }
}

impl Object {
    /// Whether the kernel still has it. Ids are not used again soon: they count up
    /// (`bpf_prog_alloc_id`, kernel/bpf/syscall.c).
    pub fn exists(self) -> Result<bool> {
        const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
        const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
        let (command, id) = match self {
            Self::Program(id) => (BPF_PROG_GET_FD_BY_ID, id),
            Self::Map(id) => (BPF_MAP_GET_FD_BY_ID, id),
        };
        match call(command, &[id, 0, 0]) {
            Ok(_open) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("{self:?}")),
        }
    }
}

/// bpf(2), for the commands that return a descriptor.
pub fn call<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes from `attr` and takes the rest of
    // the union as zeros; what the attributes point to is static or lives in the caller.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
