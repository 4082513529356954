//! The host's name. In a container, it is not that of the container.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::text::escape::Escaped;

/// The UTS namespace of process 1: the host's, for who sees the host's processes. Without them,
/// process 1 is the container's.
const HOST: &str = "/proc/1/ns/uts";

/// The root directory of process 1.
const HOST_ROOT: &str = "/proc/1/root";

/// This thread's UTS namespace.
const OWN: &str = "/proc/thread-self/ns/uts";

/// The name of the host. If its UTS namespace can't be entered, the name in this thread's.
#[must_use]
pub fn host_name() -> Escaped {
    if !is_in_container() {
        return name_here();
    }
    // A thread of its own does not have to return.
    let ask = || name_in(&File::open(HOST).ok()?);
    let asked = thread::Builder::new().spawn(ask).ok();
    let name = asked.and_then(|it| it.join().ok()).flatten();
    name.unwrap_or_else(name_here)
}

/// The inode number of the host's UTS namespace. If it can't be read, that of this thread's.
#[must_use]
pub fn host_inode() -> Option<u64> {
    inode(if is_in_container() { HOST } else { OWN })
}

/// Whether this thread is in a container: it has both a host name and a root directory of its
/// own. Who gave it another host name alone wants that name.
fn is_in_container() -> bool {
    let has_own_name = inode(HOST).is_some_and(|it| Some(it) != inode(OWN));
    let root = |path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    has_own_name && root(HOST_ROOT).is_some_and(|it| Some(it) != root("/"))
}

/// The host name in a UTS namespace, which this thread enters. `None` if it can't.
pub(super) fn name_in(namespace: &File) -> Option<Escaped> {
    let kind = Some(LinkNameSpaceType::HostNameAndNISDomainName);
    move_into_link_name_space(namespace.as_fd(), kind).ok()?;
    Some(name_here())
}

fn inode(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|it| it.ino())
}

fn name_here() -> Escaped {
    Escaped::from_bytes(rustix::system::uname().nodename().to_bytes())
}
