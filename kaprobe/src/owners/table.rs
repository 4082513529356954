//! Finds all owners of many sockets in one walk.
//!
//! For a stream of events use [`crate::owners::cache`]: it remembers owners and names one
//! process for each socket.

use std::collections::HashMap;
use std::ops::Range;

use crate::containers::names::ContainerNames;
use crate::host::hidden::HiddenProcesses;
use crate::model::owner::Owner;
use crate::model::owner_fds::{OwnerFd, OwnerFds};
use crate::model::socket::Process;
use crate::owners::descriptors::{self, Descriptors, SocketFd};
use crate::owners::process;
use crate::text::escape::Escaped;

/// Most descriptors that are kept: they take 12 MiB.
const MOST: usize = 1 << 20;

/// The descriptors that a walk found, and the processes that have them.
#[derive(Debug)]
pub struct OwnerTable<'a> {
    descriptors: &'a Descriptors,
    /// In ascending order of inode number, then of pid.
    found: Vec<SocketFd>,
    comms: HashMap<u32, Option<Escaped>>,
    processes: HashMap<u32, Owner>,
    hidden: HiddenProcesses,
}

impl<'a> OwnerTable<'a> {
    /// Walks through all descriptors and keeps those that refer to a wanted socket, as long as
    /// they fit.
    ///
    /// # Errors
    /// If /proc can't be read.
    pub fn walk(
        descriptors: &'a Descriptors,
        is_wanted: impl Fn(u64) -> bool,
    ) -> rustix::io::Result<Self> {
        let mut found = Vec::new();
        let unreadable = descriptors.walk(|fd| {
            if found.len() < MOST && is_wanted(fd.inode.into()) {
                found.push(fd);
            }
        })?;
        // The walk is in ascending order of pid, and the sort keeps that of equal ones.
        found.sort_by_key(|it| it.inode);
        Ok(Self {
            hidden: HiddenProcesses::new(descriptors.proc(), unreadable),
            descriptors,
            found,
            comms: HashMap::new(),
            processes: HashMap::new(),
        })
    }

    /// Where the descriptors of a socket are.
    fn places(&self, inode: u64) -> Range<usize> {
        let start = { &self.found }.partition_point(|it| u64::from(it.inode) < inode);
        let rest = self.found[start..].iter();
        start..start + rest.take_while(|it| u64::from(it.inode) == inode).count()
    }

    /// Whether a process had the socket when the walk passed it.
    #[must_use]
    pub fn has(&self, inode: u64) -> bool {
        !self.places(inode).is_empty()
    }

    /// The owners of a socket in ascending order of pid. The first is usually the parent.
    pub fn of(&mut self, inode: u64) -> OwnerFds {
        let Range { start, end } = self.places(inode);
        let owners = self.found[start..end].iter().filter_map(|it| {
            let SocketFd { pid, fd, .. } = *it;
            let read = || descriptors::comm(self.descriptors.proc(), pid).ok();
            let comm = self.comms.entry(pid).or_insert_with(read);
            // A process that has ended no longer owns the socket.
            let comm = comm.clone()?;
            Some(OwnerFd { pid, comm, fd })
        });
        OwnerFds(owners.collect())
    }

    /// The first of a socket's owners.
    pub fn process(&mut self, owners: &OwnerFds, names: &mut ContainerNames) -> Owner {
        let Some(OwnerFd { pid, comm, .. }) = owners.0.first() else {
            return Owner::default();
        };
        let read = || {
            let process = process::read(self.descriptors.proc(), *pid, names);
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
