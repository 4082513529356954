//! Which process holds a socket, found by the socket's inode number.
//!
//! A softirq knows the socket and not the process, so the answer comes from a walk
//! through the descriptors of all processes, and is remembered. What is remembered can
//! become wrong in three ways, and each is looked after:
//! - the descriptor is closed or handed on, or the process ends: an answer older
//!   than `RECHECK` is asked for again, by one readlink or, where that is cheaper, by
//!   another walk;
//! - the process changes its name, by exec or prctl: read again as often;
//! - the inode number goes to another socket: the link that is read again names
//!   whoever holds the number *now*. It takes four billion new files for that, since
//!   the numbers come from a 32-bit counter (`get_next_ino`, fs/inode.c).
//!
//! An event that tells the number happened while somebody held the socket. Where nobody
//! does any more when it is read, the only one who did is named: a process that ends
//! takes its sockets with it, and resets those that it had not read.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::kernel::DescriptorIterator;
use crate::model::event::{Event, SocketEvent};
use crate::model::owner::Owner;
use crate::model::row::Row;
use crate::owners::descriptors::{self, Descriptors, SocketFd};

/// For how long an answer is taken as it is. A hundred thousand sockets that all fire
/// within that time then cost a fiftieth of one CPU to ask again, by the iterator.
const RECHECK: Duration = Duration::from_secs(5);

/// For how long after it was missed the last holder of a socket is still named: longer
/// than an event waits to be read.
const PARTING: Duration = Duration::from_secs(2);

/// How many sockets are remembered, of those that somebody holds and of those that
/// nobody does. A socket costs about 30 bytes.
const CAPACITY: usize = 1 << 18;

/// A socket that nobody was found to hold is looked for again after this time, and
/// after four times as long each time that is in vain.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// The longest of these times.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// After a walk there is none for this many times as long as it took: new sockets
/// without end cost at most a quarter of one CPU.
const PAUSE: u32 = 3;

/// How often a walk that has proved cheaper than asking one by one is repeated before that
/// is tried again.
const REPEATS: u8 = 3;

/// A pause with no more than this left is waited for, rather than leave the owner
/// unknown. Only hosts with some thousand descriptors have longer ones.
const PATIENCE: Duration = Duration::from_millis(50);

/// The number of a socket's inode. Others are wider; sockfs takes it from a 32-bit counter
/// (`sock_alloc`, net/socket.c).
type Inode = u32;

/// Who holds which socket.
///
/// The first socket asked for costs a walk, and that answers for all others there are. On
/// a virtual machine of two cores it took 5 µs a descriptor through /proc, as much as
/// asking again for one socket, and half a microsecond by the iterator.
#[derive(Debug)]
pub struct Owners {
    descriptors: Descriptors,
    capacity: usize,
    /// What times are counted from.
    epoch: Instant,
    /// How many walks there were; wraps.
    walks: u8,
    held: HashMap<Inode, Held>,
    nobody: HashMap<Inode, Retry>,
    processes: HashMap<u32, Process>,
    next_walk: Option<Instant>,
    /// How long the last walk took.
    walked: Duration,
    /// When it was; seconds since [`Owners::epoch`].
    walked_s: u32,
    /// How often it is to be repeated.
    repeats: u8,
    /// For how long was asked again since then, one socket at a time.
    asked: Duration,
    unreadable: usize,
    unlearned: u64,
}

/// A socket with an owner: who held it, under which descriptor, at that time. There are
/// many: hence so small.
#[derive(Clone, Copy, Debug)]
struct Held {
    pid: u32,
    fd: u32,
    /// When that was so; once it has gone, when that was seen. Seconds since
    /// [`Owners::epoch`].
    checked_s: u32,
    /// The last walk that saw it.
    walk: u8,
    /// Another process held it too.
    shared: bool,
    /// Nobody holds it any more.
    gone: bool,
}

/// A socket without one: when to look again, and how long to wait once that too is
/// in vain.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    then: Duration,
}

