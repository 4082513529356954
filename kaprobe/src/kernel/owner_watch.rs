//! Changes of the processes that hold sockets, as the programs report them.

use std::fmt::{self, Debug, Formatter};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use kaprobe_ebpf::config::PIDS;
use kaprobe_ebpf::wire::{OwnerChange, change, counter};
use rustix::mm::ProtFlags;

use crate::kernel::counters::SharedCounters;
use crate::kernel::mapping::Mapping;
use crate::kernel::object;
use crate::kernel::ring::Ring;

/// What may give a socket another owner, or its owner another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerNews {
    /// The process with this pid ends.
    Ended(u32),
    /// The process with this pid has executed another program: it may have closed descriptors.
    Executed(u32),
    /// The process with this pid has made a child, which holds what it held.
    Forked(u32),
    /// The process with this pid gets another name.
    Renamed(u32),
    /// A process received a descriptor of the socket with this inode number.
    Received(u64),
    /// Some of the above had no room, or were not understood.
    Lost(u64),
}

/// Has the programs report changes of processes. To look for them takes no system call.
///
/// The programs see pids of the initial pid namespace.
pub struct OwnerWatch {
    /// One bit for each process.
    watched: Mapping,
    changes: Ring,
    counters: SharedCounters,
    /// How many changes had no room, as far as it was told.
    lost: u64,
}

impl OwnerWatch {
    /// Takes what the programs share. They must be attached.
    ///
    /// # Errors
    /// When a map is not available.
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self> {
        let Map::Array(watched) = object::take_map(ebpf, "WATCHED")? else {
            bail!("the map of watched processes is not an array");
        };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let watched = Mapping::new(watched.fd().as_fd(), 0, (PIDS / u8::BITS) as usize, access);
        let changes = Ring::new(object::take_map(ebpf, "OWNER_CHANGES")?);
        Ok(Self {
            watched: watched.context("cannot map the watched processes")?,
            changes: changes.context("cannot read changes of owners")?,
            counters: SharedCounters::new(ebpf).context("cannot map the counters")?,
            lost: 0,
        })
    }

    /// Has changes of a process reported from now on. Returns whether that is possible.
    pub fn watch(&mut self, pid: u32) -> bool {
        let is_possible = pid < PIDS;
        if is_possible {
            self.set(pid, |word, bit| word | bit);
        }
        is_possible
    }

    /// Has changes of a process not reported any more.
    pub fn ignore(&mut self, pid: u32) {
        if pid < PIDS {
            self.set(pid, |word, bit| word & !bit);
        }
    }

    /// The next change, in the order in which they happened. One that is not understood is
    /// [`OwnerNews::Lost`].
    pub fn next_news(&mut self) -> Option<OwnerNews> {
        // All of this buffer is mapped from the start: reading can't fail.
        if let Ok(Some(bytes)) = self.changes.next() {
            return Some(decode(bytes).unwrap_or(OwnerNews::Lost(1)));
        }
        let lost = self.counters.get(counter::OWNER_CHANGE_LOST);
        let more = lost.saturating_sub(self.lost);
        self.lost = lost;
        (more > 0).then_some(OwnerNews::Lost(more))
    }

    fn set(&mut self, pid: u32, change: impl FnOnce(u64, u64) -> u64) {
        let byte = (pid / u64::BITS) as usize * size_of::<u64>();
        let word = self.watched.load_u64(byte);
        let bit = 1 << (pid % u64::BITS);
        self.watched.store_u64(byte, change(word, bit));
    }
}

impl Debug for OwnerWatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerWatch").finish_non_exhaustive()
    }
}

/// Decodes a change; `None` if it is not one.
fn decode(bytes: &[u8]) -> Option<OwnerNews> {
    let OwnerChange { subject, what, .. } = OwnerChange::from_bytes(bytes)?;
    let pid = || u32::try_from(subject).ok();
    Some(match what {
        change::ENDED => OwnerNews::Ended(pid()?),
        change::EXECUTED => OwnerNews::Executed(pid()?),
        change::FORKED => OwnerNews::Forked(pid()?),
        change::RENAMED => OwnerNews::Renamed(pid()?),
        change::RECEIVED => OwnerNews::Received(subject),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(subject: u64, what: u32) -> Vec<u8> {
        let words = [subject.to_ne_bytes(), u64::from(what).to_ne_bytes()];
        words.concat()
    }

    #[test]
    fn any_bytes_are_a_change_or_none() {
        let wide = u64::from(u32::MAX) + 1;
        for (bytes, expected) in [
            (bytes(7, change::ENDED), Some(OwnerNews::Ended(7))),
            (bytes(7, change::EXECUTED), Some(OwnerNews::Executed(7))),
            (bytes(7, change::FORKED), Some(OwnerNews::Forked(7))),
            (bytes(7, change::RENAMED), Some(OwnerNews::Renamed(7))),
            (bytes(wide, change::RENAMED), None),
            (
                bytes(wide, change::RECEIVED),
                Some(OwnerNews::Received(wide)),
            ),
            (bytes(7, change::RECEIVED + 1), None),
            (bytes(7, u32::MAX), None),
            (Vec::new(), None),
            (vec![0; 17], None),
        ] {
            assert_eq!(decode(&bytes), expected, "{bytes:?}");
        }
    }
}
