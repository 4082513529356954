//! Network namespaces: from the name that a person uses to the inode number that the kernel
//! uses (`net->ns.inum`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::fd::AsFd as _;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::exit;
use crate::host::hidden::HiddenProcesses;
use crate::host::proc;
use crate::host::uts;
use crate::text::escape::Escaped;

/// Directory where iproute2 keeps the namespaces that it made, by name.
const NAMED: &str = "/run/netns";

/// A network namespace as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// A number: the inode number, as `lsns -t net` and `ls -l /proc/PID/ns` show it.
    Inode(u32),
    /// `self`: the namespace of this process.
    Own,
    /// `pid:PID`: the namespace of a process.
    Pid(u32),
    /// Anything with a slash: the path of a file that refers to the namespace.
    Path(PathBuf),
    /// Any other word: the name that `ip netns` lists.
    Name(String),
}

impl FromStr for Netns {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(pid) = text.strip_prefix("pid:") {
            let pid = pid.parse().ok().filter(|&pid| pid > 0);
            return pid
                .map(Self::Pid)
                .ok_or_else(|| anyhow!("after pid: comes the number of a process"));
        }
        if text == "self" {
            return Ok(Self::Own);
        }
        if text.contains('/') {
            return Ok(Self::Path(text.into()));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let inode = text.parse().context("not an inode number")?;
            return Ok(Self::Inode(inode));
        }
        ensure!(
            !matches!(text, "" | "." | ".."),
            "not the name of a network namespace"
        );
        Ok(Self::Name(text.to_owned()))
    }
}

impl Netns {
    /// The inode number of the namespace.
    ///
    /// # Errors
    /// When there is no such namespace, when it is not a network namespace, or when it
    /// can't be read.
    pub fn resolve(&self) -> Result<u32> {
        self.resolve_by(Path::new(NAMED))
    }

    fn resolve_by(&self, named: &Path) -> Result<u32> {
        match self {
            Self::Inode(inode) if exists(*inode, named) => Ok(*inode),
            Self::Inode(inode) => bail!(
                "no network namespace has inode number {inode}: see `lsns -t net`, \
                 or give the path of a file that refers to it"
            ),
            Self::Own => inode("/proc/thread-self/ns/net".as_ref())
                .context("cannot tell this process's network namespace"),
            Self::Pid(pid) => inode(format!("/proc/{pid}/ns/net").as_ref()).map_err(|why| {
                let gone = is_missing(&why);
                let what = format!("cannot tell the network namespace of process {pid}");
                let why = if gone {
                    anyhow!("no such process")
                } else {
                    why
                };
                why.context(what)
            }),
            Self::Path(path) => {
                inode(path).with_context(|| format!("cannot use {path:?} as a network namespace"))
            }
            Self::Name(name) => inode(&named.join(name)).map_err(|why| {
                if is_missing(&why) {
                    no_such_name(name, named)
                } else {
                    why.context(format!("cannot use the network namespace {name:?}"))
                }
            }),
        }
    }
}

/// The inode number of the calling thread's network namespace.
#[must_use]
pub fn own() -> Option<u32> {
    inode("/proc/thread-self/ns/net".as_ref()).ok()
}

/// The name that `ip netns` gave a network namespace.
#[must_use]
pub fn name(inode: u32) -> Option<Escaped> {
    let name = names_in(Path::new(NAMED)).remove(&inode)?;
    Some(Escaped::from(name.as_str()))
}

/// A network namespace that can be entered.
#[derive(Debug)]
pub struct Namespace {
    /// A file that refers to the namespace and keeps it alive.
    pub file: fs::File,
    /// The name that `ip netns` gave it.
    name: Option<String>,
    /// File of the UTS namespace of a process in it.
    uts: Option<PathBuf>,
}