#[derive(Debug)]
struct Process {
    owner: Arc<Owner>,
    checked: Instant,
}

impl Owners {
    /// Knows nobody yet.
    ///
    /// # Errors
    /// Where there is no /proc.
    pub fn new(iterator: Option<DescriptorIterator>) -> rustix::io::Result<Self> {
        Ok(Self::with_capacity(CAPACITY, Descriptors::open(iterator)?))
    }

    fn with_capacity(capacity: usize, descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            capacity,
            epoch: Instant::now(),
            walks: 0,
            held: HashMap::new(),
            nobody: HashMap::new(),
            processes: HashMap::new(),
            next_walk: None,
            walked: Duration::ZERO,
            walked_s: 0,
            repeats: 0,
            asked: Duration::ZERO,
            unreadable: 0,
            unlearned: 0,
        }
    }

    /// Fills in the owner of each event's socket where it is known, looking them up
    /// together.
    pub fn fill(&mut self, events: &mut [Event], now: Instant) {
        for event in &*events {
            if let Event::Snapshot(row) = event {
                self.learn(row, now);
            }
        }
        let number = |socket: &SocketEvent| Inode::try_from(socket.identity.inode?).ok();
        let inodes = events.iter().filter_map(|event| match event {
            Event::Socket(socket) => number(socket),
            _ => None,
        });
        self.find(inodes, now);
        for event in events {
            if let Event::Socket(socket) = event {
                socket.owner = number(socket).and_then(|inode| self.owner(inode, now));
            }
        }
    }

    /// Makes what is known of these sockets fresh, with at most one walk.
    fn find(&mut self, inodes: impl IntoIterator<Item = Inode>, now: Instant) {
        let wanted = inodes.into_iter().filter(|&inode| self.is_due(inode, now));
        let mut wanted: HashSet<Inode> = wanted.collect();
        let is_old = self.since(self.walked_s, now) >= RECHECK;
        if self.repeats > 0 && is_old && self.may_walk_for_all(now) {
            self.repeats -= 1;
            return self.walk(wanted, now);
        }
        wanted.retain(|&inode| !self.is_still_held(inode, now));
        // Once asking one by one has cost as much as a walk, a walk answers for all.
        let is_cheaper = self.asked > self.walked && self.may_walk_for_all(now);
        if is_cheaper {
            self.repeats = REPEATS;
        }
        if is_cheaper || (!wanted.is_empty() && self.may_walk(now)) {
            self.walk(wanted, now);
        }
    }

    /// Takes from a snapshot who holds a socket. What was found here is newer.
    fn learn(&mut self, row: &Row, now: Instant) {
        let owners = row.owners.iter().flat_map(|owners| &owners.0);
        let inode = row
            .identity
            .inode
            .and_then(|inode| Inode::try_from(inode).ok());
        let (Some(inode), Some(first)) = (inode, owners.clone().next()) else {
            return;
        };
        if self.held.contains_key(&inode) {
            return;
        }
        if self.held.len() >= self.capacity {
            self.unlearned += 1;
            return;
        }
        let held = Held {
            pid: first.pid,
            fd: first.fd,
            checked_s: self.seconds(now),
            walk: self.walks,
            shared: owners.clone().any(|it| it.pid != first.pid),
            gone: false,
        };
        self.held.insert(inode, held);
        self.processes.entry(first.pid).or_insert_with(|| Process {
            owner: Arc::new(Owner {
                pid: first.pid,
                comm: first.comm.clone(),
            }),
            checked: now,
        });
    }

    /// Who holds this socket, by what is known of it: [`Self::find`] looks it up.
    ///
    /// Where several processes do, as after a fork, it is the one with the lowest
    /// pid, which mostly is the parent.
    fn owner(&mut self, inode: Inode, now: Instant) -> Option<Arc<Owner>> {
        let held = *self.held.get(&inode)?;
        let pid = held.pid;
        if !held.gone {
            return self.process(pid, now);
        }
        if held.shared || self.since(held.checked_s, now) > PARTING {
            return None;
        }
        // Not to be read again: the number may be another process's by now.
        Some(Arc::clone(&self.processes.get(&pid)?.owner))
    }

    /// How many sockets of a snapshot there was no room for.
    #[must_use]
    pub fn unlearned(&self) -> u64 {
        self.unlearned
    }

    fn seconds(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.epoch).as_secs();
        u32::try_from(since).unwrap_or(u32::MAX)
    }

    /// How long ago that was, to a second.
    fn since(&self, then_s: u32, now: Instant) -> Duration {
        let seconds = self.seconds(now).saturating_sub(then_s);
        Duration::from_secs(seconds.into())
    }

    /// How many processes did not let their descriptors be read in the last walk:
    /// owners may be missing for want of CAP_SYS_PTRACE.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Whether nothing is known of a socket, or nothing that is still to be relied on.
    fn is_due(&self, inode: Inode, now: Instant) -> bool {
        match self.held.get(&inode).filter(|it| !it.gone) {
            Some(held) => self.since(held.checked_s, now) >= RECHECK,
            None => self.nobody.get(&inode).is_none_or(|retry| retry.at <= now),
        }
    }

    /// Asks whether whoever was known to hold a socket still does; nobody is known to do
    /// so where that is not.
    fn is_still_held(&mut self, inode: Inode, now: Instant) -> bool {
        let checked_s = self.seconds(now);
        let Some(held) = self.held.get_mut(&inode).filter(|it| !it.gone) else {
            return false;
        };
        let Held { pid, fd, .. } = *held;
        let began = Instant::now();
        held.gone = !descriptors::still_held(self.descriptors.proc(), SocketFd { pid, fd, inode });
        held.checked_s = checked_s;
        self.asked += began.elapsed();
        !held.gone
    }

    /// Whether a walk may begin without waiting, and finds room for all that is known.
    fn may_walk_for_all(&self, now: Instant) -> bool {
        self.held.len() <= self.capacity && self.next_walk.is_none_or(|at| at <= now)
    }

    /// Whether a walk may begin; a short pause is waited for.
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

    /// Walks. What it finds replaces what was known: all sockets with an owner, or as many
    /// as fit and the wanted ones.
    fn walk(&mut self, mut wanted: HashSet<Inode>, now: Instant) {
        let began = Instant::now();
        if self.held.len() > self.capacity {
            // Others may have a place instead.
            self.held.clear();
        }
        let (walk, checked_s) = (self.walks.wrapping_add(1), self.seconds(now));
        let (held, capacity) = (&mut self.held, self.capacity);
        let mut pids = Vec::new();
        let walked = self.descriptors.walk(|SocketFd { pid, fd, inode }| {
            let found = Held {
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
            let has_room = wanted.remove(&inode) || held.len() < capacity;
            match held.get_mut(&inode) {
                Some(known) if known.walk == walk && !known.gone => {
                    known.shared |= known.pid != pid
                }
                Some(known) => *known = found,
                None if has_room => {
                    held.insert(inode, found);
                }
                None => {}
            }
        });
        // A /proc that cannot be read finds nobody, like one that hides everything.
        if let Ok(unreadable) = walked {
            self.walks = walk;
            self.unreadable = unreadable;
            self.forget_older(checked_s, &pids);
        }
        // While they can be read: one that ends is named by what it was.
        for &pid in &pids {
            self.process(pid, now);
        }
        self.note_missing(&wanted, now);
        (self.walked, self.asked) = (began.elapsed(), Duration::ZERO);
        self.walked_s = checked_s;
        self.next_walk = Some(now + self.walked * (1 + PAUSE));
    }

    /// Notes what the last walk did not see any more, and forgets what was gone before
    /// that for longer than an event waits to be read; then the processes that neither
    /// hold a socket, by their numbers in order, nor held one of those last.
    fn forget_older(&mut self, now_s: u32, holders: &[u32]) {
        let last = self.walks;
        let mut last_holders = HashSet::new();
        self.held.retain(|_, held| {
            if held.walk != last && !held.gone {
                held.gone = true;
                held.checked_s = now_s;
            }
            let gone_s = u64::from(now_s.saturating_sub(held.checked_s));
            let is_kept = !held.gone || gone_s <= PARTING.as_secs();
            if held.gone && is_kept {
                last_holders.insert(held.pid);
            }
            is_kept
        });
        self.processes
            .retain(|pid, _| holders.binary_search(pid).is_ok() || last_holders.contains(pid));
    }

    /// Notes which sockets nobody holds. One that was not asked for in a long time
    /// is dropped.
    fn note_missing(&mut self, missing: &HashSet<Inode>, now: Instant) {
        self.nobody.retain(|_, retry| now < retry.at + LAST_RETRY);
        for &inode in missing {
            let wait = self
                .nobody
                .get(&inode)
                .map_or(FIRST_RETRY, |retry| retry.then);
            let retry = Retry {
                at: now + wait,
                then: LAST_RETRY.min(wait * 4),
            };
            if self.nobody.len() < self.capacity || self.nobody.contains_key(&inode) {
                self.nobody.insert(inode, retry);
            }
        }
    }

    /// A process, as it is or lately was.
    fn process(&mut self, pid: u32, now: Instant) -> Option<Arc<Owner>> {
        let known = self.processes.get(&pid);
        if let Some(process) = known.filter(|it| now < it.checked + RECHECK) {
            return Some(Arc::clone(&process.owner));
        }
        let Ok(comm) = descriptors::comm(self.descriptors.proc(), pid) else {
            // It has ended since it was seen to hold the socket.
            return known.map(|it| Arc::clone(&it.owner));
        };
        let owner = Owner { pid, comm };
        // What many sockets share stays shared.
        let known = known.filter(|it| *it.owner == owner);
        let owner = known.map_or_else(|| Arc::new(owner), |it| Arc::clone(&it.owner));
        let process = Process {
            owner: Arc::clone(&owner),
            checked: now,
        };
        self.processes.insert(pid, process);
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use crate::sample::with;
    use std::ffi::OsStr;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::{Child, Command, Stdio, id};

    use anyhow::Result;

    use super::*;
    use crate::model::owner::{OwnerFd, OwnerFds};
    use crate::sample;
    use crate::text::escape::Escaped;

    /// A process that holds a socket, and ends with the test.
    struct Holder(Child);

    impl Holder {
        /// Returns once the process runs the program: `Command::spawn` waits for
        /// exec. The command is taken, since it keeps the socket open.
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

        fn is(&self, comm: &[u8]) -> Option<Arc<Owner>> {
            Some(Arc::new(Owner {
                pid: self.0.id(),
                comm: Escaped::from_bytes(comm),
            }))
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            // It may have ended already.
            let _ = self.end();
        }
    }

    fn socket() -> Result<(TcpListener, Inode)> {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let inode = Inode::try_from(rustix::fs::fstat(&socket)?.st_ino)?;
        Ok((socket, inode))
    }

    fn find(owners: &mut Owners, inode: Inode, now: Instant) -> Option<Arc<Owner>> {
        owners.find([inode], now);
        owners.owner(inode, now)
    }

    #[test]
    fn own_sockets_of_any_age_are_found_in_one_walk() -> Result<()> {
        let (_old, first) = socket()?;
        let (_older, second) = socket()?;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        owners.find([first], now);
        let pids = [first, second].map(|inode| owners.owner(inode, now).map(|owner| owner.pid));
        assert_eq!(pids, [Some(id()); 2]);
        Ok(())
    }

    #[test]
    fn of_several_owners_it_is_the_lowest_pid_then_the_next() -> Result<()> {
        let (socket, inode) = socket()?;
        let children = [
            Holder::sleep(socket.try_clone()?)?,
            Holder::sleep(socket.try_clone()?)?,
        ];
        let lowest = children.iter().min_by_key(|child| child.0.id());
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        let pid = find(&mut owners, inode, now).map(|owner| owner.pid);
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
        // However long the walk before took.
        owners.next_walk = None;
        assert_eq!(
            find(&mut owners, inode, now),
            lowest.and_then(|child| child.is(b"sleep"))
        );
        Ok(())
    }

    #[test]
    fn asking_one_by_one_costs_no_more_than_a_walk() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        let me = Some(id());
        let pid = |owner: Option<Arc<Owner>>| owner.map(|owner| owner.pid);
        assert_eq!(pid(find(&mut owners, inode, now)), me);
        let (dear, cheap) = (Duration::MAX, Duration::ZERO);
        // Repeated three times before its price counts again.
        let later = [(dear, 1), (cheap, 2), (dear, 3), (dear, 4), (dear, 5)];
        for (after, (walked, walks)) in (1..).zip(later.into_iter().chain([(dear, 5); 2])) {
            (owners.walked, owners.next_walk) = (walked, None);
            let now = now + RECHECK * after;
            assert_eq!(pid(find(&mut owners, inode, now)), me);
            assert_eq!(owners.walks, walks, "after {after}");
        }
        Ok(())
    }

    #[test]
    fn a_walk_that_is_due_takes_along_what_is_new() -> Result<()> {
        let (_known, known) = socket()?;
        let mut owners = Owners::new(None)?;
        let mut now = Instant::now();
        owners.find([known], now);
        let (_new, new) = socket()?;
        now += RECHECK;
        (owners.repeats, owners.next_walk) = (REPEATS, None);
        owners.find([known, new, Inode::MAX], now);
        assert_eq!((owners.walks, owners.repeats), (2, REPEATS - 1));
        let pids = [known, new].map(|inode| owners.owner(inode, now).map(|owner| owner.pid));
        assert_eq!(pids, [Some(id()); 2]);
        assert!(!owners.is_due(Inode::MAX, now));
        Ok(())
    }

    #[test]
    fn an_owner_that_has_ended_is_named_until_its_last_event_was_read() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = Holder::sleep(socket)?;
        let mut owners = Owners::new(None)?;
        let mut now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), child.is(b"sleep"));
        child.end()?;
        // However long nothing was heard of it.
        now += RECHECK * 20;
        // What another test forked meanwhile may hold it, until its exec.
        let last = find(&mut owners, inode, now);
        assert!(last.is_some(), "the last who held it is not named");
        now += RECHECK;
        // What another test forked meanwhile holds all there was, until its exec.
        while let Some(owner) = find(&mut owners, inode, now) {
            assert_ne!(owner.pid, child.0.id());
            now += RECHECK;
        }
        Ok(())
    }

    #[test]
    fn an_owner_that_has_ended_is_named_while_its_socket_was_seen_lately() -> Result<()> {
        let (socket, inode) = socket()?;
        let mut child = Holder::sleep(socket)?;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        assert_eq!(find(&mut owners, inode, now), child.is(b"sleep"));
        // A walk for another socket sees this one too; commands are read less often.
        owners.next_walk = None;
        assert_eq!(find(&mut owners, Inode::MAX, now + RECHECK / 2), None);
        child.end()?;
        assert!(find(&mut owners, inode, now + RECHECK).is_some());
        Ok(())
    }

    /// An event of a socket of that inode number, and a row that names its owners.
    fn of(inode: Inode) -> Event {
        sample::of(with(sample::probe(0, 0, 1), |it| {
            it.identity.inode = Some(inode.into());
            it.owner = None;
        }))
    }

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

    /// Whose each event is, by pid.
    fn owned(owners: &mut Owners, mut events: Vec<Event>, now: Instant) -> Vec<Option<u32>> {
        owners.fill(&mut events, now);
        let owners = events.iter().filter_map(|event| match event {
            Event::Socket(event) => Some(event.owner.as_ref().map(|owner| owner.pid)),
            _ => None,
        });
        owners.collect()
    }

    #[test]
    fn owners_that_a_snapshot_found_are_known_when_they_have_ended() -> Result<()> {
        // No process has such a number.
        let ended = u32::MAX;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        let snapshot = vec![
            row(Inode::MAX, &[(ended, "a"), (ended, "a")]),
            row(Inode::MAX - 1, &[(ended, "a"), (ended - 1, "b")]),
            row(Inode::MAX - 2, &[]),
        ];
        assert_eq!(owned(&mut owners, snapshot, now), []);
        let events = || (0..3).map(|n| of(Inode::MAX - n)).collect();
        let later = now + RECHECK;
        // Of two it is not known which held it last.
        let last = [Some(ended), None, None];
        assert_eq!(owned(&mut owners, events(), later), last);
        let later = later + PARTING + Duration::from_secs(1);
        assert_eq!(owned(&mut owners, events(), later), [None; 3]);
        Ok(())
    }

    #[test]
    fn what_a_walk_found_is_newer_than_a_snapshot() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        assert_eq!(owned(&mut owners, vec![of(inode)], now), [Some(id())]);
        let events = vec![row(inode, &[(1, "init")]), of(inode)];
        assert_eq!(owned(&mut owners, events, now), [Some(id())]);
        Ok(())
    }

    #[test]
    fn a_command_is_read_byte_for_byte_and_again_after_exec() -> Result<()> {
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
        let mut child = Holder::spawn(shell, socket)?;
        let mut owners = Owners::new(None)?;
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
    fn a_socket_that_nobody_holds_is_looked_for_less_and_less() -> Result<()> {
        let inode = Inode::MAX;
        let mut owners = Owners::new(None)?;
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            // However long the walk before it took.
            owners.next_walk = None;
            assert_eq!(find(&mut owners, inode, now), None);
            let retry = owners.nobody.get(&inode).map_or(now, |retry| retry.at);
            assert!(!owners.is_due(inode, retry - Duration::from_nanos(1)));
            waits.push((retry - now).as_millis());
            now = retry;
        }
        assert_eq!(waits, [250, 1_000, 4_000, 16_000, 60_000, 60_000]);
        Ok(())
    }

    #[test]
    fn what_is_remembered_is_bounded() -> Result<()> {
        let sockets = (0..20).map(|_| socket()).collect::<Result<Vec<_>>>()?;
        let mut owners = Owners::with_capacity(4, Descriptors::open(None)?);
        let now = Instant::now();
        for (_, inode) in &sockets {
            let now = owners.next_walk.unwrap_or(now);
            let owner = find(&mut owners, *inode, now);
            assert_eq!(owner.map(|owner| owner.pid), Some(id()));
            assert!(owners.held.len() <= 4 + 1);
        }
        // However long the walk before took.
        owners.next_walk = None;
        let gone = (0..20).map(|n| Inode::MAX - n);
        // However long the walk before it took.
        owners.next_walk = None;
        owners.find(gone, now + LAST_RETRY);
        assert_eq!(owners.nobody.len(), 4);
        let before = (owners.held.len(), owners.unlearned());
        owners.fill(&mut [row(1, &[(1, "init")])], now);
        assert_eq!(
            (owners.held.len(), owners.unlearned()),
            (before.0, before.1 + 1)
        );
        Ok(())
    }

    #[test]
    fn a_long_pause_between_walks_is_kept() -> Result<()> {
        let (_socket, inode) = socket()?;
        let mut owners = Owners::new(None)?;
        let now = Instant::now();
        let next = now + PATIENCE + Duration::from_millis(1);
        owners.next_walk = Some(next);
        assert_eq!(find(&mut owners, inode, now), None);
        assert_eq!(
            find(&mut owners, inode, next).map(|owner| owner.pid),
            Some(id())
        );
        Ok(())
    }
}
