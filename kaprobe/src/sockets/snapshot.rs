//! A snapshot of the TCP sockets: read, filtered, and given their owners' names, so many
//! at a time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::exit;
use crate::filter::passes;
use crate::host::cgroup;
use crate::host::hidden::HiddenProcesses;
use crate::host::netns::{self, Netns};
use crate::host::privilege::{Privileges, raise_memlock};
use crate::kernel::{SocketIterator, TracerConfig, now};
use crate::model::row::{Row, RowSource};
use crate::owners::batch::OwnerBatch;
use crate::owners::descriptors::Descriptors;
use crate::sockets::plan::Selection;
use crate::sockets::sock_diag;
use crate::stderr;
use crate::text::escape::Escaped;

/// Rows whose owners are looked up together, by one walk through all descriptors. It is
/// also what a snapshot's memory is proportional to: some 10 MB, however many sockets
/// there are.
const BATCH: usize = 16_384;
/// How many namespaces are entered: each takes a descriptor.
const MOST_NETNS: usize = 512;
/// Bytes of the ring buffer, which is not used here: as few as can be.
const NO_BUFFER: u32 = 4096;

/// Takes snapshots of the sockets that were selected.
pub struct Snapshots<'a> {
    selection: &'a Selection,
    reader: Reader,
    descriptors: Descriptors,
    /// Namespaces to look at, by inode number; empty for that of the caller, or for all.
    places: BTreeSet<u32>,
    cgroups: Vec<Escaped>,
}

/// What a snapshot could not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// In whole sentences.
    pub told: Vec<String>,
    /// Sockets that were asked for may be missing.
    pub incomplete: bool,
}

impl Notes {
    /// Writes them to standard error.
    pub fn tell(&self) {
        stderr::lines(&self.told);
    }
}

/// What is done with each batch of rows.
pub type See<'a> = dyn FnMut(Vec<Row>) -> Result<()> + Send + 'a;

enum Reader {
    Iterator(Box<SocketIterator>),
    /// And why nothing better.
    SockDiag(String),
}

impl<'a> Snapshots<'a> {
    /// Gets ready: by the BPF iterator, or where that is not to be had by sock_diag.
    ///
    /// # Errors
    /// When something that the selection names is not there.
    pub fn open(selection: &'a Selection) -> Result<Self> {
        Self::new(selection, |refused| {
            Ok(Reader::SockDiag(format!("{refused:#}")))
        })
    }

    /// Gets ready by the BPF iterator, for those who can't do without the settings.
    ///
    /// # Errors
    /// When it is not to be had, or something that the selection names is not there.
    pub fn with_settings(selection: &'a Selection) -> Result<Self> {
        Self::new(selection, Err)
    }

    fn new(
        selection: &'a Selection,
        refused: impl FnOnce(anyhow::Error) -> Result<Reader>,
    ) -> Result<Self> {
        let places: Result<BTreeSet<u32>> = selection
            .kernel
            .netns
            .iter()
            .map(|name| name.parse::<Netns>()?.resolve())
            .collect();
        let paths = &selection.kernel.cgroups;
        let cgroups: Result<Vec<_>> = paths.iter().map(|path| cgroup::resolve(path)).collect();
        let cgroups = cgroups?;
        let known = if cgroups.is_empty() {
            HashMap::new()
        } else {
            cgroup::paths()
        };
        let names = cgroups.iter().filter_map(|it| known.get(&it.id).cloned());
        let names = names.collect();
        let mut reader = iterator(selection, cgroups)
            .map(|it| Reader::Iterator(Box::new(it)))
            .or_else(refused)?;
        let descriptors = match &mut reader {
            Reader::Iterator(iterator) => iterator.take_descriptors(),
            Reader::SockDiag(_) => None,
        };
        Ok(Self {
            selection,
            places: places?,
            cgroups: names,
            reader,
            descriptors: Descriptors::open(descriptors).context("cannot read /proc")?,
        })
    }