impl Namespace {
    /// The namespace's name in `ip netns`. Without one, the host name of its processes, if
    /// their UTS namespace is not that of the host (`host_uts`). Runtimes give each container a
    /// host name: its short id, or the name of its pod.
    ///
    /// This thread is in that UTS namespace afterwards.
    #[must_use]
    pub fn name(&self, host_uts: Option<u64>) -> Option<Escaped> {
        if let Some(name) = &self.name {
            return Some(Escaped::from(name.as_str()));
        }
        let uts = fs::File::open(self.uts.as_ref()?).ok()?;
        if uts.metadata().ok().map(|it| it.ino()) == host_uts {
            return None;
        }
        uts::name_in(&uts)
    }
}

/// The network namespaces that were found.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Namespaces by inode number.
    pub found: BTreeMap<u32, Namespace>,
    /// Processes whose namespaces could not be read.
    pub hidden: HiddenProcesses,
}

/// Finds the network namespaces that have a name or a process, at most `most`. One that
/// disappears meanwhile is missing, or is kept alive by the result.
///
/// # Errors
/// When /proc can't be read, or no descriptor is available.
pub fn all(most: usize) -> Result<Namespaces> {
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten();
    let named = named.map(|entry| (entry.path(), Some(entry.file_name()), None));
    let proc = proc::open_proc().context("cannot read /proc")?;
    let processes = numbered("/proc".as_ref())
        .context("cannot read /proc")?
        .map(|process| (process.join("ns/net"), None, Some(process.join("ns/uts"))));
    let mut all: BTreeMap<u32, Namespace> = BTreeMap::new();
    let mut unreadable = 0;
    for (path, name, uts) in named.chain(processes) {
        let inode = match inode(&path) {
            Ok(inode) => inode,
            Err(why) => {
                fail_if_exhausted(&why)?;
                // Forbidden, or the path led elsewhere (seen on 5.10).
                unreadable += usize::from(name.is_none() && !is_missing(&why));
                continue;
            }
        };
        match all.entry(inode) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.uts = known.uts.take().or(uts);
            }
            Entry::Vacant(entry) => {
                let name = name.map(|name| name.to_string_lossy().into_owned());
                match fs::File::open(&path).map_err(anyhow::Error::from) {
                    Ok(file) => {
                        entry.insert(Namespace { file, name, uts });
                    }
                    Err(why) => fail_if_exhausted(&why)?,
                }
            }
        }
        if all.len() >= most {
            break;
        }
    }
    Ok(Namespaces {
        hidden: HiddenProcesses::new(proc.as_fd(), unreadable),
        found: all,
    })
}

/// Fails if an error only shows that something has run out.
fn fail_if_exhausted(why: &anyhow::Error) -> Result<()> {
    match exit::exhausted(why) {
        Some(cause) => Err(cause).context("cannot read the network namespaces"),
        None => Ok(()),
    }
}

fn names_in(named: &Path) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(named).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let inode = inode(&entry.path()).ok()?;
            Some((inode, entry.file_name().to_string_lossy().into_owned()))
        })
        .collect()
}

fn no_such_name(name: &str, named: &Path) -> anyhow::Error {
    let known: Vec<_> = names_in(named).into_values().collect();
    let known = if known.is_empty() {
        "`ip netns` lists none; name a container's by pid:PID".to_owned()
    } else {
        format!("`ip netns` lists {}", known.join(", "))
    };
    anyhow!("no network namespace is called {name:?}: {known}")
}

/// Whether a namespace with this number has a name or a thread.
fn exists(inum: u32, named: &Path) -> bool {
    names_in(named).contains_key(&inum)
        || numbered("/proc".as_ref())
            .into_iter()
            .flatten()
            .flat_map(|process| numbered(&process.join("task")).into_iter().flatten())
            .any(|thread| inode(&thread.join("ns/net")).is_ok_and(|found| found == inum))
}

/// Entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let entries = fs::read_dir(directory)?.flatten();
    let is_number = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let numbered = entries.filter(move |entry| is_number(&entry.file_name()));
    Ok(numbered.map(|entry| entry.path()))
}

