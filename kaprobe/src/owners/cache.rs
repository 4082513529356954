//! Caches the process that owns each socket, by the socket's inode number.
//!
//! A softirq knows the socket but not the process. So kaprobe walks through the
//! descriptors of all processes and remembers the owners. A remembered owner can become
//! wrong in four ways:
//! - The process ends, executes a program or changes its name, or another process receives
//!   the descriptor. The kernel reports that ([`OwnerNews`]), and the owner is checked before
//!   it is named again. If the kernel does not report it, the clock finds it.
//! - The process closes a descriptor that it shares with another process: one that it passed
//!   on, or that a child has. Nothing reports that. After some time an owner is checked again,
//!   by one readlink or, if that is cheaper, by another walk. The time starts at `RECHECK_S`
//!   and doubles while nothing changes; a fork or any other change sets it back.
//! - The process sends the descriptor to another and closes it. Until it is received, the
//!   socket has no owner, and the last one is named until the next check.
//! - Another socket gets the inode number. The next check then finds the owner of the
//!   *new* socket. This takes four billion new files, because the numbers come from a
//!   32-bit counter (`get_next_ino`, fs/inode.c).
//!
//! An event with an inode number happened while some process owned the socket. If no
//! process owns it when the event is read, its last owner is still named, if it was the
//! only one: a process that ends closes its sockets, and resets those with unread data.

use std::time::{Duration, Instant};
use std::{io, mem, thread};

use hashbrown::{HashMap, HashSet};
use rustix::io::Errno;

use crate::containers::names::ContainerNames;
use crate::kernel::{DescriptorIterator, OwnerNews, OwnerWatch};
use crate::model::event::Event;
use crate::model::owner::{Owner, OwnerLease};
use crate::model::row::Row;
use crate::owners::descriptors::{self, Descriptors, SocketFd};
use crate::owners::held::Holders;
use crate::owners::process;
use crate::owners::processes::{Life, OwningProcess, Processes, RECHECK_S, Slot};

/// The last owner of a socket is still named for this time after it was found gone, s.
/// Longer than an event waits to be read.
const LINGER_S: u32 = 2;

/// Most sockets that are remembered, or as many as the trace remembers if that is more: this
/// many with an owner, and as many without. A socket takes about 30 bytes. A walk sees every
/// socket of the host, not only those that are traced.
pub const CAPACITY: usize = 1 << 18;

/// Time until the next lookup after no owner was found. Each failure makes it four times
/// as long.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// Longest time until the next lookup after no owner was found.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Length of the pause after a walk, in multiples of the walk's duration. So an endless
/// stream of new sockets costs at most a quarter of one CPU.
const PAUSE: u32 = 3;

/// If a walk was cheaper than checking sockets one by one, the next checks are walks too,
/// this many times.
const REPEATS: u8 = 3;

/// Longest wait for the end of a pause. If more is left, the owner stays unknown. Only
/// hosts with thousands of descriptors have longer pauses.
const PATIENCE: Duration = Duration::from_millis(50);

/// When the times in seconds begin, s before the cache was made. So 0 is longer ago than
/// anything is believed.
const LONG_AGO_S: u32 = 3_600;

/// Inode number of a socket, from a 32-bit counter (`sock_alloc`, net/socket.c). Other
/// file systems have wider numbers.
pub type Inode = u32;

/// Remembers the owner of each socket.
///
/// The first lookup costs a walk, which finds the owners of all other sockets too. On a
/// virtual machine with two cores a walk took 5 µs per descriptor through /proc, and half
/// a microsecond by the iterator. Checking one socket again took 5 µs.
#[derive(Debug)]
pub struct OwnerCache {
    descriptors: Descriptors,
    capacity: usize,
    /// The times in seconds count from [`LONG_AGO_S`] before this.
    epoch: Instant,
    /// The time of this batch, and the same in seconds.
    now: Instant,
    now_s: u32,
    /// Changes with every change that is reported, and with every walk; wraps.
    generation: u32,
    /// Number of walks so far; wraps.
    walks: u8,
    owned: HashMap<Inode, Owned>,
    ownerless: HashMap<Inode, Retry>,
    /// Sockets that could not be looked for yet. The next walk has room for them.
    wanted: HashSet<Inode>,
    processes: Processes,
    holders: Holders,
    next_walk: Option<Instant>,
    /// There was a walk in this batch: another would find no more.
    has_walked: bool,
    /// The last walk remembered every socket.
    is_complete: bool,
    /// Duration of the last walk.
    walked: Duration,
    /// Time of the last walk, s.
    walked_s: u32,
    /// Number of next checks that are walks.
    repeats: u8,
    /// Time spent on checking sockets one by one since the last walk.
    single_checks: Duration,
    unreadable: usize,
    /// Why the last walk failed, and how many have.
    failed: Option<(u64, Errno)>,
    dropped_owners: u64,
    lost_news: u64,
}

/// A socket with an owner. There are many, so this is small.
#[derive(Clone, Copy, Debug)]
struct Owned {
    process: Slot,
    fd: u32,
    /// When the owner was last seen, or was gone, s.
    checked_s: u32,
    /// How many checks in a row have found the owner.
    passes: u8,
    /// The last walk that saw the owner.
    walk: u8,
    /// Another process also owned the socket: bits of [`sharing`].
    sharing: u8,
    /// The owner is gone.
    gone: bool,
}

/// Whether a socket has several owners.
mod sharing {
    /// Now.
    pub const NOW: u8 = 1 << 0;
    /// Before the last walk.
    pub const BEFORE: u8 = 1 << 1;
}

