//! Lists the BPF programs and maps of a process, and edits its maps.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fs, io};

use anyhow::{Context, Result, bail};

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
    let descriptors = descriptors(pid)?;
    let lines = descriptors.iter().flat_map(|it| it.lines());
    let mut held: Vec<_> = lines.filter_map(object).collect();
    held.sort();
    held.dedup();
    Ok(held)
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

/// The start of `struct bpf_map_info`, up to the name.
#[repr(C)]
struct MapInfo {
    numbers: [u32; 6],
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
        for object in held_objects(pid)? {
            if let Object::Map(_) = object {
                let map = object.open().with_context(|| format!("{object:?}"))?;
                if name_of(&map)?.starts_with(format!("{name}\0").as_bytes()) {
                    return Ok(Self(map));
                }
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

fn name_of(map: &OwnedFd) -> Result<[u8; 16]> {
    let mut info = MapInfo {
        numbers: [0; 6],
        name: [0; 16],
    };
    let attr = InfoAttr {
        fd: map.as_raw_fd(),
        length: u32::try_from(size_of::<MapInfo>())?,
        info: (&raw mut info) as u64,
    };
    command(BPF_OBJ_GET_INFO_BY_FD, &attr).context("cannot read the name of a map")?;
    Ok(info.name)
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