    /// Takes one, and shows it batch by batch.
    ///
    /// # Errors
    /// Of [`exit::Code::Kernel`] when the sockets can't be read. An error of `see` is
    /// returned as it is.
    pub fn take(&mut self, see: &mut See<'_>) -> Result<Notes> {
        let mut failed = None;
        let mut see = |rows| {
            see(rows).map_err(|why| {
                failed = Some(why);
                anyhow!("nobody takes them")
            })
        };
        // A thread of its own, as it goes from one namespace to the next.
        let taken = thread::scope(|scope| scope.spawn(|| self.take_here(&mut see)).join());
        let taken = taken.map_err(|_| anyhow!("the thread that reads the sockets has died"))?;
        match failed {
            Some(why) => Err(why),
            None => taken.context(exit::Error::kernel("cannot show the TCP sockets")),
        }
    }

    fn take_here(&mut self, see: &mut See<'_>) -> Result<Notes> {
        let taking = Taking {
            selection: self.selection,
            descriptors: &self.descriptors,
            places: &self.places,
            below: &self.cgroups,
            see,
            cgroups: None,
            waiting: Vec::new(),
            notes: Notes::default(),
            ownerless: 0,
            hidden: HiddenProcesses::default(),
        };
        taking.run(&mut self.reader)
    }
}

fn iterator(selection: &Selection, cgroups: Vec<cgroup::Cgroup>) -> Result<SocketIterator> {
    Privileges::read()
        .context("cannot read this process's privileges")?
        .check_trace()?;
    raise_memlock();
    let config = TracerConfig {
        filter: selection.kernel.clone(),
        cgroups,
        buffer_bytes: NO_BUFFER,
        ..TracerConfig::default()
    };
    SocketIterator::load(&config).context(exit::Error::kernel(
        "cannot take a snapshot of the TCP sockets",
    ))
}

/// A snapshot that is being taken.
struct Taking<'a, 's> {
    selection: &'a Selection,
    descriptors: &'a Descriptors,
    places: &'a BTreeSet<u32>,
    /// cgroups that were asked for: paths.
    below: &'a [Escaped],
    see: &'a mut See<'s>,
    cgroups: Option<HashMap<u64, Escaped>>,
    waiting: Vec<Row>,
    notes: Notes,
    ownerless: usize,
    /// Processes that may be the owners of those.
    hidden: HiddenProcesses,
}

impl Taking<'_, '_> {
    fn run(mut self, reader: &mut Reader) -> Result<Notes> {
        if let Reader::SockDiag(why) = &*reader {
            self.note(format!(
                "keepalive settings cannot be seen: sock_diag tells of the sockets, the BPF \
                 iterator being refused: {why}"
            ));
        }
        if self.places.is_empty() && !self.selection.all_netns {
            self.here(reader, netns::own().unwrap_or_default(), None)?;
        } else {
            self.everywhere(reader)?;
        }
        self.pass_on()?;
        if self.ownerless > 0 {
            let (sockets, outside) = match self.ownerless {
                1 => (
                    "1 socket".to_owned(),
                    "its process is outside this pid namespace, or has exited",
                ),
                count => (
                    format!("{count} sockets"),
                    "their processes are outside this pid namespace, or have exited",
                ),
            };
            let why = if self.hidden.is_none() {
                outside.to_owned()
            } else {
                self.hidden.to_string()
            };
            self.note(format!("owner unknown for {sockets}: {why}"));
        }
        Ok(self.notes)
    }

    fn note(&mut self, note: String) {
        self.notes.told.push(note);
    }

    /// Notes that there may be sockets which are not shown.
    fn lack(&mut self, note: String) {
        self.note(note);
        self.notes.incomplete = true;
    }