impl Owned {
    /// Whether no other process owned the socket, as far as is known.
    fn is_sole(&self, process: &OwningProcess) -> bool {
        self.sharing & sharing::NOW == 0 && !process.has_forked
    }

    /// Notes that it was found with its owner.
    fn note_check(&mut self, process: &OwningProcess, now_s: u32) {
        self.passes = process.passes(self.checked_s, self.passes, now_s);
        self.checked_s = now_s;
    }
}

/// When to look again for the owner of a socket without one.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    /// How long to wait if that lookup fails too.
    then: Duration,
}

/// What must be done before the owner of a socket is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The known owner must be checked.
    Check,
    /// An owner must be found.
    Search,
}

/// The inode number, if it is one of a socket.
fn socket_inode(inode: Option<u64>) -> Option<Inode> {
    Inode::try_from(inode?).ok()
}

impl OwnerCache {
    /// Makes an empty cache that remembers `capacity` sockets with an owner, and as many
    /// without. With a watch, what the kernel reports is not checked as often.
    ///
    /// # Errors
    /// If /proc can't be opened.
    pub fn new(
        capacity: usize,
        iterator: Option<DescriptorIterator>,
        watch: Option<OwnerWatch>,
        names: ContainerNames,
    ) -> io::Result<Self> {
        let descriptors = Descriptors::open(iterator)?;
        // The watch needs pids as this /proc has them.
        let watch = watch.filter(|_| descriptors::is_of_own_namespace(descriptors.proc()).is_ok());
        let now = Instant::now();
        Ok(Self {
            descriptors,
            capacity,
            epoch: now,
            now,
            now_s: LONG_AGO_S,
            generation: 0,
            walks: 0,
            owned: HashMap::new(),
            ownerless: HashMap::new(),
            wanted: HashSet::new(),
            processes: Processes::new(watch, names),
            holders: Holders::new(capacity),
            next_walk: None,
            has_walked: false,
            is_complete: true,
            walked: Duration::ZERO,
            walked_s: LONG_AGO_S,
            repeats: 0,
            single_checks: Duration::ZERO,
            unreadable: 0,
            failed: None,
            dropped_owners: 0,
            lost_news: 0,
        })
    }

    /// Fills in the known owner of an event's socket. A batch has at most one walk. `last` is the
    /// owner in the last event of the same socket, with its lease: if that holds, nothing is
    /// looked up.
    pub fn fill(&mut self, event: &mut Event, last: Option<(&Owner, OwnerLease)>) {
        match event {
            Event::Snapshot(row) => self.remember(row),
            Event::Socket(socket) => {
                if let Some((owner, lease)) = last.filter(|(_, lease)| self.holds(*lease)) {
                    (socket.owner, socket.lease) = (owner.clone(), lease);
                    return;
                }
                let inode = socket_inode(socket.identity.inode);
                let owner = inode.and_then(|inode| self.owner(inode));
                socket.lease = inode.map_or_else(OwnerLease::default, |it| self.lease(it));
                let owner = owner.or_else(|| self.holders.last_of(socket));
                socket.owner = owner.unwrap_or_default();
            }
            Event::PassiveReset(reset) => {
                let inode = socket_inode(reset.inode);
                let owner = inode.and_then(|inode| self.owner(inode));
                let pid = owner.as_ref().and_then(|it| it.pid);
                let age = pid.and_then(|pid| process::age_s(self.descriptors.proc(), pid));
                reset.process_age_s = age;
                reset.owner = owner.unwrap_or_default();
            }
            _ => {}
        }
    }

