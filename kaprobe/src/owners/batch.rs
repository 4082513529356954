//! Finds all owners of a batch of sockets in one walk.
//!
//! For a stream of events use [`crate::owners::cache`]: it remembers owners and names one
//! process for each socket.

use std::collections::{HashMap, HashSet};

use crate::containers::names::ContainerNames;
use crate::host::hidden::HiddenProcesses;
use crate::model::owner::Owner;
use crate::model::owner_fds::{OwnerFd, OwnerFds};
use crate::model::socket::Process;
use crate::owners::descriptors::{self, Descriptors, SocketFd};
use crate::owners::process;
use crate::text::escape::Escaped;

/// The owners of a batch of sockets.
#[derive(Debug)]
pub struct OwnerBatch<'a> {
    descriptors: &'a Descriptors,
    found: HashMap<u64, Vec<SocketFd>>,
    comms: HashMap<u32, Option<Escaped>>,
    processes: HashMap<u32, Owner>,
    names: &'a mut ContainerNames,
    hidden: HiddenProcesses,
}

impl<'a> OwnerBatch<'a> {
    /// Walks through all descriptors and keeps those that refer to one of the sockets.
    /// `wanted` holds their inode numbers.
    ///
    /// # Errors
    /// If /proc can't be read.
    pub fn find(
        descriptors: &'a Descriptors,
        names: &'a mut ContainerNames,
        wanted: &HashSet<u64>,
    ) -> rustix::io::Result<Self> {
        let mut found: HashMap<_, Vec<_>> = HashMap::with_capacity(wanted.len());
        let mut unreadable = 0;
        if !wanted.is_empty() {
            unreadable = descriptors.walk(|fd| {
                if wanted.contains(&fd.inode.into()) {
                    found.entry(fd.inode.into()).or_default().push(fd);
                }
            })?;
        }
        Ok(Self {
            hidden: HiddenProcesses::new(descriptors.proc(), unreadable),
            descriptors,
            found,
            comms: HashMap::new(),
            processes: HashMap::new(),
            names,
        })
    }

    /// The owners of a socket in ascending order of pid. The first is usually the parent.
    pub fn of(&mut self, inode: u64) -> OwnerFds {
        let found = self.found.get(&inode).map_or(&[][..], Vec::as_slice);
        let owners = found.iter().filter_map(|&SocketFd { pid, fd, .. }| {
            let read = || descriptors::comm(self.descriptors.proc(), pid).ok();
            let comm = self.comms.entry(pid).or_insert_with(read);
            // A process that has ended no longer owns the socket.
            let comm = comm.clone()?;
            Some(OwnerFd { pid, comm, fd })
        });
        OwnerFds(owners.collect())
    }

    /// The first of a socket's owners.
    pub fn process(&mut self, owners: &OwnerFds) -> Owner {
        let Some(OwnerFd { pid, comm, .. }) = owners.0.first() else {
            return Owner::default();
        };
        let read = || {
            let process = process::read(self.descriptors.proc(), *pid, self.names);
            // It has ended since its name was read.
            let ended = || Process {
                pid: Some(*pid),
                comm: Some(comm.clone()),
                ..Process::UNKNOWN
            };
            process.unwrap_or_else(|_| ended()).into()
        };
        self.processes.entry(*pid).or_insert_with(read).clone()
    }

    /// The processes whose descriptors could not be read.
    #[must_use]
    pub fn hidden(&self) -> HiddenProcesses {
        self.hidden
    }
}
