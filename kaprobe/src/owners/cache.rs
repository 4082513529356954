//! Caches the process that owns each socket, by the socket's inode number.
//!
//! A softirq knows the socket but not the process. So kaprobe walks through the
//! descriptors of all processes and remembers the owners. A remembered owner can become
//! wrong in three ways:
//! - The descriptor is closed or passed on, or the process ends. After `RECHECK` an owner
//!   is checked again, by one readlink or, if that is cheaper, by another walk.
//! - The process changes its name, by exec or prctl. The name is read again as often.
//! - Another socket gets the inode number. The next check then finds the owner of the
//!   *new* socket. This takes four billion new files, because the numbers come from a
//!   32-bit counter (`get_next_ino`, fs/inode.c).
//!
//! An event with an inode number happened while some process owned the socket. If no
//! process owns it when the event is read, its last owner is still named, if it was the
//! only one: a process that ends closes its sockets, and resets those with unread data.

use std::time::{Duration, Instant};
use std::{io, thread};

use hashbrown::{HashMap, HashSet};
use rustix::io::Errno;

use crate::containers::names::ContainerNames;
use crate::kernel::DescriptorIterator;
use crate::model::event::Event;
use crate::model::owner::Owner;
use crate::model::row::Row;
use crate::owners::descriptors::{self, Descriptors, SocketFd};
use crate::owners::held::Holders;
use crate::owners::process;

/// An owner is checked again after this time. If a hundred thousand sockets fire within
/// it, checking them by the iterator costs a fiftieth of one CPU.
const RECHECK: Duration = Duration::from_secs(5);

/// The last owner of a socket is still named for this time after it was found gone.
/// Longer than an event waits to be read.
const LINGER: Duration = Duration::from_secs(2);

/// Most sockets that are remembered: this many with an owner, and as many without. A
/// socket takes about 30 bytes.
const CAPACITY: usize = 1 << 18;

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

/// Inode number of a socket, from a 32-bit counter (`sock_alloc`, net/socket.c). Other
/// file systems have wider numbers.
type Inode = u32;

/// Remembers the owner of each socket.
///
/// The first lookup costs a walk, which finds the owners of all other sockets too. On a
/// virtual machine with two cores a walk took 5 µs per descriptor through /proc, and half
/// a microsecond by the iterator. Checking one socket again took 5 µs.
#[derive(Debug)]
pub struct OwnerCache {
    descriptors: Descriptors,
    names: ContainerNames,
    capacity: usize,
    /// The times in seconds count from here.
    epoch: Instant,
    /// Number of walks so far; wraps.
    walks: u8,
    owned: HashMap<Inode, Owned>,
    ownerless: HashMap<Inode, Retry>,
    processes: HashMap<u32, Process>,
    holders: Holders,
    next_walk: Option<Instant>,
    /// Duration of the last walk.
    walked: Duration,
    /// Time of the last walk, s since [`OwnerCache::epoch`].
    walked_s: u32,
    /// Number of next checks that are walks.
    repeats: u8,
    /// Time spent on checking sockets one by one since the last walk.
    single_checks: Duration,
    unreadable: usize,
    /// Why the last walk failed, and how many have.
    failed: Option<(u64, Errno)>,
    dropped_owners: u64,
}

/// A socket with an owner. There are many, so this is small.
#[derive(Clone, Copy, Debug)]
struct Owned {
    pid: u32,
    fd: u32,
    /// When the owner was last seen, or was found gone, s since [`OwnerCache::epoch`].
    checked_s: u32,
    /// The last walk that saw the owner.
    walk: u8,
    /// Another process also owned the socket.
    shared: bool,
    /// The owner is gone.
    gone: bool,
}

/// When to look again for the owner of a socket without one.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    /// How long to wait if that lookup fails too.
    then: Duration,
}

#[derive(Debug)]
struct Process {
    owner: Owner,
    checked: Instant,
}

/// The inode of the socket that an event is about.
fn inode_of(event: &Event) -> Option<Inode> {
    let inode = match event {
        Event::Socket(socket) => socket.identity.inode,
        Event::PassiveReset(reset) => reset.inode,
        _ => None,
    };
    Inode::try_from(inode?).ok()
}

impl OwnerCache {
    /// Makes an empty cache.
    ///
    /// # Errors
    /// If /proc can't be opened.
    pub fn new(iterator: Option<DescriptorIterator>, names: ContainerNames) -> io::Result<Self> {
        let descriptors = Descriptors::open(iterator)?;
        Ok(Self::with_capacity(CAPACITY, descriptors, names))
    }