/// The inode number of the network namespace that a file refers to.
fn inode(path: &Path) -> Result<u32> {
    // Checked before the file is opened: opening a fifo or a device may have an effect.
    let filesystem = rustix::fs::statfs(path)?.f_type;
    ensure!(filesystem == libc::NSFS_MAGIC, "not a namespace");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    ensure!(
        namespace_type(file.as_fd())? == libc::CLONE_NEWNET,
        "a namespace, but not a network namespace"
    );
    Ok(u32::try_from(fs::File::from(file).metadata()?.ino())?)
}

/// The CLONE_NEW… flag that makes namespaces of this one's type: NS_GET_NSTYPE,
/// ioctl_nsfs(2).
fn namespace_type(namespace: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and this request takes no argument.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        flag => Ok(flag),
    }
}

fn is_missing(why: &anyhow::Error) -> bool {
    matches!(why.downcast_ref(), Some(&(Errno::NOENT | Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::id;

    use super::*;

    fn own() -> Result<u32> {
        Ok(u32::try_from(fs::metadata("/proc/self/ns/net")?.ino())?)
    }

    #[test]
    fn a_word_tells_how_it_names_a_namespace() {
        let rows = [
            ("4026531833", Some(Netns::Inode(4_026_531_833))),
            ("pid:12", Some(Netns::Pid(12))),
            ("self", Some(Netns::Own)),
            ("blue", Some(Netns::Name("blue".to_owned()))),
            ("4x", Some(Netns::Name("4x".to_owned()))),
            ("/run/netns/4", Some(Netns::Path("/run/netns/4".into()))),
            ("./here", Some(Netns::Path("./here".into()))),
            ("", None),
            ("..", None),
            ("pid:", None),
            ("pid:0", None),
            ("pid:-1", None),
            ("4294967296", None),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Netns>().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn every_name_of_our_own_namespace_finds_it() -> Result<()> {
        let named = tempfile::tempdir()?;
        symlink("/proc/self/ns/net", named.path().join("blue"))?;
        let own = own()?;
        let names = [
            Netns::Inode(own),
            Netns::Pid(id()),
            Netns::Own,
            Netns::Path("/proc/self/ns/net".into()),
            Netns::Name("blue".to_owned()),
        ];
        for name in names {
            assert_eq!(name.resolve_by(named.path())?, own, "{name:?}");
        }
        assert_eq!(
            names_in(named.path()),
            BTreeMap::from([(own, "blue".to_owned())])
        );
        Ok(())
    }

    #[test]
    fn what_is_not_a_network_namespace_is_refused() -> Result<()> {
        let empty = tempfile::tempdir()?;
        let named = tempfile::tempdir()?;
        symlink("/proc/self/ns/net", named.path().join("blue"))?;
        symlink("/proc/self/ns/mnt", named.path().join("mounts"))?;
        let rows = [
            (
                Netns::Inode(1),
                &named,
                "no network namespace has inode number 1: see `lsns -t net`, or give the path of a file that refers to it",
            ),
            (
                Netns::Pid(u32::MAX),
                &named,
                "cannot tell the network namespace of process 4294967295: no such process",
            ),
            (
                Netns::Path("/".into()),
                &named,
                "cannot use \"/\" as a network namespace: not a namespace",
            ),
            (
                Netns::Path("/none/such".into()),
                &named,
                "cannot use \"/none/such\" as a network namespace: No such file or directory (os error 2)",
            ),
            (
                Netns::Path("/proc/self/ns/mnt".into()),
                &named,
                "cannot use \"/proc/self/ns/mnt\" as a network namespace: a namespace, but not a network namespace",
            ),
            (
                Netns::Name("mounts".to_owned()),
                &named,
                "cannot use the network namespace \"mounts\": a namespace, but not a network namespace",
            ),
            (
                Netns::Name("red".to_owned()),
                &named,
                "no network namespace is called \"red\": `ip netns` lists blue",
            ),
            (
                Netns::Name("red".to_owned()),
                &empty,
                "no network namespace is called \"red\": `ip netns` lists none; name a container's by pid:PID",
            ),
        ];
        for (netns, named, expected) in rows {
            let said = netns
                .resolve_by(named.path())
                .map_err(|why| format!("{why:#}"));
            assert_eq!(said, Err(expected.to_owned()));
        }
        Ok(())
    }
}
