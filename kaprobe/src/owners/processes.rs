//! The processes that own sockets: what was read of each, and for how long that is believed.

use hashbrown::HashMap;
use rustix::fd::BorrowedFd;

use crate::containers::names::ContainerNames;
use crate::kernel::{OwnerNews, OwnerWatch};
use crate::model::owner::Owner;
use crate::owners::process;

/// The shortest time after which an owner is checked again, s. If a hundred thousand sockets
/// fire within it, checking them by the iterator costs a fiftieth of one CPU.
pub const RECHECK_S: u32 = 5;

/// The longest time after which an owner is checked again, s. The kernel does not report
/// everything: a process may close what it shares, and not every kernel tells who receives a
/// descriptor. The check then costs a twelfth of what it costs every five seconds; a longer
/// time would save little more, and leave a wrong owner for longer.
const LONGEST_RECHECK_S: u32 = 60;

/// The number of checks in a row that passed after which the time does not grow any more.
const MOST_PASSES: u8 = 4;

/// Place of a process in [`Processes`].
pub type Slot = u32;

/// Whether a process is what it was when its sockets were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is, as far as is known.
    Running,
    /// It may have closed descriptors: each is checked before its owner is named again.
    Doubted,
    /// It ended at this time, s.
    Ended(u32),
}

/// A process that owns sockets.
#[derive(Debug)]
pub struct OwningProcess {
    /// Its pid. Once it has ended, another process may have it.
    pub pid: u32,
    /// Whether it is what it was.
    pub life: Life,
    /// It has made a child since its descriptors were read: its sockets may have another
    /// owner too.
    pub has_forked: bool,
    /// A socket that is remembered refers to it.
    pub is_kept: bool,
    /// What was read of it; `None` if nothing was read yet.
    owner: Option<Owner>,
    /// When it was read, s, and how often in a row it was what it was.
    read_s: u32,
    read_passes: u8,
    /// It must be read again: it has another name.
    is_stale: bool,
    /// The kernel reports its changes.
    pub is_watched: bool,
    /// When it last changed, or a socket of it had another owner, s.
    changed_s: u32,
}

impl OwningProcess {
    fn new(pid: u32, now_s: u32) -> Self {
        Self {
            pid,
            life: Life::Running,
            has_forked: false,
            is_kept: true,
            is_watched: false,
            owner: None,
            read_s: 0,
            read_passes: 0,
            is_stale: true,
            changed_s: now_s,
        }
    }

    /// What was read of it last.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Until when it is believed that one of its sockets is still its own, and that it has the
    /// name that was read, s. The socket was last checked at `checked_s`, and was its own so
    /// many times in a row.
    #[inline]
    pub fn believed_until_s(&self, checked_s: u32, passes: u8) -> u32 {
        if self.life != Life::Running || self.is_stale {
            return 0;
        }
        let named_until_s = self.due_s(self.read_s, self.read_passes);
        self.due_s(checked_s, passes).min(named_until_s)
    }

    /// When to check again what was last checked at `checked_s`, and passed so many times in a
    /// row, s.
    #[inline]
    pub fn due_s(&self, checked_s: u32, passes: u8) -> u32 {
        let wait_s = if checked_s <= self.changed_s {
            RECHECK_S
        } else {
            LONGEST_RECHECK_S.min(RECHECK_S << passes)
        };
        checked_s.saturating_add(wait_s)
    }

    /// How often in a row a check has passed, with one at `now_s`. One that comes early does not
    /// count.
    pub fn passes(&self, checked_s: u32, passes: u8, now_s: u32) -> u8 {
        let is_early = now_s < self.due_s(checked_s, passes);
        match (self.is_watched, checked_s <= self.changed_s) {
            (false, _) => 0,
            (true, true) => u8::from(!is_early),
            (true, false) if is_early => passes,
            (true, false) => MOST_PASSES.min(passes + 1),
        }
    }

    /// Notes that it has changed, or that one of its sockets has another owner: all are
    /// checked often for a while.
    pub fn note_change(&mut self, now_s: u32) {
        self.changed_s = now_s;
    }
}

/// The processes that own sockets.
#[derive(Debug)]
pub struct Processes {
    slots: Vec<OwningProcess>,
    /// Places that no socket refers to.
    free: Vec<Slot>,
    /// The place of each process that runs.
    by_pid: HashMap<u32, Slot>,
    names: ContainerNames,
    watch: Option<OwnerWatch>,
}

