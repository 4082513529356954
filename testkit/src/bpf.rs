//! Lists the BPF programs and maps of a process, and edits its maps.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

// From include/uapi/linux/bpf.h.
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;

/// A BPF object, by its kernel id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A program.
    Program(u32),
    /// A map.
    Map(u32),
}

/// The BPF objects that a process has open, directly or through a link.
pub fn held_objects(pid: u32) -> Result<Vec<Object>> {
    let mut held = Vec::new();
    for (what, descriptor) in bpf_descriptors(pid)? {
        // The start of `struct bpf_prog_info`, `bpf_map_info` and `bpf_link_info`.
        let [_type, id, of] = info(&descriptor)?.numbers;
        held.push(match what {
            Held::Program => Object::Program(id),
            Held::Map => Object::Map(id),
            Held::Link => Object::Program(of),
        });
    }
    held.sort();
    held.dedup();
    Ok(held)
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Program,
    Map,
    Link,
}

/// Copies of a process's descriptors of BPF objects. The text of fdinfo may change with a
/// kernel, what bpf(2) says does not.
fn bpf_descriptors(pid: u32) -> Result<Vec<(Held, OwnedFd)>> {
    let process = Pid::from_raw(pid.try_into()?).context("no process")?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let folder = format!("/proc/{pid}/fd");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let path = entry?.path();
        // A descriptor may be closed between the listing and the reading.
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        let target = target.to_string_lossy().replace('_', "-");
        let kinds = [
            ("bpf-prog", Held::Program),
            ("bpf-map", Held::Map),
            ("bpf-link", Held::Link),
        ];
        let Some((_, what)) = kinds.iter().find(|(name, _)| target.contains(name)) else {
            continue;
        };
        let number = path.file_name().and_then(|name| name.to_str());
        let number: i32 = number.context("no number")?.parse()?;
        if let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            found.push((*what, copy));
        }
    }
    Ok(found)
}

/// The fdinfo text of each descriptor of a process (`bpf_prog_show_fdinfo`,
/// kernel/bpf/syscall.c): one line per field.
pub fn descriptors(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A descriptor may be closed between the listing and the reading.
        descriptors.extend(fs::read_to_string(entry?.path()));
    }
    Ok(descriptors)
}

impl Object {
    /// Whether the object is still loaded. The kernel does not reuse an id soon: ids
    /// count up (`bpf_prog_alloc_id`, kernel/bpf/syscall.c).
    pub fn exists(self) -> Result<bool> {
        match self.open() {
            Ok(_open) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("{self:?}")),
        }
    }

    fn open(self) -> io::Result<OwnedFd> {
        match self {
            Self::Program(id) => call(BPF_PROG_GET_FD_BY_ID, &[id, 0, 0]),
            Self::Map(id) => call(BPF_MAP_GET_FD_BY_ID, &[id, 0, 0]),
        }
    }
}

/// A BPF hash map. A key is one 64-bit word, a value is two.
#[derive(Debug)]
pub struct Table(OwnedFd);

/// The start of what the kernel tells of a BPF object: of a map, up to its name.
#[repr(C)]
struct Info {
    numbers: [u32; 3],
    of_a_map: [u32; 3],
    name: [u8; 16],
}

/// The argument of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoAttr {
    fd: libc::c_int,
    length: u32,
    info: u64,
}

/// The argument of BPF_MAP_DELETE_ELEM.
#[repr(C)]
struct ElemAttr {
    map: u64,
    key: u64,
}

/// The argument of BPF_MAP_UPDATE_BATCH.
#[repr(C)]
struct BatchAttr {
    batches: [u64; 2],
    keys: u64,
    values: u64,
    count: u32,
    map: libc::c_int,
    flags: [u64; 2],
}

impl Table {
    /// Opens the map of this name that a process holds.
    pub fn of(pid: u32, name: &str) -> Result<Self> {
        for (what, map) in bpf_descriptors(pid)? {
            let start = format!("{name}\0");
            if what == Held::Map && info(&map)?.name.starts_with(start.as_bytes()) {
                return Ok(Self(map));
            }
        }
        bail!("{pid} holds no map {name}")
    }

    /// Inserts these keys with zero values until the map is full.
    pub fn fill(&self, keys: &[u64]) -> Result<()> {
        let values = vec![[0_u64; 2]; keys.len()];
        let attr = BatchAttr {
            batches: [0; 2],
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: u32::try_from(keys.len())?,
            map: self.0.as_raw_fd(),
            flags: [0; 2],
        };
        match command(BPF_MAP_UPDATE_BATCH, &attr) {
            Err(e) if e.raw_os_error() == Some(libc::E2BIG) => Ok(()),
            Err(e) => Err(e).context("cannot fill a map"),
            Ok(_) => bail!("the map has room for more"),
        }
    }

    /// Removes a key.
    pub fn remove(&self, key: u64) -> Result<()> {
        let attr = ElemAttr {
            map: self.0.as_raw_fd().try_into()?,
            key: (&raw const key) as u64,
        };
        command(BPF_MAP_DELETE_ELEM, &attr).context("cannot remove a key from a map")?;
        Ok(())
    }
}

fn info(object: &OwnedFd) -> Result<Info> {
    let mut info = Info {
        numbers: [0; 3],
        of_a_map: [0; 3],
        name: [0; 16],
    };
    let attr = InfoAttr {
        fd: object.as_raw_fd(),
        length: u32::try_from(size_of::<Info>())?,
        info: (&raw mut info) as u64,
    };
    command(BPF_OBJ_GET_INFO_BY_FD, &attr).context("cannot ask about a BPF object")?;
    Ok(info)
}

/// Calls bpf(2) with a command that returns a descriptor.
pub fn call<T>(number: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    let fd = command(number, attr)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls bpf(2) with any command.
fn command<T>(number: libc::c_int, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes from `attr` and takes the rest of
    // the union as zeros; what the attributes point to is static or lives in the caller,
    // and is as long as the command wants it. It may write the count of a batch.
    let result = unsafe { libc::syscall(libc::SYS_bpf, number, &raw const *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