    fn with_capacity(capacity: usize, descriptors: Descriptors, names: ContainerNames) -> Self {
        Self {
            descriptors,
            names,
            capacity,
            epoch: Instant::now(),
            walks: 0,
            owned: HashMap::new(),
            ownerless: HashMap::new(),
            processes: HashMap::new(),
            holders: Holders::new(capacity),
            next_walk: None,
            walked: Duration::ZERO,
            walked_s: 0,
            repeats: 0,
            single_checks: Duration::ZERO,
            unreadable: 0,
            failed: None,
            dropped_owners: 0,
        }
    }

    /// Fills in the known owners of the events' sockets. Looks them up together.
    pub fn fill(&mut self, events: &mut [Event], now: Instant) {
        for event in &*events {
            if let Event::Snapshot(row) = event {
                self.remember(row, now);
            }
        }
        self.find(events.iter().filter_map(inode_of), now);
        for event in events {
            let owner = inode_of(event).and_then(|inode| self.owner(inode, now));
            match event {
                Event::Socket(socket) => {
                    let owner = owner.or_else(|| self.holders.last_of(socket));
                    socket.owner = owner.unwrap_or_default();
                }
                Event::PassiveReset(reset) => {
                    let pid = owner.as_ref().and_then(|it| it.pid);
                    let age = pid.and_then(|pid| process::age_s(self.descriptors.proc(), pid));
                    reset.process_age_s = age;
                    reset.owner = owner.unwrap_or_default();
                }
                _ => {}
            }
        }
    }

    /// Updates the owners of these sockets, with at most one walk.
    fn find(&mut self, inodes: impl IntoIterator<Item = Inode>, now: Instant) {
        let wanted = inodes.into_iter().filter(|&inode| self.is_due(inode, now));
        let mut wanted: HashSet<Inode> = wanted.collect();
        let is_old = self.since(self.walked_s, now) >= RECHECK;
        if self.repeats > 0 && is_old && self.may_walk_for_all(now) {
            self.repeats -= 1;
            return self.walk(wanted, now);
        }
        wanted.retain(|&inode| !self.is_still_owned(inode, now));
        // If single checks have cost more than a walk, a walk checks all sockets.
        let is_cheaper = self.single_checks > self.walked && self.may_walk_for_all(now);
        if is_cheaper {
            self.repeats = REPEATS;
        }
        if is_cheaper || (!wanted.is_empty() && self.may_walk(now)) {
            self.walk(wanted, now);
        }
    }

    /// Remembers the owner in a row of the snapshot. An owner already known is newer.
    fn remember(&mut self, row: &Row, now: Instant) {
        let owners = row.owners.iter().flat_map(|owners| &owners.0);
        let inode = row
            .identity
            .inode
            .and_then(|inode| Inode::try_from(inode).ok());
        let (Some(inode), Some(first)) = (inode, owners.clone().next()) else {
            return;
        };
        let shared = owners.clone().any(|it| it.pid != first.pid);
        let is_known = self.owned.contains_key(&inode);
        if !is_known && self.owned.len() >= self.capacity {
            self.dropped_owners += 1;
            return;
        }
        let process = self.processes.entry(first.pid).or_insert_with(|| {
            let mut owner = row.process.clone();
            owner.pid = Some(first.pid);
            owner.comm = Some(first.comm.clone());
            let checked = now;
            Process { owner, checked }
        });
        if !shared {
            self.holders.note(row, &process.owner);
        }
        if !is_known {
            let owned = Owned {
                pid: first.pid,
                fd: first.fd,
                checked_s: self.seconds(now),
                walk: self.walks,
                shared,
                gone: false,
            };
            self.owned.insert(inode, owned);
        }
    }

    /// The known owner of a socket: [`Self::find`] looks it up.
    ///
    /// Of several owners, as after a fork, the process with the lowest pid. It is usually
    /// the parent.
    fn owner(&mut self, inode: Inode, now: Instant) -> Option<Owner> {
        let owned = *self.owned.get(&inode)?;
        let pid = owned.pid;
        if !owned.gone {
            return self.process(pid, now);
        }
        if owned.shared || self.since(owned.checked_s, now) > LINGER {
            return None;
        }
        // Its name is not read again: another process may have the pid by now.
        Some(self.processes.get(&pid)?.owner.clone())
    }

    /// Number of snapshot sockets whose owners did not fit in the cache.
    #[must_use]
    pub fn dropped_owners(&self) -> u64 {
        self.dropped_owners
    }

