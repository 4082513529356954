//! Snapshots of the TCP sockets. Rows are read, filtered and given their owners in
//! batches.
//!
//! One walk through all descriptors finds the owners. A socket that is newer than the walk, or
//! has no owner that can be seen, waits for another one at the end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::containers::names::ContainerNames;
use crate::host::cgroup;
use crate::host::hidden::HiddenProcesses;
use crate::host::netns::{self, Netns};
use crate::host::privilege::{Privileges, raise_memlock};
use crate::host::uts;
use crate::kernel::{SocketIterator, TracerConfig, now, read_namespace};
use crate::model::row::{Row, RowSource};
use crate::model::values::State;
use crate::owners::descriptors::Descriptors;
use crate::owners::table::OwnerTable;
use crate::sockets::pace::Pauses;
use crate::sockets::plan::Selection;
use crate::sockets::sock_diag;
use crate::text::escape::Escaped;
use crate::{exit, stderr};

/// Rows per batch, and rows that may wait for another walk. This limits a snapshot's memory to
/// about 20 MB for any number of sockets.
const BATCH: usize = 16_384;
/// Maximum number of namespaces to enter. Each needs a file descriptor.
const NETNS_LIMIT: usize = 512;

/// Takes snapshots of the selected sockets.
pub struct Snapshots<'a> {
    selection: &'a Selection,
    reader: SocketReader,
    descriptors: Descriptors,
    names: ContainerNames,
    /// Namespaces to read, inode numbers. Empty for the caller's own, or for all.
    netns: BTreeSet<u32>,
    cgroups: Vec<Escaped>,
}

/// Messages about what a snapshot could not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The messages, whole sentences.
    pub messages: Vec<String>,
    /// Selected sockets may be missing.
    pub incomplete: bool,
}

impl Notes {
    /// Writes the messages to standard error.
    pub fn print(&self) {
        stderr::lines(&self.messages);
    }
}

/// A callback for each batch of rows.
type OnRows<'a> = dyn FnMut(Vec<Row>) -> Result<()> + Send + 'a;

enum SocketReader {
    Iterator(Box<SocketIterator>),
    /// sock_diag, and why the iterator was refused.
    SockDiag(String),
}

impl<'a> Snapshots<'a> {
    /// Opens the BPF iterator, or sock_diag if the iterator is refused.
    ///
    /// # Errors
    /// If a namespace or cgroup of the selection does not exist, or something has run out.
    pub fn open(selection: &'a Selection) -> Result<Self> {
        Self::new(selection, |refused| match exit::exhausted(&refused) {
            Some(_) => Err(refused),
            None => Ok(SocketReader::SockDiag(format!("{refused:#}"))),
        })
    }

    /// Opens the BPF iterator, for callers that need the keepalive settings.
    ///
    /// # Errors
    /// If the iterator is refused, or a namespace or cgroup of the selection does not
    /// exist.
    pub fn with_settings(selection: &'a Selection) -> Result<Self> {
        Self::new(selection, Err)
    }

    fn new(
        selection: &'a Selection,
        on_refusal: impl FnOnce(anyhow::Error) -> Result<SocketReader>,
    ) -> Result<Self> {
        read_namespace()?;
        let netns: Result<BTreeSet<u32>> = selection
            .kernel
            .netns
            .iter()
            .map(|name| name.parse::<Netns>()?.resolve())
            .collect();
        let cgroups = selection.kernel.cgroups.iter();
        let cgroups: Result<Vec<_>> = cgroups.map(|path| cgroup::resolve(path)).collect();
        let cgroups = cgroups?;
        let known = if cgroups.is_empty() {
            HashMap::new()
        } else {
            cgroup::paths()
        };
        let paths = cgroups.iter().filter_map(|it| known.get(&it.id).cloned());
        let paths = paths.collect();
        let mut reader = iterator(selection, cgroups)
            .map(|it| SocketReader::Iterator(Box::new(it)))
            .or_else(on_refusal)?;
        let descriptors = match &mut reader {
            SocketReader::Iterator(iterator) => iterator.take_descriptors(),
            SocketReader::SockDiag(_) => None,
        };
        Ok(Self {
            selection,
            netns: netns?,
            cgroups: paths,
            reader,
            descriptors: Descriptors::open(descriptors).context("cannot read /proc")?,
            names: ContainerNames::open(selection.host_root.as_deref())?,
        })
    }