    /// Begins a batch of events, which were read at this time: takes note of what has changed.
    pub fn begin(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.epoch).as_secs();
        let since = u32::try_from(since).unwrap_or(u32::MAX);
        (self.now, self.now_s) = (now, since.saturating_add(LONG_AGO_S));
        self.has_walked = false;
        while let Some(news) = self.processes.next_news() {
            self.apply(news);
        }
    }

    /// The owner of a socket in an event of this batch. Looks it up if it is not known, or if
    /// it may have changed.
    ///
    /// Of several owners, as after a fork, the process with the lowest pid. It is usually
    /// the parent.
    pub fn owner(&mut self, inode: Inode) -> Option<Owner> {
        if let Some(owned) = self.owned.get(&inode) {
            let process = self.processes.get(owned.process);
            let until_s = process.believed_until_s(owned.checked_s, owned.passes);
            if !owned.gone && self.now_s < until_s {
                return process.owner().cloned();
            }
        }
        self.look_up(inode);
        self.name(inode)
    }

    /// How long the owner of a socket may be used that was just named.
    #[must_use]
    pub fn lease(&self, inode: Inode) -> OwnerLease {
        let owned = self.owned.get(&inode).filter(|it| !it.gone);
        let until_s = owned.map_or(0, |it| {
            let process = self.processes.get(it.process);
            process.believed_until_s(it.checked_s, it.passes)
        });
        OwnerLease {
            generation: self.generation,
            until_s,
        }
    }

    /// Whether an owner that was named may still be used, in this batch.
    #[must_use]
    #[inline]
    pub fn holds(&self, lease: OwnerLease) -> bool {
        lease.generation == self.generation && self.now_s < lease.until_s
    }

    /// Number of snapshot sockets whose owners did not fit in the cache.
    #[must_use]
    pub fn dropped_owners(&self) -> u64 {
        self.dropped_owners
    }

    /// Number of processes whose descriptors the last walk could not read. Owners may be
    /// missing because kaprobe lacks CAP_SYS_PTRACE.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// How many walks have failed, and why the last one did. Owners are missing then.
    #[must_use]
    pub fn failed(&self) -> Option<(u64, Errno)> {
        self.failed
    }

    /// How many changes the kernel could not report. All owners were checked again each time.
    #[must_use]
    pub fn lost_news(&self) -> u64 {
        self.lost_news
    }

    /// Takes note of a change that the kernel reports.
    fn apply(&mut self, news: OwnerNews) {
        self.generation = self.generation.wrapping_add(1);
        match news {
            OwnerNews::Ended(pid) => self.processes.note_end(pid, self.now_s),
            OwnerNews::Executed(pid) => self.processes.doubt(pid),
            OwnerNews::Forked(pid) => self.processes.note_fork(pid, self.now_s),
            OwnerNews::Renamed(pid) => self.processes.note_name(pid, self.now_s),
            OwnerNews::Received(inode) => self.note_received(inode),
            OwnerNews::Lost(count) => {
                self.lost_news += count;
                self.processes.doubt_all();
                self.ownerless.clear();
            }
        }
    }

    /// Notes that a process received a descriptor of a socket. Who owned it before may close
    /// it, and is checked before it is named again.
    fn note_received(&mut self, inode: u64) {
        let Some(inode) = socket_inode(Some(inode)) else {
            return;
        };
        self.ownerless.remove(&inode);
        if let Some(owned) = self.owned.get_mut(&inode) {
            owned.sharing |= sharing::NOW;
            owned.checked_s = 0;
            self.processes
                .get_mut(owned.process)
                .note_change(self.now_s);
        }
    }

    /// Remembers the owner in a row of the snapshot. An owner already known is newer.
    fn remember(&mut self, row: &Row) {
        let owners = row.owners.iter().flat_map(|owners| &owners.0);
        let inode = socket_inode(row.identity.inode);
        let (Some(inode), Some(first)) = (inode, owners.clone().next()) else {
            return;
        };
        let shared = owners.clone().any(|it| it.pid != first.pid);
        let is_known = self.owned.contains_key(&inode);
        if !is_known && self.owned.len() >= self.capacity {
            self.dropped_owners += 1;
            return;
        }
        let process = self.processes.slot_of(first.pid, self.now_s);
        let owner = || {
            let mut owner = row.process.clone();
            owner.pid = Some(first.pid);
            owner.comm = Some(first.comm.clone());
            owner
        };
        self.processes.introduce(process, owner, self.now_s);
        if !shared && let Some(owner) = self.processes.get(process).owner() {
            self.holders.note(row, owner);
        }
        if !is_known {
            let owned = Owned {
                process,
                fd: first.fd,
                checked_s: self.now_s,
                passes: 0,
                walk: self.walks,
                sharing: if shared { sharing::NOW } else { 0 },
                gone: false,
            };
            self.owned.insert(inode, owned);
        }
    }

    /// Names the owner of a socket that was looked up.
    fn name(&mut self, inode: Inode) -> Option<Owner> {
        let owned = *self.owned.get(&inode)?;
        let process = self.processes.get(owned.process);
        let gone_s = match process.life {
            _ if owned.gone => owned.checked_s,
            Life::Ended(ended_s) => ended_s,
            // It could not be checked in this batch.
            Life::Doubted => return None,
            Life::Running => {
                let proc = self.descriptors.proc();
                return self.processes.name(owned.process, proc, self.now_s);
            }
        };
        let is_recent = self.now_s.saturating_sub(gone_s) <= LINGER_S;
        // Its name is not read again: another process may have the pid by now.
        let last = || process.owner().cloned();
        (is_recent && owned.is_sole(process)).then(last).flatten()
    }

    /// What must be done before the owner of a socket is named.
    fn due(&self, inode: Inode) -> Due {
        let Some(owned) = self.owned.get(&inode).filter(|it| !it.gone) else {
            let retry = self.ownerless.get(&inode);
            return match retry.is_none_or(|retry| retry.at <= self.now) {
                true => Due::Search,
                false => Due::Nothing,
            };
        };
        let process = self.processes.get(owned.process);
        let is_due = match process.life {
            // Its last events follow. No other process has the socket.
            Life::Ended(ended_s) if owned.is_sole(process) => {
                self.now_s.saturating_sub(ended_s) > LINGER_S
            }
            Life::Running => self.now_s >= process.due_s(owned.checked_s, owned.passes),
            Life::Ended(_) | Life::Doubted => true,
        };
        if is_due { Due::Check } else { Due::Nothing }
    }

    /// Checks or finds the owner of a socket, if that is due.
    fn look_up(&mut self, inode: Inode) {
        let due = self.due(inode);
        if due == Due::Nothing {
            return;
        }
        let is_old = self.now_s.saturating_sub(self.walked_s) >= RECHECK_S;
        if self.repeats > 0 && is_old && self.may_walk_for_all() {
            self.repeats -= 1;
            self.walk(inode);
        } else {
            let is_owned = due == Due::Check && self.is_still_owned(inode);
            // If single checks have cost more than a walk, a walk checks all sockets.
            let is_cheaper = self.single_checks > self.walked && self.may_walk_for_all();
            if is_cheaper {
                self.repeats = REPEATS;
            }
            if is_cheaper || (!is_owned && self.may_walk()) {
                self.walk(inode);
            }
        }
        if self.is_owned(inode)
            || self
                .ownerless
                .get(&inode)
                .is_some_and(|it| it.at > self.now)
        {
            return;
        }
        if self.has_walked && self.is_complete {
            self.note_missing(inode);
        } else if self.wanted.len() < self.capacity {
            self.wanted.insert(inode);
        }
    }

    /// Whether a socket has an owner, as far as is known.
    fn is_owned(&self, inode: Inode) -> bool {
        self.owned.get(&inode).is_some_and(|it| !it.gone)
    }

    /// Checks whether a socket's known owner still owns it. If not, marks it as gone.
    fn is_still_owned(&mut self, inode: Inode) -> bool {
        let Some(owned) = self.owned.get_mut(&inode).filter(|it| !it.gone) else {
            return false;
        };
        let process = self.processes.get_mut(owned.process);
        if let Life::Ended(ended_s) = process.life {
            (owned.gone, owned.checked_s) = (true, ended_s);
            return false;
        }
        let (pid, fd) = (process.pid, owned.fd);
        let began = Instant::now();
        owned.gone = !descriptors::is_open(self.descriptors.proc(), SocketFd { pid, fd, inode });
        self.single_checks += began.elapsed();
        if owned.gone {
            owned.checked_s = self.now_s;
            process.note_change(self.now_s);
        } else {
            owned.note_check(process, self.now_s);
        }
        if !owned.gone && process.life == Life::Doubted {
            // The process that has the pid now has the socket.
            owned.process = self.processes.slot_of(pid, self.now_s);
        }
        !owned.gone
    }

    /// Whether a walk may begin at once, and all known sockets fit in the cache.
    fn may_walk_for_all(&self) -> bool {
        let is_over = self.next_walk.is_none_or(|at| at <= self.now);
        self.owned.len() <= self.capacity && is_over && !self.has_walked
    }

    /// Waits for the end of the pause, if it is short. Returns whether a walk may begin.
    fn may_walk(&self) -> bool {
        let pause = self
            .next_walk
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(self.now));
        if pause > PATIENCE || self.has_walked {
            return false;
        }
        thread::sleep(pause);
        true
    }

    /// Walks through all descriptors. Remembers the owners of this socket, of the others that
    /// are wanted, and of as many more as fit.
    fn walk(&mut self, inode: Inode) {
        let began = Instant::now();
        self.wanted.insert(inode);
        if self.owned.len() > self.capacity {
            // Make room for others.
            self.owned.clear();
        }
        self.walks = self.walks.wrapping_add(1);
        let mut walk = Walk {
            owned: &mut self.owned,
            processes: &mut self.processes,
            capacity: self.capacity,
            wanted: &self.wanted,
            number: self.walks,
            now_s: self.now_s,
            seen: Vec::new(),
            current: None,
            is_complete: true,
        };
        let walked = self.descriptors.walk(|fd| walk.see(fd));
        let Walk {
            seen, is_complete, ..
        } = walk;
        match walked {
            Ok(unreadable) => {
                self.unreadable = unreadable;
                self.forget_unseen();
            }
            // No owner is found then, as if /proc hid everything.
            Err(why) => {
                let failures = self.failed.map_or(0, |(count, _)| count);
                self.failed = Some((failures + 1, why));
            }
        }
        // Reads the names now, because the processes may end.
        for &slot in &seen {
            let proc = self.descriptors.proc();
            self.processes.read_if_old(slot, proc, self.now_s);
        }
        self.generation = self.generation.wrapping_add(1);
        self.ownerless
            .retain(|_, retry| self.now < retry.at + LAST_RETRY);
        for inode in mem::take(&mut self.wanted) {
            if !self.is_owned(inode) {
                self.note_missing(inode);
            }
        }
        (self.has_walked, self.is_complete) = (true, is_complete);
        (self.walked, self.single_checks) = (began.elapsed(), Duration::ZERO);
        self.walked_s = self.now_s;
        self.next_walk = Some(self.now + self.walked * (1 + PAUSE));
    }

    /// Marks owners that the last walk did not see as gone. Forgets owners that have been
    /// gone for longer than `LINGER_S`, and the processes that own nothing else.
    fn forget_unseen(&mut self) {
        let (last, now_s, processes) = (self.walks, self.now_s, &mut self.processes);
        processes.suppose_unused();
        self.owned.retain(|_, owned| {
            let process = processes.get_mut(owned.process);
            if owned.walk != last && !owned.gone {
                owned.gone = true;
                owned.checked_s = match process.life {
                    Life::Ended(ended_s) => ended_s,
                    Life::Running | Life::Doubted => now_s,
                };
            } else if !owned.gone && owned.sharing == sharing::NOW {
                // It has got another owner.
                process.note_change(now_s);
            }
            let is_kept = !owned.gone || now_s.saturating_sub(owned.checked_s) <= LINGER_S;
            process.is_kept |= is_kept;
            is_kept
        });
        processes.forget_unused();
    }

    /// Remembers a socket without an owner.
    fn note_missing(&mut self, inode: Inode) {
        let known = self.ownerless.get(&inode);
        if known.is_none() && self.ownerless.len() >= self.capacity {
            return;
        }
        let wait = known.map_or(FIRST_RETRY, |retry| retry.then);
        let retry = Retry {
            at: self.now + wait,
            then: LAST_RETRY.min(wait * 4),
        };
        self.ownerless.insert(inode, retry);
    }
}