    fn seconds(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.epoch).as_secs();
        u32::try_from(since).unwrap_or(u32::MAX)
    }

    /// Time since `then_s`, in whole seconds.
    fn since(&self, then_s: u32, now: Instant) -> Duration {
        let seconds = self.seconds(now).saturating_sub(then_s);
        Duration::from_secs(seconds.into())
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

    /// Whether a socket's owner must be looked up: it is unknown or its check is too old.
    fn is_due(&self, inode: Inode, now: Instant) -> bool {
        match self.owned.get(&inode).filter(|it| !it.gone) {
            Some(owned) => self.since(owned.checked_s, now) >= RECHECK,
            None => self
                .ownerless
                .get(&inode)
                .is_none_or(|retry| retry.at <= now),
        }
    }

    /// Checks whether a socket's known owner still owns it. If not, marks it as gone.
    fn is_still_owned(&mut self, inode: Inode, now: Instant) -> bool {
        let checked_s = self.seconds(now);
        let Some(owned) = self.owned.get_mut(&inode).filter(|it| !it.gone) else {
            return false;
        };
        let Owned { pid, fd, .. } = *owned;
        let began = Instant::now();
        owned.gone = !descriptors::is_open(self.descriptors.proc(), SocketFd { pid, fd, inode });
        owned.checked_s = checked_s;
        self.single_checks += began.elapsed();
        !owned.gone
    }

    /// Whether a walk may begin at once, and all known sockets fit in the cache.
    fn may_walk_for_all(&self, now: Instant) -> bool {
        self.owned.len() <= self.capacity && self.next_walk.is_none_or(|at| at <= now)
    }

    /// Waits for the end of the pause, if it is short. Returns whether a walk may begin.
    fn may_walk(&self, now: Instant) -> bool {
        let pause = self
            .next_walk
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if pause > PATIENCE {
            return false;
        }
        thread::sleep(pause);
        true
    }

    /// Walks through all descriptors. Remembers the owners of the wanted sockets, and of
    /// as many others as fit.
    fn walk(&mut self, mut wanted: HashSet<Inode>, now: Instant) {
        let began = Instant::now();
        if self.owned.len() > self.capacity {
            // Make room for others.
            self.owned.clear();
        }
        let (walk, checked_s) = (self.walks.wrapping_add(1), self.seconds(now));
        let (owned, capacity) = (&mut self.owned, self.capacity);
        let mut pids = Vec::new();
        let walked = self.descriptors.walk(|SocketFd { pid, fd, inode }| {
            let found = Owned {
                pid,
                fd,
                checked_s,
                walk,
                shared: false,
                gone: false,
            };
            if pids.last() != Some(&pid) {
                pids.push(pid);
            }
            let has_room = wanted.remove(&inode) || owned.len() < capacity;
            match owned.get_mut(&inode) {
                Some(known) if known.walk == walk && !known.gone => {
                    known.shared |= known.pid != pid
                }
                Some(known) => *known = found,
                None if has_room => {
                    owned.insert(inode, found);
                }
                None => {}
            }
        });
        match walked {
            Ok(unreadable) => {
                self.walks = walk;
                self.unreadable = unreadable;
                self.forget_older(checked_s, &pids);
            }
            // No owner is found then, as if /proc hid everything.
            Err(why) => {
                let failures = self.failed.map_or(0, |(count, _)| count);
                self.failed = Some((failures + 1, why));
            }
        }
        // Reads the names now, because the processes may end.
        for &pid in &pids {
            self.process(pid, now);
        }
        self.note_missing(&wanted, now);
        (self.walked, self.single_checks) = (began.elapsed(), Duration::ZERO);
        self.walked_s = checked_s;
        self.next_walk = Some(now + self.walked * (1 + PAUSE));
    }

    /// Marks owners that the last walk did not see as gone. Forgets owners that have been
    /// gone for longer than `LINGER`. Then forgets all processes except `owners`, in
    /// ascending order, and the gone owners that are still remembered.
    fn forget_older(&mut self, now_s: u32, owners: &[u32]) {
        let last = self.walks;
        let mut last_owners = HashSet::new();
        self.owned.retain(|_, owned| {
            if owned.walk != last && !owned.gone {
                owned.gone = true;
                owned.checked_s = now_s;
            }
            let gone_s = u64::from(now_s.saturating_sub(owned.checked_s));
            let is_kept = !owned.gone || gone_s <= LINGER.as_secs();
            if owned.gone && is_kept {
                last_owners.insert(owned.pid);
            }
            is_kept
        });
        self.processes
            .retain(|pid, _| owners.binary_search(pid).is_ok() || last_owners.contains(pid));
    }

    /// Remembers sockets without an owner. Forgets those not looked up for a long time.
    fn note_missing(&mut self, missing: &HashSet<Inode>, now: Instant) {
        self.ownerless
            .retain(|_, retry| now < retry.at + LAST_RETRY);
        for &inode in missing {
            let wait = self
                .ownerless
                .get(&inode)
                .map_or(FIRST_RETRY, |retry| retry.then);
            let retry = Retry {
                at: now + wait,
                then: LAST_RETRY.min(wait * 4),
            };
            if self.ownerless.len() < self.capacity || self.ownerless.contains_key(&inode) {
                self.ownerless.insert(inode, retry);
            }
        }
    }

    /// A process with its current name, or with its last known name if it has ended.
    fn process(&mut self, pid: u32, now: Instant) -> Option<Owner> {
        let known = self.processes.get(&pid);
        if let Some(process) = known.filter(|it| now < it.checked + RECHECK) {
            return Some(process.owner.clone());
        }
        let Ok(read) = process::read(self.descriptors.proc(), pid, &mut self.names) else {
            // The process has ended.
            return known.map(|it| it.owner.clone());
        };
        // Sockets of one process share the names.
        let known = known.filter(|it| *it.owner == read);
        let owner = known.map_or_else(|| Owner::from(read), |it| it.owner.clone());
        let process = Process {
            owner: owner.clone(),
            checked: now,
        };
        self.processes.insert(pid, process);
        Some(owner)
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

    use anyhow::{Result, bail};

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

    fn find(owners: &mut OwnerCache, inode: Inode, now: Instant) -> Option<Owner> {
        owners.find([inode], now);
        owners.owner(inode, now)
    }

    #[test]
    fn own_sockets_of_any_age_are_found_in_one_walk() -> Result<()> {
        let (_old, first) = socket()?;
        let (_older, second) = socket()?;
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
        let now = Instant::now();
        owners.find([first], now);
        let pids =
            [first, second].map(|inode| owners.owner(inode, now).and_then(|owner| owner.pid));
        assert_eq!(pids, [Some(id()); 2]);
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
        let mut now = Instant::now();
        owners.find([known], now);
        let (_new, new) = socket()?;
        now += RECHECK;
        (owners.repeats, owners.next_walk) = (REPEATS, None);
        owners.find([known, new, Inode::MAX], now);
        assert_eq!((owners.walks, owners.repeats), (2, REPEATS - 1));
        let pids = [known, new].map(|inode| owners.owner(inode, now).and_then(|owner| owner.pid));
        assert_eq!(pids, [Some(id()); 2]);
        assert!(!owners.is_due(Inode::MAX, now));
        Ok(())
    }

    #[test]
    fn an_ended_owner_is_named_for_its_last_events() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = OwnerProcess::sleep(socket)?;
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        owners.fill(&mut events, now);
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let later = later + LINGER + Duration::from_secs(1);
        assert_eq!(owned(&mut owners, events(), later), [None; 3]);
        Ok(())
    }

    #[test]
    fn an_owner_from_a_walk_overrides_a_snapshot() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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

    #[test]
    fn lookups_of_a_socket_without_owner_become_rarer() -> Result<()> {
        let inode = Inode::MAX;
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            // No pause, however long the walk took.
            owners.next_walk = None;
            assert_eq!(find(&mut owners, inode, now), None);
            let retry = owners.ownerless.get(&inode).map_or(now, |retry| retry.at);
            assert!(!owners.is_due(inode, retry - Duration::from_nanos(1)));
            waits.push((retry - now).as_millis());
            now = retry;
        }
        assert_eq!(waits, [250, 1_000, 4_000, 16_000, 60_000, 60_000]);
        Ok(())
    }

    #[test]
    fn the_cache_is_bounded() -> Result<()> {
        let sockets = (0..20).map(|_| socket()).collect::<Result<Vec<_>>>()?;
        let mut owners =
            OwnerCache::with_capacity(4, Descriptors::open(None)?, ContainerNames::none());
        let now = Instant::now();
        for (_, inode) in &sockets {
            let now = owners.next_walk.unwrap_or(now);
            let owner = find(&mut owners, *inode, now);
            assert_eq!(owner.and_then(|owner| owner.pid), Some(id()));
            assert!(owners.owned.len() <= 4 + 1);
        }
        let gone = (0..20).map(|n| Inode::MAX - n);
        // No pause, however long the walk took.
        owners.next_walk = None;
        owners.find(gone, now + LAST_RETRY);
        assert_eq!(owners.ownerless.len(), 4);
        let before = (owners.owned.len(), owners.dropped_owners());
        owners.fill(&mut [row(1, &[(1, "init")])], now);
        assert_eq!(
            (owners.owned.len(), owners.dropped_owners()),
            (before.0, before.1 + 1)
        );
        Ok(())
    }

    #[test]
    fn no_walk_begins_during_a_long_pause() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = OwnerCache::new(None, ContainerNames::none())?;
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