    /// Takes a snapshot and passes it on in batches.
    ///
    /// # Errors
    /// If the sockets can't be read: [`exit::Code::Kernel`]. An error of `on_rows` is
    /// returned unchanged.
    pub fn take(&mut self, on_rows: &mut OnRows<'_>) -> Result<Notes> {
        self.take_rows(true, on_rows)
    }

    /// Like [`Self::take`], but finds neither owners nor the paths of cgroups, and so
    /// costs much less. A selection by process or cgroup path then selects nothing.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn take_without_owners(&mut self, on_rows: &mut OnRows<'_>) -> Result<Notes> {
        self.take_rows(false, on_rows)
    }

    fn take_rows(&mut self, owners: bool, on_rows: &mut OnRows<'_>) -> Result<Notes> {
        let mut failed = None;
        let mut on_rows = |rows| {
            on_rows(rows).map_err(|why| {
                failed = Some(why);
                anyhow!("the rows were not taken")
            })
        };
        // On a separate thread, because it changes its network namespace.
        let notes = thread::scope(|scope| {
            let thread = thread::Builder::new().name("sockets".to_owned());
            let thread = thread
                .spawn_scoped(scope, || self.take_on_thread(owners, &mut on_rows))
                .context("cannot start the thread that reads the sockets")?;
            let notes = thread.join();
            notes.map_err(|_| anyhow!("the thread that reads the sockets has died"))
        })?;
        match failed {
            Some(why) => Err(why),
            None => notes.context(exit::Error::kernel("cannot show the TCP sockets")),
        }
    }

    fn take_on_thread(&mut self, owners: bool, on_rows: &mut OnRows<'_>) -> Result<Notes> {
        let snapshot = SnapshotRun {
            selection: self.selection,
            descriptors: owners.then_some(&self.descriptors),
            names: &mut self.names,
            netns: &self.netns,
            wanted_cgroups: &self.cgroups,
            on_rows,
            cgroup_paths: None,
            batch: Vec::new(),
            seen: HashSet::new(),
            owners: None,
            late: Vec::new(),
            pauses: Pauses::default(),
            notes: Notes::default(),
            ownerless: 0,
            hidden: HiddenProcesses::default(),
        };
        snapshot.run(&mut self.reader)
    }
}

fn iterator(selection: &Selection, cgroups: Vec<cgroup::Cgroup>) -> Result<SocketIterator> {
    Privileges::read()
        .context("cannot read this process's privileges")?
        .check_trace()?;
    raise_memlock();
    let (filter, cgroups) = if selection.with_listeners {
        Default::default()
    } else {
        (selection.kernel.clone(), cgroups)
    };
    let config = TracerConfig {
        filter,
        cgroups,
        ..TracerConfig::default()
    };
    SocketIterator::load(&config).context(exit::Error::kernel(
        "cannot take a snapshot of the TCP sockets",
    ))
}

/// The state of a snapshot while it is taken.
struct SnapshotRun<'a, 's> {
    selection: &'a Selection,
    /// `None` if no owners are to be found.
    descriptors: Option<&'a Descriptors>,
    names: &'a mut ContainerNames,
    netns: &'a BTreeSet<u32>,
    /// Paths of the selected cgroups.
    wanted_cgroups: &'a [Escaped],
    on_rows: &'a mut OnRows<'s>,
    /// Paths of all cgroups by id, read when first needed.
    cgroup_paths: Option<HashMap<u64, Escaped>>,
    batch: Vec<Row>,
    /// The inode numbers of the sockets so far.
    seen: HashSet<u64>,
    /// What the walk found.
    owners: Option<OwnerTable<'a>>,
    /// Rows of which the walk saw no owner.
    late: Vec<Row>,
    pauses: Pauses,
    notes: Notes,
    ownerless: usize,
    /// Processes that could not be read and may be the missing owners.
    hidden: HiddenProcesses,
}