/// A walk through all descriptors.
struct Walk<'a> {
    owned: &'a mut HashMap<Inode, Owned>,
    processes: &'a mut Processes,
    capacity: usize,
    /// The sockets that have room in any case.
    wanted: &'a HashSet<Inode>,
    number: u8,
    now_s: u32,
    /// The processes that own sockets.
    seen: Vec<Slot>,
    /// The process whose descriptors are seen now, by pid.
    current: Option<(u32, Slot)>,
    /// No socket was left out for lack of room.
    is_complete: bool,
}

impl Walk<'_> {
    /// Remembers the owner of a socket. Descriptors are seen in ascending order of pid, so the
    /// first owner is that with the lowest.
    fn see(&mut self, SocketFd { pid, fd, inode }: SocketFd) {
        let process = self.process(pid);
        let found = Owned {
            process,
            fd,
            checked_s: self.now_s,
            passes: 0,
            walk: self.number,
            sharing: 0,
            gone: false,
        };
        let is_full = self.owned.len() >= self.capacity;
        match self.owned.get_mut(&inode) {
            Some(known) if known.walk == self.number && !known.gone => {
                if known.process != process {
                    known.sharing |= sharing::NOW;
                }
            }
            Some(known) => {
                let before = self.processes.get_mut(known.process);
                if !known.gone && known.process == process {
                    known.note_check(before, self.now_s);
                } else {
                    if !known.gone && before.pid != pid {
                        before.note_change(self.now_s);
                        self.processes.get_mut(process).note_change(self.now_s);
                    }
                    (known.process, known.passes) = (process, 0);
                    (known.checked_s, known.gone) = (self.now_s, false);
                }
                let was_shared = known.sharing & sharing::NOW != 0;
                known.sharing = if was_shared { sharing::BEFORE } else { 0 };
                (known.fd, known.walk) = (fd, self.number);
            }
            None if !is_full || self.wanted.contains(&inode) => {
                self.owned.insert(inode, found);
            }
            None => self.is_complete = false,
        }
    }

    /// The place of the process whose descriptors are seen now.
    fn process(&mut self, pid: u32) -> Slot {
        if let Some((_, slot)) = self.current.filter(|(current, _)| *current == pid) {
            return slot;
        }
        let slot = self.processes.slot_of(pid, self.now_s);
        self.processes.get_mut(slot).has_forked = false;
        self.current = Some((pid, slot));
        self.seen.push(slot);
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::{Child, Command, Stdio, id};

    use anyhow::{Context as _, Result, bail};

    use super::*;
    use crate::host::proc::open_proc;
    use crate::model::event::SocketEvent;
    use crate::model::owner_fds::{OwnerFd, OwnerFds};
    use crate::model::socket::Identity;
    use crate::sample::{self, with};
    use crate::text::escape::Escaped;

    /// A process that owns a socket. Ends with the test.
    struct OwnerProcess(Child);

    impl OwnerProcess {
        /// Starts the process and waits for its exec, as `Command::spawn` does. Drops the
        /// command, which keeps the socket open.
        fn spawn(mut command: Command, socket: impl Into<OwnedFd>) -> Result<Self> {
            Ok(Self(command.stdout(Stdio::from(socket.into())).spawn()?))
        }

        fn sleep(socket: impl Into<OwnedFd>) -> Result<Self> {
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            Self::spawn(sleep, socket)
        }

        fn end(&mut self) -> Result<()> {
            self.0.kill()?;
            self.0.wait()?;
            Ok(())
        }

        /// The expected owner, which is in the cgroup of this process.
        fn is(&self, comm: &[u8]) -> Option<Owner> {
            let names = &mut ContainerNames::none();
            let mut own = process::read(open_proc().ok()?.as_fd(), id(), names).ok()?;
            own.pid = Some(self.0.id());
            own.comm = Some(Escaped::from_bytes(comm));
            Some(own.into())
        }
    }

    impl Drop for OwnerProcess {
        fn drop(&mut self) {
            // The process may have ended already.
            let _ = self.end();
        }
    }

    fn socket() -> Result<(TcpListener, Inode)> {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let inode = Inode::try_from(rustix::fs::fstat(&socket)?.st_ino)?;
        Ok((socket, inode))
    }

    /// The shortest time after which an owner is checked again.
    const RECHECK: Duration = Duration::from_secs(RECHECK_S as u64);

    fn cache(capacity: usize) -> io::Result<OwnerCache> {
        OwnerCache::new(capacity, None, None, ContainerNames::none())
    }

    /// The owner in a batch of its own.
    fn find(owners: &mut OwnerCache, inode: Inode, now: Instant) -> Option<Owner> {
        owners.begin(now);
        owners.owner(inode)
    }

    /// The owners in one batch, by pid.
    fn find_all(
        owners: &mut OwnerCache,
        inodes: impl IntoIterator<Item = Inode>,
        now: Instant,
    ) -> Vec<Option<u32>> {
        owners.begin(now);
        let owners = inodes.into_iter().map(|inode| owners.owner(inode));
        owners.map(|owner| owner?.pid).collect()
    }

    #[test]
    fn own_sockets_of_any_age_are_found_in_one_walk() -> Result<()> {
        let (_old, first) = socket()?;
        let (_older, second) = socket()?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        assert_eq!(find_all(&mut owners, [first, second], now), [Some(id()); 2]);
        assert_eq!(owners.walks, 1);
        Ok(())
    }

    #[test]
    fn the_owner_with_the_lowest_pid_is_named_then_the_next() -> Result<()> {
        let (socket, inode) = socket()?;
        let children = [
            OwnerProcess::sleep(socket.try_clone()?)?,
            OwnerProcess::sleep(socket.try_clone()?)?,
        ];
        let lowest = children.iter().min_by_key(|child| child.0.id());
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        let pid = find(&mut owners, inode, now).and_then(|owner| owner.pid);
        assert_eq!(
            pid,
            children
                .iter()
                .map(|child| child.0.id())
                .chain([id()])
                .min()
        );

        drop(socket);
        let now = now + RECHECK;
        // No pause, however long the walk took.
        owners.next_walk = None;
        assert_eq!(
            find(&mut owners, inode, now),
            lowest.and_then(|child| child.is(b"sleep"))
        );
        Ok(())
    }

    #[test]
    fn checking_one_by_one_costs_at_most_a_walk() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        let me = Some(id());
        let pid = |owner: Option<Owner>| owner.and_then(|owner| owner.pid);
        assert_eq!(pid(find(&mut owners, inode, now)), me);
        let (costly, cheap) = (Duration::MAX, Duration::ZERO);
        // The walk is repeated three times; then its cost counts again.
        let later = [
            (costly, 1),
            (cheap, 2),
            (costly, 3),
            (costly, 4),
            (costly, 5),
        ];
        for (after, (walked, walks)) in (1..).zip(later.into_iter().chain([(costly, 5); 2])) {
            (owners.walked, owners.next_walk) = (walked, None);
            let now = now + RECHECK * after;
            assert_eq!(pid(find(&mut owners, inode, now)), me);
            assert_eq!(owners.walks, walks, "after {after}");
        }
        Ok(())
    }

    #[test]
    fn a_walk_that_is_due_finds_new_sockets_too() -> Result<()> {
        let (_known, known) = socket()?;
        let mut owners = cache(CAPACITY)?;
        let mut now = Instant::now();
        find(&mut owners, known, now);
        let (_new, new) = socket()?;
        now += RECHECK;
        (owners.repeats, owners.next_walk) = (REPEATS, None);
        let pids = find_all(&mut owners, [known, new, Inode::MAX], now);
        assert_eq!(pids, [Some(id()), Some(id()), None]);
        assert_eq!((owners.walks, owners.repeats), (2, REPEATS - 1));
        assert_eq!(owners.due(Inode::MAX), Due::Nothing);
        Ok(())
    }

    #[test]
    fn an_ended_owner_is_named_for_its_last_events() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = OwnerProcess::sleep(socket)?;
        let mut owners = cache(CAPACITY)?;
        let mut now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), child.is(b"sleep"));
        child.end()?;
        // Even after a long time without events.
        now += RECHECK * 20;
        // A child that another test has just forked may own the socket until its exec.
        let last = find(&mut owners, inode, now);
        assert!(last.is_some(), "its last owner is not named");
        now += RECHECK;
        // A child that another test has just forked owns every socket until its exec.
        while let Some(owner) = find(&mut owners, inode, now) {
            assert_ne!(owner.pid, Some(child.0.id()));
            now += RECHECK;
        }
        Ok(())
    }

    #[test]
    fn an_ended_owner_is_named_if_its_socket_was_seen_recently() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = OwnerProcess::sleep(socket)?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), child.is(b"sleep"));
        // A walk for another socket sees this one too. Names are read less often.
        owners.next_walk = None;
        assert_eq!(find(&mut owners, Inode::MAX, now + RECHECK / 2), None);
        child.end()?;
        assert!(find(&mut owners, inode, now + RECHECK).is_some());
        Ok(())
    }

    /// An event of a socket with this inode number.
    fn of(inode: Inode) -> Event {
        sample::of(with(sample::probe(0, 0, 1), |it| {
            it.identity.inode = Some(inode.into());
            it.owner = Owner::default();
        }))
    }

    /// A row of a snapshot that names a socket's owners.
    fn row(inode: Inode, owners: &[(u32, &str)]) -> Event {
        let owners = owners.iter().map(|&(pid, comm)| OwnerFd {
            pid,
            comm: comm.into(),
            fd: 3,
        });
        Event::Snapshot(Box::new(Row {
            owners: Some(OwnerFds(owners.collect())),
            ..sample::row(0, inode.into())
        }))
    }

    /// The owner of each event, by pid.
    fn owned(owners: &mut OwnerCache, mut events: Vec<Event>, now: Instant) -> Vec<Option<u32>> {
        owners.begin(now);
        events.iter_mut().for_each(|event| owners.fill(event, None));
        let owners = events.iter().filter_map(|event| match event {
            Event::Socket(event) => Some(event.owner.pid),
            _ => None,
        });
        owners.collect()
    }

    /// The owner of an event on a socket that no process holds, seen in a snapshot before.
    fn orphan_of(snapshot: Event, change: impl FnOnce(&mut SocketEvent)) -> Result<Option<u32>> {
        let Event::Snapshot(row) = &snapshot else {
            bail!("no row");
        };
        let orphan = sample::of(with(sample::probe(0, 0, 1), |it| {
            it.endpoints = row.endpoints;
            it.identity = Identity {
                inode: None,
                ..row.identity
            };
            change(it);
        }));
        let mut owners = cache(CAPACITY)?;
        let found = owned(&mut owners, vec![snapshot, orphan], Instant::now());
        Ok(found.into_iter().flatten().next())
    }

    #[test]
    fn an_orphan_is_named_by_the_process_that_held_it_in_the_snapshot() -> Result<()> {
        let held = || row(Inode::MAX, &[(u32::MAX, "a"), (u32::MAX, "a")]);
        let shared = row(Inode::MAX, &[(u32::MAX, "a"), (u32::MAX - 1, "b")]);
        assert_eq!(orphan_of(held(), |_| ())?, Some(u32::MAX));
        assert_eq!(orphan_of(shared, |_| ())?, None);
        // Another connection had the same addresses since.
        let other_user = orphan_of(held(), |it| it.identity.uid = Some(4_711))?;
        let other_port = orphan_of(held(), |it| it.endpoints.lport += 1)?;
        let other_netns = orphan_of(held(), |it| it.endpoints.netns += 1)?;
        assert_eq!([other_user, other_port, other_netns], [None; 3]);
        Ok(())
    }

    #[test]
    fn owners_from_a_snapshot_are_named_after_they_have_ended() -> Result<()> {
        // No process has this pid.
        let ended = u32::MAX;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        let snapshot = vec![
            row(Inode::MAX, &[(ended, "a"), (ended, "a")]),
            row(Inode::MAX - 1, &[(ended, "a"), (ended - 1, "b")]),
            row(Inode::MAX - 2, &[]),
        ];
        assert_eq!(owned(&mut owners, snapshot, now), []);
        let events = || (0..3).map(|n| of(Inode::MAX - n)).collect();
        let later = now + RECHECK;
        // Of two owners, the last one is unknown.
        let last = [Some(ended), None, None];
        assert_eq!(owned(&mut owners, events(), later), last);
        let later = later + Duration::from_secs(u64::from(LINGER_S) + 1);
        assert_eq!(owned(&mut owners, events(), later), [None; 3]);
        Ok(())
    }

    #[test]
    fn an_owner_from_a_walk_overrides_a_snapshot() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        assert_eq!(owned(&mut owners, vec![of(inode)], now), [Some(id())]);
        let events = vec![row(inode, &[(1, "init")]), of(inode)];
        assert_eq!(owned(&mut owners, events, now), [Some(id())]);
        Ok(())
    }

    #[test]
    fn a_name_is_read_byte_for_byte_and_again_after_exec() -> Result<()> {
        let odd = b"a\n\x1b[1m\xff\"\\ \n";
        let directory = tempfile::tempdir()?;
        let program = directory.path().join(OsStr::from_bytes(odd));
        std::fs::copy("/bin/sleep", &program)?;
        let (socket, inode) = socket()?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"read go; exec "$0" 60"#])
            .arg(&program)
            .stdin(Stdio::piped());
        let mut child = OwnerProcess::spawn(shell, socket)?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), child.is(b"sh"));

        child
            .0
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(b"\n"))
            .transpose()?;
        let name = format!("/proc/{}/comm", child.0.id());
        while std::fs::read(&name)? == b"sh\n" {
            thread::yield_now();
        }
        assert_eq!(
            find(&mut owners, inode, now),
            child.is(b"sh"),
            "not read again yet"
        );
        assert_eq!(find(&mut owners, inode, now + RECHECK), child.is(odd));
        Ok(())
    }

    /// A cache that knows the only owner of a socket, as if the kernel reported its changes, and
    /// the time at which its seconds begin.
    fn knowing(inode: Inode, owner: &OwnerProcess) -> Result<(OwnerCache, Instant)> {
        loop {
            let mut owners = cache(CAPACITY)?;
            let now = owners.epoch;
            let pid = find(&mut owners, inode, now).and_then(|it| it.pid);
            assert_eq!(pid, Some(owner.0.id()));
            let owned = owners.owned[&inode];
            owners.processes.get_mut(owned.process).is_watched = true;
            // A child that another test has just forked owns every socket until its exec.
            if owned.sharing & sharing::NOW == 0 {
                return Ok((owners, now));
            }
        }
    }

    #[test]
    fn an_owner_is_checked_less_often_while_nothing_changes() -> Result<()> {
        let (socket, inode) = socket()?;
        let child = OwnerProcess::sleep(socket)?;
        let (mut owners, mut now) = knowing(inode, &child)?;
        let mut next = |owners: &mut OwnerCache| {
            let mut waited = 0;
            while owners.due(inode) == Due::Nothing {
                (now, waited) = (now + Duration::from_secs(1), waited + 1);
                // Single checks are cheaper.
                owners.walked = Duration::MAX;
                owners.begin(now);
            }
            assert_eq!(
                owners.owner(inode).and_then(|it| it.pid),
                Some(child.0.id())
            );
            waited
        };
        let waits: Vec<_> = (0..6).map(|_| next(&mut owners)).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        owners.apply(OwnerNews::Forked(child.0.id()));
        let waits: Vec<_> = (0..3).map(|_| next(&mut owners)).collect();
        assert_eq!(waits, [5, 10, 20]);
        owners.apply(OwnerNews::Received(inode.into()));
        let waits: Vec<_> = (0..3).map(|_| next(&mut owners)).collect();
        assert_eq!(waits, [0, 5, 10]);
        Ok(())
    }

    #[test]
    fn a_reported_exec_or_name_is_read_at_once() -> Result<()> {
        for news in [OwnerNews::Executed, OwnerNews::Renamed] {
            let (socket, inode) = socket()?;
            let mut shell = Command::new("sh");
            shell
                .args(["-c", "read go; exec sleep 60"])
                .stdin(Stdio::piped());
            let mut child = OwnerProcess::spawn(shell, socket)?;
            let (mut owners, _) = knowing(inode, &child)?;
            assert_eq!(owners.owner(inode), child.is(b"sh"));
            let mut stdin = child.0.stdin.take().context("no stdin")?;
            stdin.write_all(b"\n")?;
            let name = format!("/proc/{}/comm", child.0.id());
            while std::fs::read(&name)? == b"sh\n" {
                thread::yield_now();
            }
            assert_eq!(owners.owner(inode), child.is(b"sh"), "not reported yet");
            owners.apply(news(child.0.id()));
            assert_eq!(owners.owner(inode), child.is(b"sleep"));
        }
        Ok(())
    }

    #[test]
    fn a_reported_end_leaves_the_socket_to_its_other_owner() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut first = OwnerProcess::sleep(socket.try_clone()?)?;
        let mut second = OwnerProcess::sleep(socket)?;
        if second.0.id() < first.0.id() {
            std::mem::swap(&mut first, &mut second);
        }
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), first.is(b"sleep"));
        let pid = first.0.id();
        first.end()?;
        owners.apply(OwnerNews::Ended(pid));
        // No pause, however long the walk took.
        owners.next_walk = None;
        assert_eq!(find(&mut owners, inode, now), second.is(b"sleep"));
        Ok(())
    }

    #[test]
    fn a_reported_end_of_the_only_owner_takes_no_walk() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = OwnerProcess::sleep(socket)?;
        let (mut owners, now) = knowing(inode, &child)?;
        let (walks, expected) = (owners.walks, child.is(b"sleep"));
        child.end()?;
        owners.apply(OwnerNews::Ended(child.0.id()));
        for seconds in 0..=LINGER_S {
            let now = now + Duration::from_secs(seconds.into());
            assert_eq!(find(&mut owners, inode, now), expected);
        }
        assert_eq!(owners.walks, walks);
        let later = now + Duration::from_secs(u64::from(LINGER_S) + 1);
        assert_eq!(find(&mut owners, inode, later), None);
        assert_eq!(owners.walks, walks + 1);
        Ok(())
    }

    #[test]
    fn a_process_that_has_forked_is_not_the_last_owner() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = OwnerProcess::sleep(socket)?;
        let (mut owners, now) = knowing(inode, &child)?;
        owners.apply(OwnerNews::Forked(child.0.id()));
        child.end()?;
        owners.apply(OwnerNews::Ended(child.0.id()));
        assert_eq!(find(&mut owners, inode, now), None);
        Ok(())
    }

    #[test]
    fn a_change_that_is_not_reported_is_looked_for() -> Result<()> {
        for news in [
            |inode: Inode| OwnerNews::Received(inode.into()),
            |_| OwnerNews::Lost(1),
        ] {
            let (socket, inode) = socket()?;
            let mut first = OwnerProcess::sleep(socket.try_clone()?)?;
            let now = Instant::now();
            let second = OwnerProcess::sleep(socket)?;
            let mut owners = cache(CAPACITY)?;
            let lowest = [first.0.id(), second.0.id()].into_iter().min();
            assert_eq!(find(&mut owners, inode, now).and_then(|it| it.pid), lowest);
            if lowest == Some(second.0.id()) {
                continue;
            }
            first.end()?;
            owners.next_walk = None;
            // Nothing was told, and it is too early for a check.
            assert_eq!(find(&mut owners, inode, now).and_then(|it| it.pid), lowest);
            owners.apply(news(inode));
            assert_eq!(find(&mut owners, inode, now), second.is(b"sleep"));
        }
        Ok(())
    }

    #[test]
    fn lookups_of_a_socket_without_owner_become_rarer() -> Result<()> {
        let inode = Inode::MAX;
        let mut owners = cache(CAPACITY)?;
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            // No pause, however long the walk took.
            owners.next_walk = None;
            assert_eq!(find(&mut owners, inode, now), None);
            let retry = owners.ownerless.get(&inode).map_or(now, |retry| retry.at);
            owners.begin(retry - Duration::from_nanos(1));
            assert_eq!(owners.due(inode), Due::Nothing);
            waits.push((retry - now).as_millis());
            now = retry;
        }
        assert_eq!(waits, [250, 1_000, 4_000, 16_000, 60_000, 60_000]);
        Ok(())
    }

    #[test]
    fn the_cache_is_bounded() -> Result<()> {
        let sockets = (0..20).map(|_| socket()).collect::<Result<Vec<_>>>()?;
        let mut owners = cache(4)?;
        let now = Instant::now();
        for (_, inode) in &sockets {
            let now = owners.next_walk.unwrap_or(now);
            let owner = find(&mut owners, *inode, now);
            assert_eq!(owner.and_then(|owner| owner.pid), Some(id()));
            assert!(owners.owned.len() <= 4 + 1);
        }
        let gone = || (0..20).map(|n| Inode::MAX - n);
        // A batch has one walk; the next one looks for the others.
        for missing in [1, 4] {
            // No pause, however long the walk took.
            owners.next_walk = None;
            find_all(&mut owners, gone(), now + LAST_RETRY);
            let counts = (owners.ownerless.len(), owners.wanted.len());
            assert_eq!(counts, (missing, 4));
        }
        let before = (owners.owned.len(), owners.dropped_owners());
        owners.begin(now);
        owners.fill(&mut row(1, &[(1, "init")]), None);
        assert_eq!(
            (owners.owned.len(), owners.dropped_owners()),
            (before.0, before.1 + 1)
        );
        Ok(())
    }

    #[test]
    fn no_walk_begins_during_a_long_pause() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = cache(CAPACITY)?;
        let now = Instant::now();
        let next = now + PATIENCE + Duration::from_millis(1);
        owners.next_walk = Some(next);
        assert_eq!(find(&mut owners, inode, now), None);
        assert_eq!(
            find(&mut owners, inode, next).and_then(|owner| owner.pid),
            Some(id())
        );
        Ok(())
    }
}
