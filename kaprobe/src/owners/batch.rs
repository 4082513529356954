//! Everyone who holds some sockets: one walk for a batch of a snapshot.
//!
//! [`super::owner`] is for a stream of events: it remembers, and names one process.

use std::collections::{HashMap, HashSet};

use crate::host::hidden::HiddenProcesses;
use crate::model::owner::{OwnerFd, OwnerFds};
use crate::owners::descriptors::{self, Descriptors, SocketFd};
use crate::text::escape::Escaped;

/// Who holds the sockets that were asked for.
#[derive(Debug)]
pub struct Holders<'a> {
    descriptors: &'a Descriptors,
    held: HashMap<u64, Vec<SocketFd>>,
    comms: HashMap<u32, Option<Escaped>>,
    hidden: HiddenProcesses,
}

impl<'a> Holders<'a> {
    /// Walks through all descriptors, and notes who holds one of these, by inode number.
    ///
    /// # Errors
    /// Where /proc can't be read.
    pub fn find(descriptors: &'a Descriptors, wanted: &HashSet<u64>) -> rustix::io::Result<Self> {
        let mut held: HashMap<_, Vec<_>> = HashMap::with_capacity(wanted.len());
        let mut unreadable = 0;
        if !wanted.is_empty() {
            unreadable = descriptors.walk(|fd| {
                if wanted.contains(&fd.inode.into()) {
                    held.entry(fd.inode.into()).or_default().push(fd);
                }
            })?;
        }
        Ok(Self {
            hidden: HiddenProcesses::new(descriptors.proc(), unreadable),
            descriptors,
            held,
            comms: HashMap::new(),
        })
    }

    /// Those who hold this one, the lowest pid first, which mostly is the parent.
    pub fn of(&mut self, inode: u64) -> OwnerFds {
        let held = self.held.get(&inode).map_or(&[][..], Vec::as_slice);
        let owners = held.iter().filter_map(|&SocketFd { pid, fd, .. }| {
            let read = || descriptors::comm(self.descriptors.proc(), pid).ok();
            let comm = self.comms.entry(pid).or_insert_with(read);
            // One that has ended meanwhile holds nothing.
            let comm = comm.clone()?;
            Some(OwnerFd { pid, comm, fd })
        });
        OwnerFds(owners.collect())
    }

    /// The processes whose descriptors could not be read.
    #[must_use]
    pub fn hidden(&self) -> HiddenProcesses {
        self.hidden
    }
}