impl<'a> SnapshotRun<'a, '_> {
    fn run(mut self, reader: &mut SocketReader) -> Result<Notes> {
        if let SocketReader::SockDiag(why) = &*reader {
            self.note(format!(
                "keepalive settings cannot be seen: the sockets were read from sock_diag, \
                 because the BPF iterator was refused: {why}"
            ));
        }
        if self.netns.is_empty() && !self.selection.all_netns {
            let own = netns::own().unwrap_or_default();
            self.read_netns(reader, own, netns::name(own))?;
        } else {
            self.read_each_netns(reader)?;
        }
        self.flush()?;
        self.flush_late()?;
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
        self.notes.messages.push(note);
    }

    /// Adds a note, and marks the snapshot as incomplete.
    fn note_incomplete(&mut self, note: String) {
        self.note(note);
        self.notes.incomplete = true;
    }

    /// Reads the sockets of the selected namespaces.
    fn read_each_netns(&mut self, reader: &mut SocketReader) -> Result<()> {
        let (own, host_uts) = (netns::own(), uts::host_inode());
        let netns::Namespaces { found: all, hidden } = netns::all(NETNS_LIMIT)?;
        if all.len() == NETNS_LIMIT {
            self.note_incomplete(format!(
                "more than {NETNS_LIMIT} network namespaces: not all are shown"
            ));
        }
        if self.selection.all_netns && !hidden.is_none() {
            self.note(format!("network namespaces may be left out: {hidden}"));
            // A process that can't be read with any privilege must not fail every audit.
            self.notes.incomplete |= hidden.wants_privilege();
        }
        for inode in self.netns.iter().filter(|inode| !all.contains_key(inode)) {
            self.note_incomplete(format!(
                "network namespace {inode} cannot be entered: left out"
            ));
        }
        // This thread's own namespace first: without privilege it can't return.
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(inode, _)| Some(*inode) != own);
        for (inode, netns) in all {
            if !self.netns.is_empty() && !self.netns.contains(&inode) {
                continue;
            }
            let kind = Some(LinkNameSpaceType::Network);
            let entered = if own == Some(inode) {
                Ok(())
            } else {
                move_into_link_name_space(netns.file.as_fd(), kind)
            };
            match entered {
                Ok(()) => self.read_netns(reader, inode, netns.name(host_uts))?,
                Err(why) => self.note_incomplete(format!(
                    "network namespace {inode} cannot be entered ({why}): left out"
                )),
            }
        }
        Ok(())
    }

    /// Reads the sockets of this thread's namespace.
    fn read_netns(
        &mut self,
        reader: &mut SocketReader,
        netns: u32,
        name: Option<Escaped>,
    ) -> Result<()> {
        let selection = self.selection;
        let in_kernel = matches!(reader, SocketReader::Iterator(_)) && !selection.with_listeners;
        let mut keep = |row: Row| {
            let is_kept = (in_kernel || selection.kernel.sockets.keeps(Some(&row.endpoints)))
                && (selection.states.is_empty() || selection.states.contains(&row.state));
            if is_kept || self.is_listener(&row) {
                self.batch.push(Row {
                    netns_name: name.clone(),
                    ..row
                });
            }
            if self.batch.len() >= BATCH {
                self.flush()?;
            }
            if selection.is_paced {
                self.pauses.pause();
            }
            Ok(())
        };
        match reader {
            SocketReader::Iterator(iterator) => iterator.each(&mut keep),
            SocketReader::SockDiag(_) => sock_diag::each(netns, now, &mut keep),
        }
    }

    /// Finds the owners of the batch if they are wanted, and passes it on.
    fn flush(&mut self) -> Result<()> {
        let mut rows = mem::take(&mut self.batch);
        // Before 5.15 the iterator resumes by count. It repeats a socket if others were
        // inserted before it (`tcp_seq_start`, net/ipv4/tcp_ipv4.c; seen on 5.10).
        rows.retain(|row| { row.identity.inode }.is_none_or(|inode| self.seen.insert(inode)));
        if let Some(descriptors) = self.descriptors {
            let owners = match self.owners.take() {
                Some(owners) => owners,
                None => self.walk(descriptors, |_| true)?,
            };
            let is_late = |row: &mut Row| row.identity.inode.is_some_and(|it| !owners.has(it));
            self.late.extend(rows.extract_if(.., is_late));
            let owners = self.owners.insert(owners);
            fill_owners(owners, self.names, &mut rows);
        }
        self.pass_on(rows)?;
        if self.late.len() >= BATCH {
            self.flush_late()?;
        }
        Ok(())
    }

    /// Finds the owners of the rows that wait, by another walk, and passes them on.
    fn flush_late(&mut self) -> Result<()> {
        let mut rows = mem::take(&mut self.late);
        if let Some(descriptors) = self.descriptors.filter(|_| !rows.is_empty()) {
            let inodes: HashSet<_> = rows.iter().filter_map(|row| row.identity.inode).collect();
            let mut owners = self.walk(descriptors, |inode| inodes.contains(&inode))?;
            fill_owners(&mut owners, self.names, &mut rows);
        }
        self.pass_on(rows)
    }

    /// Walks through the descriptors that refer to wanted sockets.
    fn walk(
        &mut self,
        descriptors: &'a Descriptors,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Result<OwnerTable<'a>> {
        let owners = OwnerTable::walk(descriptors, is_wanted);
        let owners = owners.context("cannot read their owners")?;
        self.hidden = self.hidden.or(owners.hidden());
        Ok(owners)
    }

    /// Fills in the paths of the rows' cgroups, and passes on the selected rows.
    fn pass_on(&mut self, mut rows: Vec<Row>) -> Result<()> {
        if self.descriptors.is_some() {
            let cgroups = self.cgroup_paths.get_or_insert_with(cgroup::paths);
            for row in &mut rows {
                row.cgroup_path = row.identity.cgroup.and_then(|id| cgroups.get(&id).cloned());
            }
        }
        rows.retain(|row| self.is_listener(row) || self.is_selected(row));
        let is_ownerless = |row: &&Row| row.is_ownerless() && !self.is_listener(row);
        self.ownerless += rows.iter().filter(is_ownerless).count();
        if rows.is_empty() {
            return Ok(());
        }
        (self.on_rows)(rows)
    }

    /// Whether this is a listener that is passed on whatever the filters say.
    fn is_listener(&self, row: &Row) -> bool {
        self.selection.with_listeners && row.state == State::Listen
    }

    /// Checks the filters that the BPF program does not apply.
    fn is_selected(&self, row: &Row) -> bool {
        let owners = row.owners.iter().flat_map(|it| &it.0);
        let selection = self.selection;
        let processes = &selection.processes;
        let is_owned = processes.keeps_any_owner() || { owners }
            .any(|it| processes.keeps_owner(it.pid, &it.comm));
        let is_within = |filter: &Escaped| {
            let path = row.cgroup_path.as_ref().map_or("", Escaped::as_str);
            let rest = path.strip_prefix(filter.as_str().trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let in_kernel = row.source == RowSource::IterTcp && !selection.with_listeners;
        let in_cgroup = in_kernel
            || selection.kernel.cgroups.is_empty()
            || self.wanted_cgroups.iter().any(is_within);
        in_cgroup && is_owned && processes.keeps_workload(&row.process)
    }
}

/// Fills in the owners of these rows.
fn fill_owners(found: &mut OwnerTable<'_>, names: &mut ContainerNames, rows: &mut [Row]) {
    for row in rows {
        if let Some(inode) = row.identity.inode {
            let owners = found.of(inode);
            row.process = found.process(&owners, names);
            row.owners = Some(owners);
        }
    }
}