impl Processes {
    /// No process yet. Without a watch, all are checked every [`RECHECK_S`] seconds.
    pub fn new(watch: Option<OwnerWatch>, names: ContainerNames) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_pid: HashMap::new(),
            names,
            watch,
        }
    }

    /// The process at a place.
    #[inline]
    pub fn get(&self, slot: Slot) -> &OwningProcess {
        &self.slots[slot as usize]
    }

    /// The process at a place.
    pub fn get_mut(&mut self, slot: Slot) -> &mut OwningProcess {
        &mut self.slots[slot as usize]
    }

    /// The place of the process that has this pid now. It gets one if it has none.
    pub fn slot_of(&mut self, pid: u32, now_s: u32) -> Slot {
        if let Some(&slot) = self.by_pid.get(&pid) {
            return slot;
        }
        let process = OwningProcess::new(pid, now_s);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = process;
                slot
            }
            None => {
                self.slots.push(process);
                // Each has a pid of its own or a socket of its own, of which there are fewer.
                self.slots.len() as Slot - 1
            }
        };
        self.by_pid.insert(pid, slot);
        slot
    }

    /// Takes what another read of a process, unless it is known.
    pub fn introduce(&mut self, slot: Slot, owner: impl FnOnce() -> Owner, now_s: u32) {
        let process = self.get_mut(slot);
        if process.owner.is_none() {
            process.owner = Some(owner());
            (process.read_s, process.is_stale) = (now_s, false);
        }
    }

    /// The process at a place, as it is now, or as it was known last if it has ended. Has the
    /// kernel report its changes from now on.
    pub fn name(&mut self, slot: Slot, proc: BorrowedFd<'_>, now_s: u32) -> Option<Owner> {
        let process = &mut self.slots[slot as usize];
        if !process.is_watched
            && let Some(watch) = &mut self.watch
            && watch.watch(process.pid)
        {
            process.is_watched = true;
            // What has changed since it was read was not reported.
            process.is_stale = true;
            process.note_change(now_s);
        }
        self.read_if_old(slot, proc, now_s);
        self.get(slot).owner.clone()
    }

    /// Reads a process, if it may have changed since it was read.
    pub fn read_if_old(&mut self, slot: Slot, proc: BorrowedFd<'_>, now_s: u32) {
        let process = &mut self.slots[slot as usize];
        if !process.is_stale && now_s < process.due_s(process.read_s, process.read_passes) {
            return;
        }
        process.read_passes = process.passes(process.read_s, process.read_passes, now_s);
        (process.read_s, process.is_stale) = (now_s, false);
        // On an error it has ended.
        if let Ok(read) = process::read(proc, process.pid, &mut self.names) {
            // Sockets of one process share the names.
            let known = process.owner.take().filter(|known| **known == read);
            process.owner = Some(known.unwrap_or_else(|| read.into()));
        }
    }

    /// The next change that the kernel reports.
    pub fn next_news(&mut self) -> Option<OwnerNews> {
        self.watch.as_mut()?.next_news()
    }

    /// Notes that the process with this pid has ended. Another may get the pid.
    pub fn note_end(&mut self, pid: u32, now_s: u32) {
        if let Some(slot) = self.by_pid.remove(&pid) {
            self.get_mut(slot).life = Life::Ended(now_s);
        }
        if let Some(watch) = &mut self.watch {
            watch.ignore(pid);
        }
    }

    /// Notes that the process with this pid may have closed descriptors, and has another name.
    pub fn doubt(&mut self, pid: u32) {
        if let Some(slot) = self.by_pid.remove(&pid) {
            self.get_mut(slot).life = Life::Doubted;
        }
    }

    /// Notes that any process may have changed.
    pub fn doubt_all(&mut self) {
        for (_, slot) in self.by_pid.drain() {
            self.slots[slot as usize].life = Life::Doubted;
        }
    }

    /// Notes that the process with this pid has made a child.
    pub fn note_fork(&mut self, pid: u32, now_s: u32) {
        if let Some(&slot) = self.by_pid.get(&pid) {
            let process = self.get_mut(slot);
            process.has_forked = true;
            process.note_change(now_s);
        }
    }

    /// Notes that the process with this pid gets another name. The kernel says so just before
    /// (`__set_task_comm`, fs/exec.c), so the name is soon read once more.
    pub fn note_name(&mut self, pid: u32, now_s: u32) {
        if let Some(&slot) = self.by_pid.get(&pid) {
            let process = self.get_mut(slot);
            process.is_stale = true;
            process.note_change(now_s);
        }
    }

    /// Supposes that no socket refers to any process: [`OwningProcess::is_kept`].
    pub fn suppose_unused(&mut self) {
        for process in &mut self.slots {
            process.is_kept = false;
        }
    }

    /// Forgets the processes that no socket refers to.
    pub fn forget_unused(&mut self) {
        self.free.clear();
        for (slot, process) in (0..).zip(&mut self.slots) {
            if process.is_kept {
                continue;
            }
            process.owner = None;
            self.free.push(slot);
            if self.by_pid.get(&process.pid).is_some_and(|it| *it != slot) {
                // Another process has the pid, or the same one is known anew.
                continue;
            }
            self.by_pid.remove(&process.pid);
            if let Some(watch) = &mut self.watch {
                watch.ignore(process.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut processes = Processes::new(None, ContainerNames::none());
        let slots: Vec<_> = (1..=4).map(|pid| processes.slot_of(pid, 0)).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        processes.note_end(2, 9);
        assert_eq!(
            processes.slot_of(2, 0),
            4,
            "another process with the same pid"
        );
        processes.doubt(3);
        assert_eq!(
            processes.slot_of(3, 0),
            5,
            "another program of the same process"
        );
        for _ in 0..2 {
            processes.suppose_unused();
            for slot in [0, 4, 5] {
                processes.get_mut(slot).is_kept = true;
            }
            processes.forget_unused();
        }
        let known: Vec<_> = (1..=3).map(|pid| processes.slot_of(pid, 0)).collect();
        assert_eq!(known, [0, 4, 5]);
        let others: BTreeSet<_> = (11..=13).map(|pid| processes.slot_of(pid, 0)).collect();
        assert_eq!(others, BTreeSet::from([1, 2, 3]));
        assert_eq!(processes.slot_of(14, 0), 6);
    }
}