    /// Shows the sockets of the namespaces that were asked for.
    fn everywhere(&mut self, reader: &mut Reader) -> Result<()> {
        let (own, own_uts) = (netns::own(), netns::own_uts());
        let netns::Namespaces { found: all, hidden } = netns::all(MOST_NETNS);
        if all.len() == MOST_NETNS {
            self.lack(format!(
                "more than {MOST_NETNS} network namespaces: not all are shown"
            ));
        }
        if self.selection.all_netns && !hidden.is_none() {
            self.note(format!("network namespaces may be left out: {hidden}"));
            // One that nobody may look at, whatever privilege they have, is no reason to
            // pass no audit ever.
            self.notes.incomplete |= hidden.wants_privilege();
        }
        for place in self.places.iter().filter(|place| !all.contains_key(place)) {
            self.lack(format!(
                "network namespace {place} cannot be entered: left out"
            ));
        }
        // Its own first: from another it could not come back without privilege.
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(inode, _)| Some(*inode) != own);
        for (inode, place) in all {
            if !self.places.is_empty() && !self.places.contains(&inode) {
                continue;
            }
            let kind = Some(LinkNameSpaceType::Network);
            let entered = if own == Some(inode) {
                Ok(())
            } else {
                move_into_link_name_space(place.file.as_fd(), kind)
            };
            match entered {
                Ok(()) => self.here(reader, inode, place.name(own_uts))?,
                Err(why) => self.lack(format!(
                    "network namespace {inode} cannot be entered ({why}): left out"
                )),
            }
        }
        Ok(())
    }

    /// Shows the sockets of the namespace that this thread is in.
    fn here(&mut self, reader: &mut Reader, netns: u32, name: Option<Escaped>) -> Result<()> {
        let selection = self.selection;
        let mut keep = |row: Row| {
            if selection.states.is_empty() || selection.states.contains(&row.state) {
                self.waiting.push(Row {
                    netns_name: name.clone(),
                    ..row
                });
            }
            if self.waiting.len() >= BATCH {
                self.pass_on()?;
            }
            Ok(())
        };
        match reader {
            Reader::Iterator(iterator) => iterator.each(&mut keep),
            Reader::SockDiag(_) => sock_diag::each(netns, now, &mut |row| {
                if selection.kernel.sockets.keeps(Some(&row.endpoints)) {
                    keep(row)?;
                }
                Ok(())
            }),
        }
    }

    /// Names the owners of what waits, and shows it.
    fn pass_on(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.waiting);
        let mut wanted = HashSet::with_capacity(rows.len());
        // Before 5.15 the iterator goes on by counting, and tells of one again where others
        // have come before it meanwhile (`tcp_seq_start`, net/ipv4/tcp_ipv4.c; seen on 5.10).
        rows.retain(|row| row.identity.inode.is_none_or(|inode| wanted.insert(inode)));
        let owners = OwnerBatch::find(self.descriptors, &wanted);
        let mut batch = owners.context("cannot read their owners")?;
        self.hidden = self.hidden.or(batch.hidden());
        for row in &mut rows {
            if let Some(inode) = row.identity.inode {
                let owners = batch.of(inode);
                row.process.pid = owners.0.first().map(|owner| owner.pid);
                row.process.comm = owners.0.first().map(|owner| owner.comm.clone());
                row.owners = Some(owners);
            }
            let cgroups = self.cgroups.get_or_insert_with(cgroup::paths);
            row.cgroup_path = row.identity.cgroup.and_then(|id| cgroups.get(&id).cloned());
        }
        rows.retain(|row| self.is_selected(row));
        self.ownerless += rows.iter().filter(|row| row.is_ownerless()).count();
        (self.see)(rows)
    }

    /// What can only be told once the owners are known; and of sock_diag's, the cgroup.
    fn is_selected(&self, row: &Row) -> bool {
        let owners = row.owners.iter().flat_map(|it| &it.0);
        let selection = self.selection;
        let is = |pid: u32, comm: &Escaped| {
            passes(&selection.pids, Some(&pid)) && passes(&selection.comms, Some(comm))
        };
        let any = selection.pids.is_empty() && selection.comms.is_empty();
        let below = |filter: &Escaped| {
            let path = row.cgroup_path.as_ref().map_or("", Escaped::as_str);
            let rest = path.strip_prefix(filter.as_str().trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let in_cgroup = row.source == RowSource::IterTcp
            || selection.kernel.cgroups.is_empty()
            || self.below.iter().any(below);
        in_cgroup && (any || { owners }.any(|it| is(it.pid, &it.comm)))
    }
}
